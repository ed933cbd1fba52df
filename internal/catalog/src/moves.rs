//! Replicas that move to other nodes, and preferred leaders.
//!
//! A move gives a replica's place to a new id on another node. The old one keeps its data and its vote until the group's
//! leader has brought the new one up to date and has swapped the two; then it is retired like a dead one.
//!
//! Deliberately absent: which replicas should move (`planning`), and whether a group can follow.

use crate::catalog::Catalog;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::model::{Partition, Replica};
use crate::reply::{Refusal, Reply};

impl Partition {
    /// Whether a node holds a replica of the group, or a former one that the group has not let go of.
    pub(crate) fn is_held_by(&self, node: &str) -> bool {
        self.replicas
            .iter()
            .chain(&self.replaced)
            .any(|replica| replica.node == node)
    }

    fn place_of(&self, replica_id: u64) -> Option<usize> {
        self.replicas
            .iter()
            .position(|replica| replica.replica_id == replica_id)
    }
}

impl Catalog {
    pub(crate) fn move_replica(
        &mut self,
        index: u64,
        group_id: u64,
        replica_id: u64,
        to: &str,
    ) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?;
        let Some(at) = partition.place_of(replica_id) else {
            return self.done_before(group_id, replica_id);
        };
        let waiting = partition.replaced.len();
        let is_held = partition.is_held_by(to);
        let target = self.known_node(to)?;
        let node = to.to_string();
        if target.removed {
            return Err(Refusal::NodeRemoved { node });
        }
        if target.leaving {
            return Err(Refusal::NodeLeaving { node });
        }
        if is_held {
            return Err(Refusal::ReplicaHeld { group_id, node });
        }
        if waiting >= REPLACED_REPLICAS_MAX {
            let limit = REPLACED_REPLICAS_MAX;
            return Err(Refusal::TooManyReplaced { group_id, limit });
        }
        let new = Replica::new(self.next_replica_id(), node);
        let partition = self.group(group_id, replica_id)?;
        let old = std::mem::replace(&mut partition.replicas[at], new);
        let from = old.node.clone();
        partition.replaced.push(old);
        partition.changed = true;
        self.index.move_replica(&from, to, at == 0);
        self.state.revision = index;
        Ok(Reply::Done)
    }

    pub(crate) fn prefer_leader(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?;
        let at = partition.place_of(replica_id);
        let at = at.ok_or(Refusal::ReplicaNotFound { group_id, replica_id })?;
        if at > 0 {
            let from = partition.replicas[0].node.clone();
            let to = partition.replicas[at].node.clone();
            partition.replicas[..=at].rotate_right(1);
            self.index.move_leader(&from, &to);
            self.state.revision = index;
        }
        Ok(Reply::Done)
    }
}
