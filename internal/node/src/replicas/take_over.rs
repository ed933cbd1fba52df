//! A replica that goes on with the log of a former one on the same node, as the only member of its group.
//!
//! That is how a partition is recovered whose majority is gone (`recoveries`): the catalog gives the survivor's place to a new
//! id, so that nothing that the former members still say can reach it. Three things change, each certain before the next: the
//! directory gets the new id's name, its hard state says whose it is, and behind its end stands an entry that makes the new id
//! the only member. Whatever interrupts that, it is done again from where it is; only afterwards is the new id recorded as
//! started.

use std::path::PathBuf;

use highwater_partition::log::{ClusterId, GroupId, Log, ReplicaId, take_over};
use highwater_partition::{Member, become_only_member};

use super::keeper::{Prepared, blocking, error};
use super::{Keeper, ReplicaError};

/// Who takes over whose log.
#[derive(Debug, Clone)]
pub(crate) struct Successor {
    pub(crate) group: GroupId,
    pub(crate) former: ReplicaId,
    pub(crate) replica: ReplicaId,
    /// The node, as the membership names it.
    pub(crate) node: String,
}

impl Keeper {
    /// Ends the former replica and prepares the one that continues it. It is dead if neither's log is here.
    pub(crate) async fn take_over(&self, cluster: ClusterId, successor: &Successor) -> Result<Prepared, ReplicaError> {
        let Successor {
            group,
            former,
            replica,
            node,
        } = successor.clone();
        self.end(group, former).await?;
        let path = self.options.data.replica_path(group, replica);
        let (data, storage, log_path) = (self.options.data.clone(), self.options.storage.clone(), path.clone());
        let opened = blocking(move || {
            let failed = |why: &dyn std::fmt::Display| error(group, log_path.clone(), why.to_string());
            if !data.hand_on(group, former, replica).map_err(|why| failed(&why))? {
                return Err(ReplicaError {
                    is_dead: true,
                    ..failed(&"the log that it is to go on with is not here")
                });
            }
            let open = || storage.open_log(log_path.clone(), cluster, group, replica);
            take_over(&open(), former).map_err(|why| failed(&why))?;
            Log::open(open()).map_err(|why| failed(&why))
        });
        let log = opened.await?;
        let member = Member {
            replica_id: replica,
            node,
        };
        let alone = become_only_member(&log, &member).await;
        alone.map_err(|why| error(group, path.clone(), why))?;
        tracing::warn!(
            target: "audit",
            group = group.0,
            replica = replica.0,
            former = former.0,
            "a replica goes on with the log of a former one, as the only member of its group"
        );
        self.record_taken_over(group, replica, path).await?;
        Ok(Prepared {
            logs: vec![(group, replica, log)],
            failed: None,
        })
    }

    async fn record_taken_over(&self, group: GroupId, replica: ReplicaId, path: PathBuf) -> Result<(), ReplicaError> {
        let data = self.options.data.clone();
        blocking(move || {
            let recorded = data.record_started(&[(group, replica)]);
            recorded.map_err(|why| error(group, path, why))
        })
        .await
    }
}
