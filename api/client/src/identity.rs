//! Who a certificate says its holder is.
//!
//! Exactly one URI SAN counts: `spiffe://<cluster>/node/<name>` or `spiffe://<cluster>/tenant/<tenant>/client/<name>`,
//! compared byte by byte, each part in the charset of topic names. Anything else is refused; common names and DNS
//! names never count.

use std::fmt;

use highwater_proto::limits::NAME_BYTES_MAX;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::X509Certificate;

/// The identity in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    Node {
        cluster: String,
        name: String,
    },
    Client {
        cluster: String,
        tenant: String,
        name: String,
    },
}

impl Identity {
    pub(crate) fn of_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) =
            parse_x509_certificate(der).map_err(|error| format!("is not an X.509 certificate: {error}"))?;
        Self::parse(&single_uri(&certificate)?)
    }

    fn parse(uri: &str) -> Result<Self, String> {
        let parts: Vec<&str> = uri.strip_prefix("spiffe://").unwrap_or("").split('/').collect();
        let identity = match parts[..] {
            [cluster, "node", name] if all_names(&[cluster, name]) => Identity::Node {
                cluster: cluster.to_owned(),
                name: name.to_owned(),
            },
            [cluster, "tenant", tenant, "client", name] if all_names(&[cluster, tenant, name]) => Identity::Client {
                cluster: cluster.to_owned(),
                tenant: tenant.to_owned(),
                name: name.to_owned(),
            },
            _ => return Err(format!("its URI {uri:?} is not an identity of this system")),
        };
        Ok(identity)
    }

    pub(crate) fn cluster(&self) -> &str {
        match self {
            Identity::Node { cluster, .. } | Identity::Client { cluster, .. } => cluster,
        }
    }

    pub(crate) fn tenant(&self) -> Option<&str> {
        match self {
            Identity::Node { .. } => None,
            Identity::Client { tenant, .. } => Some(tenant),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node { cluster, name } => write!(f, "spiffe://{cluster}/node/{name}"),
            Identity::Client { cluster, tenant, name } => {
                write!(f, "spiffe://{cluster}/tenant/{tenant}/client/{name}")
            }
        }
    }
}

fn single_uri(certificate: &X509Certificate<'_>) -> Result<String, String> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its subject alternative names cannot be read: {error}"))?;
    let mut uris = names
        .iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err("it carries no URI identity".to_owned()),
        (Some(_), Some(_)) => Err("it carries more than one URI identity".to_owned()),
    }
}

fn all_names(parts: &[&str]) -> bool {
    parts.iter().all(|part| is_name(part))
}

/// Whether this is a name of a cluster, tenant, node, client or topic: `[a-z0-9][a-z0-9._-]{0,127}`.
pub(crate) fn is_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(|first| letter(*first))
        && bytes.iter().all(|byte| letter(*byte) || b"._-".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_forms_are_read() {
        assert_eq!(
            Identity::parse("spiffe://main/node/a"),
            Ok(Identity::Node {
                cluster: "main".to_owned(),
                name: "a".to_owned()
            })
        );
        assert_eq!(
            Identity::parse("spiffe://main/tenant/acme/client/app-1"),
            Ok(Identity::Client {
                cluster: "main".to_owned(),
                tenant: "acme".to_owned(),
                name: "app-1".to_owned()
            })
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://main",
            "spiffe://main/node",
            "spiffe://main/node/",
            "spiffe://main/node/a/",
            "spiffe://main//node/a",
            "spiffe://main/Node/a",
            "spiffe://Main/node/a",
            "SPIFFE://main/node/a",
            "spiffe://main:80/node/a",
            "spiffe://user@main/node/a",
            "spiffe://main/node/a?x",
            "spiffe://main/node/a#x",
            "spiffe://main/node/%61",
            "spiffe://main/node/..",
            "spiffe://main/tenant/acme",
            "spiffe://main/tenant//client/a",
            "https://main/node/a",
        ] {
            assert!(Identity::parse(uri).is_err(), "{uri}");
        }
    }

    #[test]
    fn names_have_a_charset_and_a_length() {
        assert!(is_name("a") && is_name("0.a_b-c") && is_name(&"a".repeat(NAME_BYTES_MAX)));
        assert!(!is_name("") && !is_name("_a") && !is_name("a/b") && !is_name(&"a".repeat(NAME_BYTES_MAX + 1)));
    }
}
