//! A replica begins empty once.
//!
//! What it promises from its first vote on is on this disk alone. So a data directory that does not hold a replica must
//! not make it if it has ever run: the directory may be an old copy, from before the replica was placed here. The catalog
//! knows, because it is told before a replica first runs:
//!
//! 1. what the catalog says is made certain, for what is known here may be as old as the directory;
//! 2. a replica that the catalog calls started, and that is not here, is dead and gets replaced;
//! 3. the others are made, recorded here as started, and reported as started;
//! 4. only then do they run, if they have their places still: a recovery may have given them up meanwhile.
//!
//! A crash between 3 and 4 leaves replicas that are recorded as started here; they are opened as any other, once they are
//! reported. Before the catalog has a quorum nothing new begins.
//!
//! A replica that *continues* a former one (see `recoveries`) does not begin empty, but it does begin once, by the same steps.
//!
//! The catalog's own replica begins by the same rule, but its node asks for it in another way (`founding`).

use std::sync::Arc;

use highwater_catalog::limits::STARTED_REPLICAS_MAX;
use highwater_catalog::{Command, Placement, Reply, StartedReplica};
use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use tokio::time::{Instant, sleep};

use crate::catalog::{CatalogClient, CatalogHost};
use crate::controller::{COMMAND_TIMEOUT, RETRY_PAUSE};
use crate::dead_replicas::DeadReplicas;
use crate::replicas::{Keeper, Prepared, ReplicaError, Successor};

/// Has replicas run for the first time; cheap to clone.
#[derive(Clone)]
pub(crate) struct FirstStart {
    /// This node's name.
    pub(crate) node: String,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) host: Arc<CatalogHost>,
    pub(crate) client: CatalogClient,
    pub(crate) dead: DeadReplicas,
}

impl FirstStart {
    /// Waits until everything that was committed by now is known here. Whoever follows the catalog from behind, after its
    /// replica was lost or put back, sees replicas placed that have run and been replaced long ago.
    pub(crate) async fn be_certain(&self) {
        while !self.client.catch_up(Instant::now() + COMMAND_TIMEOUT).await {
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Makes and runs replicas that are placed here and not recorded as started. Both must have been looked up after
    /// [`FirstStart::be_certain`].
    pub(crate) async fn make(&self, cluster: ClusterId, placed: Vec<Placement>) -> Result<(), ReplicaError> {
        let (started, new): (Vec<_>, Vec<_>) = placed.into_iter().partition(|placed| placed.started);
        for Placement {
            group_id, replica_id, ..
        } in started
        {
            tracing::error!(
                group = group_id,
                replica = replica_id,
                "a replica that has run is not in the data directory, which is an old copy; it is replaced"
            );
            self.dead.note((GroupId(group_id), ReplicaId(replica_id))).await;
        }
        let (successors, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|placed| placed.continues.is_some());
        let id = |placed: &Placement| (GroupId(placed.group_id), ReplicaId(placed.replica_id));
        let prepared = self.keeper.prepare(cluster, new.iter().map(id).collect()).await?;
        let mut all = self.begin(prepared).await;
        for placed in successors {
            let continued = self.continue_former(cluster, &placed).await;
            all = all.and(continued);
        }
        all
    }

    async fn begin(&self, mut prepared: Prepared) -> Result<(), ReplicaError> {
        let placed = self.report(&prepared.replicas()).await;
        prepared.retain(&placed);
        self.keeper.run(prepared).await
    }

    /// Has a replica go on with the log of a former one.
    async fn continue_former(&self, cluster: ClusterId, placed: &Placement) -> Result<(), ReplicaError> {
        let Some(former) = placed.continues else { return Ok(()) };
        let successor = Successor {
            group: GroupId(placed.group_id),
            former: ReplicaId(former),
            replica: ReplicaId(placed.replica_id),
            node: self.node.clone(),
        };
        match self.keeper.take_over(cluster, &successor).await {
            Ok(prepared) => self.begin(prepared).await,
            Err(error) => {
                if error.is_dead {
                    self.dead.note((successor.group, successor.replica)).await;
                }
                Err(error)
            }
        }
    }

    /// Whether the catalog, as it is known here, places a replica and knows nothing of it having run.
    pub(crate) fn is_unreported(&self, (group, replica): (GroupId, ReplicaId)) -> bool {
        let is_started = self.host.read(|catalog| catalog.is_started(group.0, replica.0));
        is_started == Some(false)
    }

    /// Tells the catalog that these replicas are about to run, as often as it takes; answers which of them have their places
    /// still as that is decided. The others must not run.
    pub(crate) async fn report(&self, replicas: &[(GroupId, ReplicaId)]) -> Vec<(GroupId, ReplicaId)> {
        for some in replicas.chunks(STARTED_REPLICAS_MAX) {
            let started = |&(GroupId(group_id), ReplicaId(replica_id)): &_| StartedReplica { group_id, replica_id };
            let command = Command::ReportStarted {
                replicas: some.iter().map(started).collect(),
            };
            loop {
                match self.client.command(&command, Instant::now() + COMMAND_TIMEOUT).await {
                    Ok(Reply::Done) => break,
                    other => tracing::debug!(?other, "new replicas are not reported yet"),
                }
                sleep(RETRY_PAUSE).await;
            }
        }
        let mut progress = self.host.progress();
        // It ends with the node.
        let _ = progress
            .wait_for(|_| !replicas.iter().any(|replica| self.is_unreported(*replica)))
            .await;
        let is_placed = |(group, replica): &&(GroupId, ReplicaId)| {
            self.host.read(|catalog| catalog.is_started(group.0, replica.0)) == Some(true)
        };
        replicas.iter().filter(is_placed).copied().collect()
    }
}
