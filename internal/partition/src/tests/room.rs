//! Disks with as much room as a test wants.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use highwater_log::{Disk, DiskFile, RealDisk, SpaceLimits};

/// When the disks are low or full.
pub(super) const LIMITS: SpaceLimits = SpaceLimits {
    low_bytes: 40_000,
    full_bytes: 10_000,
    reserve_bytes: 4_096,
};

/// A real disk that says what a test wants about the room that is left.
pub(super) struct RoomyDisk(pub(super) Arc<AtomicU64>);

impl Disk for RoomyDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.create(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path)
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
    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.0.load(Ordering::Acquire))
    }
}
