//! Space on the disk: how much is left, and a reserve for the end.
//!
//! The writer of a data directory keeps a file there that holds nothing but room. A write that finds the disk full gives it up and is done
//! again, once; by then the owner, who asks [`crate::DiskWriter::space`] before each proposal, has long refused to take more, so
//! what is left serves votes, a purge that makes room, and a clean end. When there is room again, the reserve is made again.
//!
//! Files that can be made again from others (checkpoints, sparse indexes) get none of the reserve: they are left out on a full disk. A manifest
//! can be large, and can wait: who is about to write one asks first.
//! A sync that fails is never done again, whatever it says.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::CHECKPOINT;
use crate::disk::Disk;
use crate::error::Error;

/// Name of the reserve in the data directory.
pub const RESERVE: &str = "reserve";

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Space {
    /// Little enough that nothing new must be proposed, and no entries be taken from others; or there is no reserve.
    Full,
    /// Time to make room.
    Low,
    /// Enough.
    Plenty,
}

/// Where [`Space`] changes, in bytes free on the disk beside the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Below this it is low.
    pub low_bytes: u64,
    /// Below this it is full.
    pub full_bytes: u64,
    /// Size of the reserve.
    pub reserve_bytes: u64,
}

impl Default for SpaceLimits {
    fn default() -> Self {
        SpaceLimits {
            low_bytes: 1024 * 1024 * 1024,
            full_bytes: 256 * 1024 * 1024,
            reserve_bytes: 64 * 1024 * 1024,
        }
    }
}

impl SpaceLimits {
    /// The default limits, smaller on a small disk: at most a tenth, a twentieth and a fiftieth of it.
    pub fn for_disk(disk: &dyn Disk, dir: &Path) -> Result<SpaceLimits, Error> {
        let total = disk.total_bytes(dir).map_err(|error| Error::io("size", dir, error))?;
        let usual = SpaceLimits::default();
        Ok(SpaceLimits {
            low_bytes: usual.low_bytes.min(total / 10),
            full_bytes: usual.full_bytes.min(total / 20),
            reserve_bytes: usual.reserve_bytes.min(total / 50),
        })
    }

    /// What so much room means. To be counted as better than `before`, a quarter more than the limit is needed, so that it does not go to and
    /// fro.
    fn judge(&self, before: Space, free_bytes: u64) -> Space {
        let above =
            |limit: u64, better: bool| free_bytes >= if better { limit.saturating_add(limit / 4) } else { limit };
        if above(self.low_bytes, before < Space::Plenty) {
            return Space::Plenty;
        }
        if above(self.full_bytes, before < Space::Low) {
            return Space::Low;
        }
        Space::Full
    }
}

/// Watches the disk of one data directory.
pub(crate) struct SpaceWatch {
    dir: PathBuf,
    limits: SpaceLimits,
    state: Mutex<State>,
}

struct State {
    space: Space,
    /// Whether the reserve is there.
    reserved: bool,
}

impl SpaceWatch {
    /// Looks how much room there is, and makes the reserve if there is enough.
    pub(crate) fn new(disk: &dyn Disk, dir: &Path, limits: SpaceLimits) -> Result<SpaceWatch, Error> {
        let state = State {
            space: Space::Plenty,
            reserved: false,
        };
        let watch = SpaceWatch {
            dir: dir.to_owned(),
            limits,
            state: Mutex::new(state),
        };
        let length = disk.open(&watch.path()).and_then(|file| file.len()).unwrap_or(0);
        watch.lock().reserved = length >= limits.reserve_bytes;
        // Before the first look: a new directory has no reserve yet, which is nothing to warn of.
        if watch.wants_reserve(watch.free_bytes(disk)?) {
            watch.reserve(disk);
        }
        watch.check(disk)?;
        Ok(watch)
    }

    fn free_bytes(&self, disk: &dyn Disk) -> Result<u64, Error> {
        let free = disk.free_bytes(&self.dir);
        free.map_err(|error| Error::io("look for space", &self.dir, error))
    }

    fn wants_reserve(&self, free_bytes: u64) -> bool {
        let needed = self.limits.full_bytes.saturating_add(self.limits.reserve_bytes);
        !self.lock().reserved && free_bytes >= needed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self) -> PathBuf {
        self.dir.join(RESERVE)
    }

    pub(crate) fn space(&self) -> Space {
        self.lock().space
    }

    /// Looks how much room there is; true if the reserve should be made again.
    pub(crate) fn check(&self, disk: &dyn Disk) -> Result<bool, Error> {
        let free_bytes = self.free_bytes(disk)?;
        let mut state = self.lock();
        let space = match state.reserved {
            true => self.limits.judge(state.space, free_bytes),
            false => Space::Full, // however much there is: what is taken now would have nothing to fall back on
        };
        if space != state.space {
            tracing::warn!(dir = %self.dir.display(), free_bytes, from = ?state.space, to = ?space, "space on the disk");
        }
        state.space = space;
        drop(state);
        Ok(self.wants_reserve(free_bytes))
    }

    /// Whether so many bytes find room now, and half of a reserve is left behind them.
    pub(crate) fn fits(&self, disk: &dyn Disk, bytes: u64) -> bool {
        let reserve_bytes = self.limits.reserve_bytes;
        let reserved_bytes = if self.lock().reserved { reserve_bytes } else { 0 };
        let free_bytes = disk.free_bytes(&self.dir).unwrap_or(0);
        free_bytes.saturating_add(reserved_bytes) >= bytes.saturating_add(reserve_bytes / 2)
    }

    /// Makes the reserve. That it cannot be made is no failure.
    pub(crate) fn reserve(&self, disk: &dyn Disk) {
        let path = self.path();
        let _ = disk.remove(&path); // a part of one
        let made = disk.create(&path).and_then(|file| {
            file.allocate(self.limits.reserve_bytes)?;
            file.sync()
        });
        match made.and_then(|()| disk.sync_dir(&self.dir)) {
            Ok(()) => {
                self.lock().reserved = true;
                let _ = self.check(disk); // who cannot tell how much room there is says so the next time
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the reserve could not be made");
                let _ = disk.remove(&path);
            }
        }
    }

    /// The disk is full. Gives up the reserve; false if there is none.
    pub(crate) fn release(&self, disk: &dyn Disk) -> bool {
        let path = self.path();
        let reserved = {
            let mut state = self.lock();
            state.space = Space::Full;
            std::mem::take(&mut state.reserved)
        };
        tracing::error!(path = %path.display(), reserved, "the disk is full");
        reserved && disk.remove(&path).and_then(|()| disk.sync_dir(&self.dir)).is_ok()
    }
}

/// Whether a write failed for want of room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Whether this file can be made again from others.
pub(crate) fn is_derived(path: &Path) -> bool {
    path.ends_with(CHECKPOINT) || path.extension().is_some_and(|end| end == "index")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_gets_better_later_than_it_gets_worse() {
        let limits = SpaceLimits {
            low_bytes: 100,
            full_bytes: 40,
            reserve_bytes: 10,
        };
        let mut space = Space::Plenty;
        let mut seen = Vec::new();
        for free_bytes in [100, 99, 124, 125, 39, 49, 50, 124, 125, 0, 1_000] {
            space = limits.judge(space, free_bytes);
            seen.push(space);
        }
        use Space::{Full, Low, Plenty};
        assert_eq!(
            seen,
            [Plenty, Low, Low, Plenty, Full, Full, Low, Low, Plenty, Full, Plenty]
        );
    }
}
