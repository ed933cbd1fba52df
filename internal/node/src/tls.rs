//! Certificates and the two TLS configurations made from them: serving the port, and dialling other nodes.
//!
//! TLS 1.3 only, one crypto provider (ring, named explicitly, so no process-wide default is needed), and both sides
//! always prove who they are. On top of the chain of trust the verifiers demand an [`Identity`] of our own cluster:
//! a server admits nodes and clients of its cluster; a dialler admits only nodes, and when it knows whom it means to
//! reach, only that very node. Host names and addresses are not looked at: they may change, names may not.
//!
//! Invariants: the certificate in use always carries a node identity, and a reload never changes it. There is no early
//! data and no session resumption in either direction (no tickets are issued, none are kept), so that every connection
//! is checked against the certificates and authorities in force now.
//! Deliberately absent: revocation lists and watching the files for changes.

mod files;
mod verify;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::identity::{Identity, IdentityError};
pub(crate) use verify::explain;
use verify::{ClientVerifier, NodeVerifier};

/// ALPN of gRPC.
pub const ALPN_GRPC: &[u8] = b"h2";
/// ALPN of the peer link.
pub const ALPN_PEER: &[u8] = b"highwater-peer/1";
/// ALPN of the JSON gateway.
pub const ALPN_HTTP: &[u8] = b"http/1.1";

/// The PEM files that make up a node's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The node's certificate, followed by intermediate certificates if there are any.
    pub certificate: PathBuf,
    /// The private key of that certificate.
    pub key: PathBuf,
    /// The certificate authorities that are trusted, one or more.
    pub authorities: PathBuf,
}

/// Why credentials cannot be used. None of these goes away by retrying: a file or the configuration must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or does not hold what it should.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The certificate gives no identity.
    #[error("{}: {source}", path.display())]
    Identity {
        /// The certificate file.
        path: PathBuf,
        /// What is wrong.
        source: IdentityError,
    },
    /// The certificate is a client's.
    #[error("{}: a node needs a node certificate, this one is of {identity}", path.display())]
    NotANode {
        /// The certificate file.
        path: PathBuf,
        /// Whose certificate it is.
        identity: Identity,
    },
    /// The certificate is of another node or cluster than configured, or than before a reload.
    #[error("the certificate in {} is of {found}, but this is {expected}", path.display())]
    OtherIdentity {
        /// The certificate file.
        path: PathBuf,
        /// Whose certificate it is.
        found: Box<Identity>,
        /// Whose it should be.
        expected: Box<Identity>,
    },
    /// The certificate is outside its validity period.
    #[error("{}: the certificate {why}", path.display())]
    Validity {
        /// The certificate file.
        path: PathBuf,
        /// "expired on …" or "is not valid before …", with the present time.
        why: String,
    },
    /// Certificate, key and authorities are readable, but do not go together.
    #[error("the TLS credentials do not fit together: {0}")]
    Unfit(String),
}

/// Whom a dialler means to reach. In all cases a node of our own cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The node of this name and no other.
    Node(String),
    /// Any node: for seeds, of which only the address is known.
    AnyNode,
}

/// A node's certificate, key and authorities, checked and in use. Shared; a reload takes effect for new connections.
#[derive(Debug)]
pub struct Credentials {
    files: TlsFiles,
    identity: Identity,
    cluster: String,
    node_name: String,
    current: ArcSwap<Material>,
}

/// One consistent set of credentials.
#[derive(Debug)]
struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    server: Arc<ServerConfig>,
    any_node: Arc<ClientConfig>,
    not_after: SystemTime,
}

impl Credentials {
    /// Reads and checks the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Credentials>, TlsError> {
        let loaded = files::read(&files)?;
        let identity = loaded.identity.clone();
        let Some(node_name) = identity.node_name().map(str::to_owned) else {
            return Err(TlsError::NotANode {
                path: files.certificate,
                identity,
            });
        };
        let cluster = identity.cluster().to_owned();
        let material = Material::new(loaded, &cluster)?;
        Ok(Arc::new(Credentials {
            files,
            identity,
            cluster,
            node_name,
            current: ArcSwap::from_pointee(material),
        }))
    }

    /// Refuses credentials of another cluster or node than the configured one.
    pub fn require(&self, cluster: &str, node: &str) -> Result<(), TlsError> {
        let expected = Identity::Node {
            cluster: cluster.to_owned(),
            name: node.to_owned(),
        };
        self.require_identity(&self.identity, expected)
    }

    /// Reads the files again. On an error the credentials in use stay as they are.
    pub fn reload(&self) -> Result<(), TlsError> {
        let loaded = files::read(&self.files)?;
        self.require_identity(&loaded.identity, self.identity.clone())?;
        self.current.store(Arc::new(Material::new(loaded, &self.cluster)?));
        Ok(())
    }

    /// Our own identity; always a node's.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The name of our cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Our own node name.
    pub fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The last moment at which the certificate in use is valid.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }

    /// The configuration for serving the port.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// The configuration for dialling another node over the peer link.
    pub fn peer_config(&self, expected: &Expected) -> Result<Arc<ClientConfig>, TlsError> {
        let material = self.current.load();
        match expected {
            Expected::AnyNode => Ok(material.any_node.clone()),
            Expected::Node(_) => client_config(&material.parts(), &self.cluster, expected),
        }
    }

    fn require_identity(&self, found: &Identity, expected: Identity) -> Result<(), TlsError> {
        if *found == expected {
            return Ok(());
        }
        Err(TlsError::OtherIdentity {
            path: self.files.certificate.clone(),
            found: Box::new(found.clone()),
            expected: Box::new(expected),
        })
    }
}

/// What both kinds of configuration are made from.
struct Parts<'a> {
    chain: &'a [CertificateDer<'static>],
    key: &'a PrivateKeyDer<'static>,
    roots: &'a Arc<RootCertStore>,
    provider: &'a Arc<CryptoProvider>,
}

impl Material {
    fn new(loaded: files::Loaded, cluster: &str) -> Result<Material, TlsError> {
        let files::Loaded {
            chain,
            key,
            roots,
            not_after,
            ..
        } = loaded;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let parts = Parts {
            chain: &chain,
            key: &key,
            roots: &roots,
            provider: &provider,
        };
        let server = server_config(&parts, cluster)?;
        let any_node = client_config(&parts, cluster, &Expected::AnyNode)?;
        Ok(Material {
            chain,
            key,
            roots,
            provider,
            server,
            any_node,
            not_after,
        })
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            chain: &self.chain,
            key: &self.key,
            roots: &self.roots,
            provider: &self.provider,
        }
    }
}

fn server_config(parts: &Parts<'_>, cluster: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = ClientVerifier::new(parts.roots.clone(), parts.provider, cluster)?;
    let mut config = ServerConfig::builder_with_provider(parts.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(parts.chain.to_vec(), parts.key.clone_key())
        .map_err(unfit)?;
    // Who offers both speaks HTTP in general, as curl does; who wants gRPC offers nothing but h2.
    config.alpn_protocols = vec![ALPN_HTTP.to_vec(), ALPN_GRPC.to_vec(), ALPN_PEER.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(parts: &Parts<'_>, cluster: &str, expected: &Expected) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = NodeVerifier::new(parts.roots.clone(), parts.provider, cluster, expected.clone());
    let mut config = ClientConfig::builder_with_provider(parts.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .dangerous() // the verifier is ours: chain of trust as usual, then the identity in place of a host name
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(parts.chain.to_vec(), parts.key.clone_key())
        .map_err(unfit)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn unfit(error: rustls::Error) -> TlsError {
    TlsError::Unfit(error.to_string())
}

fn time_of(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use super::*;
    use crate::test_ca::{CLUSTER, TestCa, Wanted};

    fn refusal(files: TlsFiles) -> String {
        Credentials::load(files).unwrap_err().to_string()
    }

    #[test]
    fn good_files_make_credentials() {
        let ca = TestCa::new();
        let credentials = ca.node("n1");
        assert_eq!((credentials.cluster(), credentials.node_name()), (CLUSTER, "n1"));
        assert!(credentials.not_after() > SystemTime::now());
        assert!(credentials.require(CLUSTER, "n1").is_ok());
        let why = credentials.require(CLUSTER, "n2").unwrap_err().to_string();
        assert!(why.contains("/node/n1") && why.contains("/node/n2"), "{why}");
    }

    #[test]
    fn every_complaint_names_the_file_and_the_reason() {
        let ca = TestCa::new();
        let good = ca.node_files(CLUSTER, "n1");
        type Pick = fn(&TlsFiles) -> &PathBuf;
        let cases: [(&str, Pick, &str, &str); 6] = [
            ("missing.pem", |files| &files.certificate, "", "cannot be read"),
            ("empty.pem", |files| &files.certificate, "\n", "holds no certificate"),
            (
                "cut.pem",
                |files| &files.certificate,
                "-----BEGIN CERTIFICATE-----\nAAAA\n",
                "not valid PEM",
            ),
            ("bad.key", |files| &files.key, "no key here\n", "no private key"),
            ("empty-ca.pem", |files| &files.authorities, "\n", "holds no certificate"),
            (
                "bad-ca.pem",
                |files| &files.authorities,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "cannot be an authority",
            ),
        ];
        for (name, pick, content, expected) in cases {
            let path = ca.path(name);
            if !content.is_empty() {
                fs::write(&path, content).unwrap();
            }
            let mut files = good.clone();
            let replaced = pick(&files).clone();
            for each in [&mut files.certificate, &mut files.key, &mut files.authorities] {
                if *each == replaced {
                    *each = path.clone();
                }
            }
            let why = refusal(files);
            assert!(why.contains(name) && why.contains(expected), "{name}: {why}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = TestCa::new();
        let mut files = ca.node_files(CLUSTER, "n1");
        files.key = ca.node_files(CLUSTER, "n2").key;
        assert!(matches!(Credentials::load(files), Err(TlsError::Unfit(_))));
    }

    #[test]
    fn certificates_outside_their_time_are_refused_with_the_date() {
        let ca = TestCa::new();
        let uris = vec![format!("spiffe://{CLUSTER}/node/n1")];
        let expired = Wanted {
            uris: uris.clone(),
            years: Some((2000, 2001)),
            ..Wanted::default()
        };
        let why = refusal(ca.issue("expired", &expired));
        assert!(
            why.contains("expired.pem") && why.contains("expired on") && why.contains("2001"),
            "{why}"
        );
        let early = Wanted {
            uris,
            years: Some((2100, 2101)),
            ..Wanted::default()
        };
        let why = refusal(ca.issue("early", &early));
        assert!(
            why.contains("early.pem") && why.contains("not valid before") && why.contains("2100"),
            "{why}"
        );
    }

    #[test]
    fn a_node_needs_a_node_certificate() {
        let ca = TestCa::new();
        let why = refusal(ca.client_files("acme", "app"));
        assert!(
            why.contains("needs a node certificate") && why.contains("/tenant/acme/client/app"),
            "{why}"
        );
        let why = refusal(ca.issue("nobody", &Wanted::default()));
        assert!(why.contains("nobody.pem") && why.contains("no identity"), "{why}");
    }

    #[test]
    fn a_reload_takes_new_certificates_but_no_other_identity() {
        let ca = TestCa::new();
        let credentials = ca.node("n1");
        let before = credentials.not_after();
        let uris = vec![format!("spiffe://{CLUSTER}/node/n1")];
        let renewed = Wanted {
            uris,
            years: Some((2020, 2090)),
            ..Wanted::default()
        };
        ca.issue("n1", &renewed);
        credentials.reload().unwrap();
        assert_ne!(credentials.not_after(), before);

        let uris = vec![format!("spiffe://{CLUSTER}/node/n2")];
        ca.issue(
            "n1",
            &Wanted {
                uris,
                ..Wanted::default()
            },
        );
        assert!(matches!(credentials.reload(), Err(TlsError::OtherIdentity { .. })));
        fs::remove_file(ca.path("n1.key")).unwrap();
        assert!(matches!(credentials.reload(), Err(TlsError::File { .. })));
        assert_eq!(credentials.node_name(), "n1");
    }
}
