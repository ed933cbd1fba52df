//! Makes certificates: the one place that does, for development, tests and small clusters.
//!
//! Keys are ECDSA P-256. The authority's certificate carries the cluster it belongs to as the URI
//! `spiffe://<cluster>`, so that its directory alone suffices to issue more. Who somebody is stands in exactly
//! one URI, `spiffe://<cluster>/node/<name>` or `spiffe://<cluster>/tenant/<tenant>/client/<name>`; DNS names and
//! addresses in a node's certificate serve stock gRPC clients only.
//!
//! Each authority has a subject of its own: a revocation list names its authority by the subject, and while the authority
//! of a cluster changes, two of them are trusted at once.
//!
//! Deliberately absent: revocation lists, intermediate authorities, and requests signed for others. A large
//! cluster brings certificates from its own authority.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::exit::{Code, Failure, Result};
use crate::files::{self, Access};
use crate::names;

/// The authority's certificate within its directory.
pub(crate) const CA_CERTIFICATE: &str = "ca.pem";
/// The authority's private key within its directory.
pub(crate) const CA_KEY: &str = "ca.key";
/// The authority's files without extension.
pub(crate) const CA_STEM: &str = "ca";

/// Clocks of two machines may differ by this much without a fresh certificate being refused.
const CLOCK_TOLERANCE: Duration = Duration::minutes(5);

/// X.509 allows so many characters for a common name.
const COMMON_NAME_CHARACTERS_MAX: usize = 64;
/// As much of a cluster's name as an authority's common name has room for, characters.
const CLUSTER_NAME_SHOWN_MAX: usize = COMMON_NAME_CHARACTERS_MAX - "Highwater CA of , 01234567".len();

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Validity {
    pub(crate) not_before: OffsetDateTime,
    pub(crate) not_after: OffsetDateTime,
}

impl Validity {
    /// From a little before now, for `days` days.
    pub(crate) fn days(days: u32) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            not_before: now - CLOCK_TOLERANCE,
            not_after: now + Duration::days(i64::from(days)),
        }
    }
}

/// Whom a certificate names.
#[derive(Debug, Clone)]
pub(crate) enum Subject {
    /// A node; `dns` and `addresses` are those it has besides `localhost` and the loopback addresses.
    Node {
        name: String,
        dns: Vec<String>,
        addresses: Vec<IpAddr>,
    },
    /// A client of a tenant.
    Client { tenant: String, name: String },
}

impl Subject {
    /// The files' name without extension.
    pub(crate) fn file_stem(&self) -> String {
        match self {
            Self::Node { name, .. } => format!("node-{name}"),
            Self::Client { tenant, name } => format!("client-{tenant}-{name}"),
        }
    }

    fn uri(&self, cluster: &str) -> String {
        match self {
            Self::Node { name, .. } => format!("spiffe://{cluster}/node/{name}"),
            Self::Client { tenant, name } => format!("spiffe://{cluster}/tenant/{tenant}/client/{name}"),
        }
    }

    fn check(&self) -> Result<()> {
        match self {
            Self::Node { name, .. } => names::check("node name", name),
            Self::Client { tenant, name } => {
                names::check("tenant", tenant)?;
                names::check("client name", name)
            }
        }
    }
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    certificate: String,
    key: String,
}

/// Where a pair was written.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct PairPaths {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Writes `<stem>.pem` and `<stem>.key` into `directory`, which is made if need be. Files that exist are
    /// refused unless `force` is set.
    pub(crate) fn write(&self, directory: &Path, stem: &str, force: bool) -> Result<PairPaths> {
        let paths = PairPaths {
            certificate: directory.join(format!("{stem}.pem")),
            key: directory.join(format!("{stem}.key")),
        };
        for path in [&paths.certificate, &paths.key] {
            if !force && path.exists() {
                return Err(
                    Failure::new(Code::Refused, format!("{} exists already", path.display()))
                        .hint("give another --out, or --force to replace it"),
                );
            }
        }
        files::make_directory(directory)?;
        files::replace(&paths.key, self.key.as_bytes(), Access::Private)?;
        files::replace(&paths.certificate, self.certificate.as_bytes(), Access::Public)?;
        Ok(paths)
    }
}

/// A certificate authority: issues the certificates of one cluster.
pub(crate) struct Authority {
    cluster: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Draws a new authority for the cluster, and gives its files' content.
    pub(crate) fn create(cluster: &str, validity: Validity) -> Result<(Self, Pair)> {
        names::check("cluster name", cluster)?;
        let key = new_key()?;
        let mut params = params(authority_name(cluster, &key), validity);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri_name(&format!("spiffe://{cluster}"))?];
        let certificate = params.self_signed(&key).map_err(making)?;
        let pair = Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        };
        let authority = Self {
            cluster: cluster.to_owned(),
            issuer: Issuer::new(params, key),
        };
        Ok((authority, pair))
    }

    /// Loads the authority that [`Authority::create`] made from its directory.
    pub(crate) fn load(directory: &Path) -> Result<Self> {
        Ok(Self::load_pair(directory)?.0)
    }

    /// The same, with its files' content.
    pub(crate) fn load_pair(directory: &Path) -> Result<(Self, Pair)> {
        let certificate_path = directory.join(CA_CERTIFICATE);
        let key_path = directory.join(CA_KEY);
        let missing = "make one with `highwater certs ca --out DIR --cluster NAME`, or give its directory by --ca-dir";
        let pem = files::read_text("the CA certificate", &certificate_path).map_err(|e| e.hint(missing))?;
        let key_pem = files::read_text("the CA key", &key_path).map_err(|e| e.hint(missing))?;
        let key = KeyPair::from_pem(&key_pem)
            .map_err(|error| Failure::setup(format!("{} is not a private key: {error}", key_path.display())))?;
        let unusable =
            |why: String| Failure::setup(format!("{} is not a CA certificate: {why}", certificate_path.display()));
        let cluster = cluster_of(&pem).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| unusable(error.to_string()))?;
        let pair = Pair {
            certificate: pem,
            key: key_pem,
        };
        Ok((Self { cluster, issuer }, pair))
    }

    /// Whether the directory has an authority, or a part of one.
    pub(crate) fn is_in(directory: &Path) -> bool {
        [CA_CERTIFICATE, CA_KEY]
            .iter()
            .any(|name| directory.join(name).exists())
    }

    /// The cluster that this authority's certificates are for.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Issues a certificate with a fresh key.
    pub(crate) fn issue(&self, subject: &Subject, validity: Validity) -> Result<Pair> {
        subject.check()?;
        let key = new_key()?;
        let mut params = params(subject.file_stem(), validity);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![uri_name(&subject.uri(&self.cluster))?];
        if let Subject::Node { dns, addresses, .. } = subject {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            params.subject_alt_names.extend(self.node_names(dns, addresses)?);
        }
        let certificate = params.signed_by(&key, &self.issuer).map_err(making)?;
        Ok(Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    fn node_names(&self, dns: &[String], addresses: &[IpAddr]) -> Result<Vec<SanType>> {
        let fixed = ["localhost".to_owned(), server_name(&self.cluster)];
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let mut names = Vec::new();
        for name in fixed.iter().chain(dns) {
            let name = name
                .as_str()
                .try_into()
                .map_err(|error| Failure::usage(format!("{name:?} is not a DNS name: {error}")))?;
            names.push(SanType::DnsName(name));
        }
        names.extend(
            loopback
                .iter()
                .chain(addresses)
                .map(|address| SanType::IpAddress(*address)),
        );
        Ok(names)
    }
}

/// What an authority is called: the cluster, as far as there is room, and the beginning of its key's hash.
fn authority_name(cluster: &str, key: &KeyPair) -> String {
    let hash = Sha256::digest(key.public_key_raw());
    let of_key: String = hash.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let cluster: String = cluster.chars().take(CLUSTER_NAME_SHOWN_MAX).collect();
    format!("Highwater CA of {cluster}, {of_key}")
}

/// The DNS name that every node of the cluster has, for clients that verify by name.
pub(crate) fn server_name(cluster: &str) -> String {
    format!("node.{cluster}.highwater")
}

/// The cluster named by the first certificate in `pem`: that of its only URI, `spiffe://<cluster>[/…]`.
pub(crate) fn cluster_of(pem: &str) -> std::result::Result<String, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, certificate) = X509Certificate::from_der(&der).map_err(|error| error.to_string())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| error.to_string())?
        .ok_or("it carries no name of a cluster")?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err("it must carry exactly one URI, spiffe://<cluster>/...".to_owned());
    };
    let rest = uri
        .strip_prefix("spiffe://")
        .ok_or_else(|| format!("its URI {uri:?} does not begin with spiffe://"))?;
    let cluster = rest.split('/').next().unwrap_or_default();
    names::check("cluster name", cluster).map_err(|failure| failure.message)?;
    Ok(cluster.to_owned())
}

fn new_key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(making)
}

fn params(common_name: String, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Highwater");
    // The name is for people, identity stands in the URI.
    let common_name: String = common_name.chars().take(COMMON_NAME_CHARACTERS_MAX).collect();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params
}

fn uri_name(uri: &str) -> Result<SanType> {
    Ok(SanType::URI(uri.try_into().map_err(making)?))
}

fn making(error: rcgen::Error) -> Failure {
    Failure::setup(format!("cannot make the certificate: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn uris_and_usages(pem: &str) -> (Vec<String>, bool, bool) {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        (uris.collect(), usage.client_auth, usage.server_auth)
    }

    fn authority() -> (Authority, Pair) {
        Authority::create("dev", Validity::days(1)).unwrap()
    }

    #[test]
    fn a_node_has_one_uri_and_serves_and_calls_and_a_client_only_calls() {
        let (authority, _) = authority();
        let node = Subject::Node {
            name: "n1".to_owned(),
            dns: vec!["n1.example".to_owned()],
            addresses: vec![],
        };
        let node = authority.issue(&node, Validity::days(1)).unwrap();
        assert_eq!(
            uris_and_usages(&node.certificate),
            (vec!["spiffe://dev/node/n1".to_owned()], true, true)
        );
        let client = Subject::Client {
            tenant: "acme".to_owned(),
            name: "app".to_owned(),
        };
        let client = authority.issue(&client, Validity::days(1)).unwrap();
        let uri = "spiffe://dev/tenant/acme/client/app".to_owned();
        assert_eq!(uris_and_usages(&client.certificate), (vec![uri], true, false));
        assert_eq!(cluster_of(&client.certificate), Ok("dev".to_owned()));
    }

    #[test]
    fn two_authorities_of_a_cluster_have_different_subjects_whatever_it_is_called() {
        for cluster in ["dev".to_owned(), "a".repeat(128)] {
            let subject = || {
                let (_, pair) = Authority::create(&cluster, Validity::days(1)).unwrap();
                let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
                let (_, certificate) = X509Certificate::from_der(&der).unwrap();
                certificate.subject().to_string()
            };
            let (one, other) = (subject(), subject());
            assert_ne!(one, other);
            let beginning = format!("O=Highwater, CN=Highwater CA of {}", &cluster[..3]);
            assert!(one.starts_with(&beginning), "{one}");
        }
    }

    #[test]
    fn a_loaded_authority_issues_for_the_same_cluster() {
        let directory = tempfile::tempdir().unwrap();
        let (_, pair) = authority();
        pair.write(directory.path(), "ca", false).unwrap();
        let loaded = Authority::load(directory.path()).unwrap();
        assert_eq!(loaded.cluster(), "dev");
        let client = Subject::Client {
            tenant: "acme".to_owned(),
            name: "app".to_owned(),
        };
        loaded.issue(&client, Validity::days(1)).unwrap();
    }

    #[test]
    fn keys_are_private_and_nothing_is_overwritten_unasked() {
        let directory = tempfile::tempdir().unwrap();
        let (_, pair) = authority();
        let paths = pair.write(directory.path(), "ca", false).unwrap();
        let mode = std::fs::metadata(&paths.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (_, other) = authority();
        let refused = other.write(directory.path(), "ca", false).unwrap_err();
        assert!(refused.message.contains("exists already"), "{refused}");
        assert_eq!(std::fs::read_to_string(&paths.key).unwrap(), pair.key);
        other.write(directory.path(), "ca", true).unwrap();
        assert_eq!(std::fs::read_to_string(&paths.key).unwrap(), other.key);
    }

    #[test]
    fn names_outside_the_charset_are_refused() {
        let (authority, _) = authority();
        for name in ["Bad", "a/b", "", "a..b"] {
            let subject = Subject::Client {
                tenant: "acme".to_owned(),
                name: name.to_owned(),
            };
            assert!(authority.issue(&subject, Validity::days(1)).is_err(), "{name:?} passed");
        }
        assert!(Authority::create("No Good", Validity::days(1)).is_err());
    }

    #[test]
    fn text_that_is_no_certificate_is_refused() {
        assert!(cluster_of("").is_err());
        assert!(cluster_of("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
    }
}
