//! A disk that notes what is written where, and when it is synced, so that plain code can do exactly the same again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use highwater_log::{Disk, DiskFile, RealDisk};

/// What was done to one file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    Write { position: u64, bytes: usize },
    Sync,
}

type Steps = Arc<Mutex<Vec<Step>>>;

/// The operating system's files; the steps on `*.log` files are noted.
#[derive(Default)]
pub(crate) struct Recorded {
    steps: Mutex<Vec<Steps>>,
}

struct RecordedFile {
    file: Arc<dyn DiskFile>,
    steps: Option<Steps>,
}

impl Recorded {
    /// What was done, file by file, in the order in which they were made.
    pub(crate) fn take(&self) -> Vec<Vec<Step>> {
        let files = std::mem::take(&mut *lock(&self.steps));
        files.iter().map(|steps| lock(steps).clone()).collect()
    }

    fn file(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let steps = path.extension().is_some_and(|end| end == "log").then(Steps::default);
        lock(&self.steps).extend(steps.clone());
        Arc::new(RecordedFile { file, steps })
    }
}

impl RecordedFile {
    fn note(&self, step: Step) {
        if let Some(steps) = &self.steps {
            lock(steps).push(step);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskFile for RecordedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[Bytes], position: u64) -> io::Result<()> {
        let bytes = parts.iter().map(Bytes::len).sum();
        self.note(Step::Write { position, bytes });
        self.file.write_at(parts, position)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.note(Step::Sync);
        self.file.sync()
    }
}

impl Disk for Recorded {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(path, RealDisk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

/// The path of the file with this number, for whoever does the steps again.
pub(crate) fn replay_path(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("plain-{number}"))
}
