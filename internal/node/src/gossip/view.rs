//! From chitchat's state to ours: the live nodes, the addresses, and the link's dialling.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{ChitchatHandle, ChitchatId, NodeState};
use highwater_partition::log::ClusterId;
use tokio::sync::watch;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::socket::Roster;
use super::{GossipNode, keys};
use crate::link::{AddressBook, Directory, Link};

type LiveNodes = BTreeMap<ChitchatId, NodeState>;

/// The longest address that is believed, bytes: a host name of 253, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;

/// Turns what chitchat says into what the rest of the node uses.
pub(super) struct View {
    own_name: String,
    link: Link,
    addresses: Arc<AddressBook>,
    roster: Arc<Roster>,
    /// Process starts of the nodes that were live when last looked at.
    boots: BTreeMap<String, u64>,
}

impl View {
    pub(super) fn new(own_name: String, link: Link, addresses: Arc<AddressBook>, roster: Arc<Roster>) -> View {
        View {
            own_name,
            link,
            addresses,
            roster,
            boots: BTreeMap::new(),
        }
    }

    /// Follows chitchat until `ended`.
    pub(super) async fn watch(
        mut self,
        chitchat: Arc<ChitchatHandle>,
        pause: Duration,
        ended: CancellationToken,
    ) -> watch::Receiver<Arc<Vec<GossipNode>>> {
        let mut live = chitchat.with_chitchat(|chitchat| chitchat.live_nodes_watcher()).await;
        let (sender, receiver) = watch::channel(Arc::new(Vec::new()));
        let following = async move {
            let mut ticks = interval(pause);
            loop {
                tokio::select! {
                    biased;
                    changed = live.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let nodes = self.take(&live.borrow_and_update());
                        sender.send_replace(Arc::new(nodes));
                    }
                    _ = ticks.tick() => self.roster.set_known(known_ids(&chitchat).await),
                }
            }
        };
        tokio::spawn(ended.run_until_cancelled_owned(following));
        receiver
    }

    /// Brings directory, link and roster up to date, and gives the nodes, ordered by name.
    fn take(&mut self, live: &LiveNodes) -> Vec<GossipNode> {
        // Ids are ordered by name and then by process start, so the latest start of a node stays.
        let latest: BTreeMap<&str, (&ChitchatId, &NodeState)> =
            live.iter().map(|(id, state)| (&*id.node_id, (id, state))).collect();
        let nodes: Vec<GossipNode> = latest.values().map(|(id, state)| node(id, state)).collect();
        nodes.iter().for_each(|node| self.note(node));
        self.tell_changes(&nodes);
        self.boots = nodes.iter().map(|node| (node.name.clone(), node.boot)).collect();
        self.roster.set_names(self.names(latest.into_values()));
        nodes
    }

    /// The names by which messages go to addresses of chitchat. A message to any other address goes to whoever is there: to
    /// a node that has not told yet where it is in this life (its name may lead to where it was in an earlier one), and to
    /// an address that two nodes claim, because one has moved to where the other was.
    fn names<'a>(&self, latest: impl Iterator<Item = (&'a ChitchatId, &'a NodeState)>) -> BTreeMap<SocketAddr, String> {
        let mut claims: BTreeMap<SocketAddr, Vec<&str>> = BTreeMap::new();
        for (id, state) in latest {
            let has_told = state.get(keys::ADDRESS).is_some_and(is_address);
            if has_told && *id.node_id != *self.own_name {
                claims.entry(id.gossip_advertise_addr).or_default().push(&id.node_id);
            }
        }
        let undisputed = claims.into_iter().filter_map(|(address, names)| match names[..] {
            [name] if self.addresses.address(name).is_some() => Some((address, name.to_owned())),
            _ => None,
        });
        undisputed.collect()
    }

    /// A node that is new, or new at its address, may be dialled at once.
    fn note(&self, node: &GossipNode) {
        if node.name == self.own_name || !is_address(&node.address) {
            return;
        }
        let moved = self.addresses.learn(&node.name, &node.address);
        if moved || self.boots.get(&node.name) != Some(&node.boot) {
            self.link.peer_seen(&node.name);
        }
    }

    /// One line for each node that fell silent or is back, in place of one for each message that it missed.
    fn tell_changes(&self, nodes: &[GossipNode]) {
        for name in self
            .boots
            .keys()
            .filter(|name| nodes.iter().all(|node| node.name != **name))
        {
            tracing::warn!(node = %name, "a node is silent; its replicas are missing until it is back");
        }
        for node in nodes.iter().filter(|node| node.name != self.own_name) {
            match self.boots.get(&node.name) {
                None => tracing::info!(node = %node.name, address = %node.address, "a node is here"),
                Some(boot) if *boot != node.boot => {
                    tracing::info!(node = %node.name, address = %node.address, "a node was started again");
                }
                Some(_) => {}
            }
        }
    }
}

async fn known_ids(chitchat: &ChitchatHandle) -> BTreeSet<ChitchatId> {
    chitchat
        .with_chitchat(|chitchat| chitchat.node_states().keys().cloned().collect())
        .await
}

fn node(id: &ChitchatId, state: &NodeState) -> GossipNode {
    let value = |key| state.get(key).unwrap_or_default().to_owned();
    GossipNode {
        name: id.node_id.to_string(),
        address: value(keys::ADDRESS),
        rack: value(keys::RACK),
        version: value(keys::VERSION),
        incarnation: state.get(keys::INCARNATION).and_then(sixteen_bytes),
        cluster_id: state.get(keys::CLUSTER_ID).and_then(sixteen_bytes).map(ClusterId),
        boot: id.generation_id,
        keys: state
            .key_values()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

/// `host:port` with a port that is a number; the host is for the resolver to judge.
fn is_address(address: &str) -> bool {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty())
        .map(|(_, port)| port);
    address.len() <= ADDRESS_BYTES_MAX && port.is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn sixteen_bytes(digits: &str) -> Option<[u8; 16]> {
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
