//! Who leads which group, and who may be given a leadership, as far as this node knows.
//!
//! Every node tells every other which groups it leads as soon as that changes (`push`), and keeps what others tell (`told`).
//! For a group with a replica here, the replica knows, too; whoever has the higher term is believed. A node of feature
//! level 1 tells nobody, but publishes the groups that it leads in gossip, as `lead/GROUP` = term. All of these are hints; a
//! wrong one costs a redirected call, and the leader itself is always right about itself.

#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod message;
mod push;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use highwater_partition::log::GroupId;
use highwater_proto::v1::LeaderHint;
use tokio::sync::watch;

pub(crate) use push::Push;
pub(crate) use told::Told;

use crate::catalog::CatalogHost;
use crate::gossip::{Gossip, GossipNode, keys};
use crate::link::Link;
use crate::readiness::{NodeState, NotReady};
use crate::replicas::Registry;
use message::{Answer, Page};

/// Under which key nodes of feature level 1 publish that they lead a group.
const KEY_PREFIX: &str = "lead/";

/// What a node without room publishes of its disk, and one with room.
const FULL: &str = "full";
const ROOM: &str = "room";

/// A group's leader and the term that it was elected in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) node: String,
    pub(crate) term: u64,
}

/// The leaders and nodes known here; cheap to clone.
#[derive(Clone)]
pub(crate) struct Leaders {
    pub(crate) own: String,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<CatalogHost>,
    pub(crate) told: Arc<Told>,
    pub(crate) nodes: watch::Receiver<Arc<Vec<GossipNode>>>,
    pub(crate) link: Link,
    /// Why this node is not ready; None if it is.
    pub(crate) not_ready: watch::Receiver<Option<NotReady>>,
    /// Whether this node's disk takes records.
    pub(crate) has_room: watch::Receiver<bool>,
}

impl Leaders {
    #[cfg(test)]
    pub(crate) fn catalog(&self) -> &CatalogHost {
        &self.catalog
    }

    pub(crate) fn leader(&self, group: GroupId) -> Option<Leader> {
        let told = self.told.leader(group).filter(|leader| self.is_alive(&leader.node));
        let Some((term, leader)) = self.registry.hosted(group).map(|hosted| hosted.believed_leader()) else {
            return told.or_else(|| self.gossiped(group));
        };
        let here = leader.map(|node| Leader { node, term });
        match told {
            Some(told) if told.term > term || (told.term == term && here.is_none()) => Some(told),
            _ => here,
        }
    }

    /// What nodes that do not tell publish instead. Whoever is no member leads nothing, whatever it says.
    fn gossiped(&self, group: GroupId) -> Option<Leader> {
        let key = format!("{KEY_PREFIX}{}", group.0);
        let nodes = self.nodes.borrow();
        let members = self.catalog.members();
        let claims = nodes
            .iter()
            .filter(|node| members.include(&node.name))
            .filter_map(|node| {
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
        node == self.own || self.is_connected(node) || self.nodes.borrow().iter().any(|known| known.name == node)
    }

    /// The nodes that may be given leaderships and replicas: alive, ready by their own account, and with room on their
    /// disks. A hint like everything here. Of a node of feature level 1, which does not say whether it is ready, it is
    /// taken for granted.
    pub(crate) fn usable_nodes(&self) -> BTreeSet<String> {
        let mut boots: BTreeMap<String, Option<u64>> = self
            .link
            .connected()
            .into_iter()
            .map(|(node, boot)| (node, Some(boot)))
            .collect();
        for node in self.nodes.borrow().iter() {
            boots.entry(node.name.clone()).or_insert(Some(node.boot));
        }
        boots.insert(self.own.clone(), None);
        let usable = boots.into_iter().filter(|(node, boot)| self.is_usable(node, *boot));
        usable.map(|(node, _)| node).collect()
    }

    /// `boot`: the process start in which others know the node at the moment.
    fn is_usable(&self, node: &str, boot: Option<u64>) -> bool {
        if node == self.own {
            return self.not_ready.borrow().is_none() && self.has_room();
        }
        let known = self.in_gossip(node);
        if known.is_some_and(|known| known.keys.get(keys::DISK).is_some_and(|disk| disk == FULL)) {
            return false;
        }
        match self
            .told
            .state(node)
            .filter(|(told, _)| boot.is_none_or(|boot| *told >= boot))
        {
            Some((_, state)) => state == NodeState::Ready,
            None => self.in_gossip(node).is_some_and(|known| {
                let state = known.keys.get(keys::STATE);
                state.is_none_or(|state| state == NodeState::Ready.name())
            }),
        }
    }

    /// Whether this node's disk takes records.
    pub(crate) fn has_room(&self) -> bool {
        *self.has_room.borrow()
    }

    /// Whether a connection with the node is up. Unlike gossip it notices at once when a node has gone.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.link.is_connected(node)
    }

    /// Changes when the link's connections do.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        self.link.changes()
    }

    /// The newest rules that the program of a node knows; 1 if the node is not there to tell.
    pub(crate) fn feature_level(&self, node: &str) -> u32 {
        let told = self
            .in_gossip(node)
            .and_then(|node| node.keys.get(keys::FEATURE_LEVEL)?.parse().ok());
        told.unwrap_or(1)
    }

    /// Changes when another node has told something.
    pub(crate) fn tellings(&self) -> watch::Receiver<u64> {
        self.told.changes()
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

/// Takes in what the node `from` tells; gives what to answer it. Of who is no member nothing is taken in; it tells again, and may be one then.
pub(crate) fn hear(told: &Told, (from, is_member): (&str, bool), body: Bytes) -> Result<Bytes, String> {
    let page = Page::decode(body)?;
    let answer = match is_member {
        true => told.take(from, page),
        false => Answer::WantsList,
    };
    Ok(answer.encode())
}

/// Publishes in gossip, until the node stops, whether it is ready, for those that it has not told yet, and whether its disk has room.
pub(crate) async fn publish_state(
    mut not_ready: watch::Receiver<Option<NotReady>>,
    mut has_room: watch::Receiver<bool>,
    gossip: Arc<Gossip>,
) {
    loop {
        let disk = if *has_room.borrow_and_update() { ROOM } else { FULL };
        if let Err(error) = gossip.set(keys::DISK, disk).await {
            tracing::debug!(%error, "it is not published whether this node's disk has room");
        }
        let state = NodeState::of(&not_ready.borrow_and_update());
        if let Err(error) = gossip.set(keys::STATE, state.name()).await {
            tracing::debug!(%error, "it is not published whether this node is ready");
        }
        let changed = tokio::select! {
            changed = not_ready.changed() => changed,
            changed = has_room.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
