//! Stopping a replica and opening it again in place, to run with other timers: a Raft core keeps those it was started with.
//!
//! To its group this is a follower that was away for a moment: the log is closed in order and opened from the disk, what the
//! others remember is asked as at any start, and it goes on under the same id. Who was reading here is sent to another
//! replica, and what was proposed here gets the answers that a stop gives. A leader should have handed over before.
//!
//! Invariant: between the two lives peers find the replica announced, so that their questions wait for it or are answered by
//! `Unstarted`.

use highwater_partition::log::{GroupId, ReplicaId};
use highwater_partition::{Member, Status, Unstarted};

use super::keeper::error;
use super::{Hosted, Keeper, ReplicaError};
use crate::data_dir::ReplicaRecord;
use crate::error::Failure;

impl Keeper {
    /// Restarts this node's replica of the group with the timers that are in force ([`Keeper::set_timers`]). Nothing happens
    /// if it has them already, or if there is none. A replica that does not come back is reported as the node's failure, as
    /// one that ended unasked, unless it is dead, which the caller must tell the catalog.
    pub(crate) async fn restart(&self, group: GroupId) -> Result<(), ReplicaError> {
        let Some(running) = self.options.registry.hosted(group) else {
            return Ok(());
        };
        if running.timers() == self.timers(group) {
            return Ok(());
        }
        let replica = running.replica_id;
        let path = self.options.data.replica_path(group, replica);
        let Some(cluster) = self.options.data.cluster_id() else {
            return Err(error(group, path, "the cluster is not known"));
        };
        let Some(record) = self.record(group, replica) else {
            return Err(error(group, path, "it is not recorded"));
        };
        let others = others(&running.status(), replica);
        let unstarted = Unstarted::new(replica);
        let _announced = self.options.registry.announce(group, unstarted);
        let Some(suspended) = self.options.registry.suspend(group, replica) else {
            return Ok(()); // removed meanwhile
        };
        let stopped = suspended.partition().shutdown().await;
        let reopened = match stopped {
            Ok(()) => {
                let hosted = |_, _, partition| Hosted::reopened(&suspended, partition);
                self.open_as(cluster, record, others, hosted).await
            }
            Err(why) => Err(error(group, path, why)),
        };
        if let Err(lost) = &reopened
            && !lost.is_dead
        {
            let why = format!("it did not come back from a restart: {}", lost.why);
            self.options.failures.report(Failure::Replica { group: group.0, why });
        }
        reopened
    }

    fn record(&self, group: GroupId, replica: ReplicaId) -> Option<ReplicaRecord> {
        let records = self.options.data.replicas();
        records.into_iter().find(|record| record.id() == (group, replica))
    }
}

fn others(status: &Status, own: ReplicaId) -> Vec<Member> {
    let members = status.voters.iter().chain(&status.learners);
    members.filter(|member| member.replica_id != own).cloned().collect()
}
