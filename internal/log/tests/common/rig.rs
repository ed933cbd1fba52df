//! Logs on a simulated disk with one manual writer, and what their callbacks said.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use highwater_log::disk::simulated::SimulatedDisk;
use highwater_log::{Disk, DiskWriter, Error, Log, LogConfig, OpenLog, TailCache};

use super::identity;
use super::world::TestClock;

pub(crate) fn options(disk: Arc<dyn Disk>, writer: &DiskWriter, cache: &Arc<TailCache>, dir: PathBuf) -> OpenLog {
    OpenLog {
        dir,
        identity: identity(),
        disk,
        clock: Arc::new(TestClock::default()),
        writer: writer.clone(),
        cache: cache.clone(),
        config: LogConfig {
            segment_bytes_max: 8_000,
            ..LogConfig::default()
        },
    }
}

pub(crate) struct Rig {
    pub(crate) disk: Arc<SimulatedDisk>,
    pub(crate) writer: DiskWriter,
    pub(crate) cache: Arc<TailCache>,
    answers: Arc<Mutex<Vec<(u32, bool)>>>,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        let disk = SimulatedDisk::new(1);
        let writer = DiskWriter::manual(disk.clone());
        Rig {
            disk,
            writer,
            cache: TailCache::new(0),
            answers: Arc::default(),
        }
    }

    pub(crate) fn log(&self, dir: &str) -> Log {
        Log::create(options(
            self.disk.clone(),
            &self.writer,
            &self.cache,
            PathBuf::from(dir),
        ))
        .unwrap()
    }

    pub(crate) fn answer(&self, number: u32) -> Box<dyn FnOnce(Result<(), Error>) + Send> {
        let answers = self.answers.clone();
        Box::new(move |result| answers.lock().unwrap().push((number, result.is_ok())))
    }

    pub(crate) fn answers(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}
