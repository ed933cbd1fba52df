//! A partition whose majority is gone for good goes on from one replica, by an operator's word.
//!
//! The survivor keeps its id. Everybody else who ever had a vote is declared dead here, before the survivor is made the only
//! member of its group: a vote of theirs must never count again, and a node that comes back must not open what it still
//! holds. Their places go to new ids on the same nodes, which learn from the survivor like any others; where such a node is
//! gone as well, the planner moves the place on.
//!
//! Deliberately absent: whether the majority is really gone. That is for those who ask, who can see the nodes.

use crate::catalog::Catalog;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::model::{Partition, Replica};
use crate::reply::{Refusal, Reply};

impl Catalog {
    /// May be repeated until the survivor leads: a place whose replica has not run yet keeps it.
    pub(crate) fn recover_partition(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?.clone();
        let survivor = partition.replicas.iter().find(|it| it.replica_id == replica_id);
        let survivor = survivor.ok_or(Refusal::ReplicaNotFound { group_id, replica_id })?;
        if self.is_dead(survivor) {
            return Err(Refusal::ReplicaDead { group_id, replica_id });
        }
        let is_given_up = |it: &Replica| it.replica_id != replica_id && (it.started || self.is_dead(it));
        let given_up: Vec<bool> = partition.replicas.iter().map(is_given_up).collect();
        let count = given_up.iter().filter(|is_given_up| **is_given_up).count();
        if partition.replaced.len() + count > REPLACED_REPLICAS_MAX {
            let limit = REPLACED_REPLICAS_MAX;
            return Err(Refusal::TooManyReplaced { group_id, limit });
        }
        let mut recovered = partition.clone();
        for (place, is_given_up) in recovered.replicas.iter_mut().zip(given_up) {
            if is_given_up {
                let new = Replica::new(self.next_replica_id(), place.node.clone());
                recovered.replaced.push(std::mem::replace(place, new));
            }
        }
        declare_dead(&mut recovered);
        recovered.changed = true;
        if recovered != partition {
            *self.group(group_id, replica_id)? = recovered;
            self.state.revision = index;
        }
        Ok(Reply::Done)
    }
}

fn declare_dead(partition: &mut Partition) {
    let former = partition.replaced.iter_mut();
    former.for_each(|replica| replica.reported_dead = true);
}
