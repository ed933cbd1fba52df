//! Certificates and the two TLS configurations made from them: serving the port, and dialling other nodes.
//!
//! TLS 1.3 only, one crypto provider (ring, named explicitly, so no process-wide default is needed), and both sides
//! always prove who they are. On top of the chain of trust the verifiers demand an [`Identity`] of our own cluster:
//! a server admits nodes and clients of its cluster; a dialler admits only nodes, and when it knows whom it means to
//! reach, only that very node. Host names and addresses are not looked at: they may change, names may not.
//!
//! The files may be replaced while the node runs (`keep.rs`); new connections are made with what they hold then.
//!
//! Invariants: the certificate in use always carries a node identity, and a reload never changes it. There is no early
//! data and no session resumption in either direction (no tickets are issued, none are kept), so that every connection
//! is checked against the certificates and authorities in force now.
//! Open connections are judged again whenever what they are judged by changes (`trust.rs`).

mod expiry;
mod files;
mod keep;
mod lists;
mod material;
#[cfg(test)]
mod tests;
mod trust;
mod verify;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::{Notify, watch};

use crate::identity::{Identity, IdentityError};
use files::Contents;
pub(crate) use files::roots;
use keep::Seen;
use lists::Lists;
use material::Material;
use trust::Trusts;
pub(crate) use trust::{Side, Trust};
pub(crate) use verify::{ClientNames, explain};

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
    /// Revocation lists, one or more; None: nothing is revoked.
    pub revoked: Option<PathBuf>,
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
    seen: Mutex<Seen>,
    trusts: Trusts,
    look_now: Notify,
    is_expired: AtomicBool,
    /// What is to be known of the credentials, in words; empty if all is well.
    notices: watch::Sender<Vec<String>>,
}

impl Credentials {
    /// Reads and checks the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Credentials>, TlsError> {
        Credentials::load_with(files, ClientNames::Uri)
    }

    /// The same, and says where clients' identities may stand.
    pub(crate) fn load_with(files: TlsFiles, names: ClientNames) -> Result<Arc<Credentials>, TlsError> {
        let contents = Contents::read(&files)?;
        let loaded = files::load(&files, &contents)?;
        let identity = loaded.identity.clone();
        let Some(node_name) = identity.node_name().map(str::to_owned) else {
            return Err(TlsError::NotANode {
                path: files.certificate,
                identity,
            });
        };
        let cluster = identity.cluster().to_owned();
        let (lists, lists_read) = match &files.revoked {
            Some(path) => {
                let bytes = Lists::read(path)?;
                let lists = Lists::load(path, &bytes)?;
                lists.check_issuers(path, &loaded.roots)?;
                (lists, bytes)
            }
            None => Default::default(),
        };
        let material = Material::new(loaded, lists, &cluster, names)?;
        Ok(Arc::new(Credentials {
            files,
            identity,
            cluster,
            node_name,
            current: ArcSwap::from_pointee(material),
            seen: Mutex::new(Seen::new(&contents, &lists_read)),
            trusts: Trusts::default(),
            look_now: Notify::new(),
            is_expired: AtomicBool::new(false),
            notices: watch::Sender::default(),
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

    /// Whose certificate it is that somebody showed who connected to us.
    pub(crate) fn identity_of(&self, certificate: &[u8]) -> Result<Identity, IdentityError> {
        self.current.load().callers.identity_of(certificate)
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

    /// The same in seconds since 1970.
    pub(crate) fn expiry_seconds(&self) -> u64 {
        expiry::seconds(self.not_after())
    }

    /// Whether the certificate in use had expired at the last look.
    pub(crate) fn is_expired(&self) -> bool {
        self.is_expired.load(Ordering::Relaxed)
    }

    /// What is to be known of the credentials, in words for people; empty if all is well.
    pub(crate) fn notices(&self) -> watch::Receiver<Vec<String>> {
        self.notices.subscribe()
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
            Expected::Node(_) => material.client_config(&self.cluster, expected),
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

fn time_of(seconds: i64) -> SystemTime {
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds),
        Err(_) => UNIX_EPOCH,
    }
}
