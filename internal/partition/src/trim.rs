//! Letting go of the front of the log, each replica for itself, behind what the group has agreed on.
//!
//! A committed `Trim` moves the log start, equal on all replicas. When it has been applied, this task picks the highest
//! floor that keeps every record from the log start on (the end of a segment), folds the manifest forward to it off the
//! async threads, lets openraft take that manifest as its snapshot, and then purges. Nothing of it runs inside apply, and
//! there is one purge at a time.
//!
//! **Groups with a machine** have no records and trim themselves. The machine can be saved only as it is, so a floor of
//! such a group is always the index of a checkpoint that was taken while applying, at every `CHECKPOINT_ENTRIES`th entry:
//! a function of the index, so all replicas come to the same floors and the same manifests. It also bounds what a start
//! replays.
//!
//! A leader of openraft does not purge what a follower's stream still has to be sent. A follower that is slow but alive
//! could hold the disk for ever that way, so after `PURGE_PATIENCE` its stream is broken (see `append_stream`), and it is
//! brought up with the manifest. A purge also waits while a follower is being sent the manifest before, else it could
//! be sent one after the other and never arrive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_log::Log;
use tokio::sync::watch;

use crate::error::Error;
use crate::mending::Mending;
use crate::snapshot::Snapshots;
use crate::types::{LogId, Raft, RaftMetrics, log_id};

/// At every so many entries the state of a group's machine is saved.
pub(crate) const CHECKPOINT_ENTRIES: u64 = 2_048;
/// How long a purge waits for followers that still need what is to be purged.
const PURGE_PATIENCE: Duration = Duration::from_secs(2);
/// How long a purge waits for manifests that are on their way.
const SENDING_PATIENCE: Duration = Duration::from_secs(60);
/// How long openraft may take for what it does at once unless it is stuck.
const STEP_PATIENCE: Duration = Duration::from_secs(10);
/// How soon to look again: a segment may have been sealed since, or what was damaged may have been refilled.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// What has been applied and can be let go.
#[derive(Debug, Clone, Default)]
pub(crate) enum Due {
    /// Nothing yet.
    #[default]
    Nothing,
    /// All records below this offset.
    Records(u64),
    /// All entries up to and with this one; the machine's state behind it.
    Checkpoint(u64, Bytes),
}

/// Purges the log of one replica.
pub(crate) struct Trimmer {
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) mending: Arc<Mending>,
}

impl Trimmer {
    /// Runs until the core has ended.
    pub(crate) async fn run(self, mut due: watch::Receiver<Due>) {
        loop {
            let now = due.borrow_and_update().clone();
            if let Err(why) = self.trim(now).await {
                tracing::warn!(replica = self.raft.node_id(), %why, "the log could not be trimmed; it is tried again later");
            }
            let wait = tokio::time::timeout(RETRY_PAUSE, due.changed());
            if let Ok(Err(_)) = wait.await {
                return; // the state machine is gone
            }
        }
    }

    async fn trim(&self, due: Due) -> Result<(), Error> {
        let Some((floor, machine)) = self.floor(due)? else {
            return Ok(());
        };
        let quiet = tokio::time::timeout(SENDING_PATIENCE, self.snapshots.nobody_is_sent_one());
        if quiet.await.is_err() {
            tracing::warn!(replica = self.raft.node_id(), "a manifest is on its way for very long");
        }
        let id = self.pin(floor, machine).await?;
        let manifest = self.snapshots.pinned_at(id.index());
        if manifest.is_some_and(|manifest| !self.log.has_space_for(&manifest)) {
            return Err(Error::DiskFull);
        }
        // a floor is committed, but openraft's snapshot must also be applied
        let applied = |metrics: &RaftMetrics| metrics.last_applied >= Some(id);
        self.reach("the floor to be applied", STEP_PATIENCE, applied).await?;
        self.trigger(self.raft.trigger().snapshot().await)?;
        self.reach("a snapshot", STEP_PATIENCE, |metrics| metrics.snapshot >= Some(id))
            .await?;
        self.trigger(self.raft.trigger().purge_log(id.index()).await)?;
        let purged = |metrics: &RaftMetrics| metrics.purged >= Some(id);
        if self.reach("a purge", PURGE_PATIENCE, purged).await.is_ok() {
            return Ok(());
        }
        self.snapshots.let_go().below(id.index() + 1);
        self.reach("a purge without the slow", STEP_PATIENCE, purged).await
    }

    /// The highest entry that can go, and the machine's state behind it. None if there is nothing to purge.
    fn floor(&self, due: Due) -> Result<Option<(u64, Bytes)>, Error> {
        if let Some(pinned) = self.snapshots.pending() {
            return Ok(Some((pinned.index, Bytes::new()))); // folded before, or another member's
        }
        match due {
            Due::Nothing => Ok(None),
            Due::Records(log_start) => Ok(self.log.floor_for(log_start)?.map(|floor| (floor, Bytes::new()))),
            Due::Checkpoint(index, machine) => {
                let news = self.log.floor().is_none_or(|floor| floor.index < index);
                Ok(news.then_some((index, machine)))
            }
        }
    }

    /// Folds the manifest for this floor and makes it the snapshot to come. If that needs an entry that is damaged here and that the others
    /// have purged, the manifest of one of them comes instead (see `mending`).
    async fn pin(&self, floor: u64, machine: Bytes) -> Result<LogId, Error> {
        if let Some(manifest) = self.snapshots.pinned_at(floor) {
            return Ok(log_id(manifest.last()));
        }
        let folded = tokio::select! {
            biased;
            folded = self.mending.read(move |log| log.fold_manifest(floor)) => folded,
            pinned = self.snapshots.pinned_from(floor) => return Ok(log_id(pinned)),
        };
        let manifest = folded.map_err(|err| Error::Raft(format!("folding a manifest: {err}")))?;
        let id = log_id(manifest.last());
        self.snapshots.pin(manifest.with_machine(machine));
        Ok(id)
    }

    fn trigger(&self, result: Result<(), impl std::fmt::Display>) -> Result<(), Error> {
        result.map_err(|err| Error::Raft(err.to_string()))
    }

    async fn reach(
        &self,
        what: &str,
        patience: Duration,
        reached: impl Fn(&RaftMetrics) -> bool + Send,
    ) -> Result<(), Error> {
        let reached = self.raft.wait(Some(patience)).metrics(reached, what).await;
        reached.map(drop).map_err(|err| Error::Raft(err.to_string()))
    }
}
