//! A small log of several segments on a simulated disk, which can be copied, damaged and opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_log::disk::simulated::SimulatedDisk;
use highwater_log::{Disk, DiskWriter, Entry, Error, Frame, Identity, Log, LogConfig, OpenLog, TailCache, Vote};

use super::world::{TestClock, entry};
use super::{identity, ids};

pub(crate) const VOTE: Vote = Vote {
    term: 3,
    voted_for: Some(9),
    committed: true,
};

pub(crate) struct Store {
    pub(crate) disk: Arc<SimulatedDisk>,
    pub(crate) dir: &'static str,
    pub(crate) identity: Identity,
    pub(crate) writer: DiskWriter,
}

impl Store {
    pub(crate) fn on(disk: Arc<SimulatedDisk>, dir: &'static str, identity: Identity) -> Store {
        let writer = DiskWriter::manual(disk.clone());
        Store {
            disk,
            dir,
            identity,
            writer,
        }
    }

    pub(crate) fn new() -> Store {
        Store::on(SimulatedDisk::new(1), "/log", identity())
    }

    /// The same files, in a world of their own.
    pub(crate) fn fork(&self) -> Store {
        let disk = self.disk.fork();
        disk.restart();
        Store::on(disk, self.dir, self.identity)
    }

    pub(crate) fn options(&self) -> OpenLog {
        OpenLog {
            dir: PathBuf::from(self.dir),
            identity: self.identity,
            disk: self.disk.clone(),
            clock: Arc::new(TestClock::default()),
            writer: self.writer.clone(),
            cache: TailCache::new(0),
            config: LogConfig {
                segment_bytes_max: 3_000,
                ..LogConfig::default()
            },
        }
    }

    pub(crate) fn open(&self) -> Result<Log, Error> {
        Log::open(self.options())
    }

    pub(crate) fn append(&self, log: &Log, term: u64, indexes: std::ops::Range<u64>) {
        for index in indexes {
            log.append(vec![entry(ids(term, index))], Box::new(|result| result.unwrap()))
                .unwrap();
        }
        self.rounds();
    }

    pub(crate) fn rounds(&self) {
        while self.writer.run_round() {}
    }

    /// 40 entries, 30 of them committed and marked together with the vote; returns all frames.
    pub(crate) fn fill(&self) -> Vec<Frame> {
        let log = Log::create(self.options()).unwrap();
        self.append(&log, 1, 0..30);
        log.save_vote(VOTE, Box::new(|result| result.unwrap())).unwrap();
        log.commit(29).unwrap();
        log.note_end(Box::new(|result| result.unwrap())).unwrap();
        self.rounds();
        self.append(&log, 1, 30..40);
        read_all(&log).unwrap()
    }

    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let files = self.disk.files().into_iter();
        files
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect()
    }

    pub(crate) fn cut(&self, path: &Path, bytes: u64) {
        self.disk.open(path).unwrap().set_len(bytes).unwrap();
    }

    /// Another replica's log with these frames, all synced.
    pub(crate) fn follow(&self, log: &Log, frames: &[Frame]) {
        let entries = frames.iter().cloned().map(Entry::Replicated).collect();
        log.append(entries, Box::new(|result| result.unwrap())).unwrap();
        self.rounds();
    }

    /// Does something that reports when it is certain, and lets it become so.
    pub(crate) fn certain(&self, act: impl FnOnce(Box<dyn FnOnce(Result<(), Error>) + Send>) -> Result<(), Error>) {
        let (sender, receiver) = std::sync::mpsc::channel();
        act(Box::new(move |result| sender.send(result).unwrap())).unwrap();
        self.rounds();
        receiver.try_recv().expect("not answered").unwrap();
    }
}

/// All entries behind the floor.
pub(crate) fn read_all(log: &Log) -> Result<Vec<Frame>, Error> {
    let first = log.floor().map_or(0, |floor| floor.index + 1);
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(last) = log.last().filter(|last| first + frames.len() as u64 <= last.index) {
        let more = log.read(first + frames.len() as u64, last.index + 1, 500)?;
        assert!(!more.is_empty(), "a hole at {}", first + frames.len() as u64);
        frames.extend(more);
    }
    Ok(frames)
}
