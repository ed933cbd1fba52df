//! What the disk writer does in one round: the operations, and the order in which they reach the disk.
//!
//! Small writes at the end of a file take some zeros with them, so that the next ones overwrite prepared space: then their sync has no
//! new length and no new block to make certain, which takes a quarter less time. Zeros are never a frame; they are cut when a segment is
//! sealed, on close and at the next opening.
//!
//! Frames are gathered per file and written in one go before anything else happens, or at the end; everything else is done in
//! queue order. Only [`Op::Sync`] and the end of the round make things certain.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::mutant;
use crate::space::{Space, SpaceWatch, is_derived, is_full};

/// A file that the writer knows: opened on first use, or made by [`Op::Create`], and let go of when its log is idle.
pub(crate) struct LogFile {
    number: u64,
    pub(crate) path: PathBuf,
    handle: Mutex<Option<Arc<dyn DiskFile>>>,
    /// Up to here the file is known to have space that was written before. Only the writer changes it.
    prepared: AtomicU64,
}

/// Most bytes of zeros written ahead of the tail.
pub(crate) const PREPARED_BYTES_MAX: usize = 256 * 1024;
/// Larger writes are not worth preparing for: the bytes themselves take the time.
const SMALL_WRITE_BYTES: u64 = 16 * 1024;

static ZEROS: [u8; PREPARED_BYTES_MAX] = [0; PREPARED_BYTES_MAX];

impl LogFile {
    pub(crate) fn new(path: PathBuf) -> Arc<LogFile> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Arc::new(LogFile {
            number,
            path,
            handle: Mutex::default(),
            prepared: AtomicU64::new(0),
        })
    }

    pub(crate) fn open(&self, disk: &dyn Disk) -> Result<Arc<dyn DiskFile>, Error> {
        let mut kept = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*kept {
            return Ok(handle.clone());
        }
        let handle = disk
            .open(&self.path)
            .map_err(|error| Error::io("open", &self.path, error))?;
        Ok(kept.insert(handle).clone())
    }

    /// Lets go of the open file; whoever needs it next opens it again. A thousand logs must not hold thousands of files open.
    pub(crate) fn release(&self) {
        *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
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
    /// The same, and says so in `replaced`; if there is no room for it, also not in the reserve, it and the rest of its job are left out.
    /// Nothing has failed then: the file is as it was. Syncs and flushes nothing that came before, because a failure of that must not be
    /// left for another time; so an `Op::Sync` must stand before it.
    ReplaceIfRoom {
        path: PathBuf,
        bytes: Bytes,
        replaced: Arc<AtomicBool>,
    },
    /// Everything before is synced before anything behind is begun.
    Sync,
    /// Makes the reserve again.
    Reserve,
}

impl Op {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Op::Write { parts, .. } => parts.iter().map(Bytes::len).sum(),
            Op::Create { head: bytes, .. } | Op::Overwrite { bytes, .. } => bytes.len(),
            Op::Replace { bytes, .. } | Op::ReplaceIfRoom { bytes, .. } => bytes.len(),
            Op::Cut { .. } | Op::Remove { .. } | Op::Sync | Op::Reserve => 0,
        }
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
pub(crate) struct Round<'a> {
    disk: &'a dyn Disk,
    /// Zeros written ahead of small writes.
    prepare_bytes: usize,
    /// How long syncs have taken; None: nobody wants to know.
    syncs_took: Option<Duration>,
    /// None: there is no reserve.
    space: Option<&'a SpaceWatch>,
    runs: BTreeMap<u64, Run>,
    files: BTreeMap<u64, (Arc<LogFile>, Arc<dyn DiskFile>)>,
    dirs: BTreeSet<PathBuf>,
}

impl<'a> Round<'a> {
    pub(crate) fn new(disk: &'a dyn Disk, prepare_bytes: usize) -> Self {
        Round {
            disk,
            prepare_bytes: prepare_bytes.min(PREPARED_BYTES_MAX),
            syncs_took: None,
            space: None,
            runs: BTreeMap::new(),
            files: BTreeMap::new(),
            dirs: BTreeSet::new(),
        }
    }

    /// Gives up the reserve if the disk is full, and prepares nothing when there is little room.
    pub(crate) fn with_space(mut self, space: Option<&'a SpaceWatch>) -> Self {
        if space.is_some_and(|space| space.space() < Space::Plenty) {
            self.prepare_bytes = 0;
        }
        self.space = space;
        self
    }

    /// Measures how long syncs take.
    pub(crate) fn timed(mut self) -> Self {
        self.syncs_took = Some(Duration::ZERO);
        self
    }

    /// Does something that needs room; once more if the reserve could be given up for it. Never for a sync.
    fn with_room<T>(&self, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match attempt() {
            Err(error) if is_full(&error) && self.space.is_some_and(|space| space.release(self.disk)) => attempt(),
            result => result,
        }
    }

    /// Does everything, and tells how long syncs took, if that is measured.
    pub(crate) fn run(mut self, jobs: Vec<Vec<Op>>) -> Result<Duration, Error> {
        for job in jobs {
            for op in job {
                let may_be_left_out = matches!(op, Op::ReplaceIfRoom { .. });
                match self.apply(op) {
                    Err(error) if may_be_left_out && has_no_room(&error) => {
                        tracing::warn!(%error, "there is no room for it; it is left for another time");
                        break;
                    }
                    applied => applied?,
                }
            }
        }
        self.sync()?;
        Ok(self.syncs_took.unwrap_or_default())
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
                file.prepared.store(bytes, Ordering::Relaxed);
                self.with_room(|| handle.set_len(bytes))
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
            Op::ReplaceIfRoom { path, bytes, replaced } => {
                let result = self.replace(&path, bytes);
                match result {
                    Ok(()) => replaced.store(true, Ordering::Relaxed),
                    Err(_) => drop(self.disk.remove(&path.with_extension("tmp"))),
                }
                result
            }
            Op::Sync => self.sync(),
            Op::Reserve => {
                if let Some(space) = self.space {
                    space.reserve(self.disk);
                }
                Ok(())
            }
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
        for mut run in std::mem::take(&mut self.runs).into_values() {
            self.prepare(&mut run);
            let handle = self.touch(&run.file)?;
            let written = self.with_room(|| handle.write_at(&run.parts, run.position));
            written.map_err(|error| Error::io("write", &run.file.path, error))?;
        }
        Ok(())
    }

    /// Adds zeros to a small write that leaves the prepared space.
    fn prepare(&self, run: &mut Run) {
        let end = run.position + run.bytes;
        let prepared = run.file.prepared.load(Ordering::Relaxed);
        if end <= prepared {
            return;
        }
        let ahead = if run.bytes <= SMALL_WRITE_BYTES {
            self.prepare_bytes
        } else {
            0
        };
        if ahead > 0 {
            run.parts.push(Bytes::from_static(&ZEROS[..ahead]));
        }
        run.file.prepared.store(end + ahead as u64, Ordering::Relaxed);
    }

    fn create(&mut self, file: Arc<LogFile>, head: Bytes) -> Result<(), Error> {
        let made = self
            .with_room(|| self.disk.create(&file.path))
            .map_err(|error| Error::io("create", &file.path, error))?;
        *file.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(made.clone());
        let handle = made;
        self.touch_dir(&file.path);
        self.files.insert(file.number, (file.clone(), handle.clone()));
        self.with_room(|| handle.write_at(std::slice::from_ref(&head), 0))
            .map_err(|error| Error::io("write", &file.path, error))
    }

    /// Two overwrites without a sync between them could both be torn by one crash.
    fn overwrite(&mut self, file: Arc<LogFile>, position: u64, bytes: Bytes) -> Result<(), Error> {
        if let Some((file, handle)) = self.files.remove(&file.number) {
            sync_file(&file, &*handle)?;
        }
        let handle = match mutant!("refill not synced") && is_log(&file.path) {
            true => file.open(self.disk)?,
            false => self.touch(&file)?,
        };
        self.with_room(|| handle.write_at(std::slice::from_ref(&bytes), position))
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
        let replaced = match replace_file(self.disk, path, bytes.clone()) {
            Err(error) if has_no_room(&error) && is_derived(path) => {
                tracing::warn!(%error, "there is no room for it; it is left as it was");
                let _ = self.disk.remove(&path.with_extension("tmp"));
                return Ok(());
            }
            Err(error) if has_no_room(&error) && self.space.is_some_and(|space| space.release(self.disk)) => {
                replace_file(self.disk, path, bytes)
            }
            replaced => replaced,
        };
        replaced?;
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
        let begun = self.syncs_took.map(|before| (before, Instant::now()));
        for (file, handle) in std::mem::take(&mut self.files).into_values() {
            sync_file(&file, &*handle)?;
        }
        for dir in std::mem::take(&mut self.dirs) {
            self.disk
                .sync_dir(&dir)
                .map_err(|error| Error::io("sync", &dir, error))?;
        }
        self.syncs_took = begun.map(|(before, begun)| before + begun.elapsed());
        Ok(())
    }
}

fn has_no_room(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if is_full(source))
}

fn sync_file(file: &LogFile, handle: &dyn DiskFile) -> Result<(), Error> {
    if is_skipped(&file.path) {
        return Ok(());
    }
    let synced = match handle.sync() {
        Err(_) if mutant!("retry after failed sync") => handle.sync(),
        synced => synced,
    };
    synced.map_err(|error| Error::io("sync", &file.path, error))
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "log")
}

/// Files that a mutant does not sync.
fn is_skipped(path: &Path) -> bool {
    (mutant!("no sync on append") && is_log(path))
        || (mutant!("no sync on vote") && path.ends_with(crate::hard_state::HARD_STATE))
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
    let synced = file.sync().map_err(io::Error::other); // of another kind: a failed sync is never done again
    synced.map_err(|error| Error::io("sync", &temporary, error))?;
    disk.rename(&temporary, path)
        .map_err(|error| Error::io("rename", path, error))
}
