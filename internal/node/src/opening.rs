//! Opening the replicas that are recorded here, once the port is served.
//!
//! An opening may need other nodes: for entries that this disk has lost, and always for what they remember of this
//! replica's promises. They may be starting as well and ask this node in turn, so the port and the link come first and
//! the replicas behind them: first the catalog's, for it names the other members, then all others, a few at a time.
//! Whoever asks for a replica that is still being opened gets what can be told without it running (`Unstarted`).
//!
//! Once they are opened it is waited for what they have missed (`replicas::CatchingUp`).
//!
//! A replica that is recorded as started, but was never reported so to the catalog, is reported before it runs (`first_start`).
//!
//! * Without its catalog replica the node is nothing: if it cannot be opened, the node ends. If it is *dead*, the node
//!   asks for another one (see `founding`).
//! * A partition's replica that cannot be opened is tried again now and then; meanwhile the others are served, and the node is
//!   not ready. A dead one is reported to the catalog, which has it replaced.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use highwater_partition::Member;
use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::catalog::{CatalogHost, member};
use crate::data_dir::{DataDir, ReplicaRecord, Stage};
use crate::dead_replicas::DeadReplicas;
use crate::first_start::FirstStart;
use crate::replicas::{CATALOG_GROUP, CatchingUp, Keeper, ReplicaError};

/// Replicas that are opened at the same time. While a member is down each takes the seconds for which it is asked what it
/// remembers, and there may be a thousand.
const OPENINGS_AT_ONCE: usize = 128;

/// The pause before a replica is tried again that did not open; it doubles each time.
const RETRY_PAUSE_LEAST: Duration = Duration::from_secs(1);
/// The longest.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Opens what is recorded.
pub(crate) struct Opening {
    data: Arc<DataDir>,
    keeper: Arc<Keeper>,
    host: Arc<CatalogHost>,
    first_start: FirstStart,
    dead: DeadReplicas,
    /// Replicas that are not opened yet.
    waiting: watch::Sender<usize>,
    catching_up: CatchingUp,
}

impl Opening {
    pub(crate) fn new(
        data: Arc<DataDir>,
        first_start: FirstStart,
        catching_up: impl FnOnce(usize) -> CatchingUp,
    ) -> Opening {
        let recorded = match data.cluster_id() {
            Some(_) => data.replicas(),
            None => Vec::new(),
        };
        let partitions = recorded.iter().filter(|record| record.group_id() != CATALOG_GROUP);
        Opening {
            data,
            keeper: first_start.keeper.clone(),
            host: first_start.host.clone(),
            dead: first_start.dead.clone(),
            first_start,
            waiting: watch::Sender::new(recorded.len()),
            catching_up: catching_up(partitions.count()),
        }
    }

    /// How many replicas are still to be opened.
    pub(crate) fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    /// How many of the partitions' replicas have not caught up yet.
    pub(crate) fn behind(&self) -> watch::Receiver<usize> {
        self.catching_up.behind()
    }

    /// Opens the catalog's replica, if there is one; answers which it is if it can never run again.
    pub(crate) async fn catalog(&self) -> Result<Option<ReplicaId>, ReplicaError> {
        let Some(cluster_id) = self.data.cluster_id() else {
            return Ok(None);
        };
        let of_catalog = |record: &ReplicaRecord| record.group_id() == CATALOG_GROUP;
        let mut records: Vec<ReplicaRecord> = self.data.replicas().into_iter().filter(of_catalog).collect();
        let Some(newest) = records.pop() else {
            return Ok(None);
        };
        for replaced in records {
            // A newer one was made only after the catalog had given this node's place to it.
            self.keeper.remove(CATALOG_GROUP, replaced.replica_id()).await?;
            self.count_down();
        }
        if newest.stage != Stage::Started {
            // One that was not made to the end is made, or given up, by who looks for the cluster.
            self.count_down();
            return Ok((newest.stage == Stage::Dead).then(|| newest.replica_id()));
        }
        let planned = self.planned_members(newest.replica_id());
        let opened = self.keeper.open(cluster_id, newest, planned).await;
        self.count_down();
        match opened {
            Err(error) if error.is_dead => {
                tracing::error!(%error, "this node's catalog replica is lost; it asks for another one");
                self.dead.record(newest.id()).await;
                Ok(Some(newest.replica_id()))
            }
            opened => opened.map(|()| None),
        }
    }

    /// Opens all partitions' replicas, and waits until they have caught up. Those that the catalog must first be told of come last: that may take long.
    pub(crate) async fn partitions(self) {
        let Some(cluster_id) = self.data.cluster_id() else {
            return;
        };
        let mut records = self.data.replicas();
        records.retain(|record| record.group_id() != CATALOG_GROUP);
        records.sort_by_key(|record| self.first_start.is_unreported(record.id()));
        let groups: Vec<GroupId> = records.iter().map(ReplicaRecord::group_id).collect();
        let opening = futures::stream::iter(records).for_each_concurrent(OPENINGS_AT_ONCE, |record| {
            let this = &self;
            async move {
                this.partition(cluster_id, record).await;
                this.count_down();
            }
        });
        opening.await;
        self.catching_up.run(groups).await;
    }

    /// Returns when it runs, or will not: nobody wants it any more, or it is dead. What failed otherwise is tried again, for
    /// the cause may go (a file that may not be read, too many that are open), and the node is not ready until then.
    async fn partition(&self, cluster_id: ClusterId, record: ReplicaRecord) {
        let mut pause = RETRY_PAUSE_LEAST;
        while self.is_wanted(record).await {
            let opened = tokio::select! {
                biased;
                opened = self.keeper.open(cluster_id, record, self.members_of(record)) => opened,
                // What is missing may be nowhere any more, and the opening would wait for ever.
                () = self.is_given_up(record) => continue,
            };
            match opened {
                Ok(()) => return,
                Err(error) if error.is_dead => {
                    tracing::error!(%error, "a replica is lost, and is replaced; the others are served");
                    return self.dead.note(record.id()).await;
                }
                Err(error) => {
                    tracing::error!(%error, "a replica does not open; it is tried again, and the others are served")
                }
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.is_given_up(record) => {}
            }
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
        }
    }

    /// Whether it is to be opened, as far as is known here. The catalog is told first of one that it does not know as started.
    async fn is_wanted(&self, record: ReplicaRecord) -> bool {
        if record.stage == Stage::Preparing || self.may_go(record) {
            return false; // it is made to the end, or its files are removed, by who keeps the replicas as the catalog wants them
        }
        if record.stage == Stage::Dead {
            self.dead.report(record.id());
            return false;
        }
        if self.first_start.is_unreported(record.id()) {
            self.first_start.report(&[record.id()]).await;
        }
        if self.was_given_up(record) {
            self.dead.note(record.id()).await;
            return false;
        }
        true
    }

    fn may_go(&self, record: ReplicaRecord) -> bool {
        self.host
            .read(|catalog| catalog.may_be_removed(record.group, record.replica))
    }

    /// Waits until nobody wants the replica any more.
    async fn is_given_up(&self, record: ReplicaRecord) {
        let mut progress = self.host.progress();
        // It ends with the node.
        let _ = progress
            .wait_for(|_| self.may_go(record) || self.was_given_up(record))
            .await;
    }

    /// Whether the catalog has given this replica's place to another one because it was dead. One that is alive votes until its
    /// group lets go of it.
    fn was_given_up(&self, record: ReplicaRecord) -> bool {
        self.host.read(|catalog| {
            let partition = catalog.partition_of_group(record.group).map(|(_, partition)| partition);
            partition.is_some_and(|partition| {
                let mut replaced = partition.replaced.iter();
                replaced.any(|replica| replica.replica_id == record.replica && catalog.is_dead(replica))
            })
        })
    }

    /// The other members of the catalog when it was founded, as far as this node was one of them. Its log knows the
    /// present ones, but may be damaged.
    fn planned_members(&self, own: ReplicaId) -> Vec<Member> {
        let plan = self.data.plan();
        let members = plan.iter().flat_map(|plan| &plan.members).map(|member| Member {
            replica_id: ReplicaId(member.replica_id),
            node: member.name.clone(),
        });
        members.filter(|member| member.replica_id != own).collect()
    }

    /// The other members of a partition's group, as the catalog wants them or wanted them before.
    fn members_of(&self, record: ReplicaRecord) -> Vec<Member> {
        self.host.read(|catalog| {
            let partition = catalog.partition_of_group(record.group).map(|(_, partition)| partition);
            let replicas = partition
                .into_iter()
                .flat_map(|partition| partition.replicas.iter().chain(&partition.replaced));
            let others = replicas.filter(|replica| replica.replica_id != record.replica);
            others.map(member).collect()
        })
    }

    fn count_down(&self) {
        self.waiting.send_modify(|waiting| *waiting = waiting.saturating_sub(1));
    }
}
