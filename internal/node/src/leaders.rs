//! Who leads which group, as far as this node knows.
//!
//! For groups with a replica here, the replica knows. For the others there is gossip: every node publishes the groups
//! that it leads, as `lead/GROUP` = term. Both are hints; a wrong one costs a redirected call, and the leader itself is
//! always right about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_partition::Role;
use highwater_partition::log::GroupId;
use highwater_proto::v1::LeaderHint;
use tokio::sync::watch;

use crate::catalog::CatalogHost;
use crate::gossip::{Gossip, GossipNode, keys};
use crate::link::Link;
use crate::replicas::Registry;

const KEY_PREFIX: &str = "lead/";

/// A group's leader and the term that it was elected in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: String,
    pub(crate) term: u64,
}

/// The leaders known here; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leaders {
    registry: Arc<Registry>,
    catalog: Arc<CatalogHost>,
    nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    link: Link,
}

impl Leaders {
    pub(crate) fn new(
        registry: Arc<Registry>,
        catalog: Arc<CatalogHost>,
        nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
        link: Link,
    ) -> Leaders {
        Leaders {
            registry,
            catalog,
            nodes,
            link,
        }
    }

    #[cfg(test)]
    pub(crate) fn catalog(&self) -> &CatalogHost {
        &self.catalog
    }

    pub(crate) fn leader(&self, group: GroupId) -> Option<Leader> {
        if let Some(hosted) = self.registry.hosted(group) {
            let status = hosted.status();
            let term = status.term;
            return status.leader.map(|leader| Leader {
                node: leader.node,
                term,
            });
        }
        let key = format!("{KEY_PREFIX}{}", group.0);
        let nodes = self.nodes.borrow();
        let claims = nodes.iter().filter_map(|node| {
            let term = node.keys.get(&key)?.parse().ok()?;
            Some(Leader {
                node: node.name.clone(),
                term,
            })
        });
        claims.max_by_key(|leader| leader.term)
    }

    /// The leader with its address, for clients.
    pub(crate) fn hint(&self, group: GroupId) -> Option<LeaderHint> {
        self.leader(group).map(|leader| self.hint_at(&leader.node, leader.term))
    }

    pub(crate) fn hint_at(&self, node: &str, term: u64) -> LeaderHint {
        LeaderHint {
            node: node.to_owned(),
            address: self.address(node),
            term,
        }
    }

    /// Where the node is: as it says itself at the moment, otherwise as the catalog has it; empty if neither knows.
    pub(crate) fn address(&self, node: &str) -> String {
        let alive = self.in_gossip(node).map(|alive| alive.address);
        let registered = || {
            self.catalog
                .read(|catalog| catalog.node(node).map(|node| node.address.clone()))
        };
        alive.or_else(registered).unwrap_or_default()
    }

    /// Whether the node is alive: gossip says so, or a connection with it is up. Gossip takes some rounds to hear of a
    /// node that has just started.
    pub(crate) fn is_alive(&self, node: &str) -> bool {
        self.is_connected(node) || self.nodes.borrow().iter().any(|known| known.name == node)
    }

    /// Whether a connection with the node is up. Unlike gossip it notices at once when a node has gone.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.link.is_connected(node)
    }

    /// Changes when the link's connections do.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.link.changes()
    }

    pub(crate) fn usable_nodes(&self) -> std::collections::BTreeSet<String> {
        self.nodes.borrow().iter().map(|node| node.name.clone()).collect()
    }

    /// The newest rules that the program of a node knows; 1 if the node is not there to tell.
    pub(crate) fn feature_level(&self, node: &str) -> u32 {
        let told = self.in_gossip(node).and_then(|node| node.keys.get(keys::FEATURE_LEVEL)?.parse().ok());
        told.unwrap_or(1)
    }

    /// The node as gossip knows it, if it is alive.
    fn in_gossip(&self, node: &str) -> Option<GossipNode> {
        self.nodes.borrow().iter().find(|known| known.name == node).cloned()
    }

    /// Changes when gossip does.
    pub(crate) fn nodes(&self) -> watch::Receiver<Arc<Vec<GossipNode>>> {
        self.nodes.clone()
    }
}

/// Publishes the groups led here until the node stops.
pub(crate) async fn publish(registry: Arc<Registry>, gossip: Arc<Gossip>) {
    let mut published: BTreeMap<GroupId, u64> = BTreeMap::new();
    let mut changes = registry.changes();
    changes.mark_changed();
    while changes.changed().await.is_ok() {
        let led = led_here(&registry);
        for group in published.keys().filter(|group| !led.contains_key(group)) {
            gossip.remove(&format!("{KEY_PREFIX}{}", group.0)).await;
        }
        for (group, term) in led.iter().filter(|(group, term)| published.get(group) != Some(term)) {
            let key = format!("{KEY_PREFIX}{}", group.0);
            if let Err(error) = gossip.set(&key, &term.to_string()).await {
                tracing::debug!(group = group.0, %error, "leadership is not published");
            }
        }
        published = led;
    }
}

fn led_here(registry: &Registry) -> BTreeMap<GroupId, u64> {
    let all = registry.all();
    let led = all.iter().filter_map(|hosted| {
        let status = hosted.status();
        (status.role == Role::Leader).then_some((hosted.group_id, status.term))
    });
    led.collect()
}
