//! Membership of a consumer group: which partitions this member should have, and having them.
//!
//! ```text
//! coordinator ◄──── line ────► task ── claims ──► partitions' leaders
//!                               ▲ │
//!                       Shared  │ ▼  Change
//!                            Consumer ◄── application
//! ```
//!
//! One task per consumer keeps the line to the coordinator (`line`), claims what it is told to have (`claiming`), and hands it to
//! the consumer as a [`Change`]. What it is told to let go of goes the same way: the consumer stops handing out its records at
//! once, and says in [`Shared`] when the application is done with it; only then is the coordinator told.
//!
//! * Without a coordinator everything goes on as it was. Only changes wait.
//! * The application's silence is not the process's: signs of life go on while a record is being worked on, up to the processing
//!   deadline. After that the member leaves, and joins again when the application comes back.
//! * What another member has claimed is lost, and claimed back only after a pause and as long as the coordinator says that it is ours:
//!   two coordinators at once must not set two members at each other.
//!
//! Deliberately absent: records, and where the application is in them (`consumer`).

mod claiming;
mod line;
mod places;
mod task;

pub(crate) use self::claiming::Begin;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_proto::limits::TOPIC_PARTITIONS_MAX;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::calls::Caller;
use crate::claim::{Claim, Member};
use crate::consumer::Position;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::picture::TopicRef;

/// Room for all that can wait for a consumer that does not listen: an assignment and its end for each partition, and the last word.
const CHANGES_MAX: usize = 4 * TOPIC_PARTITIONS_MAX as usize;

/// What a member joins, and how.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) caller: Arc<Caller>,
    pub(crate) topic: TopicRef,
    pub(crate) member: Member,
    pub(crate) session: Duration,
    pub(crate) processing_deadline: Duration,
    /// How often what is done is committed, if not by hand.
    pub(crate) auto_commit: Option<Duration>,
    /// Its partitions wait for it when it ends.
    pub(crate) is_static: bool,
    /// Where to begin where the group never committed.
    pub(crate) position: Position,
    /// Whether partitions are read to where they end when they are claimed.
    pub(crate) stop_at_end: bool,
    /// How long a single call is tried.
    pub(crate) call_deadline: Duration,
}

/// A claimed partition, shared by the consumer and the task.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) claim: Claim,
    /// Where its reading began.
    begin: u64,
    /// The application is done with everything below; only told if commits are automatic.
    done: AtomicU64,
}

impl Held {
    pub(crate) fn note_done(&self, offset: u64) {
        self.done.store(offset, Ordering::Release);
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Commits the next offset to consume, unless that was done.
    pub(crate) async fn commit(
        &self,
        caller: &Caller,
        topic: &TopicRef,
        offset: u64,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if offset == self.begin && self.claim.committed().is_none() {
            return Ok(()); // nothing was consumed, and where it begins is beyond the end
        }
        self.claim.commit(caller, topic, offset, deadline).await
    }
}

/// A partition to consume.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) held: Arc<Held>,
    pub(crate) position: u64,
    /// Where to stop, exclusive.
    pub(crate) stop: Option<u64>,
}

/// What the consumer is told.
#[derive(Debug)]
pub(crate) enum Change {
    /// The coordinator has answered.
    Joined,
    Assigned(Assigned),
    /// Finish with it and let go.
    Leave(u32),
    /// It is another's already.
    Lost(u32),
    /// All that this member should have for the time being has been assigned.
    Settled,
    /// The member cannot be in the group.
    Failed(Error),
}

/// What the consumer tells.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Partitions that the consumer is done with, and by which claim it had them.
    let_go: Mutex<BTreeMap<u32, u64>>,
    news: Notify,
    /// Changes wait for the consumer, so that it need not look at each record.
    has_changes: AtomicBool,
    /// How often the application has asked for a record.
    asked: AtomicU64,
    /// It is asking at the moment.
    is_asking: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, u64>> {
        self.let_go.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn let_go(&self, held: &Held) {
        self.lock().insert(held.claim.partition, held.claim.number());
        self.news.notify_one();
    }

    fn take_let_go(&self) -> BTreeMap<u32, u64> {
        std::mem::take(&mut *self.lock())
    }

    pub(crate) fn has_changes(&self) -> bool {
        self.has_changes.load(Ordering::Acquire)
    }

    /// Called before the changes are looked at: those that come later announce themselves again.
    pub(crate) fn see_changes(&self) {
        self.has_changes.store(false, Ordering::Release);
    }

    fn announce_change(&self) {
        self.has_changes.store(true, Ordering::Release);
    }

    /// The application asks for a record. Called by one consumer only.
    pub(crate) fn ask(&self) {
        let asked = self.asked.load(Ordering::Relaxed);
        self.asked.store(asked + 1, Ordering::Relaxed);
        self.is_asking.store(false, Ordering::Relaxed);
    }

    /// There is none for the moment.
    pub(crate) fn wait(&self) {
        self.is_asking.store(true, Ordering::Relaxed);
    }

    fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn is_asking(&self) -> bool {
        self.is_asking.load(Ordering::Relaxed)
    }
}

/// A member, as its consumer holds it.
#[derive(Debug)]
pub(crate) struct Membership {
    pub(crate) changes: mpsc::Receiver<Change>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commits_by_itself: bool,
    task: JoinHandle<Result<(), Error>>,
}

impl Membership {
    /// Begins to join.
    pub(crate) fn begin(route: Route) -> Membership {
        let (sender, changes) = mpsc::channel(CHANGES_MAX);
        let shared = Arc::<Shared>::default();
        Membership {
            changes,
            shared: shared.clone(),
            commits_by_itself: route.auto_commit.is_some(),
            task: tokio::spawn(task::run(Arc::new(route), shared, sender)),
        }
    }

    /// Waits until the coordinator has answered.
    pub(crate) async fn joined(&mut self) -> Result<(), Error> {
        match self.changes.recv().await {
            Some(Change::Failed(error)) => Err(error),
            _ => Ok(()), // it is the first change
        }
    }

    /// Ends the membership, and waits until that is done; an error if the last commits failed.
    pub(crate) async fn end(self) -> Result<(), Error> {
        drop(self.changes);
        // A task that was cut off has ended as well.
        self.task.await.unwrap_or(Ok(()))
    }
}
