//! A partition whose majority is gone for good goes on from one replica, by an operator's word.
//!
//! Everybody who ever had a vote or may still get one is declared dead, the survivor's old id among them: a vote of theirs must
//! never count again, a node that comes back must not open what it still holds, and what they say to the survivor under the id
//! that they know must not reach it. That goes for replicas that have not run yet, too: they may be voters from the group's first
//! members on, or continue another survivor by an earlier recovery. The survivor's place goes to a new id on its node, which *continues* it: with its log, and as the
//! only member. The other places go to new ids on the same nodes, which learn from that one like any others; where such a
//! node is gone as well, the planner moves the place on.
//!
//! Deliberately absent: whether the majority is really gone. That is for those who ask, who can see the nodes.

use crate::catalog::Catalog;
use crate::limits::REPLACED_REPLICAS_MAX;
use crate::model::{Partition, Replica};
use crate::reply::{Refusal, Reply};

impl Catalog {
    /// Done if it is done already: a place continues that replica, or it is the one that continues another and has not run yet.
    pub(crate) fn recover_partition(&mut self, index: u64, group_id: u64, replica_id: u64) -> Result<Reply, Refusal> {
        let partition = self.group(group_id, replica_id)?.clone();
        let survivor = partition.replicas.iter().find(|it| it.replica_id == replica_id);
        let Some(survivor) = survivor else {
            let mut places = partition.replicas.iter();
            return match places.any(|it| it.continues == Some(replica_id)) {
                true => Ok(Reply::Done),
                false => Err(Refusal::ReplicaNotFound { group_id, replica_id }),
            };
        };
        if self.is_dead(survivor) {
            return Err(Refusal::ReplicaDead { group_id, replica_id });
        }
        if survivor.continues.is_some() && !survivor.started {
            return Ok(Reply::Done);
        }
        if partition.replaced.len() + partition.replicas.len() > REPLACED_REPLICAS_MAX {
            let limit = REPLACED_REPLICAS_MAX;
            return Err(Refusal::TooManyReplaced { group_id, limit });
        }
        let mut recovered = partition;
        for place in &mut recovered.replicas {
            let new = Replica {
                continues: (place.replica_id == replica_id).then_some(replica_id),
                ..Replica::new(self.next_replica_id(), place.node.clone())
            };
            recovered.replaced.push(std::mem::replace(place, new));
        }
        declare_dead(&mut recovered);
        recovered.changed = true;
        *self.group(group_id, replica_id)? = recovered;
        self.state.revision = index;
        Ok(Reply::Done)
    }
}

fn declare_dead(partition: &mut Partition) {
    let former = partition.replaced.iter_mut();
    former.for_each(|replica| replica.reported_dead = true);
}
