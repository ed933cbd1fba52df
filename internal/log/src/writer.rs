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
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::disk::Disk;
use crate::error::Error;
use crate::round::{Op, PREPARED_BYTES_MAX, Round};

/// Most bytes that may wait for the disk. The owners of the logs bound what they have in flight far below; this only keeps a mistake
/// from taking all memory.
pub(crate) const QUEUED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// So much waiting means that the disk is behind; whoever can wait should. The rest is for those who have asked already.
const ROOM_BYTES: usize = QUEUED_BYTES_MAX / 2;

/// Simulations have small segments; they prepare little.
const MANUAL_PREPARE_BYTES: usize = 2 * 1024;

/// Called when something is synced, or has failed.
pub type Callback = Box<dyn FnOnce(Result<(), Error>) + Send>;

type OnFatal = Box<dyn Fn(&Error) + Send + Sync>;

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
    poisoned: Option<Error>,
}

struct Shared {
    disk: Arc<dyn Disk>,
    prepare_bytes: usize,
    queue: Mutex<Queue>,
    /// Signals the thread that there is work, and `stop` that a round ended.
    changed: Condvar,
    on_fatal: OnFatal,
}

/// One per data directory: drains what all logs queued, writes, syncs each touched file once, completes callbacks in order.
#[derive(Clone)]
pub struct DiskWriter {
    shared: Arc<Shared>,
    thread: Arc<Thread>,
}

/// Ends the thread when the last `DiskWriter` is dropped; the queue is drained first.
struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
    manual: bool,
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
        let writer = DiskWriter::new(disk, on_fatal, false);
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
        DiskWriter::new(disk, Box::new(|_| {}), true)
    }

    fn new(disk: Arc<dyn Disk>, on_fatal: OnFatal, manual: bool) -> DiskWriter {
        let shared = Arc::new(Shared {
            disk,
            prepare_bytes: if manual {
                MANUAL_PREPARE_BYTES
            } else {
                PREPARED_BYTES_MAX
            },
            queue: Mutex::new(Queue::default()),
            changed: Condvar::new(),
            on_fatal,
        });
        let thread = Arc::new(Thread {
            shared: shared.clone(),
            handle: Mutex::new(None),
            manual,
        });
        DiskWriter { shared, thread }
    }

    /// One round; false if there was nothing to do. For manual writers.
    pub fn run_round(&self) -> bool {
        let jobs = self.shared.take();
        if jobs.is_empty() {
            return false;
        }
        self.shared.round(jobs);
        true
    }

    /// Waits until everything queued is done, and ends the thread. Later jobs are refused.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if self.thread.manual {
            while self.run_round() {}
            return;
        }
        let handle = lock(&self.thread.handle).take();
        if let Some(handle) = handle.filter(|handle| handle.thread().id() != std::thread::current().id()) {
            let _ = handle.join(); // a panic in a round was caught and reported by the thread itself
        }
    }

    /// The failure that stopped the writer, if any.
    pub fn failure(&self) -> Option<Error> {
        self.shared.lock().poisoned.clone()
    }

    /// Whether a job of so many bytes would be taken.
    pub(crate) fn admit(&self, bytes: usize) -> Result<(), Error> {
        self.shared.lock().admit(bytes)
    }

    pub(crate) fn has_room(&self) -> bool {
        self.shared.lock().has_room()
    }

    /// Queues a job. On an error `done` is not called.
    pub(crate) fn submit(&self, ops: Vec<Op>, done: Callback) -> Result<(), Error> {
        let bytes = ops.iter().map(Op::bytes).sum();
        let mut queue = self.shared.lock();
        queue.admit(bytes)?;
        queue.bytes += bytes;
        queue.jobs.push(Job { ops, bytes, done });
        let wake = !queue.running;
        drop(queue);
        if wake {
            self.shared.changed.notify_one();
        }
        Ok(())
    }
}

impl Queue {
    /// Whether to queue more now. A writer that takes nothing any more has room: its refusal says why.
    fn has_room(&self) -> bool {
        self.bytes < ROOM_BYTES || self.stopping || self.poisoned.is_some()
    }

    fn admit(&self, bytes: usize) -> Result<(), Error> {
        if let Some(cause) = &self.poisoned {
            return Err(Error::Poisoned {
                cause: Arc::new(cause.clone()),
            });
        }
        if self.stopping {
            return Err(Error::Stopped);
        }
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
            queue.running = true;
            drop(queue);
            let jobs = self.take();
            if jobs.is_empty() {
                return;
            }
            self.round(jobs);
        }
    }

    fn take(&self) -> Vec<Job> {
        std::mem::take(&mut self.lock().jobs)
    }

    /// Does the jobs and answers all of them.
    fn round(&self, jobs: Vec<Job>) {
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        let (ops, callbacks): (Vec<_>, Vec<_>) = jobs.into_iter().map(|job| (job.ops, job.done)).unzip();
        // Taken out first: what stands in the head of a `match` lives until its end, and nothing could be queued during
        // the round if the lock did.
        let poisoned = self.lock().poisoned.clone();
        let result = match poisoned {
            Some(cause) => Err(cause),
            None => catch_unwind(AssertUnwindSafe(|| {
                Round::new(&*self.disk, self.prepare_bytes).run(ops)
            }))
            .unwrap_or(Err(Error::Panicked)),
        };
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
