//! The disk writer: one per data directory, shared by all its logs.
//!
//! It drains what all logs queued and does it in one *round*: consecutive frames of a file in one vectored write, everything else in
//! queue order, then one sync for each touched file and directory, then the callbacks in queue order, each exactly once. There is
//! no delay: the next round starts as soon as the last one ended, and while a sync runs the queue fills, so load makes the rounds
//! large by itself.
//!
//! Within a round only [`Op::Sync`] orders writes against each other; a crash may keep any part of what lies behind the last sync.
//! Whoever queues decides where order matters.
//!
//! The first failed write or sync poisons the writer for ever: what the disk holds is unknown from then on, and only a restart,
//! which reads it again, can tell. Every callback of the round and of the queue gets the error, `on_fatal` is called, later jobs
//! are refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::Error;
use crate::mutant;
use crate::round::{Op, PREPARED_BYTES_MAX, Round};
use crate::space::{Space, SpaceLimits, SpaceWatch};

/// Most bytes that may wait for the disk. The owners of the logs bound what they have in flight far below; this only keeps a mistake
/// from taking all memory.
pub(crate) const QUEUED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// So much waiting means that the disk is behind; whoever can wait should. The rest is for those who have asked already.
const ROOM_BYTES: usize = QUEUED_BYTES_MAX / 2;

/// For how long `stop` waits for a disk that does not answer. What was not synced by then was not acknowledged either; the next
/// start finds the log as after a crash.
const STOP_PATIENCE: Duration = Duration::from_secs(3);

/// Simulations have small segments; they prepare little.
const MANUAL_PREPARE_BYTES: usize = 2 * 1024;

/// Called when something is synced, or has failed.
pub type Callback = Box<dyn FnOnce(Result<(), Error>) + Send>;

type OnFatal = Box<dyn Fn(&Error) + Send + Sync>;
type OnRound = Box<dyn Fn(&RoundDone) + Send + Sync>;
type OnWork = Box<dyn Fn() + Send + Sync>;

/// What a round came to; for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundDone {
    /// What was queued when it began, and is certain now: appends, votes, marks and the like.
    pub jobs: usize,
    /// Bytes that they wrote.
    pub bytes: usize,
    /// From its begin until everything was certain.
    pub took: Duration,
    /// The part of it in which the disk made things certain.
    pub syncs_took: Duration,
}

struct Job {
    ops: Vec<Op>,
    bytes: usize,
    done: Callback,
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    /// Bytes queued or being written.
    bytes: usize,
    running: bool,
    stopping: bool,
    /// The thread has left its loop.
    ended: bool,
    poisoned: Option<Error>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    prepare_bytes: usize,
    queue: Mutex<Queue>,
    /// Signals the thread that there is work, and `stop` that the thread has ended.
    changed: Condvar,
    /// Signals the driver of a manual writer that there is work.
    on_work: Option<OnWork>,
    /// Watches the room on the disk, if there is a reserve.
    space: OnceLock<SpaceWatch>,
    /// Is told of each round; without it no clock is read.
    on_round: OnceLock<OnRound>,
    on_fatal: OnFatal,
}

/// One per data directory: drains what all logs queued, writes, syncs each touched file once, completes callbacks in order.
#[derive(Clone)]
pub struct DiskWriter {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

/// A round whose work is done and whose callbacks are not called yet. Dropping it drops the callbacks uncalled, as a crash does.
pub struct OpenRound {
    callbacks: Vec<Callback>,
    bytes: usize,
    result: Result<(), Error>,
}

impl OpenRound {
    /// Why the round failed, if it did.
    pub fn failure(&self) -> Option<&Error> {
        self.result.as_ref().err()
    }
}

/// Ends the thread when the last `DiskWriter` is dropped; the queue is drained first.
struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
    manual: bool,
}

impl Thread {
    fn is_current(&self) -> bool {
        let handle = lock(&self.handle);
        let current = std::thread::current().id();
        handle.as_ref().is_some_and(|handle| handle.thread().id() == current)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
    }
}

impl DiskWriter {
    /// Starts the writer thread. `on_fatal` is called once, when a write or sync failed: the process must end.
    pub fn start(disk: Arc<dyn Disk>, on_fatal: Box<dyn Fn(&Error) + Send + Sync>) -> Result<DiskWriter, Error> {
        let writer = DiskWriter::new(disk, on_fatal, None, false);
        let shared = writer.shared.clone();
        let handle = std::thread::Builder::new()
            .name("disk-writer".into())
            .spawn(move || shared.run())
            .map_err(|error| Error::io("start of the writer thread", Path::new("disk-writer"), error))?;
        *lock(&writer.thread.handle) = Some(handle);
        Ok(writer)
    }

    /// A writer without a thread, for simulation: work is done by `run_round`.
    pub fn manual(disk: Arc<dyn Disk>) -> DiskWriter {
        DiskWriter::new(disk, Box::new(|_| {}), None, true)
    }

    /// A manual writer that calls `on_work` when something was queued; that must be quick and must not call a log.
    pub fn driven(disk: Arc<dyn Disk>, on_work: Box<dyn Fn() + Send + Sync>) -> DiskWriter {
        DiskWriter::new(disk, Box::new(|_| {}), Some(on_work), true)
    }

    fn new(disk: Arc<dyn Disk>, on_fatal: OnFatal, on_work: Option<OnWork>, manual: bool) -> DiskWriter {
        let shared = Arc::new(Shared {
            disk,
            prepare_bytes: if manual {
                MANUAL_PREPARE_BYTES
            } else {
                PREPARED_BYTES_MAX
            },
            queue: Mutex::new(Queue::default()),
            changed: Condvar::new(),
            on_work,
            space: OnceLock::new(),
            on_round: OnceLock::new(),
            on_fatal,
        });
        let thread = Arc::new(Thread {
            shared: shared.clone(),
            handle: Mutex::new(None),
            manual,
        });
        DiskWriter { shared, thread }
    }

    /// Keeps a reserve in the data directory `dir` and watches the room on its disk.
    pub fn with_reserve(self, dir: &Path, limits: SpaceLimits) -> Result<DiskWriter, Error> {
        let watch = SpaceWatch::new(&*self.shared.disk, dir, limits)?;
        self.shared.space.get_or_init(|| watch);
        Ok(self)
    }

    /// Has `on_round` called after each round that went well, by the thread that did it; it must be quick. Only the first one counts.
    pub fn watched_by(self, on_round: Box<dyn Fn(&RoundDone) + Send + Sync>) -> DiskWriter {
        self.shared.on_round.get_or_init(|| on_round);
        self
    }

    /// How much room there was when it was last looked at, or when a write found none. Without a reserve always plenty. While it is
    /// full nothing should be proposed, and no entries be taken from others; everything else goes on.
    pub fn space(&self) -> Space {
        self.shared.space.get().map_or(Space::Plenty, SpaceWatch::space)
    }

    /// Whether so many bytes find room now and leave some; for what is large and can wait. Without a reserve always.
    pub fn has_space_for(&self, bytes: u64) -> bool {
        let space = self.shared.space.get();
        space.is_none_or(|space| space.fits(&*self.shared.disk, bytes))
    }

    /// Looks how much room there is now; for the owner to do about once a second. Makes the reserve again if it was given up and there is
    /// room for it.
    pub fn check_space(&self) -> Result<Space, Error> {
        if let Some(space) = self.shared.space.get()
            && space.check(&*self.shared.disk)?
        {
            self.submit(vec![Op::Reserve], Box::new(|_| {}))?;
        }
        Ok(self.space())
    }

    /// One round; false if there was nothing to do. For manual writers.
    pub fn run_round(&self) -> bool {
        let round = self.begin_round();
        round.map(|round| self.end_round(round)).is_some()
    }

    /// The work of one round, without its callbacks; None if there is nothing to do. For manual writers.
    pub fn begin_round(&self) -> Option<OpenRound> {
        let jobs = self.shared.take();
        (!jobs.is_empty()).then(|| self.shared.perform(jobs))
    }

    /// The callbacks of a round.
    pub fn end_round(&self, round: OpenRound) {
        self.shared.answer(round);
    }

    /// Waits until everything queued is done, and ends the thread. Later jobs are refused. A disk that hangs is waited for a few
    /// seconds only; false if it was given up: then the callbacks that are left may never be called.
    pub fn stop(&self) -> bool {
        self.stop_within(STOP_PATIENCE)
    }

    /// Like `stop`, with the time to wait.
    pub fn stop_within(&self, patience: Duration) -> bool {
        let mut queue = self.shared.lock();
        queue.stopping = true;
        self.shared.changed.notify_all();
        if self.thread.manual {
            drop(queue);
            while self.run_round() {}
            return true;
        }
        if self.thread.is_current() {
            return true; // called by a callback: the thread ends behind it
        }
        let waited = self
            .shared
            .changed
            .wait_timeout_while(queue, patience, |queue| !queue.ended);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ended = queue.ended;
        drop(queue);
        if ended && let Some(handle) = lock(&self.thread.handle).take() {
            let _ = handle.join(); // a panic in a round was caught and reported by the thread itself
        }
        if !ended {
            tracing::error!(?patience, "the disk does not answer; the writer is left as it is");
        }
        ended
    }

    /// The failure that stopped the writer, if any.
    pub fn failure(&self) -> Option<Error> {
        self.shared.lock().poisoned.clone()
    }

    /// Whether to begin something that will queue about so many bytes. This is the only place where a full queue refuses: once a log
    /// has changed in memory its job must be taken, or the file would get a hole.
    pub(crate) fn admit(&self, bytes: usize) -> Result<(), Error> {
        self.shared.lock().admit(bytes)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.shared.lock().has_room()
    }

    /// Queues a job, also beyond the limit (see `admit`). An error means that nothing is written any more; then `done` is not called.
    pub(crate) fn submit(&self, ops: Vec<Op>, done: Callback) -> Result<(), Error> {
        let bytes = ops.iter().map(Op::bytes).sum();
        let mut queue = self.shared.lock();
        queue.check_open()?;
        queue.bytes += bytes;
        queue.jobs.push(Job { ops, bytes, done });
        let wake = !queue.running;
        drop(queue);
        if wake {
            self.shared.changed.notify_one();
        }
        if let Some(on_work) = &self.shared.on_work {
            on_work();
        }
        Ok(())
    }
}

impl Queue {
    /// Whether to queue more now. A writer that takes nothing any more has room: its refusal says why.
    fn has_room(&self) -> bool {
        self.bytes < ROOM_BYTES || self.stopping || self.poisoned.is_some()
    }

    fn check_open(&self) -> Result<(), Error> {
        if let Some(cause) = &self.poisoned {
            return Err(Error::Poisoned {
                cause: Arc::new(cause.clone()),
            });
        }
        if self.stopping {
            return Err(Error::Stopped);
        }
        Ok(())
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        self.check_open()?;
        let queued_bytes = self.bytes + bytes;
        if queued_bytes > QUEUED_BYTES_MAX {
            return Err(Error::Overloaded {
                queued_bytes,
                queued_bytes_max: QUEUED_BYTES_MAX,
            });
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    fn run(&self) {
        loop {
            let mut queue = self.lock();
            queue.running = false;
            while queue.jobs.is_empty() && !queue.stopping {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.jobs.is_empty() {
                queue.ended = true;
                self.changed.notify_all();
                return;
            }
            queue.running = true;
            drop(queue);
            self.answer(self.perform(self.take()));
        }
    }

    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut self.lock().jobs)
    }

    /// Does the jobs.
    fn perform(&self, jobs: Vec<Job>) -> OpenRound {
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        let (ops, mut callbacks): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.ops, job.done)).unzip();
        if mutant!("acknowledge before sync") {
            callbacks.drain(..).for_each(|done: Callback| done(Ok(())));
        }
        let poisoned = self.lock().poisoned.clone(); // not in the match: the lock would be held while the disk works
        let result = match poisoned {
            Some(cause) => Err(cause),
            None => catch_unwind(AssertUnwindSafe(|| self.perform_round(ops, bytes))).unwrap_or(Err(Error::Panicked)),
        };
        OpenRound {
            callbacks,
            bytes,
            result,
        }
    }

    fn perform_round(&self, jobs: Vec<Vec<Op>>, bytes: usize) -> Result<(), Error> {
        let round = Round::new(&*self.disk, self.prepare_bytes).with_space(self.space.get());
        let Some(on_round) = self.on_round.get() else {
            return round.run(jobs).map(drop);
        };
        let (begun, count) = (Instant::now(), jobs.len());
        let syncs_took = round.timed().run(jobs)?;
        on_round(&RoundDone {
            jobs: count,
            bytes,
            took: begun.elapsed(),
            syncs_took,
        });
        Ok(())
    }

    /// Calls the callbacks of a round.
    fn answer(&self, round: OpenRound) {
        let OpenRound {
            callbacks,
            bytes,
            result,
        } = round;
        self.lock().bytes -= bytes;
        if let Err(error) = &result {
            self.poison(error);
        }
        let calls = move || callbacks.into_iter().for_each(|done| done(result.clone()));
        if catch_unwind(AssertUnwindSafe(calls)).is_err() {
            self.poison(&Error::Panicked);
        }
        self.fail_queued();
    }

    fn poison(&self, error: &Error) {
        let mut queue = self.lock();
        if queue.poisoned.is_some() {
            return;
        }
        queue.poisoned = Some(error.clone());
        drop(queue);
        tracing::error!(%error, "the disk writer failed; nothing is written any more");
        (self.on_fatal)(error);
    }

    /// After a failure, answers what was queued meanwhile.
    fn fail_queued(&self) {
        let mut queue = self.lock();
        let Some(cause) = queue.poisoned.clone() else {
            return;
        };
        let jobs = std::mem::take(&mut queue.jobs);
        queue.bytes = 0;
        drop(queue);
        jobs.into_iter().for_each(|job| (job.done)(Err(cause.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_says_that_it_is_full_long_before_it_refuses() {
        let mut queue = Queue {
            bytes: ROOM_BYTES,
            ..Queue::default()
        };
        assert!(!queue.has_room());
        assert!(queue.admit(ROOM_BYTES).is_ok());
        queue.bytes -= 1;
        assert!(queue.has_room());
        // nobody waits for room that will never come
        queue.bytes = QUEUED_BYTES_MAX;
        queue.stopping = true;
        assert!(queue.has_room());
    }
}
