//! Bytes that rot, files that end early, frames that belong elsewhere: wrong data is never read, nothing synced is cut in silence.
//!
//! The simulation (`tests/sim`) runs these checks too, on its mutants.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::world::{TestClock, entry};
use common::{identity, ids};
use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{
    Disk, DiskWriter, EntryId, Error, Frame, Grade, Identity, Log, LogConfig, OpenLog, TailCache, Vote,
};

const VOTE: Vote = Vote {
    term: 3,
    voted_for: Some(9),
    committed: true,
};

struct Store {
    disk: Arc<SimulatedDisk>,
    dir: &'static str,
    identity: Identity,
    writer: DiskWriter,
}

impl Store {
    fn on(disk: Arc<SimulatedDisk>, dir: &'static str, identity: Identity) -> Store {
        let writer = DiskWriter::manual(disk.clone());
        Store {
            disk,
            dir,
            identity,
            writer,
        }
    }

    fn new() -> Store {
        Store::on(SimulatedDisk::new(1), "/log", identity())
    }

    /// The same files, in a world of their own.
    fn fork(&self) -> Store {
        let disk = self.disk.fork();
        disk.restart();
        Store::on(disk, self.dir, self.identity)
    }

    fn options(&self) -> OpenLog {
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

    fn open(&self) -> Result<Log, Error> {
        Log::open(self.options())
    }

    fn append(&self, log: &Log, term: u64, indexes: std::ops::Range<u64>) {
        for index in indexes {
            log.append(vec![entry(ids(term, index))], Box::new(|result| result.unwrap()))
                .unwrap();
        }
        self.rounds();
    }

    fn rounds(&self) {
        while self.writer.run_round() {}
    }

    /// 40 entries, 30 of them committed and marked together with the vote; returns all frames.
    fn fill(&self) -> Vec<Frame> {
        let log = Log::create(self.options()).unwrap();
        self.append(&log, 1, 0..30);
        log.save_vote(VOTE, Box::new(|result| result.unwrap())).unwrap();
        log.commit(29).unwrap();
        log.note_end(Box::new(|result| result.unwrap())).unwrap();
        self.rounds();
        self.append(&log, 1, 30..40);
        read_all(&log).unwrap()
    }

    fn segments(&self) -> Vec<PathBuf> {
        let files = self.disk.files().into_iter();
        files
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect()
    }

    fn cut(&self, path: &Path, bytes: u64) {
        self.disk.open(path).unwrap().set_len(bytes).unwrap();
    }
}

fn read_all(log: &Log) -> Result<Vec<Frame>, Error> {
    let mut frames: Vec<Frame> = Vec::new();
    while let Some(last) = log.last().filter(|last| frames.len() as u64 <= last.index) {
        let more = log.read(frames.len() as u64, last.index + 1, 500)?;
        assert!(!more.is_empty(), "a hole at {}", frames.len());
        frames.extend(more);
    }
    Ok(frames)
}

/// Reads every entry by itself; what is read must be right.
fn check_each(log: &Log, frames: &[Frame]) {
    for index in 0..log.last().map_or(0, |last| last.index + 1) {
        match log.read(index, index + 1, 0) {
            Ok(found) => assert_eq!(found, frames[index as usize..=index as usize]),
            Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_is_found_or_cut_or_without_effect() {
    assert!(flip_every_byte() > 1_000);
}

/// What became of flipped bytes.
#[derive(Default)]
struct Flips {
    refused: u64,
    cut: u64,
    unread: u64,
    harmless: u64,
}

/// Flips a bit of every byte of small stores, each in a copy of its own; says how many.
pub(crate) fn flip_every_byte() -> u64 {
    let store = Store::new();
    let frames = store.fill();
    let mut flips = Flips::default();
    flips.of(&store, &frames);
    // marked, but no checkpoint: everything up to the mark is read at the start
    store.disk.remove(Path::new("/log/checkpoint")).unwrap();
    flips.of(&store, &frames);
    let Flips {
        refused,
        cut,
        unread,
        harmless,
    } = flips;
    assert!(
        refused > 0 && cut > 0 && unread > 0 && harmless > 0,
        "{refused} {cut} {unread} {harmless}"
    );
    refused + cut + unread + harmless
}

impl Flips {
    fn of(&mut self, store: &Store, frames: &[Frame]) {
        for path in store.disk.files() {
            for position in 0..store.disk.bytes(&path).unwrap().len() as u64 {
                let copy = store.fork();
                let mask = if position % 2 == 0 { 0x01 } else { 0x80 };
                assert!(copy.disk.flip(&path, position, mask));
                self.judge(&copy, frames, &format!("{}: byte {position}", path.display()));
            }
        }
    }

    fn judge(&mut self, copy: &Store, frames: &[Frame], place: &str) {
        let log = match copy.open() {
            Ok(log) => log,
            Err(error) => {
                assert_eq!(error.grade(), Grade::Fatal, "{place}: {error}");
                self.refused += 1;
                return;
            }
        };
        assert_eq!(log.vote(), Some(VOTE), "{place}");
        let length = log.last().map_or(0, |last| last.index + 1);
        assert!(length >= 30, "{place}: marked entries were cut to {length}");
        match read_all(&log) {
            Ok(found) => assert_eq!(found, frames[..length as usize], "{place}"),
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. }), "{place}: {error}");
                self.unread += 1;
                check_each(&log, frames);
                return;
            }
        }
        if length < 40 {
            self.cut += 1;
        } else {
            self.harmless += 1;
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn a_file_cut_at_any_byte_behind_the_mark_keeps_the_whole_frames_before_it() {
    let store = Store::new();
    let frames = store.fill();
    for path in store.segments() {
        for bytes in 0..store.disk.bytes(&path).unwrap().len() as u64 {
            let copy = store.fork();
            copy.cut(&path, bytes);
            match copy.open() {
                Ok(log) => match read_all(&log) {
                    Ok(found) => {
                        assert!(
                            (30..=40).contains(&found.len()),
                            "{}: {bytes} bytes: {}",
                            path.display(),
                            found.len()
                        );
                        assert_eq!(found, frames[..found.len()]);
                        copy.append(&log, 2, found.len() as u64..45);
                        copy.disk.crash(Keep::Nothing);
                        assert_eq!(copy.fork().open().unwrap().last(), Some(ids(2, 44)));
                    }
                    Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
                },
                Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
            }
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn a_missing_segment_is_damage() {
    let store = Store::new();
    store.fill();
    let segments = store.segments();
    for path in &segments[..segments.len() - 2] {
        let copy = store.fork();
        copy.disk.remove(path).unwrap();
        match copy.open() {
            Err(error) => assert!(matches!(error, Error::Damaged { .. }), "{error}"),
            Ok(log) => assert!(read_all(&log).is_err(), "{} is missing", path.display()),
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn a_lost_hard_state_is_never_replaced_by_a_new_one() {
    let store = Store::new();
    store.fill();
    let path = Path::new("/log/hard-state");
    let copy = store.fork();
    copy.disk.remove(path).unwrap();
    assert!(matches!(copy.open(), Err(Error::HardStateLost { .. })));
    let copy = store.fork();
    copy.disk.flip(path, 100, 1);
    copy.disk.flip(path, 4096 + 100, 1);
    assert!(matches!(copy.open(), Err(Error::HardStateLost { .. })));
    let copy = store.fork();
    copy.cut(path, 4000);
    assert_eq!(copy.open().unwrap().vote(), Some(VOTE), "the other slot holds");
}

#[cfg_attr(test, test)]
pub(crate) fn missing_indexes_and_checkpoints_are_rebuilt() {
    let store = Store::new();
    let frames = store.fill();
    for path in store.disk.files() {
        if path.extension().is_some_and(|end| end == "index") || path.ends_with("checkpoint") {
            store.disk.remove(&path).unwrap();
        }
    }
    let log = store.fork().open().unwrap();
    assert_eq!(read_all(&log).unwrap(), frames);
    assert_eq!(log.noted_commit(), Some(ids(1, 29)));
}

#[cfg_attr(test, test)]
pub(crate) fn damage_below_the_checkpoint_is_found_when_it_is_read() {
    let store = Store::new();
    store.fill();
    assert!(store.disk.flip(&store.segments()[0], 500, 1));
    let log = store.fork().open().unwrap();
    let Err(Error::Damaged {
        path, position, index, ..
    }) = read_all(&log)
    else {
        panic!("not found");
    };
    assert_eq!(path, store.segments()[0]);
    assert!(position <= 500 && index < 10, "at {position}, entry {index}");
}

/// Bytes of the frame with this index and everything behind it in its segment, and where it stands.
fn tail_from(store: &Store, frames: &[Frame], index: u64) -> (PathBuf, u64, Vec<u8>) {
    let path = store.segments().pop().unwrap();
    let bytes = store.disk.bytes(&path).unwrap();
    let head = &frames[index as usize].head;
    let position = bytes.windows(head.len()).position(|window| window == head).unwrap();
    (path, position as u64, bytes[position..].to_vec())
}

#[cfg_attr(test, test)]
pub(crate) fn stale_frames_behind_a_truncation_do_not_follow_on() {
    let store = Store::new();
    let frames = store.fill();
    let (path, position, stale) = tail_from(&store, &frames, 38);
    let log = store.open().unwrap();
    log.truncate_from(38).unwrap();
    store.append(&log, 2, 38..39); // of the same size as the entry it replaces
    let length = frames[38].len_bytes();
    let bytes = store.disk.bytes(&path).unwrap();
    assert!(
        bytes[position as usize + length..].iter().all(|byte| *byte == 0),
        "the old frames are cut off"
    );
    let old = bytes::Bytes::from(stale[length..].to_vec());
    store
        .disk
        .open(&path)
        .unwrap()
        .write_at(&[old], position + length as u64)
        .unwrap();
    let log = store.fork().open().unwrap();
    assert_eq!(log.last(), Some(ids(2, 38)), "entry 1.39 is stale");
}

#[cfg_attr(test, test)]
pub(crate) fn frames_of_another_group_do_not_follow_on() {
    let store = Store::new();
    let frames = store.fill();
    let mut other = identity();
    other.group_id.0 += 1;
    let foreign = Store::on(SimulatedDisk::new(2), "/log", other);
    foreign.fill();
    let (path, position, _) = tail_from(&store, &frames, 39);
    let theirs = bytes::Bytes::from(foreign.disk.bytes(&path).unwrap()[position as usize..].to_vec());
    store.disk.open(&path).unwrap().write_at(&[theirs], position).unwrap();
    assert_eq!(store.fork().open().unwrap().last(), Some(ids(1, 38)));
    let swapped = store.fork();
    let segment = &store.segments()[0];
    let whole = bytes::Bytes::from(foreign.disk.bytes(segment).unwrap());
    swapped.disk.open(segment).unwrap().write_at(&[whole], 0).unwrap();
    assert!(matches!(swapped.open(), Err(Error::Damaged { .. })));
}

#[cfg_attr(test, test)]
pub(crate) fn a_follower_that_decides_otherwise_reports_it_and_stays_as_it_was() {
    let store = Store::new();
    let frames = store.fill();
    let follower = Store::on(SimulatedDisk::new(3), "/log", identity());
    let log = Log::create(follower.options()).unwrap();
    let append = |frame: &Frame| {
        log.append(
            vec![highwater_log::Entry::Replicated(frame.clone())],
            Box::new(|result| result.unwrap()),
        )
    };
    for frame in &frames[..12] {
        append(frame).unwrap();
    }
    let mut other = frames[12].clone();
    other.header.chain ^= 1;
    assert!(matches!(
        append(&other),
        Err(Error::Diverged {
            id: EntryId { term: 1, index: 12 },
            ..
        })
    ));
    let mut other = frames[12].clone();
    other.header.base_offset += 1;
    assert!(matches!(append(&other), Err(Error::Diverged { .. })));
    assert!(matches!(
        append(&frames[14]),
        Err(Error::NotContiguous { next_index: 12, .. })
    ));
    append(&frames[12]).unwrap();
    assert_eq!(log.last(), Some(ids(1, 12)));
}
