//! Gossip: who is there, where, and alive. It proposes; Raft disposes.
//!
//! chitchat runs over the peer link instead of UDP, so every message comes from a proven node of our cluster. A message
//! may be dropped at any point, as on UDP. Gossip carries addresses, liveness and hints; nothing that can lose data is
//! decided from it.
//!
//! Addresses: chitchat knows nodes by socket address, while ours are `host:port` and may move. The address given to
//! chitchat is the advertised one as resolved at start, and serves it as a label only. The key `address` holds the
//! advertised text; it goes to the [`AddressBook`], and a message to a live node that has told it in this life is sent by
//! its name, so that the host is resolved anew whenever it is dialled. Any other message goes to whoever is at the address:
//! nodes may have swapped theirs. Seeds are resolved anew as long as they have not been heard of.
//!
//! Invariants: a node's keys are written by that node; a message whose digest does not list its sender under the name
//! of its certificate is dropped. (What a node passes on about third nodes is not signed: a node that lies can deceive
//! here, see the promises.) Messages, nodes, keys and values are bounded.

mod check;
mod socket;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, FailureDetectorConfig, NodeState, spawn_chitchat};
use highwater_catalog::FEATURE_LEVEL;
use highwater_partition::log::ClusterId;
use tokio::net::lookup_host;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::link::{AddressBook, Link, hexadecimal};
use crate::readiness;
use socket::{LinkTransport, Roster};
use view::View;

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
    /// The newest rules that the program knows, a decimal number; absent: the first ones.
    pub const FEATURE_LEVEL: &str = "feature-level";
    /// Recorded cluster id, 32 hexadecimal digits; absent before founding.
    pub const CLUSTER_ID: &str = "cluster-id";
    /// Whether the node is ready: `starting`, `ready` or `draining`. Nodes of feature level 1 do not publish it.
    pub const STATE: &str = "state";
    /// `full` if the node's disk takes no records, otherwise `room`; absent: `room`.
    pub const DISK: &str = "disk";
}

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 128;
/// The longest value, bytes.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// Keys that a node publishes.
pub const KEYS_MAX: usize = 1024;
/// Bytes of keys and values that a node publishes.
pub const PUBLISHED_BYTES_MAX: usize = 48 * 1024;
/// Nodes that are kept track of, counting each process start of a node until it is forgotten.
pub const NODES_MAX: usize = 256;
/// How long a dead node is kept track of.
const DEAD_NODE_GRACE: Duration = Duration::from_secs(600);
/// How long a key that was taken back is kept track of.
const REMOVED_KEY_GRACE: Duration = Duration::from_secs(3600);
/// A node is dead when it has been silent for so many times the usual distance of its signs of life. As word of a node
/// arrives several times in an interval, this is about ten intervals.
const DEATH_THRESHOLD: f64 = 24.0;
/// How long to try to resolve our own address at start; in Kubernetes it may take a moment to exist.
const OWN_ADDRESS_PATIENCE: Duration = Duration::from_secs(30);
const RESOLVE_PAUSE: Duration = Duration::from_millis(500);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Messages that wait between the link and chitchat.
const MAILBOX_MESSAGES_MAX: usize = 256;

/// What gossip is started with.
pub struct GossipOptions {
    /// The link that carries the messages; its node name is ours.
    pub link: Link,
    /// Where messages from other nodes arrive.
    pub inbox: GossipInbox,
    /// Is told the addresses of live nodes; those in it that are silent are sought like seeds.
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
    sender: mpsc::Sender<(String, Bytes)>,
}

/// The other end of a [`GossipMailbox`].
#[derive(Debug)]
pub struct GossipInbox {
    receiver: mpsc::Receiver<(String, Bytes)>,
}

/// The bounded way from the link's handler to gossip.
pub fn mailbox() -> (GossipMailbox, GossipInbox) {
    let (sender, receiver) = mpsc::channel(MAILBOX_MESSAGES_MAX);
    (GossipMailbox { sender }, GossipInbox { receiver })
}

impl GossipMailbox {
    /// Takes a message of the authenticated node `from`. Never blocks.
    pub fn deliver(&self, from: &str, message: Bytes) {
        let _ = self.sender.try_send((from.to_owned(), message)); // full or ended: dropped, as on UDP
    }
}

/// Running gossip; ends when dropped.
pub struct Gossip {
    chitchat: Arc<ChitchatHandle>,
    nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    address: SocketAddr,
    ended: CancellationToken,
}

impl Gossip {
    /// Resolves our own address and starts.
    pub async fn start(options: GossipOptions) -> Result<Gossip, GossipError> {
        let address = resolve_own_address(&options.address).await?;
        let published = initial_keys(&options);
        for (key, value) in &published {
            check_length(key, value)?;
        }
        let roster = Arc::new(Roster::default());
        let transport = LinkTransport::new(options.link.clone(), options.inbox, address, roster.clone());
        let config = chitchat_config(&options.node, &options.cluster, options.boot, address, options.interval);
        let handle = spawn_chitchat(config, published, &transport).await;
        let chitchat = Arc::new(handle.map_err(|error| GossipError::Start(error.to_string()))?);

        let ended = CancellationToken::new();
        let view = View::new(options.node, options.link, options.addresses.clone(), roster);
        let nodes = view.watch(chitchat.clone(), options.interval, ended.clone()).await;
        let seeding = seek_seeds(
            chitchat.clone(),
            options.seeds,
            options.addresses,
            address,
            nodes.clone(),
            options.interval,
        );
        tokio::spawn(ended.clone().run_until_cancelled_owned(seeding));
        tokio::spawn(report_end(chitchat.clone(), ended.clone()));
        Ok(Gossip {
            chitchat,
            nodes,
            address,
            ended,
        })
    }

    /// Publishes `key` as `value`, replacing what was published under it.
    pub async fn set(&self, key: &str, value: &str) -> Result<(), GossipError> {
        check_length(key, value)?;
        let publish = |chitchat: &mut chitchat::Chitchat| {
            let state = chitchat.self_node_state();
            check_room(state, key, value)?;
            state.set(key, value);
            Ok(())
        };
        self.chitchat.with_chitchat(publish).await
    }

    /// Takes a key back.
    pub async fn remove(&self, key: &str) {
        self.chitchat
            .with_chitchat(|chitchat| chitchat.self_node_state().delete(key))
            .await;
    }

    /// Publishes our cluster id.
    pub async fn set_cluster_id(&self, cluster_id: ClusterId) {
        if let Err(error) = self.set(keys::CLUSTER_ID, &hexadecimal(&cluster_id.0)).await {
            tracing::error!(%error, "others are not told our cluster id");
        }
    }

    /// The live nodes, ourselves included, ordered by name; changes when one comes, goes or publishes something. Empty
    /// until the first round of gossip.
    pub fn nodes(&self) -> watch::Receiver<Arc<Vec<GossipNode>>> {
        self.nodes.clone()
    }

    /// Our advertised address as it was resolved at start.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops, and waits until the last message has been dealt with.
    pub async fn shutdown(self) {
        let ended = self.chitchat.termination_watcher();
        drop(self);
        let _ = ended.await; // how it ended makes no difference any more
    }
}

/// Ends chitchat together with our own tasks.
impl Drop for Gossip {
    fn drop(&mut self) {
        self.ended.cancel();
        let _ = self.chitchat.initiate_shutdown();
    }
}

fn chitchat_config(node: &str, cluster: &str, boot: u64, address: SocketAddr, interval: Duration) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(node, boot, address),
        cluster_id: cluster.to_owned(), // the name; the link compares the cluster ids of all connections
        gossip_interval: interval,
        listen_addr: address,
        seed_nodes: Vec::new(), // seeds are ours to seek, see `seek_seeds`
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: DEATH_THRESHOLD,
            sampling_window_size: 100,
            max_interval: interval * 20,
            initial_interval: interval,
            dead_node_grace_period: DEAD_NODE_GRACE,
        },
        marked_for_deletion_grace_period: REMOVED_KEY_GRACE,
        catchup_callback: None,
        extra_liveness_predicate: None,
    }
}

fn initial_keys(options: &GossipOptions) -> Vec<(String, String)> {
    let mut published = vec![
        (keys::ADDRESS.to_owned(), options.address.clone()),
        (keys::RACK.to_owned(), options.rack.clone()),
        (keys::VERSION.to_owned(), options.version.clone()),
        (keys::INCARNATION.to_owned(), hexadecimal(&options.incarnation)),
        (keys::FEATURE_LEVEL.to_owned(), FEATURE_LEVEL.to_string()),
        (keys::STATE.to_owned(), readiness::NodeState::Starting.name().to_owned()),
    ];
    if let Some(cluster_id) = options.cluster_id {
        published.push((keys::CLUSTER_ID.to_owned(), hexadecimal(&cluster_id.0)));
    }
    published
}

fn check_length(key: &str, value: &str) -> Result<(), GossipError> {
    let limit = |why| GossipError::Limit {
        key: key.to_owned(),
        why,
    };
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(limit(format!(
            "a key has 1 to {KEY_BYTES_MAX} bytes, this one {}",
            key.len()
        )));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(limit(format!(
            "a value has at most {VALUE_BYTES_MAX} bytes, this one {}",
            value.len()
        )));
    }
    Ok(())
}

fn check_room(state: &NodeState, key: &str, value: &str) -> Result<(), GossipError> {
    let limit = |why| GossipError::Limit {
        key: key.to_owned(),
        why,
    };
    let others = || state.key_values().filter(|(other, _)| *other != key);
    if others().count() >= KEYS_MAX {
        return Err(limit(format!("{KEYS_MAX} keys are published already")));
    }
    let bytes: usize = others().map(|(key, value)| key.len() + value.len()).sum();
    if bytes + key.len() + value.len() > PUBLISHED_BYTES_MAX {
        return Err(limit(format!(
            "all that is published has at most {PUBLISHED_BYTES_MAX} bytes, {bytes} are used"
        )));
    }
    Ok(())
}

async fn resolve_own_address(address: &str) -> Result<SocketAddr, GossipError> {
    let give_up = Instant::now() + OWN_ADDRESS_PATIENCE;
    loop {
        match resolve(address).await {
            Ok(resolved) => return Ok(resolved),
            Err(why) if Instant::now() >= give_up => {
                return Err(GossipError::Address {
                    address: address.to_owned(),
                    why,
                });
            }
            Err(why) => tracing::warn!(address, why, "our advertised address cannot be resolved yet"),
        }
        sleep(RESOLVE_PAUSE).await;
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, String> {
    match timeout(RESOLVE_TIMEOUT, lookup_host(address)).await {
        Ok(Ok(mut resolved)) => resolved.next().ok_or_else(|| "it has no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {RESOLVE_TIMEOUT:?}")),
    }
}

/// Gossips with every seed and every node known by address that is not among the live nodes, resolving it anew each time,
/// so that clusters find and, after a partition or with the seeds gone, find back together.
async fn seek_seeds(
    chitchat: Arc<ChitchatHandle>,
    seeds: Vec<String>,
    addresses: Arc<AddressBook>,
    own: SocketAddr,
    nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    pause: Duration,
) {
    let mut ticks = interval(pause);
    loop {
        ticks.tick().await;
        let live = nodes.borrow().clone();
        let known: BTreeSet<String> = seeds.iter().cloned().chain(addresses.all()).collect();
        for seed in known
            .iter()
            .filter(|seed| live.iter().all(|node| node.address != **seed))
        {
            match resolve(seed).await {
                Ok(address) if address == own => {}
                Ok(address) => drop(chitchat.gossip(address)),
                Err(why) => tracing::debug!(seed, why, "a seed cannot be resolved"),
            }
        }
    }
}

/// chitchat is not expected to end by itself; if it does, it must not go unseen.
async fn report_end(chitchat: Arc<ChitchatHandle>, ended: CancellationToken) {
    let result = chitchat.termination_watcher().await;
    if !ended.is_cancelled() {
        tracing::error!(?result, "gossip has ended; this node will not learn of others any more");
    }
}
