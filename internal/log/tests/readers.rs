//! What readers see: beside an appender, across truncations and seals, from the cache and from the disk.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use common::hooked::HookedDisk;
use common::rig::{Rig, options};
use common::world::{Step, World, entry};
use common::{batch, ids};
use highwater_log::disk::simulated::SimulatedDisk;
use highwater_log::{Disk, DiskWriter, Log, RealDisk, TailCache};

#[test]
fn the_cache_keeps_its_budget_but_never_drops_what_is_not_written() {
    let disk = SimulatedDisk::new(1);
    let writer = DiskWriter::manual(disk.clone());
    let cache = TailCache::new(2_000);
    let logs = ["/1", "/2"].map(|dir| Log::create(options(disk.clone(), &writer, &cache, PathBuf::from(dir))).unwrap());
    for index in 0..50 {
        for log in &logs {
            log.append(vec![entry(ids(1, index))], Box::new(|_| {})).unwrap();
            assert!(log.read_cached(0, u64::MAX, 1).is_some(), "entry 0 is not on disk yet");
        }
    }
    assert!(cache.bytes() > 2_000);
    writer.run_round();
    assert!(cache.bytes() <= 2_000);
    assert!(logs.iter().all(|log| log.read_cached(0, 1, 1).is_none()));
    drop(logs);
    assert_eq!(cache.bytes(), 0);
}

/// Indexes are let go of when a log has been quiet for a while; that it was quiet does not mean that its writer is done.
#[test]
fn records_are_found_by_time_while_a_slow_disk_has_not_made_their_segments_yet() {
    let mut world = World::new(1, 0);
    let appends = (0..12).map(|_| Step::Append(5));
    for step in appends.chain([Step::Commit(0), Step::Tick(60_000)]) {
        world.step(&step).unwrap();
    }
    world.check_now();
    world.step(&Step::Round).unwrap();
    world.check_now();
}

/// Readers must see prefixes of one version of the log at a time while another thread appends and truncates.
#[test]
fn readers_beside_an_appender_see_no_hole_and_no_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let writer = DiskWriter::start(disk.clone(), Box::new(|error| panic!("{error}"))).unwrap();
    let cache = TailCache::new(3_000);
    let log = Log::create(options(disk, &writer, &cache, dir.path().join("1"))).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (log, done) = (&log, &done);
            scope.spawn(move || {
                let mut start = reader;
                while !done.load(Ordering::Relaxed) {
                    start = read_once(log, start);
                }
            });
        }
        append_and_truncate(&log);
        done.store(true, Ordering::Relaxed);
    });
}

fn read_once(log: &Log, start: u64) -> u64 {
    let frames = match log.read(start, u64::MAX, 2_000) {
        Ok(frames) => frames,
        Err(error) => panic!("{error}"),
    };
    let mut before: Option<highwater_log::Header> = None;
    for (index, frame) in (start..).zip(&frames) {
        assert_eq!(frame.id().index, index);
        if let Some(before) = before {
            assert!(before.id.term <= frame.id().term, "{} behind {}", frame.id(), before.id);
            let end = before.base_offset + u64::from(before.record_count);
            assert_eq!(
                frame.header.base_offset,
                end,
                "offsets of two versions at {}",
                frame.id()
            );
        }
        before = Some(frame.header.clone());
    }
    if frames.is_empty() {
        start / 2
    } else {
        start + frames.len() as u64
    }
}

fn append_and_truncate(log: &Log) {
    let (mut term, mut next) = (1, 0);
    for turn in 0..400_u64 {
        let (sender, receiver) = mpsc::channel();
        let entries = (next..next + 6).map(|index| entry(ids(term, index))).collect();
        log.append(entries, Box::new(move |result| drop(sender.send(result))))
            .unwrap();
        next += 6;
        if turn % 3 == 0 {
            receiver.recv().unwrap().unwrap();
        }
        if turn % 5 == 4 {
            next -= 4 + turn % 20;
            log.truncate_from(next).unwrap();
            term += 1;
        }
        if turn % 50 == 49 {
            log.commit(next - 25).unwrap();
        }
    }
}

#[test]
fn a_read_overtaken_by_a_truncation_is_done_again() {
    let disk = HookedDisk::new();
    let hook = disk.on_read.clone();
    let writer = DiskWriter::manual(disk.clone());
    let log = Log::create(options(disk, &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    log.append(
        (0..8).map(|index| batch(1, index, index, 1)).collect(),
        Box::new(|_| {}),
    )
    .unwrap();
    writer.run_round();
    let (other, rounds) = (log.clone(), writer.clone());
    hook.set(move || {
        other.truncate_from(3).unwrap();
        other
            .append(
                (3..8).map(|index| batch(2, index, index, 1)).collect(),
                Box::new(|_| {}),
            )
            .unwrap();
        rounds.run_round();
    });
    let terms: Vec<u64> = log
        .read(4, 8, 1 << 20)
        .unwrap()
        .iter()
        .map(|frame| frame.id().term)
        .collect();
    assert!(!hook.is_set(), "the read did not go to the disk");
    assert_eq!(terms, [2, 2, 2, 2]);
    let (other, rounds) = (log.clone(), writer.clone());
    hook.set(move || {
        other.truncate_from(2).unwrap();
        rounds.run_round();
    });
    assert_eq!(log.read(4, 8, 1 << 20).unwrap(), [], "the entries are gone");
}

/// First index of each segment in the directory.
fn segments(disk: &SimulatedDisk, dir: &str) -> Vec<u64> {
    let names = disk.list(Path::new(dir)).unwrap();
    let digits = names.iter().filter_map(|name| name.strip_suffix(".log"));
    digits.map(|digits| digits.parse().unwrap()).collect()
}

#[test]
fn a_segment_that_was_just_sealed_is_read_while_its_last_writes_wait() {
    let rig = Rig::new();
    let log = rig.log("/1");
    for index in 0..5 {
        log.append(vec![batch(1, index, index, 1)], rig.answer(0)).unwrap();
    }
    log.commit(4).unwrap();
    log.note_end(rig.answer(1)).unwrap();
    rig.writer.run_round();
    drop(log);
    // The checkpoint lies inside the segment, so what stands before it is not indexed.
    let open = options(rig.disk.clone(), &rig.writer, &rig.cache, PathBuf::from("/1"));
    let log = Log::open(open).unwrap();
    log.append(vec![batch(1, 5, 5, 1)], rig.answer(2)).unwrap();
    rig.writer.run_round(); // with zeros behind it
    assert_eq!(segments(&rig.disk, "/1"), [0]);
    for index in 6..60 {
        log.append(vec![batch(1, index, index, 1)], rig.answer(3)).unwrap();
    }
    let read = |index| log.read(index, index + 1, usize::MAX).map(|frames| frames[0].id());
    assert_eq!(read(0).unwrap(), ids(1, 0), "before the writer has cut the zeros");
    rig.writer.run_round();
    assert!(segments(&rig.disk, "/1").len() > 1, "the first segment was sealed");
    for index in [0, 5, 59] {
        assert_eq!(read(index).unwrap(), ids(1, index));
    }
}
