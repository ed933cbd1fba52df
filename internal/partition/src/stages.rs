//! How long the stages of a write take.
//!
//! Whoever runs replicas may watch all writes ([`Stages::watched_by`]), and whoever proposes a batch may follow that one ([`Trace`]); if
//! nobody does either, no clock is read.
//!
//! The first stages of a batch and its last are noted where the proposal itself is at hand. What happens to it on the way to the other
//! replicas is known only by its place in the log, so a replica remembers the places of the batches that are followed (`traced`).

mod traced;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use highwater_log::EntryId;
use tokio::time::Instant;

use self::traced::Traced;

/// A part of the way of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the proposal until the Raft core gives it to the log.
    Queue,
    /// From there until the disk of this replica has synced it; of a follower as well.
    Sync,
    /// From when a leader sends entries to a follower until it answers that they are synced there.
    Replicate,
    /// From the proposal until a majority has synced it.
    Commit,
}

impl Stage {
    /// All of them, in the order in which a batch passes them.
    pub const ALL: [Stage; 4] = [Stage::Queue, Stage::Sync, Stage::Replicate, Stage::Commit];

    /// What it is called for people and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Queue => "queue",
            Stage::Sync => "sync",
            Stage::Replicate => "replicate",
            Stage::Commit => "commit",
        }
    }
}

/// A stage that a batch has passed.
#[derive(Debug, Clone, Copy)]
pub struct StageDone<'a> {
    /// Which one.
    pub stage: Stage,
    /// When it began.
    pub began: Instant,
    /// When it was over.
    pub ended: Instant,
    /// The node of the follower that answered; for [`Stage::Replicate`] only.
    pub follower: Option<&'a str>,
}

/// Told of every stage that one batch passes: queue and commit at most once, the others once for each time the batch is written or sent.
///
/// A follower that was slow may be told of after the batch was answered.
#[derive(Clone)]
pub struct Trace(Arc<dyn Fn(StageDone<'_>) + Send + Sync>);

type Watcher = dyn Fn(Stage, Duration) + Send + Sync;

/// Told of every stage that is done; one for all replicas of a node.
#[derive(Clone, Default)]
pub struct Stages(Option<Arc<Watcher>>);

/// Who watches the writes of one replica.
#[derive(Clone, Default)]
pub(crate) struct ReplicaStages {
    watcher: Stages,
    traced: Arc<Traced>,
}

/// Stages that began at the same time; nothing if nobody watches.
#[derive(Clone)]
pub(crate) struct Stopwatch {
    watcher: Stages,
    /// Of the batches whose stages these are, those that are followed: usually none.
    traces: Vec<Trace>,
    /// None: nobody watches.
    begun: Option<Instant>,
}

impl Trace {
    /// Has `follow` called with each stage, from tasks and from the thread of the disk writer, so it must be quick.
    pub fn new(follow: impl Fn(StageDone<'_>) + Send + Sync + 'static) -> Trace {
        Trace(Arc::new(follow))
    }
}

impl Stages {
    /// Has `watcher` called with every stage that is done and with how long it took; from tasks and from the thread of the disk writer, so
    /// it must be quick.
    pub fn watched_by(watcher: impl Fn(Stage, Duration) + Send + Sync + 'static) -> Stages {
        Stages(Some(Arc::new(watcher)))
    }
}

impl ReplicaStages {
    pub(crate) fn new(watcher: Stages) -> ReplicaStages {
        ReplicaStages {
            watcher,
            traced: Arc::default(),
        }
    }

    /// A stage of writes that are followed by `traces`, if any are.
    pub(crate) fn begin(&self, traces: Vec<Trace>) -> Stopwatch {
        let is_watched = self.watcher.0.is_some() || !traces.is_empty();
        Stopwatch {
            watcher: self.watcher.clone(),
            traces,
            begun: is_watched.then(Instant::now),
        }
    }

    /// The stopwatch's batch has become this entry.
    pub(crate) fn note(&self, id: EntryId, stopwatch: &Stopwatch) {
        for trace in &stopwatch.traces {
            self.traced.note(id, trace.clone());
        }
    }

    /// Who follows any of these entries, which are given in the order of the log.
    pub(crate) fn among(&self, ids: impl Iterator<Item = EntryId>) -> Vec<Trace> {
        self.traced.among(ids)
    }
}

impl Stopwatch {
    /// Who follows the batches whose stages these are.
    pub(crate) fn traces(&self) -> &[Trace] {
        &self.traces
    }

    pub(crate) fn done(&self, stage: Stage) {
        self.tell(stage, None);
    }

    /// A follower on the node `follower` has done its part.
    pub(crate) fn done_by(&self, stage: Stage, follower: &str) {
        self.tell(stage, Some(follower));
    }

    fn tell(&self, stage: Stage, follower: Option<&str>) {
        let Some(began) = self.begun else { return };
        let ended = Instant::now();
        if let Some(watcher) = &self.watcher.0 {
            watcher(stage, ended.duration_since(began));
        }
        for Trace(follow) in &self.traces {
            follow(StageDone {
                stage,
                began,
                ended,
                follower,
            });
        }
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopwatch").field(&self.begun).finish()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}
