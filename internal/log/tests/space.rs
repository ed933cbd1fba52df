//! A full disk: nothing is lost, what can go on goes on, and all of it recovers when there is room again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use common::rig::options;
use common::store::read_all;
use common::{batch_of, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{
    Body, Disk, DiskWriter, Entry, Error, Log, RESERVE, RealDisk, Space, SpaceLimits, TailCache, Vote,
};

const LIMITS: SpaceLimits = SpaceLimits {
    low_bytes: 40_000,
    full_bytes: 10_000,
    reserve_bytes: 20_000,
};

struct Full {
    disk: Arc<SimulatedDisk>,
    writer: DiskWriter,
    log: Log,
}

fn entry(index: u64, bytes: usize) -> Entry {
    let body = Body::Batch(batch_of(1, index, Bytes::from(vec![index as u8; bytes])));
    Entry::Proposed {
        id: ids(1, index),
        body,
    }
}

fn reserve(disk: &SimulatedDisk) -> Option<usize> {
    disk.bytes(&Path::new("/").join(RESERVE)).map(|bytes| bytes.len())
}

impl Full {
    /// A log of ten entries on a disk with so many bytes left.
    fn new(free_bytes: u64) -> Full {
        let disk = SimulatedDisk::new(1);
        let writer = DiskWriter::manual(disk.clone())
            .with_reserve(Path::new("/"), LIMITS)
            .unwrap();
        let log = Log::create(options(disk.clone(), &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
        let full = Full { disk, writer, log };
        for index in 0..10 {
            assert!(full.append(index, 500));
        }
        full.log.commit(9).unwrap();
        full.leave(free_bytes);
        full
    }

    fn leave(&self, free_bytes: u64) {
        self.disk.set_capacity(None);
        let used = u64::MAX - self.disk.free_bytes(Path::new("/")).unwrap();
        self.disk.set_capacity(Some(used + free_bytes));
    }

    /// Appends and says whether it was synced.
    fn append(&self, index: u64, bytes: usize) -> bool {
        let (sender, receiver) = std::sync::mpsc::channel();
        let done = Box::new(move |result: Result<(), Error>| sender.send(result.is_ok()).unwrap());
        if self.log.append(vec![entry(index, bytes)], done).is_err() {
            return false;
        }
        self.writer.run_round();
        receiver.try_recv().unwrap()
    }

    /// Appends these entries and commits them.
    fn fill(&self, indexes: Range<u64>) {
        self.leave(1_000_000);
        for index in indexes.clone() {
            assert!(self.append(index, 500));
        }
        self.log.commit(indexes.end - 1).unwrap();
    }

    /// Not a byte is left, also not in the reserve.
    fn leave_nothing(&self) {
        let _ = self.disk.remove(&Path::new("/").join(RESERVE)); // gone already
        self.leave(0);
    }

    /// Purges all that can go; returns the floor.
    fn purge(&self) -> u64 {
        let floor = self.log.floor_for(u64::MAX).unwrap().unwrap();
        let manifest = self.log.fold_manifest(floor).unwrap();
        self.log.purge(manifest, Box::new(|_| {})).unwrap();
        self.writer.run_round();
        floor
    }

    /// The names of the segments and their indexes.
    fn files(&self) -> Vec<String> {
        let mut names = self.disk.list(Path::new("/1")).unwrap();
        names.retain(|name| name.ends_with(".log") || name.ends_with(".index"));
        names
    }

    /// What a restart finds: the first entry that is not purged, and the end.
    fn reopened(&self) -> (u64, u64) {
        let disk = self.disk.fork();
        disk.restart();
        let writer = DiskWriter::manual(disk.clone());
        let log = Log::open(options(disk, &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
        let first = log.floor().map_or(0, |floor| floor.index + 1);
        (first, first + read_all(&log).unwrap().len() as u64)
    }

    fn entries(&self) -> u64 {
        self.reopened().1
    }
}

#[test]
fn a_write_that_finds_the_disk_full_is_done_again_in_the_reserve() {
    let full = Full::new(3_000);
    assert_eq!(reserve(&full.disk), Some(20_000));
    assert!(full.append(10, 6_000));
    assert_eq!((full.writer.space(), reserve(&full.disk)), (Space::Full, None));
    assert!(full.append(11, 1_000), "the rest of the reserve is there for it");
    assert_eq!(full.entries(), 12);
}

#[test]
fn a_second_failure_poisons_and_what_was_synced_is_still_there() {
    let full = Full::new(3_000);
    assert!(full.append(10, 6_000));
    full.leave(100);
    assert!(!full.append(11, 6_000));
    assert!(matches!(
        full.writer.failure(),
        Some(Error::Io { operation: "write", .. })
    ));
    assert_eq!(full.entries(), 11);
    assert_eq!(full.log.read(3, 4, 1).unwrap().len(), 1, "reads go on");
}

#[test]
fn a_failed_sync_is_not_done_again_for_the_reserve() {
    let full = Full::new(1_000_000);
    full.disk.fail_syncs(true);
    assert!(!full.append(10, 100));
    assert!(full.writer.failure().is_some());
    assert_eq!(reserve(&full.disk), Some(20_000));
}

#[test]
fn space_is_low_before_it_is_full_and_recovers_with_the_reserve() {
    let full = Full::new(1_000_000);
    let look = |free_bytes| {
        full.leave(free_bytes);
        full.writer.check_space().unwrap();
        full.writer.run_round();
        full.writer.space()
    };
    assert_eq!(look(1_000_000), Space::Plenty);
    assert_eq!(look(39_000), Space::Low);
    assert_eq!(look(9_000), Space::Full);
    full.leave(500);
    assert!(full.append(10, 6_000));
    assert_eq!(reserve(&full.disk), None);
    assert_eq!(look(11_000), Space::Full, "not yet");
    assert_eq!(look(14_000), Space::Full, "there is no room for the reserve");
    assert_eq!(reserve(&full.disk), None);
    assert_eq!(look(100_000), Space::Plenty);
    assert_eq!(reserve(&full.disk), Some(20_000));
    full.leave(500);
    assert!(full.append(11, 6_000), "it helps again");
}

/// Otherwise whatever is taken when the room has gone again, before anybody has looked, finds nothing to fall back on.
#[test]
fn records_are_taken_again_only_when_there_is_a_reserve_again() {
    let full = Full::new(3_000);
    assert!(full.append(10, 6_000));
    full.leave(1_000_000);
    assert_eq!(full.writer.check_space().unwrap(), Space::Full, "it is only asked for");
    full.leave(500);
    full.writer.run_round();
    assert_eq!((full.writer.space(), reserve(&full.disk)), (Space::Full, None));
    full.leave(1_000_000);
    full.writer.check_space().unwrap();
    full.writer.run_round();
    assert_eq!(
        (full.writer.space(), reserve(&full.disk)),
        (Space::Plenty, Some(20_000))
    );
}

#[test]
fn votes_and_a_clean_close_need_no_room() {
    let full = Full::new(3_000);
    assert!(full.append(10, 6_000));
    full.leave(0);
    let vote = Vote {
        term: 3,
        voted_for: Some(1),
        committed: true,
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let vote_sender = sender.clone();
    full.log
        .save_vote(vote, Box::new(move |result| vote_sender.send(result.is_ok()).unwrap()))
        .unwrap();
    full.log
        .note_end(Box::new(move |result| sender.send(result.is_ok()).unwrap()))
        .unwrap();
    full.writer.stop();
    assert_eq!(receiver.iter().collect::<Vec<_>>(), [true, true]);
    assert!(full.writer.failure().is_none());
    assert_eq!(full.entries(), 11);
    let names = full.disk.list(Path::new("/1")).unwrap();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
}

#[test]
fn a_purge_makes_room_on_a_full_disk() {
    let full = Full::new(1_000_000);
    full.fill(10..60);
    full.leave(0);
    full.purge();
    assert!(full.disk.free_bytes(Path::new("/")).unwrap() > 20_000);
    assert!(full.append(60, 500));
}

/// The room may go between the look and the write. The files must not go then, and must not be forgotten either.
#[test]
fn what_a_purge_without_room_for_its_manifest_leaves_goes_with_the_next_one() {
    let full = Full::new(1_000_000);
    full.fill(10..60);
    let (files, bytes) = (full.files(), full.log.bytes().unwrap());
    for end in [61, 90] {
        full.leave_nothing();
        let floor = full.purge();
        assert!(full.writer.failure().is_none());
        assert!(matches!(full.log.read(floor, floor + 1, 1), Err(Error::Purged { .. })));
        assert!(files.iter().all(|file| full.files().contains(file)));
        assert!(full.log.bytes().unwrap() >= bytes, "what stays is counted");
        let before = full.log.last().unwrap().index + 1;
        assert_eq!(full.reopened(), (0, before), "all of it is there after a restart");
        full.fill(before..end);
    }
    let floor = full.purge();
    let first = format!("{:020}.log", floor + 1);
    assert_eq!(full.files(), [first], "only the active segment is left");
    assert!(full.log.bytes().unwrap() < 8_000);
    assert_eq!(full.reopened(), (floor + 1, 90));
}

#[test]
fn what_a_purge_left_goes_with_an_installation() {
    let (full, ahead) = (Full::new(1_000_000), Full::new(1_000_000));
    full.fill(10..60);
    ahead.fill(10..90);
    full.leave_nothing();
    full.purge();
    full.leave(1_000_000);
    let manifest = ahead.log.fold_manifest(80).unwrap();
    full.log.install(manifest, Box::new(|result| result.unwrap())).unwrap();
    full.writer.run_round();
    assert_eq!(full.files(), [format!("{:020}.log", 81)]);
    assert!(full.log.bytes().unwrap() < 1_000);
    assert_eq!(full.reopened(), (81, 81));
}

#[test]
fn what_a_purge_left_goes_only_behind_a_manifest_that_is_certain() {
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for operation in 1.. {
            let full = Full::new(1_000_000);
            full.fill(10..60);
            full.leave_nothing();
            full.purge();
            full.fill(60..90);
            full.disk.fault_at(full.disk.operations() + operation, Fault::Crash);
            let floor = full.purge();
            if !full.disk.is_stopped() {
                assert!(operation > 20, "only {operation} operations");
                break;
            }
            full.disk.crash(keep);
            let (first, end) = full.reopened();
            assert!([0, floor + 1].contains(&first), "{keep:?} at {operation}: {first}");
            assert_eq!(end, 90, "{keep:?} at {operation}");
        }
    }
}

/// What a failed sync leaves is unknown, whatever it says; only what is not begun can be left for another time.
#[test]
fn a_sync_that_finds_no_room_in_a_purge_poisons() {
    let mut failed = Vec::new();
    loop {
        let full = Full::new(1_000_000);
        full.fill(10..60);
        full.log.note_end(Box::new(|result| result.unwrap())).unwrap(); // a checkpoint of the purge would come first
        full.writer.run_round();
        full.leave_nothing();
        full.leave(1_000_000);
        let operation = full.disk.operations() + failed.len() as u64 + 1;
        full.disk.fault_at(operation, Fault::NoRoom);
        full.purge();
        if full.disk.operations() < operation {
            break;
        }
        failed.push(full.writer.failure().map(|error| match error {
            Error::Io { operation, path, .. } => (operation, path),
            error => panic!("{error}"),
        }));
    }
    let at = |operation, name: &str| Some((operation, Path::new("/1").join(name)));
    let expected = [
        at("write", "hard-state"),
        at("sync", "hard-state"),
        None, // the manifest is made
        None, // and written
        at("sync", "manifest.tmp"),
        None, // and renamed
        at("sync", ""),
        at("remove", "00000000000000000000.log"),
    ];
    assert_eq!(failed[..expected.len()], expected);
    assert_eq!(failed.last(), Some(&at("sync", "")));
}

#[test]
fn nothing_synced_is_lost_when_the_power_fails_while_the_reserve_is_given_up() {
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for operation in 1.. {
            let full = Full::new(3_000);
            full.disk.fault_at(full.disk.operations() + operation, Fault::Crash);
            let synced = (10..14).take_while(|index| full.append(*index, 3_900)).count() as u64;
            if !full.disk.is_stopped() {
                assert!(operation > 6 && synced == 4, "{operation} operations, {synced} synced");
                break;
            }
            full.disk.crash(keep);
            assert!(full.entries() >= 10 + synced, "{keep:?} at {operation}");
        }
    }
}

#[test]
fn the_real_disk_knows_its_room_and_takes_a_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let free_bytes = RealDisk.free_bytes(dir.path()).unwrap();
    assert!(free_bytes > 0 && free_bytes <= RealDisk.total_bytes(dir.path()).unwrap());
    let limits = SpaceLimits::for_disk(&RealDisk, dir.path()).unwrap();
    assert!(limits.reserve_bytes <= SpaceLimits::default().reserve_bytes);
    let limits = SpaceLimits {
        low_bytes: 2,
        full_bytes: 1,
        reserve_bytes: 1 << 20,
    };
    let writer = DiskWriter::manual(Arc::new(RealDisk))
        .with_reserve(dir.path(), limits)
        .unwrap();
    assert_eq!(writer.space(), Space::Plenty);
    assert_eq!(std::fs::metadata(dir.path().join(RESERVE)).unwrap().len(), 1 << 20);
}
