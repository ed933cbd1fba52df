//! The simulated disk's inside: files and directories as they are, as they are synced, and what a crash makes of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::syncs::HeldSync;
use super::{Fault, Keep, SECTOR_BYTES};

#[derive(Clone)]
pub(super) struct DiskState {
    pub(super) random: u64,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) now: Names,
    pub(super) synced: Names,
    pub(super) unsynced: Vec<(u64, DirChange)>,
    /// Changes so far, of files and directories; each unsynced one has its number.
    pub(super) changes: u64,
    /// Syncs under way, oldest first; None: syncs take no time.
    pub(super) held: Option<Vec<HeldSync>>,
    /// Counts crashes.
    pub(super) epoch: u64,
    pub(super) stopped: bool,
    pub(super) operations: u64,
    pub(super) fault: Option<(u64, Fault)>,
    pub(super) syncs_fail: bool,
    /// Files and directories of which something is here that no sync will make certain any more: one failed, or its process ended before.
    pub(super) given_up: BTreeSet<PathBuf>,
    /// Most bytes of all files together.
    pub(super) capacity_bytes: Option<u64>,
}

#[derive(Clone, Default)]
pub(super) struct Inode {
    pub(super) now: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) unsynced: VecDeque<(u64, FileChange)>,
}

#[derive(Clone)]
pub(super) enum FileChange {
    Write { position: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Default)]
pub(super) struct Names {
    pub(super) files: BTreeMap<PathBuf, u64>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

#[derive(Clone)]
pub(super) enum DirChange {
    Link(PathBuf, u64),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
    MakeDir(PathBuf),
}

pub(super) fn stopped() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

impl DiskState {
    /// Counts an operation. `Ok(true)`: do it, then fail with `stopped`, because the machine stops in the middle of it.
    pub(super) fn operation(&mut self) -> io::Result<bool> {
        if self.stopped {
            return Err(stopped());
        }
        self.operations += 1;
        match self.fault {
            Some((at, Fault::Fail)) if at == self.operations => Err(io::Error::other("simulated failure")),
            Some((at, Fault::NoRoom)) if at == self.operations => Err(ErrorKind::StorageFull.into()),
            Some((at, Fault::Crash)) if at == self.operations => {
                self.stopped = true;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Bytes of all files that have a name.
    pub(super) fn used_bytes(&self) -> u64 {
        let inodes = self.now.files.values().filter_map(|number| self.inodes.get(number));
        inodes.map(|inode| inode.now.len() as u64).sum()
    }

    /// Whether a file may grow to this length.
    pub(super) fn check_room(&self, inode: u64, end: u64) -> io::Result<()> {
        let length = self.inodes.get(&inode).map_or(0, |inode| inode.now.len() as u64);
        let growth = end.saturating_sub(length);
        match self.capacity_bytes {
            Some(capacity_bytes) if growth > 0 && self.used_bytes() + growth > capacity_bytes => {
                Err(ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn change_dir(&mut self, change: DirChange) -> io::Result<()> {
        let crashed = self.operation()?;
        self.now.apply(&change);
        self.unsynced.push((self.changes, change));
        self.changes += 1;
        if crashed { Err(stopped()) } else { Ok(()) }
    }

    pub(super) fn inode(&mut self, number: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&number).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// SplitMix64.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn crash(&mut self, keep: Keep) {
        self.epoch += 1;
        self.stopped = false;
        self.fault = None;
        self.syncs_fail = false;
        self.given_up.clear();
        self.crash_syncs(keep);
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
        for (_, change) in std::mem::take(&mut self.unsynced) {
            by_dir.entry(change.dir().to_owned()).or_default().push(change);
        }
        for changes in by_dir.into_values() {
            let kept = match keep {
                Keep::Nothing => 0,
                Keep::Everything => changes.len(),
                Keep::Torn | Keep::Reordered => (self.next_random() % (changes.len() as u64 + 1)) as usize,
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
        for (_, change) in std::mem::take(&mut inode.unsynced) {
            match keep {
                Keep::Nothing => {}
                Keep::Everything => change.apply(&mut inode.synced),
                Keep::Reordered if self.next_random().is_multiple_of(2) => change.apply(&mut inode.synced),
                Keep::Reordered => {}
                Keep::Torn => self.tear(&change, &mut inode.synced),
            }
        }
        inode.now = inode.synced.clone();
    }

    /// A sector that was being replaced as a whole may hold anything. One that a write only touches is taken to be atomic, and one that
    /// is written again as it is stays as it is.
    fn garble(&mut self, piece: &FileChange, bytes: &mut Vec<u8>) {
        let noise = self.next_random() as u8 | 1;
        if let FileChange::Write {
            position,
            bytes: written,
        } = piece
            && written.len() as u64 == SECTOR_BYTES
            && !piece.stands_in(bytes)
        {
            let garbage = written.iter().map(|byte| byte ^ noise).collect();
            FileChange::Write {
                position: *position,
                bytes: garbage,
            }
            .apply(bytes);
        }
    }

    /// Applies none, all, the first sectors, or any sectors of a change; or leaves garbage.
    fn tear(&mut self, change: &FileChange, bytes: &mut Vec<u8>) {
        let how = self.next_random() % 5;
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
                0 | 4 => false,
                1 => true,
                2 => number < first,
                _ => self.next_random().is_multiple_of(2),
            };
            if kept {
                piece.apply(bytes);
            }
            if how == 4 && self.next_random().is_multiple_of(2) {
                self.garble(&piece, bytes);
            }
        }
    }
}

/// Splits a write where sectors end.
pub(super) fn sectors(position: u64, bytes: &[u8]) -> Vec<FileChange> {
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
    /// How long the file must be for it.
    pub(super) fn end(&self) -> u64 {
        match self {
            FileChange::SetLen(bytes) => *bytes,
            FileChange::Write { position, bytes } => position + bytes.len() as u64,
        }
    }

    /// Whether the file holds what is to be written.
    fn stands_in(&self, file: &[u8]) -> bool {
        match self {
            FileChange::SetLen(bytes) => file.len() as u64 == *bytes,
            FileChange::Write { position, bytes } => {
                let start = *position as usize;
                file.get(start..start + bytes.len()) == Some(bytes)
            }
        }
    }

    pub(super) fn apply(&self, file: &mut Vec<u8>) {
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
    pub(super) fn dir(&self) -> &Path {
        let (DirChange::Link(path, _)
        | DirChange::Unlink(path)
        | DirChange::Rename(path, _)
        | DirChange::MakeDir(path)) = self;
        path.parent().unwrap_or(path)
    }
}

impl Names {
    pub(super) fn apply(&mut self, change: &DirChange) {
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

    pub(super) fn has_parent_of(&self, path: &Path) -> bool {
        path.parent().is_some_and(|dir| self.dirs.contains(dir))
    }
}
