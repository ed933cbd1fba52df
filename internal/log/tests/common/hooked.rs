//! A disk on which a test can do something in the middle of an operation.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use highwater_log::disk::simulated::SimulatedDisk;
use highwater_log::{Disk, DiskFile};

/// What to do once, when it is next reached.
#[derive(Clone, Default)]
pub(crate) struct Hook(Arc<Mutex<Option<Action>>>);

type Action = Box<dyn FnOnce() + Send>;

impl Hook {
    pub(crate) fn set(&self, hook: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }

    fn reached(&self) {
        let hook = self.0.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// Runs a hook in the middle of a read, another before a sync.
pub(crate) struct HookedDisk {
    disk: Arc<SimulatedDisk>,
    pub(crate) on_read: Hook,
    pub(crate) on_sync: Hook,
}

struct HookedFile {
    file: Arc<dyn DiskFile>,
    on_read: Hook,
    on_sync: Hook,
}

impl HookedDisk {
    pub(crate) fn new() -> Arc<HookedDisk> {
        Arc::new(HookedDisk {
            disk: SimulatedDisk::new(1),
            on_read: Hook::default(),
            on_sync: Hook::default(),
        })
    }

    fn hooked(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(HookedFile {
            file,
            on_read: self.on_read.clone(),
            on_sync: self.on_sync.clone(),
        })
    }
}

impl Disk for HookedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.hooked(self.disk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.hooked(self.disk.open(path)?))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.on_read.reached();
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[bytes::Bytes], position: u64) -> io::Result<()> {
        self.file.write_at(parts, position)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.on_sync.reached();
        self.file.sync()
    }
}
