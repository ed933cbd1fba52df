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

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;

/// Most bytes that may wait for the disk. The owners of the logs bound what they have in flight far below; this only keeps a mistake
/// from taking all memory.
pub(crate) const QUEUED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Called when something is synced, or has failed.
pub type Callback = Box<dyn FnOnce(Result<(), Error>) + Send>;

type OnFatal = Box<dyn Fn(&Error) + Send + Sync>;

/// A file that the writer knows: opened on first use, or made by [`Op::Create`].
pub(crate) struct LogFile {
    number: u64,
    pub(crate) path: PathBuf,
    handle: OnceLock<Arc<dyn DiskFile>>,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf) -> Arc<LogFile> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(LogFile {
            number,
            path,
            handle: OnceLock::new(),
        })
    }

    pub(crate) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, Error> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle.clone());
        }
        let handle = disk
            .open(&self.path)
            .map_err(|error| Error::io("open", &self.path, error))?;
        Ok(self.handle.get_or_init(|| handle).clone())
    }
}

/// One thing to do on disk.
pub(crate) enum Op {
    /// Frames, behind each other.
    Write {
        file: Arc<LogFile>,
        position: u64,
        parts: Vec<Bytes>,
    },
    /// Makes the file, with these first bytes.
    Create { file: Arc<LogFile>, head: Bytes },
    /// Overwrites in place, never while an earlier overwrite of the same file is not synced.
    Overwrite {
        file: Arc<LogFile>,
        position: u64,
        bytes: Bytes,
    },
    /// Cuts the file.
    Cut { file: Arc<LogFile>, bytes: u64 },
    /// Removes a file; it may be missing.
    Remove { path: PathBuf },
    /// Replaces a whole file atomically.
    Replace { path: PathBuf, bytes: Bytes },
    /// Everything before is synced before anything behind is begun.
    Sync,
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
    poisoned: Option<Error>,
}

struct Shared {
    disk: Arc<dyn Disk>,
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

impl Op {
    fn bytes(&self) -> usize {
        match self {
            Op::Write { parts, .. } => parts.iter().map(Bytes::len).sum(),
            Op::Create { head: bytes, .. } | Op::Overwrite { bytes, .. } | Op::Replace { bytes, .. } => bytes.len(),
            Op::Cut { .. } | Op::Remove { .. } | Op::Sync => 0,
        }
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
        let result = match self.lock().poisoned.clone() {
            Some(cause) => Err(cause),
            None => catch_unwind(AssertUnwindSafe(|| Round::new(&*self.disk).run(ops))).unwrap_or(Err(Error::Panicked)),
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

/// Consecutive bytes of one file, not written yet.
struct Run {
    file: Arc<LogFile>,
    position: u64,
    bytes: u64,
    parts: Vec<Bytes>,
}

/// The work of one round.
///
/// Invariant: whatever was changed on disk and is not synced yet stands in `files` or `dirs`.
struct Round<'a> {
    disk: &'a dyn Disk,
    runs: BTreeMap<u64, Run>,
    files: BTreeMap<u64, (Arc<LogFile>, Arc<dyn DiskFile>)>,
    dirs: BTreeSet<PathBuf>,
}

impl<'a> Round<'a> {
    fn new(disk: &'a dyn Disk) -> Self {
        Round {
            disk,
            runs: BTreeMap::new(),
            files: BTreeMap::new(),
            dirs: BTreeSet::new(),
        }
    }

    fn run(mut self, jobs: Vec<Vec<Op>>) -> Result<(), Error> {
        for op in jobs.into_iter().flatten() {
            self.apply(op)?;
        }
        self.sync()
    }

    fn apply(&mut self, op: Op) -> Result<(), Error> {
        match op {
            Op::Write { file, position, parts } => self.write(file, position, parts),
            Op::Create { file, head } => {
                self.flush()?;
                self.create(file, head)
            }
            Op::Overwrite { file, position, bytes } => {
                self.flush()?;
                self.overwrite(file, position, bytes)
            }
            Op::Cut { file, bytes } => {
                self.flush()?;
                let handle = self.touch(&file)?;
                handle
                    .set_len(bytes)
                    .map_err(|error| Error::io("cut", &file.path, error))
            }
            Op::Remove { path } => {
                self.flush()?;
                self.remove(&path)
            }
            Op::Replace { path, bytes } => {
                self.flush()?;
                self.replace(&path, bytes)
            }
            Op::Sync => self.sync(),
        }
    }

    fn write(&mut self, file: Arc<LogFile>, position: u64, mut parts: Vec<Bytes>) -> Result<(), Error> {
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        if let Some(run) = self.runs.get_mut(&file.number) {
            if run.position + run.bytes == position {
                run.bytes += bytes;
                run.parts.append(&mut parts);
                return Ok(());
            }
            self.flush()?;
        }
        self.runs.insert(
            file.number,
            Run {
                file,
                position,
                bytes,
                parts,
            },
        );
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        for run in std::mem::take(&mut self.runs).into_values() {
            let handle = self.touch(&run.file)?;
            let written = handle.write_at(&run.parts, run.position);
            written.map_err(|error| Error::io("write", &run.file.path, error))?;
        }
        Ok(())
    }

    fn create(&mut self, file: Arc<LogFile>, head: Bytes) -> Result<(), Error> {
        let made = self
            .disk
            .create(&file.path)
            .map_err(|error| Error::io("create", &file.path, error))?;
        let handle = file.handle.get_or_init(|| made).clone();
        self.touch_dir(&file.path);
        self.files.insert(file.number, (file.clone(), handle.clone()));
        handle
            .write_at(&[head], 0)
            .map_err(|error| Error::io("write", &file.path, error))
    }

    /// Two overwrites without a sync between them could both be torn by one crash.
    fn overwrite(&mut self, file: Arc<LogFile>, position: u64, bytes: Bytes) -> Result<(), Error> {
        if let Some((file, handle)) = self.files.remove(&file.number) {
            sync_file(&file, &*handle)?;
        }
        let handle = self.touch(&file)?;
        handle
            .write_at(&[bytes], position)
            .map_err(|error| Error::io("write", &file.path, error))
    }

    fn remove(&mut self, path: &Path) -> Result<(), Error> {
        match self.disk.remove(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|error| Error::io("remove", path, error))?,
        }
        self.files.retain(|_, (file, _)| file.path != path);
        self.touch_dir(path);
        Ok(())
    }

    fn replace(&mut self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        replace_file(self.disk, path, bytes)?;
        self.touch_dir(path);
        Ok(())
    }

    fn touch(&mut self, file: &Arc<LogFile>) -> Result<Arc<dyn DiskFile>, Error> {
        let handle = file.open(self.disk)?;
        self.files.insert(file.number, (file.clone(), handle.clone()));
        Ok(handle)
    }

    fn touch_dir(&mut self, path: &Path) {
        self.dirs.extend(path.parent().map(Path::to_owned));
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.flush()?;
        for (file, handle) in std::mem::take(&mut self.files).into_values() {
            sync_file(&file, &*handle)?;
        }
        for dir in std::mem::take(&mut self.dirs) {
            self.disk
                .sync_dir(&dir)
                .map_err(|error| Error::io("sync", &dir, error))?;
        }
        Ok(())
    }
}

fn sync_file(file: &LogFile, handle: &dyn DiskFile) -> Result<(), Error> {
    handle.sync().map_err(|error| Error::io("sync", &file.path, error))
}

/// Writes a file beside the old one, syncs it and renames it over the old one. The directory is left to be synced.
pub(crate) fn replace_file(disk: &dyn Disk, path: &Path, bytes: Bytes) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    match disk.remove(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &temporary, error)),
        _ => {}
    }
    let file = disk
        .create(&temporary)
        .map_err(|error| Error::io("create", &temporary, error))?;
    file.write_at(&[bytes], 0)
        .map_err(|error| Error::io("write", &temporary, error))?;
    file.sync().map_err(|error| Error::io("sync", &temporary, error))?;
    disk.rename(&temporary, path)
        .map_err(|error| Error::io("rename", path, error))
}
