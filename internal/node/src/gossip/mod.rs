//! Gossip: who is there, where, and alive. It proposes; Raft disposes.
//!
//! chitchat runs over the peer link instead of UDP, so every message comes from a proven node of our cluster. A message
//! may be dropped at any point, as on UDP. Gossip carries addresses, liveness and hints; nothing that can lose data is
//! decided from it.
//!
//! Addresses: chitchat knows nodes by socket address, while ours are `host:port` and may move. The address given to
//! chitchat is the advertised one as resolved at start, and serves it as a label only. The key `address` holds the
//! advertised text; it goes to the [`AddressBook`], and a message to a live node is sent by its name, so that the host
//! is resolved anew whenever it is dialled. Seeds are resolved anew as long as they have not been heard of.
//!
//! Invariants: a node's keys are written by that node; a message whose digest does not list its sender under the name
//! of its certificate is dropped. (What a node passes on about third nodes is not signed: a node that lies can deceive
//! here, see the promises.) Messages, nodes, keys and values are bounded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_partition::log::ClusterId;
use tokio::sync::{mpsc, watch};

use crate::link::{AddressBook, Link};

/// The names of the keys that every node publishes.
pub mod keys {
    /// Advertised address, `host:port`.
    pub const ADDRESS: &str = "address";
    /// Rack, may be empty.
    pub const RACK: &str = "rack";
    /// Version of the software.
    pub const VERSION: &str = "version";
    /// Life of the data directory, 32 hexadecimal digits.
    pub const INCARNATION: &str = "incarnation";
    /// Recorded cluster id, 32 hexadecimal digits; absent before founding.
    pub const CLUSTER_ID: &str = "cluster-id";
}

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// Keys that a node publishes.
pub const KEYS_MAX: usize = 1024;
/// Bytes of keys and values that a node publishes.
pub const PUBLISHED_BYTES_MAX: usize = 48 * 1024;
/// Messages that wait between the link and chitchat.
const MAILBOX_MESSAGES_MAX: usize = 256;

/// What gossip is started with.
pub struct GossipOptions {
    /// The link that carries the messages; its node name is ours.
    pub link: Link,
    /// Where messages from other nodes arrive.
    pub inbox: GossipInbox,
    /// Is told the addresses of live nodes.
    pub addresses: Arc<AddressBook>,
    /// The configured name of the cluster.
    pub cluster: String,
    /// Our node name.
    pub node: String,
    /// This process start; must grow with every start of the node.
    pub boot: u64,
    /// Our advertised address, `host:port`.
    pub address: String,
    /// Our rack, may be empty.
    pub rack: String,
    /// The version of the software.
    pub version: String,
    /// The life of our data directory.
    pub incarnation: [u8; 16],
    /// Our cluster id, if known; later with [`Gossip::set_cluster_id`].
    pub cluster_id: Option<ClusterId>,
    /// Addresses (`host:port`) at which to find others.
    pub seeds: Vec<String>,
    /// How often to gossip: [`INTERVAL`] outside of tests. A dead node is noticed after about ten intervals.
    pub interval: Duration,
}

/// How often nodes gossip.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// A live node as gossip knows it. A hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipNode {
    /// Its name.
    pub name: String,
    /// Its advertised address, `host:port`.
    pub address: String,
    /// Its rack, may be empty.
    pub rack: String,
    /// The version of its software.
    pub version: String,
    /// The life of its data directory; `None` if it was told wrongly.
    pub incarnation: Option<[u8; 16]>,
    /// The cluster id that it has recorded.
    pub cluster_id: Option<ClusterId>,
    /// Its process start.
    pub boot: u64,
    /// Everything that it publishes, these fields included.
    pub keys: BTreeMap<String, String>,
}

/// Why gossip cannot start or a key cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GossipError {
    /// Our own advertised address cannot be resolved (yet).
    #[error("the advertised address {address:?} cannot be resolved: {why}")]
    Address {
        /// The address.
        address: String,
        /// What went wrong.
        why: String,
    },
    /// A key or value is too long, or there are too many.
    #[error("the key {key:?} cannot be published: {why}")]
    Limit {
        /// The key.
        key: String,
        /// The limit that it breaks.
        why: String,
    },
    /// chitchat would not start.
    #[error("gossip cannot start: {0}")]
    Start(String),
}

/// Where the link's handler drops gossip messages; cheap to clone. A full mailbox drops them.
#[derive(Debug, Clone)]
pub struct GossipMailbox {
    _sender: mpsc::Sender<(String, Bytes)>,
}

/// The other end of a [`GossipMailbox`].
#[derive(Debug)]
pub struct GossipInbox {
    _receiver: mpsc::Receiver<(String, Bytes)>,
}

/// The bounded way from the link's handler to gossip.
pub fn mailbox() -> (GossipMailbox, GossipInbox) {
    let (sender, receiver) = mpsc::channel(MAILBOX_MESSAGES_MAX);
    (GossipMailbox { _sender: sender }, GossipInbox { _receiver: receiver })
}

impl GossipMailbox {
    /// Takes a message of the authenticated node `from`. Never blocks.
    pub fn deliver(&self, _from: &str, _message: Bytes) {}
}

/// Running gossip; ends when dropped.
pub struct Gossip {
    nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
}

impl Gossip {
    /// Resolves our own address and starts.
    pub async fn start(_options: GossipOptions) -> Result<Gossip, GossipError> {
        let (_sender, nodes) = watch::channel(Arc::new(Vec::new()));
        Ok(Gossip { nodes })
    }

    /// Publishes `key` as `value`, replacing what was published under it.
    pub async fn set(&self, _key: &str, _value: &str) -> Result<(), GossipError> {
        Ok(())
    }

    /// Takes a key back.
    pub async fn remove(&self, _key: &str) {}

    /// Publishes our cluster id.
    pub async fn set_cluster_id(&self, _cluster_id: ClusterId) {}

    /// The live nodes, ourselves included, ordered by name; changes when one comes, goes or publishes something.
    pub fn nodes(&self) -> watch::Receiver<Arc<Vec<GossipNode>>> {
        self.nodes.clone()
    }

    /// Our advertised address as it was resolved at start.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    /// Stops in an orderly way.
    pub async fn shutdown(self) {}
}
