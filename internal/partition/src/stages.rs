//! How long the stages of a write take.
//!
//! Whoever runs replicas may watch ([`Stages::watched_by`]); if nobody does, no clock is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

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

type Watcher = dyn Fn(Stage, Duration) + Send + Sync;

/// Told of every stage that is done; one for all replicas of a node.
#[derive(Clone, Default)]
pub struct Stages(Option<Arc<Watcher>>);

/// Stages that began at the same time; nothing if nobody watches.
#[derive(Clone)]
pub(crate) struct Stopwatch(Option<(Arc<Watcher>, Instant)>);

impl Stages {
    /// Has `watcher` called with every stage that is done and with how long it took; from tasks and from the thread of the disk writer, so
    /// it must be quick.
    pub fn watched_by(watcher: impl Fn(Stage, Duration) + Send + Sync + 'static) -> Stages {
        Stages(Some(Arc::new(watcher)))
    }

    pub(crate) fn begin(&self) -> Stopwatch {
        Stopwatch(self.0.clone().map(|watcher| (watcher, Instant::now())))
    }
}

impl Stopwatch {
    pub(crate) fn done(&self, stage: Stage) {
        if let Some((watcher, begun)) = &self.0 {
            watcher(stage, begun.elapsed());
        }
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopwatch")
            .field(&self.0.as_ref().map(|(_, begun)| begun))
            .finish()
    }
}
