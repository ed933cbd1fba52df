//! The nodes: how they come, change, leave, and come back.
//!
//! A node leaves in three steps, each a command that may be repeated: it is marked as leaving, from which on it gets no
//! replicas; its replicas move to other nodes, one by one; and once it holds nothing it is removed. Until then the first
//! step can be taken back. A node that was removed stays known, so that its data directory cannot come back as if
//! nothing had happened; with a new data directory it is a new node of the same name.
//!
//! Every topic has at least as many nodes that are not leaving as it has replicas: nothing here and no new topic breaks
//! that, so a node that leaves can always be emptied.

use crate::catalog::Catalog;
use crate::checks;
use crate::command::CatalogReplica;
use crate::limits::{NODE_PAST_LIVES_MAX, NODES_KNOWN_MAX, NODES_MAX, VERSION_BYTES_MAX};
use crate::model::{Incarnation, LeftOn, Node, PastLife};
use crate::names;
use crate::reply::{Refusal, Reply};

impl Catalog {
    /// `held`: what the node's data directory holds of the catalog's group.
    pub(crate) fn register_node(
        &mut self,
        index: u64,
        seen: Node,
        held: Option<CatalogReplica>,
    ) -> Result<Reply, Refusal> {
        self.check_registration(&seen)?;
        let node = match self.state.nodes.get(&seen.name).cloned() {
            None => Node {
                catalog_replica_id: self.next_replica_id(),
                ..seen
            },
            Some(known) if known.incarnation == seen.incarnation && known.keeps_catalog_replica(held)? => Node {
                catalog_replica_id: known.catalog_replica_id,
                catalog_replica_started: known.catalog_replica_started || known.runs(held),
                leaving: known.leaving,
                drained: known.drained,
                past_lives: known.past_lives,
                ..seen
            },
            Some(known) => Node {
                catalog_replica_id: self.next_replica_id(),
                past_lives: past_lives_before(&seen.incarnation, &known),
                leaving: known.leaving && !known.removed,
                drained: known.drained && !known.removed,
                ..seen
            },
        };
        let replica_id = node.catalog_replica_id;
        if self.state.nodes.get(&node.name) != Some(&node) {
            self.state.nodes.insert(node.name.clone(), node);
            self.state.revision = index;
        }
        Ok(Reply::Node { replica_id })
    }

    fn check_registration(&self, seen: &Node) -> Result<(), Refusal> {
        self.cluster()?;
        checks::node(&seen.name, &seen.address, &seen.rack)?;
        checks::text("version", &seen.version, VERSION_BYTES_MAX)?;
        checks::within("feature_level", seen.feature_level, &(1..=u32::MAX))?;
        let node = seen.name.clone();
        let (level, needed) = (seen.feature_level, self.state.feature_level);
        if level < needed {
            return Err(Refusal::TooOld { node, level, needed });
        }
        let known = self.state.nodes.get(&seen.name);
        let is_this_life = |known: &&Node| known.incarnation == seen.incarnation;
        if known.is_some_and(|known| !is_this_life(&known) && known.has_past_life(&seen.incarnation)) {
            return Err(Refusal::IncarnationReplaced { node });
        }
        if known.filter(is_this_life).is_some_and(|known| known.removed) {
            return Err(Refusal::NodeRemoved { node });
        }
        self.check_room_for(known)
    }

    /// Room for one more node; one that is a member already needs none.
    fn check_room_for(&self, known: Option<&Node>) -> Result<(), Refusal> {
        let is_member = known.is_some_and(|known| !known.removed);
        if !is_member && self.members().count() >= NODES_MAX {
            return Err(Refusal::TooManyNodes { limit: NODES_MAX });
        }
        if known.is_none() && self.state.nodes.len() >= NODES_KNOWN_MAX {
            return Err(Refusal::TooManyNodes { limit: NODES_KNOWN_MAX });
        }
        Ok(())
    }

    // ----------------------------------------------------------------------------------------------------- leaving

    pub(crate) fn decommission(&mut self, index: u64, name: &str, leaving: bool) -> Result<Reply, Refusal> {
        let node = self.known_node(name)?;
        if node.leaving == leaving {
            return Ok(Reply::Done);
        }
        if node.removed {
            return Err(Refusal::NodeRemoved { node: name.to_string() });
        }
        if leaving {
            self.check_can_do_without(name)?;
        }
        self.change_node(index, name, |node| node.leaving = leaving);
        Ok(Reply::Done)
    }

    fn check_can_do_without(&self, name: &str) -> Result<(), Refusal> {
        let node = name.to_string();
        let placeable = self.members().filter(|node| node.is_placeable());
        let nodes = placeable.filter(|other| other.name != name).count();
        if nodes == 0 {
            return Err(Refusal::LastNode { node });
        }
        match self.all_topics().find(|topic| topic.replication as usize > nodes) {
            None => Ok(()),
            Some(topic) => Err(Refusal::NodeNeeded {
                node,
                tenant: topic.tenant.clone(),
                name: topic.name.clone(),
                replication: topic.replication,
                nodes,
            }),
        }
    }

    pub(crate) fn drain(&mut self, index: u64, name: &str, drained: bool) -> Result<Reply, Refusal> {
        let node = self.known_node(name)?;
        if node.removed {
            return Err(Refusal::NodeRemoved { node: name.to_string() });
        }
        if node.drained != drained {
            self.change_node(index, name, |node| node.drained = drained);
        }
        Ok(Reply::Done)
    }

    pub(crate) fn remove_node(&mut self, index: u64, name: &str) -> Result<Reply, Refusal> {
        let known = self.known_node(name)?;
        if known.removed {
            return Ok(Reply::Done);
        }
        let node = name.to_string();
        if !known.leaving {
            return Err(Refusal::NodeNotLeaving { node });
        }
        let LeftOn { placed, replaced } = self.left_on(name);
        if placed + replaced > 0 {
            return Err(Refusal::NodeInUse { node, placed, replaced });
        }
        self.change_node(index, name, |node| {
            node.removed = true;
            node.drained = false;
        });
        Ok(Reply::Done)
    }

    /// A node by the name in a command.
    pub(crate) fn known_node(&self, name: &str) -> Result<&Node, Refusal> {
        self.cluster()?;
        names::validate("node", name)?;
        let node = self.state.nodes.get(name);
        node.ok_or_else(|| Refusal::NodeNotFound { node: name.to_string() })
    }

    /// Changes a node that is known, and differs then.
    fn change_node(&mut self, index: u64, name: &str, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.state.nodes.get_mut(name) {
            change(node);
            self.state.revision = index;
        }
    }
}

/// The past lives of a node that goes on as `next`, or with another catalog replica if that is what it is already.
fn past_lives_before(next: &Incarnation, node: &Node) -> Vec<PastLife> {
    let latest = PastLife {
        incarnation: node.incarnation,
        catalog_replica_id: node.catalog_replica_id,
    };
    let mut lives: Vec<PastLife> = node.past_lives.iter().cloned().chain([latest]).collect();
    if lives.len() > NODE_PAST_LIVES_MAX {
        // The first catalog replica of this life tells which replicas are of this life: it stays.
        let other = lives.iter().position(|life| life.incarnation != *next);
        lives.remove(other.unwrap_or(1));
    }
    lives
}
