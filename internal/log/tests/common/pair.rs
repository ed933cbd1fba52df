//! A store to be damaged beside an intact twin of it, from which it is mended.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use highwater_log::{DamagedRange, Disk, Error, Frame, Log, Opened, Repair};

use super::store::{Store, VOTE, read_all};

/// Entries below this are noted as committed by `Store::fill`; those below `MARKED` are marked.
pub(crate) const COMMITTED: u64 = 30;
pub(crate) const MARKED: u64 = 32;

/// Verifies the whole log in small steps, and lets indexes be rewritten.
pub(crate) fn scrub(store: &Store, log: &Log) {
    for _ in 0..1_000 {
        let verified = log.verify_step(700).unwrap();
        store.rounds();
        if verified.finished {
            return;
        }
    }
    panic!("the scrubber does not come to an end");
}

pub(crate) fn range(range: Range<u64>) -> DamagedRange {
    DamagedRange {
        first_index: range.start,
        end_index: range.end,
    }
}

/// Refills everything that `peer` has, a few frames at a time.
pub(crate) fn refill(store: &Store, log: &Log, peer: &Log) {
    for _ in 0..1_000 {
        let mut served = false;
        for DamagedRange { first_index, end_index } in log.damage() {
            let frames = peer.read_for_refill(first_index, end_index, 900);
            if let Some(frames) = frames.ok().filter(|frames| !frames.is_empty()) {
                served = true;
                match log.refill(frames, Box::new(|result| result.unwrap())) {
                    Err(error) => assert!(matches!(error, Error::Refused { .. }), "{error}"), // the range is wider now
                    Ok(()) => store.rounds(),
                }
            }
        }
        if !served {
            return;
        }
    }
    panic!("the refill does not come to an end");
}

/// A log that needs entries from another one.
pub(crate) fn damaged_log(store: &Store) -> Repair {
    match Log::open_or_repair(store.options()) {
        Ok(Opened::Repair(repair)) => *repair,
        Ok(Opened::Log(_)) => panic!("nothing is missing"),
        Err(error) => panic!("{error}"),
    }
}

/// Opens a log, if need be after a repair from `peer`.
pub(crate) fn open_repaired(store: &Store, peer: &Log) -> Log {
    let mut repair = match Log::open_or_repair(store.options()) {
        Ok(Opened::Log(log)) => return log,
        Ok(Opened::Repair(repair)) => repair,
        Err(error) => panic!("{error}"),
    };
    assert!(repair.take_log().is_none(), "it is still damaged");
    while let Some(first) = repair.damage().first().copied() {
        let frames = peer.read_for_refill(first.first_index, first.end_index, 900).unwrap();
        if let Err(error) = repair.refill(&frames) {
            assert!(matches!(error, Error::Refused { .. }), "{error}"); // the range is wider now
        }
    }
    let log = repair.take_log().unwrap();
    assert!(repair.take_log().is_none(), "it is taken once");
    log
}

/// The segments and their indexes.
pub(crate) fn files(store: &Store) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = store.disk.files().into_iter();
    let data = paths.filter(|path| path.extension().is_some_and(|end| end == "log" || end == "index"));
    data.map(|path| (path.clone(), store.disk.bytes(&path).unwrap()))
        .collect()
}

/// A store as `fill` leaves it; the log of an intact twin; its frames; and its files.
pub(crate) struct Pair {
    pub(crate) store: Store,
    pub(crate) twin: Log,
    pub(crate) frames: Vec<Frame>,
    pub(crate) whole: BTreeMap<PathBuf, Vec<u8>>,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let store = Store::new();
        let frames = store.fill();
        let intact = store.fork();
        let twin = intact.open().unwrap();
        let all = intact.fork();
        let log = all.open().unwrap();
        log.commit(39).unwrap();
        scrub(&all, &log);
        let whole = files(&all);
        Pair {
            store,
            twin,
            frames,
            whole,
        }
    }

    /// Without a checkpoint, so that everything has to be folded.
    pub(crate) fn without_checkpoint() -> Pair {
        let pair = Pair::new();
        pair.store.disk.restart();
        pair.store.disk.remove(Path::new("/log/checkpoint")).unwrap();
        pair
    }

    /// Where each frame stands.
    pub(crate) fn places(&self) -> Vec<(PathBuf, Range<u64>)> {
        let mut places = Vec::new();
        for (path, bytes) in self.whole.iter().filter(|(path, _)| path.extension().unwrap() == "log") {
            let mut position = 80;
            while position < bytes.len() as u64 {
                let end = position + self.frames[places.len()].len_bytes() as u64;
                places.push((path.clone(), position..end));
                position = end;
            }
        }
        places
    }

    /// The entry that a byte belongs to; a segment's header goes with its first entry.
    pub(crate) fn entry_at(&self, path: &Path, position: u64) -> u64 {
        let places = self.places();
        let holds = |(file, range): &(PathBuf, Range<u64>)| file == path && position < range.end;
        places.iter().position(holds).unwrap() as u64
    }

    /// Everything that can be read is right; the rest is said to be damaged.
    pub(crate) fn check_reads(&self, log: &Log) {
        let damage = log.damage();
        for index in 0..log.last().map_or(0, |last| last.index + 1) {
            let damaged = damage
                .iter()
                .any(|range| (range.first_index..range.end_index).contains(&index));
            match log.read(index, index + 3, 1 << 20) {
                Ok(found) => {
                    assert!(!damaged && !found.is_empty());
                    assert_eq!(found, self.frames[index as usize..index as usize + found.len()]);
                }
                Err(error) => assert!(
                    damaged && matches!(error, Error::Damaged { .. }),
                    "entry {index}: {error}"
                ),
            }
        }
        let (log_start, high_watermark) = log.committed(|state| (state.log_start, state.log_end));
        for offset in log_start..high_watermark {
            let holds = |frame: &&Frame| frame.header.record_count > 0 && frame.offset_end() > offset;
            let frame = self.frames.iter().find(holds).unwrap();
            let index = frame.id().index;
            let damaged = damage
                .iter()
                .any(|range| (range.first_index..range.end_index).contains(&index));
            match log.read_records(offset, 1) {
                Ok(found) => assert!(!damaged && found[0] == *frame, "offset {offset}"),
                Err(error) => assert!(
                    damaged && matches!(error, Error::Damaged { .. }),
                    "offset {offset}: {error}"
                ),
            }
        }
    }

    /// The log is mended from the twin and its files are then those of the twin.
    pub(crate) fn check_mended(&self, store: &Store, log: Log, what: &str) {
        scrub(store, &log);
        self.check_reads(&log);
        refill(store, &log, &self.twin);
        assert_eq!(log.damage(), [], "{what}");
        scrub(store, &log);
        assert_eq!(log.damage(), [], "{what}");
        assert_eq!(log.vote(), Some(VOTE), "{what}");
        let length = read_all(&log).unwrap().len();
        if length < self.frames.len() {
            store.follow(&log, &self.frames[length..]);
        }
        log.commit(39).unwrap();
        scrub(store, &log);
        store.certain(|done| log.note_end(done));
        let mended = files(store);
        assert!(mended.keys().eq(self.whole.keys()), "{what}: {:?}", mended.keys());
        for (path, bytes) in &self.whole {
            assert!(mended[path] == *bytes, "{what}: {} is not the same", path.display());
        }
    }
}
