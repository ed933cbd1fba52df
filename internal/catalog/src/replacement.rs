//! Replicas that begin, dead replicas, and those that take their place.
//!
//! A replica begins empty once. That it is about to is decided here before it runs; so if it is to be made although it
//! has been started before, the data directory is a copy from before, and the replica is dead.
//!
//! A replica id that has lost its vote or its log's end must never run again, so its place in the partition goes to a
//! new id on the same node. Three steps, each a command that may be repeated: its node reports it dead (or registers
//! with a new incarnation, which says the same of all it held); the leader of its group has it replaced; and once the
//! group's membership holds it no longer, it is retired. Only then may its data be deleted.
//!
//! Elsewhere: moving a replica, alive or not, to another node (`moves`).

use crate::catalog::Catalog;
use crate::checks;
use crate::command::StartedReplica;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::model::{Partition, Replica};
use crate::reply::{Refusal, Reply};

impl Catalog {
    pub(crate) fn report_started(&mut self, index: u64, started: &[StartedReplica]) -> Result<Reply, Refusal> {
        self.cluster()?;
        checks::started_replicas(started)?;
        for StartedReplica { group_id, replica_id } in started {
            let Ok(partition) = self.group(*group_id, *replica_id) else {
                continue; // deleted meanwhile
            };
            if let Some(replica) = find(&mut partition.replicas, *replica_id).filter(|replica| !replica.started) {
                replica.started = true;
                self.state.revision = index;
            }
        }
        Ok(Reply::Done)
    }

    pub(crate) fn report_dead(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?;
        let Some(replica) = find(&mut partition.replicas, replica_id) else {
            return self.done_before(group_id, replica_id);
        };
        if !replica.reported_dead {
            replica.reported_dead = true;
            self.state.revision = index;
        }
        Ok(Reply::Done)
    }

    pub(crate) fn replace(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?;
        let waiting = partition.replaced.len();
        let Some(dead) = find(&mut partition.replicas, replica_id).cloned() else {
            return self.done_before(group_id, replica_id);
        };
        if !self.is_dead(&dead) {
            return Err(Refusal::ReplicaAlive { group_id, replica_id });
        }
        if !self.known_node(&dead.node)?.is_placeable() {
            return Err(Refusal::NodeLeaving { node: dead.node });
        }
        if waiting >= REPLACED_REPLICAS_MAX {
            let limit = REPLACED_REPLICAS_MAX;
            return Err(Refusal::TooManyReplaced { group_id, limit });
        }
        let new = Replica::new(self.next_replica_id(), dead.node.clone());
        let partition = self.group(group_id, replica_id)?;
        if let Some(place) = find(&mut partition.replicas, replica_id) {
            *place = new;
        }
        partition.replaced.push(dead);
        partition.changed = true;
        self.state.revision = index;
        Ok(Reply::Done)
    }

    pub(crate) fn retire(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?;
        let before = partition.replaced.len();
        partition.replaced.retain(|replica| replica.replica_id != replica_id);
        if partition.replaced.len() == before {
            return match find(&mut partition.replicas, replica_id) {
                Some(_) => Err(Refusal::ReplicaAlive { group_id, replica_id }),
                None => self.done_before(group_id, replica_id),
            };
        }
        self.state.retired_replicas.insert(replica_id);
        self.state.revision = index;
        Ok(Reply::Done)
    }

    /// The partition that a group keeps. Whoever changes its placement on nodes changes the index, too.
    pub(crate) fn group(&mut self, group_id: u64, replica_id: u64) -> Result<&mut Partition, Refusal> {
        self.cluster()?;
        let place = self.index.groups.get(&group_id).copied();
        let found = place.and_then(|(topic_id, partition)| {
            let topic = self.state.topics.get_mut(&topic_id)?;
            topic.partitions.get_mut(partition as usize)
        });
        found.ok_or(Refusal::ReplicaNotFound { group_id, replica_id })
    }

    /// The answer about a replica that the partition holds no longer.
    pub(crate) fn done_before(&mut self, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let is_retired = self.is_retired(replica_id);
        let partition = self.group(group_id, replica_id)?;
        match is_retired || find(&mut partition.replaced, replica_id).is_some() {
            true => Ok(Reply::Done),
            false => Err(Refusal::ReplicaNotFound { group_id, replica_id }),
        }
    }
}

pub(crate) fn find(replicas: &mut [Replica], replica_id: u64) -> Option<&mut Replica> {
    replicas.iter_mut().find(|replica| replica.replica_id == replica_id)
}
