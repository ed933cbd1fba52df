//! A disk in memory that loses, keeps, tears and fails what a real one may, the same way for the same seed.
//!
//! Each file has what is synced and the changes since; each directory likewise. A crash keeps nothing of the unsynced changes, all,
//! or a random part: any sectors of any write (some garbled), length changes or not, and a prefix of each directory's changes. Operations that change
//! something are counted, so that a test can crash or fail at each of them in turn. Reads are not counted.
//!
//! A sync that fails loses what it should have made certain, as on Linux: it can still be read, a later sync succeeds, and a crash
//! takes it all the same.
//!
//! Deliberately absent: time, permissions, directories inside paths that were never made (only `/` is there at first).

mod state;
mod syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Disk, DiskFile};
use state::{DirChange, DiskState, FileChange, Inode, Names, stopped};

/// What a disk writes at once.
pub const SECTOR_BYTES: u64 = 512;

/// What a crash keeps of the changes that are not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Any of them, each wholly or not at all, whichever came first.
    Reordered,
    /// A random part: some writes wholly, some in part, some not.
    Torn,
}

/// What happens at a chosen operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops in the middle of it; everything fails until [`SimulatedDisk::crash`].
    Crash,
    /// It fails and does nothing; later ones work.
    Fail,
    /// The same, and it says that there is no room.
    NoRoom,
}

/// A disk in memory. Shared; a crash invalidates all open files.
pub struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
}

struct SimulatedFile {
    state: Arc<Mutex<DiskState>>,
    inode: u64,
    epoch: u64,
}

impl SimulatedDisk {
    /// An empty disk; `seed` decides what torn crashes keep.
    pub fn new(seed: u64) -> Arc<SimulatedDisk> {
        let names = Names {
            files: BTreeMap::new(),
            dirs: BTreeSet::from([PathBuf::from("/")]),
        };
        let state = DiskState {
            random: seed,
            inodes: BTreeMap::new(),
            next_inode: 0,
            now: names.clone(),
            synced: names,
            unsynced: Vec::new(),
            changes: 0,
            held: None,
            epoch: 0,
            stopped: false,
            operations: 0,
            fault: None,
            syncs_fail: false,
            given_up: BTreeSet::new(),
            capacity_bytes: None,
        };
        Arc::new(SimulatedDisk {
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.state)
    }

    /// A copy that goes its own way from here.
    pub fn fork(&self) -> Arc<SimulatedDisk> {
        let state = self.lock().clone();
        Arc::new(SimulatedDisk {
            state: Arc::new(Mutex::new(state)),
        })
    }

    /// Operations so far that changed something or synced.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Lets the operation with this number (counted from 1, over the disk's life) crash or fail.
    pub fn fault_at(&self, operation: u64, fault: Fault) {
        self.lock().fault = Some((operation, fault));
    }

    /// Whether the fault has happened that stops everything.
    pub fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// From now on all syncs fail, or work again.
    pub fn fail_syncs(&self, fail: bool) {
        self.lock().syncs_fail = fail;
    }

    /// Power off, power on. Files opened before can no longer be used.
    pub fn crash(&self, keep: Keep) {
        self.lock().crash(keep);
    }

    /// The process ends, the machine goes on: nothing is lost, and nothing is synced by it either.
    /// Files opened before can no longer be used.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        state.stopped = false;
        state.fault = None;
        state.stop_syncs();
        state.give_up_unsynced();
    }

    /// Syncs that are asked for from now on return at once, but are under way until [`SimulatedDisk::end_syncs`]. Only the first few of
    /// them happen if the machine or the process ends before, and nothing that came behind those: it would not have been begun.
    pub fn begin_syncs(&self) {
        self.lock().held.get_or_insert_default();
    }

    /// All syncs asked for since [`SimulatedDisk::begin_syncs`] are done.
    pub fn end_syncs(&self) {
        self.lock().end_syncs();
    }

    /// Bytes written to files and not synced.
    pub fn unsynced_bytes(&self) -> u64 {
        self.lock().unsynced_bytes()
    }

    /// Whether this file may lose something with the next crash that nobody will sync any more: a sync of it or of its directory failed, or
    /// the process ended before one.
    pub fn has_given_up(&self, path: &Path) -> bool {
        let state = self.lock();
        state.given_up.contains(path) || path.parent().is_some_and(|dir| state.given_up.contains(dir))
    }

    /// From now on the files together can have so many bytes; None: any. What is there already stays.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.lock().capacity_bytes = bytes;
    }

    /// Inverts the bits of `mask` in one byte of a file, as rot would. False if the file has no such byte.
    pub fn flip(&self, path: &Path, position: u64, mask: u8) -> bool {
        let mut state = self.lock();
        let Some(inode) = state.now.files.get(path).copied() else {
            return false;
        };
        let Some(inode) = state.inodes.get_mut(&inode) else {
            return false;
        };
        let place = usize::try_from(position).unwrap_or(usize::MAX);
        let found = inode.now.get(place).is_some();
        for bytes in [&mut inode.now, &mut inode.synced] {
            if let Some(byte) = bytes.get_mut(place) {
                *byte ^= mask;
            }
        }
        found
    }

    /// A file's present bytes.
    pub fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let inode = state.now.files.get(path)?;
        state.inodes.get(inode).map(|inode| inode.now.clone())
    }

    /// All files, in order of their paths.
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().now.files.keys().cloned().collect()
    }
}

fn lock(state: &Mutex<DiskState>) -> MutexGuard<'_, DiskState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SimulatedDisk {
    fn file(&self, state: &DiskState, inode: u64) -> Arc<dyn DiskFile> {
        Arc::new(SimulatedFile {
            state: self.state.clone(),
            inode,
            epoch: state.epoch,
        })
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.lock();
        if state.now.files.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !state.now.has_parent_of(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.change_dir(DirChange::Link(path.to_owned(), inode))?;
        Ok(self.file(&state, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.lock();
        if state.stopped {
            return Err(stopped());
        }
        let inode = state.now.files.get(path).copied().ok_or(ErrorKind::NotFound)?;
        Ok(self.file(&state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.now.files.contains_key(from) || !state.now.has_parent_of(to) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_dir(DirChange::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if !state.now.files.contains_key(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_dir(DirChange::Unlink(path.to_owned()))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.now.dirs.contains(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !state.now.has_parent_of(path) {
            return Err(ErrorKind::NotFound.into());
        }
        state.change_dir(DirChange::MakeDir(path.to_owned()))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        if !state.now.dirs.contains(path) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = state
            .now
            .files
            .keys()
            .chain(&state.now.dirs)
            .filter(|name| name.parent() == Some(path));
        let names = inside.filter_map(|name| Some(name.file_name()?.to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        Ok(names)
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.lock();
        let capacity_bytes = state.capacity_bytes.unwrap_or(u64::MAX);
        Ok(capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.lock().capacity_bytes.unwrap_or(u64::MAX))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.operation()? {
            return Err(stopped());
        }
        if state.syncs_fail {
            state.given_up.insert(path.to_owned());
            return Err(io::Error::other("simulated failure of a sync"));
        }
        state.sync_dir(path);
        Ok(())
    }
}

impl SimulatedFile {
    fn state(&self) -> io::Result<MutexGuard<'_, DiskState>> {
        let state = lock(&self.state);
        if state.stopped || state.epoch != self.epoch {
            return Err(stopped());
        }
        Ok(state)
    }

    fn change(&self, change: FileChange) -> io::Result<()> {
        let mut state = self.state()?;
        state.check_room(self.inode, change.end())?;
        let crashed = state.operation()?;
        let number = state.changes;
        state.changes += 1;
        let inode = state.inode(self.inode)?;
        change.apply(&mut inode.now);
        inode.unsynced.push_back((number, change));
        if crashed { Err(stopped()) } else { Ok(()) }
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        let bytes = &state.inode(self.inode)?.now;
        let start = bytes.len().min(usize::try_from(position).unwrap_or(usize::MAX));
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, parts: &[Bytes], position: u64) -> io::Result<()> {
        self.change(FileChange::Write {
            position,
            bytes: parts.concat(),
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.change(FileChange::SetLen(bytes))
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inode(self.inode)?.now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        match state.operation() {
            Ok(true) => return Err(stopped()),
            Ok(false) if !state.syncs_fail => {}
            failed => {
                state.fail_sync(self.inode)?;
                failed?;
                return Err(io::Error::other("simulated failure of a sync"));
            }
        }
        state.sync_file(self.inode)
    }
}
