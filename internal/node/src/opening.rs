//! Opening the replicas that are recorded here, once the port is served.
//!
//! An opening may need other nodes: for entries that this disk has lost, and always for what they remember of this
//! replica's promises. They may be starting as well and ask this node in turn, so the port and the link come first and
//! the replicas behind them: first the catalog's, for it names the other members, then all others, a few at a time.
//! A peer that asks for a replica that is still being opened is refused, and comes again.
//!
//! * Without its catalog replica the node is nothing: if it cannot be opened, the node ends. If it is *dead*, the node
//!   asks for another one (see `founding`).
//! * A partition's replica that cannot be opened is left alone, and the others are served. A dead one is reported to the
//!   catalog, which has it replaced.

use std::sync::Arc;

use futures::StreamExt;
use highwater_catalog::Replica;
use highwater_partition::Member;
use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use tokio::sync::{mpsc, watch};

use crate::catalog::CatalogHost;
use crate::data_dir::{DataDir, ReplicaRecord, Stage};
use crate::replicas::{CATALOG_GROUP, Keeper, ReplicaError};

/// Replicas that are opened at the same time.
const OPENINGS_AT_ONCE: usize = 16;

/// A replica that can never run again.
pub(crate) type Dead = (GroupId, ReplicaId);

/// Opens what is recorded.
pub(crate) struct Opening {
    data: Arc<DataDir>,
    keeper: Arc<Keeper>,
    host: Arc<CatalogHost>,
    /// Replicas that are not opened yet.
    waiting: Arc<watch::Sender<usize>>,
}

impl Opening {
    pub(crate) fn new(data: Arc<DataDir>, keeper: Arc<Keeper>, host: Arc<CatalogHost>) -> Opening {
        let waiting = match data.cluster_id() {
            Some(_) => data.replicas().len(),
            None => 0,
        };
        Opening {
            data,
            keeper,
            host,
            waiting: Arc::new(watch::Sender::new(waiting)),
        }
    }

    /// How many replicas are still to be opened.
    pub(crate) fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
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
        if newest.stage == Stage::Dead {
            self.count_down();
            return Ok(Some(newest.replica_id()));
        }
        let planned = self.planned_members(newest.replica_id());
        let opened = self.keeper.open(cluster_id, newest, planned).await;
        self.count_down();
        match opened {
            Err(error) if error.is_dead => {
                tracing::error!(%error, "this node's catalog replica is lost; it asks for another one");
                self.note_dead(newest).await;
                Ok(Some(newest.replica_id()))
            }
            opened => opened.map(|()| None),
        }
    }

    /// Opens all partitions' replicas; `dead` takes those that can never run again.
    pub(crate) async fn partitions(self, dead: mpsc::UnboundedSender<Dead>) {
        let Some(cluster_id) = self.data.cluster_id() else {
            return;
        };
        let records = self.data.replicas();
        let records = records.iter().filter(|record| record.group_id() != CATALOG_GROUP);
        let opening = futures::stream::iter(records).for_each_concurrent(OPENINGS_AT_ONCE, |record| {
            let dead = dead.clone();
            let this = &self;
            async move {
                this.partition(cluster_id, *record, &dead).await;
                this.count_down();
            }
        });
        opening.await;
    }

    async fn partition(&self, cluster_id: ClusterId, record: ReplicaRecord, dead: &mpsc::UnboundedSender<Dead>) {
        let may_go = |catalog: &highwater_catalog::Catalog| {
            catalog.is_deleted(record.group) || catalog.is_retired(record.replica)
        };
        if record.stage == Stage::Preparing || self.host.read(may_go) {
            return; // it is made to the end, or its files are removed, by who keeps the replicas as the catalog wants them
        }
        if record.stage == Stage::Dead || self.is_replaced(record) {
            // Who listens ends with the node.
            let _ = dead.send((record.group_id(), record.replica_id()));
            return;
        }
        let others = self.members_of(record);
        if let Err(error) = self.keeper.open(cluster_id, record, others).await {
            tracing::error!(%error, "a replica is lost; the others are served");
            if error.is_dead {
                self.note_dead(record).await;
                // Who listens ends with the node.
                let _ = dead.send((record.group_id(), record.replica_id()));
            }
        }
    }

    /// Whether the catalog has given this replica's place to another one.
    fn is_replaced(&self, record: ReplicaRecord) -> bool {
        self.host.read(|catalog| {
            let partition = catalog.partition_of_group(record.group).map(|(_, partition)| partition);
            partition.is_some_and(|partition| {
                let mut replaced = partition.replaced.iter();
                replaced.any(|replica| replica.replica_id == record.replica)
            })
        })
    }

    /// Durable before anybody is told. If that fails, the replica is found dead once more, or not at all, at the next start.
    async fn note_dead(&self, record: ReplicaRecord) {
        let data = self.data.clone();
        let recorded = move || data.record_dead(record.group_id(), record.replica_id());
        match tokio::task::spawn_blocking(recorded).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "that a replica is dead cannot be recorded"),
            Err(error) => tracing::debug!(%error, "the runtime ends"),
        }
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
        let member = |replica: &Replica| Member {
            replica_id: ReplicaId(replica.replica_id),
            node: replica.node.clone(),
        };
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
