//! A disk in memory that loses, keeps, tears and fails what a real one may, the same way for the same seed.
//!
//! Each file has what is synced and the changes since; each directory likewise. A crash keeps nothing of the unsynced changes, all,
//! or a random part: any sectors of any write, length changes or not, and a prefix of each directory's changes. Operations that change
//! something are counted, so that a test can crash or fail at each of them in turn. Reads are not counted.
//!
//! Deliberately absent: time, permissions, directories inside paths that were never made (only `/` is there at first).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Disk, DiskFile};

/// What a disk writes at once.
pub const SECTOR_BYTES: u64 = 512;

/// What a crash keeps of the changes that are not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
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

#[derive(Clone)]
struct DiskState {
    random: u64,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    now: Names,
    synced: Names,
    unsynced: Vec<DirChange>,
    /// Counts crashes.
    epoch: u64,
    stopped: bool,
    operations: u64,
    fault: Option<(u64, Fault)>,
    syncs_fail: bool,
}

#[derive(Clone, Default)]
struct Inode {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<FileChange>,
}

#[derive(Clone)]
enum FileChange {
    Write { position: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
}

#[derive(Clone)]
enum DirChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
    MakeDir(PathBuf),
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
            epoch: 0,
            stopped: false,
            operations: 0,
            fault: None,
            syncs_fail: false,
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

fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl DiskState {
    /// Counts an operation. `Ok(true)`: do it, then fail with `stopped`, because the machine stops in the middle of it.
    fn operation(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(stopped());
        }
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Fail)) if at == self.operations => Err(io::Error::other("simulated failure")),
            Some((at, Fault::Crash)) if at == self.operations => {
                self.stopped = true;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn change_dir(&mut self, change: DirChange) -> io::Result<()> {
        let crashed = self.operation()?;
        self.now.apply(&change);
        self.unsynced.push(change);
        if crashed { Err(stopped()) } else { Ok(()) }
    }

    fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// SplitMix64.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn crash(&mut self, keep: Keep) {
        self.epoch += 1;
        self.stopped = false;
        self.fault = None;
        self.syncs_fail = false;
        self.crash_names(keep);
        let numbers: Vec<u64> = self.inodes.keys().copied().collect();
        for number in numbers {
            let Some(mut inode) = self.inodes.remove(&number) else {
                continue;
            };
            self.crash_file(&mut inode, keep);
            self.inodes.insert(number, inode);
        }
    }

    fn crash_names(&mut self, keep: Keep) {
        let mut by_dir: BTreeMap<PathBuf, Vec<DirChange>> = BTreeMap::new();
        for change in std::mem::take(&mut self.unsynced) {
            by_dir.entry(change.dir().to_owned()).or_default().push(change);
        }
        for changes in by_dir.into_values() {
            let kept = match keep {
                Keep::Nothing => 0,
                Keep::Everything => changes.len(),
                Keep::Torn => (self.next_random() % (changes.len() as u64 + 1)) as usize,
            };
            changes[..kept].iter().for_each(|change| self.synced.apply(change));
        }
        let dirs = self.synced.dirs.clone();
        self.synced
            .files
            .retain(|path, _| path.parent().is_some_and(|dir| dirs.contains(dir)));
        self.now = self.synced.clone();
    }

    fn crash_file(&mut self, inode: &mut Inode, keep: Keep) {
        for change in std::mem::take(&mut inode.unsynced) {
            match keep {
                Keep::Nothing => {}
                Keep::Everything => change.apply(&mut inode.synced),
                Keep::Torn => self.tear(&change, &mut inode.synced),
            }
        }
        inode.now = inode.synced.clone();
    }

    /// Applies none, all, the first sectors, or any sectors of a change.
    fn tear(&mut self, change: &FileChange, bytes: &mut Vec<u8>) {
        let how = self.next_random() % 4;
        let FileChange::Write {
            position,
            bytes: written,
        } = change
        else {
            if how < 2 {
                change.apply(bytes);
            }
            return;
        };
        let pieces = sectors(*position, written);
        let first = self.next_random() % (pieces.len() as u64 + 1);
        for (number, piece) in (0..).zip(pieces) {
            let kept = match how {
                0 => false,
                1 => true,
                2 => number < first,
                _ => self.next_random().is_multiple_of(2),
            };
            if kept {
                piece.apply(bytes);
            }
        }
    }
}

/// Splits a write where sectors end.
fn sectors(position: u64, bytes: &[u8]) -> Vec<FileChange> {
    let mut pieces = Vec::new();
    let mut done = 0;
    while done < bytes.len() {
        let at = position + done as u64;
        let room = (SECTOR_BYTES - at % SECTOR_BYTES) as usize;
        let end = bytes.len().min(done + room);
        pieces.push(FileChange::Write {
            position: at,
            bytes: bytes[done..end].to_vec(),
        });
        done = end;
    }
    pieces
}

impl FileChange {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            FileChange::SetLen(bytes) => file.resize(*bytes as usize, 0),
            FileChange::Write { position, bytes } => {
                let start = *position as usize;
                let end = start + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[start..end].copy_from_slice(bytes);
            }
        }
    }
}

impl DirChange {
    fn dir(&self) -> &Path {
        let (DirChange::Link(path, _)
        | DirChange::Unlink(path)
        | DirChange::Rename(path, _)
        | DirChange::MakeDir(path)) = self;
        path.parent().unwrap_or(path)
    }
}

impl Names {
    fn apply(&mut self, change: &DirChange) {
        match change {
            DirChange::Link(path, inode) => drop(self.files.insert(path.clone(), *inode)),
            DirChange::Unlink(path) => drop(self.files.remove(path)),
            DirChange::MakeDir(path) => drop(self.dirs.insert(path.clone())),
            DirChange::Rename(from, to) => {
                if let Some(inode) = self.files.remove(from) {
                    self.files.insert(to.clone(), inode);
                }
            }
        }
    }

    fn has_parent_of(&self, path: &Path) -> bool {
        path.parent().is_some_and(|dir| self.dirs.contains(dir))
    }
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

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.operation()? {
            return Err(stopped());
        }
        if state.syncs_fail {
            return Err(io::Error::other("simulated failure of a sync"));
        }
        let (here, elsewhere) = std::mem::take(&mut state.unsynced)
            .into_iter()
            .partition(|change| change.dir() == path);
        state.unsynced = elsewhere;
        let here: Vec<DirChange> = here;
        here.iter().for_each(|change| state.synced.apply(change));
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
        let crashed = state.operation()?;
        let inode = state.inode(self.inode)?;
        change.apply(&mut inode.now);
        inode.unsynced.push(change);
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
        if state.operation()? {
            return Err(stopped());
        }
        if state.syncs_fail {
            return Err(io::Error::other("simulated failure of a sync"));
        }
        let inode = state.inode(self.inode)?;
        inode.synced = inode.now.clone();
        inode.unsynced.clear();
        Ok(())
    }
}
