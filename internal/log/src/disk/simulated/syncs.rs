//! Syncs of the simulated disk: at once, under way, or failed.

use std::io;
use std::path::{Path, PathBuf};

use super::Keep;
use super::state::{DiskState, FileChange, Inode};

/// A sync that was asked for: it makes the changes with numbers below `end` certain.
#[derive(Clone)]
pub(super) struct HeldSync {
    of: Target,
    end: u64,
}

#[derive(Clone)]
enum Target {
    File(u64),
    Dir(PathBuf),
}

impl DiskState {
    pub(super) fn sync_file(&mut self, inode: u64) -> io::Result<()> {
        self.inode(inode)?;
        self.sync(Target::File(inode));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) {
        self.sync(Target::Dir(path.to_owned()));
    }

    fn sync(&mut self, of: Target) {
        let end = self.changes;
        let sync = HeldSync { of, end };
        match &mut self.held {
            Some(held) => held.push(sync),
            None => self.settle(sync),
        }
    }

    pub(super) fn end_syncs(&mut self) {
        for sync in self.held.take().unwrap_or_default() {
            self.settle(sync);
        }
    }

    /// What a crash makes of the syncs under way: the disk has done the first few of them.
    pub(super) fn crash_syncs(&mut self, keep: Keep) {
        let held = self.held.as_ref().map_or(0, Vec::len);
        let done = match keep {
            Keep::Nothing => 0,
            Keep::Everything => held,
            Keep::Torn | Keep::Reordered => (self.next_random() % (held as u64 + 1)) as usize,
        };
        self.break_off(done);
    }

    /// The process ends while syncs are under way.
    pub(super) fn stop_syncs(&mut self) {
        let held = self.held.as_ref().map_or(0, Vec::len);
        let done = (self.next_random() % (held as u64 + 1)) as usize;
        self.break_off(done);
    }

    /// So many of the syncs were done. What came behind the next one was never begun.
    fn break_off(&mut self, done: usize) {
        let mut held = self.held.take().unwrap_or_default().into_iter();
        for sync in held.by_ref().take(done) {
            self.settle(sync);
        }
        if let Some(next) = held.next() {
            self.undo_from(next.end);
        }
    }

    fn undo_from(&mut self, end: u64) {
        for inode in self.inodes.values_mut() {
            let before = inode.unsynced.len();
            inode.unsynced.retain(|(number, _)| *number < end);
            if inode.unsynced.len() < before {
                inode.now = inode.synced.clone();
                inode
                    .unsynced
                    .iter()
                    .for_each(|(_, change)| change.apply(&mut inode.now));
            }
        }
        self.unsynced.retain(|(number, _)| *number < end);
        self.now = self.synced.clone();
        for (_, change) in &self.unsynced {
            self.now.apply(change);
        }
    }

    /// A failed sync: the changes are in memory only, and taken for written from now on. The syncs before it were done, else it would not
    /// have been begun.
    pub(super) fn fail_sync(&mut self, inode: u64) -> io::Result<()> {
        if self.held.is_some() {
            self.end_syncs();
            self.held = Some(Vec::new());
        }
        self.give_up(|number, _| number == inode);
        self.inode(inode)?.unsynced.clear();
        Ok(())
    }

    /// The process has ended; what is not synced has nobody who would do it.
    pub(super) fn give_up_unsynced(&mut self) {
        self.give_up(|_, inode| !inode.unsynced.is_empty());
        let dirs = self.unsynced.iter().map(|(_, change)| change.dir().to_owned());
        self.given_up.extend(dirs);
    }

    fn give_up(&mut self, which: impl Fn(u64, &Inode) -> bool) {
        let names = self.now.files.iter();
        let files = names.filter(|(_, number)| self.inodes.get(number).is_some_and(|inode| which(**number, inode)));
        self.given_up.extend(files.map(|(path, _)| path.clone()));
    }

    pub(super) fn unsynced_bytes(&self) -> u64 {
        let changes = self.inodes.values().flat_map(|inode| &inode.unsynced);
        let bytes = changes.map(|(_, change)| match change {
            FileChange::Write { bytes, .. } => bytes.len() as u64,
            FileChange::SetLen(_) => 0,
        });
        bytes.sum()
    }

    fn settle(&mut self, sync: HeldSync) {
        let HeldSync { of, end } = sync;
        match of {
            Target::File(inode) => {
                let Some(file) = self.inodes.get_mut(&inode) else {
                    return;
                };
                while file.unsynced.front().is_some_and(|(number, _)| *number < end)
                    && let Some((_, change)) = file.unsynced.pop_front()
                {
                    change.apply(&mut file.synced);
                }
            }
            Target::Dir(path) => {
                let synced = &mut self.synced;
                self.unsynced.retain(|(number, change)| {
                    let done = *number < end && change.dir() == path;
                    if done {
                        synced.apply(change);
                    }
                    !done
                });
            }
        }
    }
}
