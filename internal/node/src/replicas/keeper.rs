//! Makes, opens and removes replicas.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use highwater_partition::log::{ClusterId, GroupId, Log, ReplicaId};
use highwater_partition::{GroupOptions, Machine, Member, Partition, Role, Timers, Unstarted};
use tokio::time::timeout;

use super::registry::CATALOG_GROUP;
use super::{Hosted, Registry};
use crate::catalog::CatalogHost;
use crate::data_dir::{DataDir, DataDirError, ReplicaRecord, Stage};
use crate::error::Failure;
use crate::failures::Failures;
use crate::link::Link;
use crate::storage::Storage;

/// Why a replica could not be made, opened or removed.
#[derive(Debug, thiserror::Error)]
#[error("the replica of group {group} at {path}: {why}", path = path.display())]
pub struct ReplicaError {
    /// The Raft group; 0 is the catalog.
    pub group: u64,
    /// The replica's directory.
    pub path: PathBuf,
    /// What failed.
    pub why: String,
    /// Whether the replica can never run again: its votes or its log's end are lost.
    pub is_dead: bool,
    /// Whether it is only too early: something else is being done with the replica, and ends by itself.
    pub is_early: bool,
}

/// What a keeper works with.
pub(crate) struct KeeperOptions {
    pub(crate) data: Arc<DataDir>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) catalog: Arc<CatalogHost>,
    pub(crate) link: Link,
    pub(crate) failures: Failures,
}

/// Looks after the replicas' lives.
pub(crate) struct Keeper {
    pub(super) options: KeeperOptions,
    /// What partitions' replicas start with.
    timers: Mutex<Timers>,
}

impl Keeper {
    pub(crate) fn new(options: KeeperOptions) -> Keeper {
        Keeper {
            options,
            timers: Mutex::default(),
        }
    }

    /// What replicas that start from now on run with, except the catalog's, which always has the default. Those that run
    /// already keep theirs until [`Keeper::restart`].
    pub(crate) fn set_timers(&self, timers: Timers) {
        *self.timers.lock().unwrap_or_else(PoisonError::into_inner) = timers;
    }

    /// How fast this node sends entries to replicas that are new or far behind, bytes a second.
    pub(crate) fn set_catch_up(&self, bytes_per_second: u64) {
        self.options.storage.catch_up_pace().set(bytes_per_second);
    }

    /// What a replica of the group would start with now.
    pub(crate) fn timers(&self, group: GroupId) -> Timers {
        match group {
            CATALOG_GROUP => Timers::default(),
            _ => *self.timers.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Makes and runs replicas that have never run, see [`Keeper::prepare`] and [`Keeper::run`].
    pub(crate) async fn make(&self, cluster: ClusterId, new: Vec<(GroupId, ReplicaId)>) -> Result<(), ReplicaError> {
        let prepared = self.prepare(cluster, new).await?;
        self.run(prepared).await
    }

    /// Makes the logs of replicas that have never run and records them as started. May be repeated after a failure or a
    /// crash at any point. One that fails does not keep the others from running; it is tried again when this is repeated.
    pub(crate) async fn prepare(
        &self,
        cluster: ClusterId,
        new: Vec<(GroupId, ReplicaId)>,
    ) -> Result<Prepared, ReplicaError> {
        let (data, storage) = (self.options.data.clone(), self.options.storage.clone());
        blocking(move || make_logs(&data, &storage, cluster, &new)).await
    }

    /// Starts every one that can be started; answers the first failure. What cannot be started is left alone until the
    /// node starts again.
    pub(crate) async fn run(&self, prepared: Prepared) -> Result<(), ReplicaError> {
        let mut all = prepared.failed.map_or(Ok(()), Err);
        let announce = |(group, replica, log): NewLog| {
            let announced = self.options.registry.announce(group, Unstarted::with_log(log.clone()));
            (group, replica, log, announced)
        };
        let logs: Vec<_> = prepared.logs.into_iter().map(announce).collect();
        for (group, replica, log, _announced) in logs {
            let started = self.start(group, replica, log, Vec::new(), Hosted::new).await;
            all = all.and(started);
        }
        all
    }

    /// Opens and starts a replica that has run before; with the help of `others`, the members that the catalog knows, if
    /// what its disk holds is damaged. That takes as long as it takes for one of them to answer. A replica whose directory
    /// is gone is dead: never made anew.
    pub(crate) async fn open(
        &self,
        cluster: ClusterId,
        record: ReplicaRecord,
        others: Vec<Member>,
    ) -> Result<(), ReplicaError> {
        self.open_as(cluster, record, others, Hosted::new).await
    }

    /// The same, with a say in what is made of the partition that runs then.
    pub(super) async fn open_as(
        &self,
        cluster: ClusterId,
        record: ReplicaRecord,
        others: Vec<Member>,
        hosted: impl FnOnce(GroupId, ReplicaId, Partition) -> Hosted,
    ) -> Result<(), ReplicaError> {
        let (group, replica) = record.id();
        let path = self.options.data.replica_path(group, replica);
        if record.stage != Stage::Started {
            return Err(error(group, path, format!("it is recorded as {:?}", record.stage)));
        }
        let unstarted = Unstarted::new(replica);
        let _announced = self.options.registry.announce(group, unstarted.clone());
        if !path.exists() {
            let why = "its directory is missing, and its votes and data with it: it is dead and is not started again";
            return Err(ReplicaError {
                is_dead: true,
                ..error(group, path, why)
            });
        }
        let (storage, log_path) = (self.options.storage.clone(), path.clone());
        let options = move || storage.open_log(log_path.clone(), cluster, group, replica);
        let opened = unstarted.open(options, &others, &self.options.link).await;
        let log = opened.map_err(|why| failed(group, path, &why))?;
        self.start(group, replica, log, others, hosted).await
    }

    /// Stops a replica for good and keeps its data. One that is being opened cannot be stopped yet.
    pub(crate) async fn end(&self, group: GroupId, replica: ReplicaId) -> Result<(), ReplicaError> {
        let path = self.options.data.replica_path(group, replica);
        if self.options.registry.is_unstarted(group, replica) {
            return Err(ReplicaError {
                is_early: true,
                ..error(group, path, "it is still being opened, and is ended later")
            });
        }
        if let Some(hosted) = self.options.registry.remove(group, replica) {
            let stopped = hosted.partition().shutdown().await;
            stopped.map_err(|why| error(group, path, why))?;
        }
        Ok(())
    }

    /// Stops a replica and deletes its data. Only for those of which the catalog says so: their group is deleted, or they
    /// are retired.
    pub(crate) async fn remove(&self, group: GroupId, replica: ReplicaId) -> Result<(), ReplicaError> {
        self.end(group, replica).await?;
        let path = self.options.data.replica_path(group, replica);
        let data = self.options.data.clone();
        blocking(move || {
            data.remove_replica(group, replica)
                .map_err(|why| error(group, path, why))
        })
        .await?;
        tracing::info!(
            group = group.0,
            replica = replica.0,
            "deleted the data of a replica that is no longer needed"
        );
        Ok(())
    }

    /// Gives a new group its first members. Nothing happens to a group that has any history here.
    pub(crate) async fn initialize(&self, group: GroupId, members: Vec<Member>) -> Result<(), ReplicaError> {
        let Some(hosted) = self.options.registry.hosted(group) else {
            return Ok(());
        };
        if !hosted.status().voters.is_empty() {
            return Ok(());
        }
        let path = self.options.data.replica_path(group, hosted.replica_id);
        let initialized = hosted.partition().initialize(members).await;
        initialized.map(drop).map_err(|why| error(group, path, why))
    }

    /// Stops all replicas, the catalog's last. Those that do not stop within `patience` are left as they are: their logs
    /// are recovered at the next start.
    pub(crate) async fn stop_all(&self, patience: Duration) {
        let all = self.options.registry.all();
        let (catalog, others): (Vec<_>, Vec<_>) = all.iter().partition(|hosted| hosted.group_id == CATALOG_GROUP);
        for replicas in [others, catalog] {
            // Together, so that they share the disk's syncs: a node may have hundreds.
            let stopped = join_all(replicas.into_iter().map(|hosted| timeout(patience, stop(hosted)))).await;
            let late = stopped.iter().filter(|stopped| stopped.is_err()).count();
            if late > 0 {
                tracing::warn!(
                    replicas = late,
                    "did not stop in time; their logs are recovered at the next start"
                );
            }
        }
    }

    async fn start(
        &self,
        group: GroupId,
        replica: ReplicaId,
        log: Log,
        members: Vec<Member>,
        hosted: impl FnOnce(GroupId, ReplicaId, Partition) -> Hosted,
    ) -> Result<(), ReplicaError> {
        let machine = (group == CATALOG_GROUP).then(|| self.options.catalog.clone() as Arc<dyn Machine>);
        let options = GroupOptions {
            group_id: group,
            replica_id: replica,
            log,
            machine,
            peers: Arc::new(self.options.link.clone()),
            timers: self.timers(group),
            members,
            scrub: self.options.storage.scrub_pace(),
            catch_up: self.options.storage.catch_up_pace(),
            stages: self.options.storage.timings().stages(),
        };
        let path = self.options.data.replica_path(group, replica);
        let started = Partition::start(options).await;
        let partition = started.map_err(|why| failed(group, path.clone(), &why))?;
        let hosted = hosted(group, replica, partition.clone());
        if let Err(occupied) = self.options.registry.insert(hosted) {
            if let Err(why) = partition.shutdown().await {
                tracing::warn!(group = group.0, %why, "a replica did not stop in an orderly way");
            }
            return Err(error(group, path, occupied));
        }
        tokio::spawn(report_end(partition.clone(), group, self.options.failures.clone()));
        tokio::spawn(report_changes(partition, self.options.registry.clone()));
        Ok(())
    }
}

async fn stop(hosted: &Arc<Hosted>) {
    if let Err(why) = hosted.partition().shutdown().await {
        tracing::warn!(group = hosted.group_id.0, %why, "a replica did not stop in an orderly way");
    }
}

pub(super) type NewLog = (GroupId, ReplicaId, Log);

/// What came of making logs, or of taking one over.
pub(crate) struct Prepared {
    /// Recorded as started.
    pub(super) logs: Vec<NewLog>,
    /// The first that could not be made; it and its like stay recorded as preparing.
    pub(super) failed: Option<ReplicaError>,
}

impl Prepared {
    /// Those that can run.
    pub(crate) fn replicas(&self) -> Vec<(GroupId, ReplicaId)> {
        let which = |(group, replica, _): &NewLog| (*group, *replica);
        self.logs.iter().map(which).collect()
    }

    /// Leaves out all others. Their logs stay as they are.
    pub(crate) fn retain(&mut self, replicas: &[(GroupId, ReplicaId)]) {
        self.logs
            .retain(|(group, replica, _)| replicas.contains(&(*group, *replica)));
    }
}

fn make_logs(
    data: &DataDir,
    storage: &Storage,
    cluster: ClusterId,
    new: &[(GroupId, ReplicaId)],
) -> Result<Prepared, ReplicaError> {
    let mut made = Prepared {
        logs: Vec::with_capacity(new.len()),
        failed: None,
    };
    let Some(&(first, first_replica)) = new.first() else {
        return Ok(made);
    };
    let recording = |why: DataDirError| error(first, data.replica_path(first, first_replica), why);
    data.record_preparing(new).map_err(recording)?;
    for &(group, replica) in new {
        match make_log(data, storage, cluster, group, replica) {
            Ok(log) => made.logs.push((group, replica, log)),
            Err(failed) => made.failed = made.failed.or(Some(failed)),
        }
    }
    data.record_started(&made.replicas()).map_err(recording)?;
    Ok(made)
}

fn make_log(
    data: &DataDir,
    storage: &Storage,
    cluster: ClusterId,
    group: GroupId,
    replica: ReplicaId,
) -> Result<Log, ReplicaError> {
    let path = data.replica_path(group, replica);
    data.clear_preparing(group, replica)
        .map_err(|why| error(group, path.clone(), why))?;
    let created = storage.create(path.clone(), cluster, group, replica);
    created.map_err(|why| error(group, path, why))
}

pub(super) fn error(group: GroupId, path: PathBuf, why: impl ToString) -> ReplicaError {
    ReplicaError {
        group: group.0,
        path,
        why: why.to_string(),
        is_dead: false,
        is_early: false,
    }
}

fn failed(group: GroupId, path: PathBuf, why: &highwater_partition::Error) -> ReplicaError {
    ReplicaError {
        is_dead: why.is_dead(),
        ..error(group, path, why)
    }
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReplicaError> + Send + 'static,
) -> Result<T, ReplicaError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|why| {
        Err(error(
            CATALOG_GROUP,
            PathBuf::new(),
            format!("the runtime is ending: {why}"),
        ))
    })
}

/// A core that ends unasked leaves a node that only seems to work; the process must end.
async fn report_end(partition: Partition, group: GroupId, failures: Failures) {
    if let Some(why) = partition.stopped().await {
        failures.report(Failure::Replica { group: group.0, why });
    }
}

async fn report_changes(partition: Partition, registry: Arc<Registry>) {
    let mut status = partition.status_changes();
    drop(partition);
    let mut led = false;
    loop {
        let leads = status.borrow_and_update().role == Role::Leader;
        if leads && !led {
            registry.note_leadership();
        }
        led = leads;
        if status.changed().await.is_err() {
            return;
        }
        registry.note_change();
    }
}
