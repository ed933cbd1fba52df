//! Who is at the other end: the identity that a certificate carries.
//!
//! A certificate speaks for exactly one identity, written as its only URI among the subject's alternative names:
//! `spiffe://<cluster>/node/<name>` or `spiffe://<cluster>/tenant/<tenant>/client/<name>`. Names are compared byte by
//! byte and have one spelling each, so there is nothing to normalise: no escapes, no upper case, no trailing slash, no
//! user, port, query or fragment. Everything else is refused with the reason, never repaired.
//!
//! Invariant: an [`Identity`] that exists was spelled by the rules. Whether the certificate is to be trusted is not
//! decided here but in [`crate::tls`]. The common name counts only where that is asked for, only without any URI, and only
//! ever for a client ([`Identity::from_certificate_or_name`]). Deliberately absent: DNS names, and any other fallback.

use std::fmt;

use highwater_catalog::names;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The tag of a URI among the alternative names of a certificate (RFC 5280, GeneralName).
const URI_TAG: u32 = 6;

/// A proven identity: a node of a cluster, or a client of one of its tenants.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// A server of the cluster.
    Node {
        /// The cluster's configured name.
        cluster: String,
        /// The node's stable name.
        name: String,
    },
    /// A user of the cluster.
    Client {
        /// The cluster's configured name.
        cluster: String,
        /// The tenant that the client belongs to.
        tenant: String,
        /// The client's name inside its tenant.
        name: String,
    },
}

/// Why a certificate or a URI gives no identity. Final for that certificate: it must be issued anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The bytes are not a certificate, or its alternative names are broken.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(String),
    /// There is no URI among the alternative names.
    #[error(
        "the certificate has no identity: it needs one URI spiffe://<cluster>/node/<name> or spiffe://<cluster>/tenant/<tenant>/client/<name> among its alternative names"
    )]
    Missing,
    /// There is no URI, and the common name, which would do here, is not `tenant/client`.
    #[error(
        "the certificate has no identity: it has no URI, and not exactly one common name of the form tenant/client"
    )]
    NoClientName,
    /// There are several; it would be unclear for whom the certificate speaks.
    #[error("the certificate has {count} URIs among its alternative names, exactly one is allowed")]
    Several {
        /// How many there are.
        count: usize,
    },
    /// The URI is not spelled by the rules.
    #[error("{uri:?} is not an identity: {why}")]
    Malformed {
        /// The URI as found, shortened if it is very long.
        uri: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Identity {
    /// The identity of a certificate in DER form.
    pub fn from_certificate(der: &[u8]) -> Result<Identity, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|error| IdentityError::Unreadable(error.to_string()))?;
        if !rest.is_empty() {
            return Err(IdentityError::Unreadable(format!(
                "{} bytes follow the certificate",
                rest.len()
            )));
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|error| IdentityError::Unreadable(error.to_string()))?
            .map(|extension| extension.value.general_names.as_slice())
            .unwrap_or_default();
        let uris: Vec<_> = names.iter().filter(|name| is_uri(name)).collect();
        match uris.as_slice() {
            [] => Err(IdentityError::Missing),
            [GeneralName::URI(uri)] => Identity::from_uri(uri),
            [_] => Err(IdentityError::Unreadable("its URI is not text".to_owned())),
            several => Err(IdentityError::Several { count: several.len() }),
        }
    }

    /// The same; but a certificate without any URI may be that of a client of `cluster` whose only common name is
    /// `tenant/client`. It is never that of a node.
    pub fn from_certificate_or_name(der: &[u8], cluster: &str) -> Result<Identity, IdentityError> {
        match Identity::from_certificate(der) {
            Err(IdentityError::Missing) => client_by_name(der, cluster),
            decided => decided,
        }
    }

    /// Reads the written form, byte by byte.
    pub fn from_uri(uri: &str) -> Result<Identity, IdentityError> {
        let malformed = |why| IdentityError::Malformed {
            uri: shortened(uri),
            why,
        };
        let path = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| malformed("it does not start with spiffe://"))?;
        let parts: Vec<&str> = path.splitn(6, '/').collect();
        let identity = match parts.as_slice() {
            [cluster, "node", name] => Identity::Node {
                cluster: (*cluster).to_owned(),
                name: (*name).to_owned(),
            },
            [cluster, "tenant", tenant, "client", name] => Identity::Client {
                cluster: (*cluster).to_owned(),
                tenant: (*tenant).to_owned(),
                name: (*name).to_owned(),
            },
            _ => {
                return Err(malformed(
                    "its path is neither /node/<name> nor /tenant/<tenant>/client/<name>",
                ));
            }
        };
        if !identity.names().all(names::is_valid) {
            return Err(malformed(
                "each of its names must be 1 to 128 characters of a-z, 0-9, '.', '_' and '-', start with a letter or \
                 digit, and be without '..'",
            ));
        }
        Ok(identity)
    }

    /// The configured name of the cluster that the identity belongs to.
    pub fn cluster(&self) -> &str {
        match self {
            Identity::Node { cluster, .. } | Identity::Client { cluster, .. } => cluster,
        }
    }

    /// The node's name, if this is a node.
    pub fn node_name(&self) -> Option<&str> {
        match self {
            Identity::Node { name, .. } => Some(name),
            Identity::Client { .. } => None,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        let names = match self {
            Identity::Node { cluster, name } => [Some(cluster), None, Some(name)],
            Identity::Client { cluster, tenant, name } => [Some(cluster), Some(tenant), Some(name)],
        };
        names.into_iter().flatten().map(String::as_str)
    }
}

/// The written form; [`Identity::from_uri`] reads exactly this.
impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node { cluster, name } => write!(out, "spiffe://{cluster}/node/{name}"),
            Identity::Client { cluster, tenant, name } => {
                write!(out, "spiffe://{cluster}/tenant/{tenant}/client/{name}")
            }
        }
    }
}

fn client_by_name(der: &[u8], cluster: &str) -> Result<Identity, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| IdentityError::Unreadable(error.to_string()))?;
    let mut common_names = certificate.subject().iter_common_name();
    let (Some(name), None) = (common_names.next(), common_names.next()) else {
        return Err(IdentityError::NoClientName);
    };
    let text = name.as_str().map_err(|_| IdentityError::NoClientName)?;
    let (tenant, client) = text.split_once('/').ok_or(IdentityError::NoClientName)?;
    if !names::is_valid(tenant) || !names::is_valid(client) {
        return Err(IdentityError::NoClientName);
    }
    Ok(Identity::Client {
        cluster: cluster.to_owned(),
        tenant: tenant.to_owned(),
        name: client.to_owned(),
    })
}

fn is_uri(name: &GeneralName<'_>) -> bool {
    match name {
        GeneralName::URI(_) => true,
        GeneralName::Invalid(tag, _) => tag.0 == URI_TAG,
        _ => false,
    }
}

fn shortened(uri: &str) -> String {
    const SHOWN_CHARACTERS_MAX: usize = 200;
    uri.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use highwater_catalog::limits::NAME_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;
    use crate::test_ca::{TestCa, Wanted};

    fn node(cluster: &str, name: &str) -> Identity {
        Identity::Node {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
        }
    }

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        TestCa::new().der(&Wanted {
            uris,
            dns_names: vec!["localhost".to_owned()],
            ..Wanted::default()
        })
    }

    #[test]
    fn a_node_and_a_client_are_read_from_their_certificates() {
        let der = certificate(&["spiffe://production/node/n1"]);
        assert_eq!(Identity::from_certificate(&der).unwrap(), node("production", "n1"));
        let der = certificate(&["spiffe://production/tenant/acme/client/billing-1.eu_west"]);
        let client = Identity::from_certificate(&der).unwrap();
        assert_eq!(
            client.to_string(),
            "spiffe://production/tenant/acme/client/billing-1.eu_west"
        );
        assert_eq!((client.cluster(), client.node_name()), ("production", None));
    }

    #[test]
    fn a_certificate_without_or_with_several_identities_is_refused() {
        assert_eq!(
            Identity::from_certificate(&certificate(&[])),
            Err(IdentityError::Missing)
        );
        let der = certificate(&["spiffe://c/node/n1", "spiffe://c/node/n2"]);
        assert_eq!(
            Identity::from_certificate(&der),
            Err(IdentityError::Several { count: 2 })
        );
        let der = certificate(&["spiffe://c/node/n1", "https://example.com/"]);
        assert_eq!(
            Identity::from_certificate(&der),
            Err(IdentityError::Several { count: 2 })
        );
        let der = certificate(&["spiffe://c/node/n1", "spiffe://c/node/n1"]);
        assert_eq!(
            Identity::from_certificate(&der),
            Err(IdentityError::Several { count: 2 })
        );
    }

    #[test]
    fn bytes_that_are_not_a_certificate_are_refused() {
        assert!(matches!(
            Identity::from_certificate(b"hello"),
            Err(IdentityError::Unreadable(_))
        ));
        let mut der = certificate(&["spiffe://c/node/n1"]);
        der.push(0);
        assert!(matches!(
            Identity::from_certificate(&der),
            Err(IdentityError::Unreadable(_))
        ));
    }

    #[test]
    fn only_the_exact_spelling_is_an_identity() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let refused = [
            "",
            "spiffe://",
            "spiffe://c",
            "spiffe://c/",
            "spiffe://c/node",
            "spiffe://c/node/",
            "spiffe:///node/n",
            "spiffe://c/node/n/",
            "spiffe://c/node/n/x",
            "spiffe://c//node/n",
            "spiffe://c/node//n",
            "SPIFFE://c/node/n",
            "Spiffe://c/node/n",
            "spiffe:/c/node/n",
            "https://c/node/n",
            " spiffe://c/node/n",
            "spiffe://c/node/n ",
            "spiffe://c/node/n\n",
            "spiffe://c/node/n\0",
            "spiffe://C/node/n",
            "spiffe://c/Node/n",
            "spiffe://c/node/N",
            "spiffe://c/node/n%31",
            "spiffe://c/node/%6e",
            "spiffe://user@c/node/n",
            "spiffe://c:443/node/n",
            "spiffe://c/node/n?x=1",
            "spiffe://c/node/n#x",
            "spiffe://c/node/.",
            "spiffe://c/node/..",
            "spiffe://c/node/a..b",
            "spiffe://c/node/-n",
            "spiffe://c/node/_n",
            "spiffe://c/node/n\u{f6}",
            "spiffe://c/node/n\\x",
            "spiffe://c/client/n",
            "spiffe://c/tenant/t",
            "spiffe://c/tenant/t/node/n",
            "spiffe://c/tenant/t/client/",
            "spiffe://c/tenant//client/n",
            "spiffe://c/tenant/t/client/n/",
            "spiffe://c/tenant/t/client/n/x",
            "spiffe://c/tenant/T/client/n",
            "spiffe://c/tenant/t%2fu/client/n",
            &format!("spiffe://c/node/{long}"),
            &format!("spiffe://{long}/node/n"),
        ];
        for uri in refused {
            let result = Identity::from_uri(uri);
            assert!(
                matches!(result, Err(IdentityError::Malformed { .. })),
                "{uri:?} gave {result:?}"
            );
        }
        let longest = "a".repeat(NAME_BYTES_MAX);
        assert_eq!(
            Identity::from_uri(&format!("spiffe://c/node/{longest}")).unwrap(),
            node("c", &longest)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(cluster in "[a-z0-9][a-z0-9_-]{0,30}", tenant in "[a-z0-9][a-z0-9_-]{0,127}",
            name in "[a-z0-9](\\.?[a-z0-9_-]){0,60}", is_node in any::<bool>()) {
            let identity = if is_node { Identity::Node { cluster, name } }
                else { Identity::Client { cluster, tenant, name } };
            prop_assert_eq!(Identity::from_uri(&identity.to_string()), Ok(identity));
        }

        #[test]
        fn whatever_is_accepted_has_one_spelling(uri in "(spiffe|SPIFFE)://[a-zA-Z0-9./_%@:-]{0,12}/(node|tenant)/[a-zA-Z0-9./_-]{0,20}") {
            if let Ok(identity) = Identity::from_uri(&uri) {
                prop_assert_eq!(identity.to_string(), uri);
            }
        }

        #[test]
        fn no_text_is_too_odd_to_be_refused(uri in any::<String>()) {
            let _ = Identity::from_uri(&uri);
        }

        #[test]
        fn no_bytes_are_too_odd_to_be_refused(at in 0_usize..400, value in any::<u8>()) {
            static DER: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| certificate(&["spiffe://c/node/n1"]));
            let mut der = DER.clone();
            if let Some(byte) = der.get_mut(at) {
                *byte = value;
            }
            let _ = Identity::from_certificate(&der);
        }
    }

    #[test]
    fn a_common_name_gives_a_client_where_it_is_asked_for_and_never_a_node() {
        let ca = TestCa::new();
        let der = |common_name: &str, uris: &[&str]| {
            ca.der(&Wanted {
                common_name: Some(common_name.to_owned()),
                uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
                ..Wanted::default()
            })
        };
        let by_name = |der: &[u8]| Identity::from_certificate_or_name(der, "c");
        let client = der("acme/app", &[]);
        let expected = Identity::from_uri("spiffe://c/tenant/acme/client/app").unwrap();
        assert_eq!(by_name(&client), Ok(expected));
        assert_eq!(Identity::from_certificate(&client), Err(IdentityError::Missing));
        for name in [
            "n1",
            "node/n1/x",
            "/node/n1",
            "acme:app",
            "Acme/app",
            "acme/",
            "/app",
            "acme/app/",
            "acme/a..b",
            "spiffe://c/node/n1",
        ] {
            assert_eq!(by_name(&der(name, &[])), Err(IdentityError::NoClientName), "{name}");
        }
        // Names are names: this is the client n1 of a tenant called node.
        assert_eq!(by_name(&der("node/n1", &[])).unwrap().node_name(), None);
    }

    #[test]
    fn a_common_name_never_overrides_a_uri_good_or_bad() {
        let ca = TestCa::new();
        let by_name = |uris: &[&str]| {
            let der = ca.der(&Wanted {
                common_name: Some("acme/app".to_owned()),
                uris: uris.iter().map(|uri| (*uri).to_owned()).collect(),
                ..Wanted::default()
            });
            Identity::from_certificate_or_name(&der, "c")
        };
        let other = "spiffe://c/tenant/rival/client/app";
        assert_eq!(by_name(&[other]).unwrap().to_string(), other);
        assert!(matches!(
            by_name(&["https://c/app"]),
            Err(IdentityError::Malformed { .. })
        ));
        assert!(matches!(by_name(&[other, other]), Err(IdentityError::Several { .. })));
    }
}
