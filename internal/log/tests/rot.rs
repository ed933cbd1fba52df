//! What rots under an open log besides entries that can be refilled: headers, and entries that nobody has any more.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::pair::{files, scrub};
use common::store::{Store, read_all};
use common::world::TestClock;
use highwater_log::{Disk, Frame, Log, OpenLog, Scrubbed};

/// The file of an entry's frame, and where its header and its payload begin.
fn place_of(store: &Store, frame: &Frame) -> (PathBuf, usize, usize) {
    let found = store.segments().into_iter().find_map(|path| {
        let bytes = store.disk.bytes(&path).unwrap();
        let payload = bytes
            .windows(frame.payload.len())
            .position(|window| window == frame.payload)?;
        Some((path, payload))
    });
    let (path, payload) = found.unwrap();
    (path, payload + frame.payload.len() - frame.len_bytes(), payload)
}

/// A core cannot start without the terms of some entries; a rotten payload must not keep them from it.
#[test]
fn the_id_of_an_entry_is_known_if_only_its_payload_is_damaged() {
    let store = Store::new();
    let frames = store.fill();
    let damage = |places: &[(usize, bool)]| {
        let copy = store.fork();
        for (entry, in_payload) in places {
            let (path, header, payload) = place_of(&copy, &frames[*entry]);
            let position = if *in_payload { payload } else { header + 9 };
            assert!(copy.disk.flip(&path, position as u64, 1));
        }
        let log = copy.open().unwrap();
        scrub(&copy, &log);
        assert!(!log.damage().is_empty());
        let ids = places
            .iter()
            .map(|(entry, _)| log.damaged_entry_id(frames[*entry].id().index).unwrap());
        ids.collect::<Vec<_>>()
    };
    let sound = (0..20).filter(|entry| frames[*entry].payload.len() > 40 && frames[*entry + 1].payload.len() > 40);
    let entries: Vec<usize> = sound.collect();
    assert!(!entries.is_empty());
    for entry in entries {
        assert_eq!(damage(&[(entry, true)]), [Some(frames[entry].id())]);
        assert_eq!(damage(&[(entry, false)]), [None], "its head is damaged");
        let both = damage(&[(entry, true), (entry + 1, true)]);
        assert_eq!(both, [Some(frames[entry].id()), Some(frames[entry + 1].id())]);
        assert_eq!(damage(&[(entry, true), (entry + 1, false)])[1], None);
    }
}

#[test]
fn nothing_is_known_of_an_entry_whose_segment_is_gone() {
    let store = Store::new();
    let frames = store.fill();
    let (path, ..) = place_of(&store, &frames[1]);
    store.disk.remove(&path).unwrap();
    let copy = store.fork();
    let log = copy.open().unwrap();
    scrub(&copy, &log);
    assert!(!log.damage().is_empty());
    assert_eq!(log.damaged_entry_id(frames[1].id().index).unwrap(), None);
}

/// A disk that has lost a write may hold what stood there before: a whole frame, of the same index.
#[test]
fn the_id_of_a_frame_that_does_not_belong_there_is_not_believed() {
    let (store, other) = (Store::new(), Store::new());
    let frames = store.fill();
    let log = Log::create(other.options()).unwrap();
    other.append(&log, 2, 0..30);
    let stale = read_all(&log).unwrap();
    let entry = (5..20).find(|entry| frames[*entry].payload.len() > 40).unwrap();
    let (path, header, _) = place_of(&store, &frames[entry]);
    let (other_path, other_header, _) = place_of(&other, &stale[entry]);
    let length = stale[entry].len_bytes();
    assert_eq!(length, frames[entry].len_bytes());
    let bytes = other.disk.bytes(&other_path).unwrap()[other_header..][..length].to_vec();
    let copy = store.fork();
    copy.disk
        .open(&path)
        .unwrap()
        .write_at(&[bytes.into()], header as u64)
        .unwrap();
    let log = copy.open().unwrap();
    scrub(&copy, &log);
    assert!(!log.damage().is_empty());
    assert_eq!(log.damaged_entry_id(frames[entry].id().index).unwrap(), None);
}

/// Nobody reads a header while its log is open, and the next opening may find other damage beside it.
#[test]
fn a_header_that_rots_under_an_open_log_is_written_again() {
    let store = Store::new();
    store.fill();
    let log = store.open().unwrap();
    log.commit(39).unwrap();
    let whole = files(&store);
    assert!(store.segments().len() > 2);
    for (number, path) in store.segments().iter().enumerate() {
        for position in (number as u64..80).step_by(7) {
            assert!(store.disk.flip(path, position, 0x10));
            scrub(&store, &log);
            store.rounds();
            assert_eq!(files(&store), whole, "{} byte {position}", path.display());
        }
    }
    assert_eq!(log.damage(), []);
}

#[test]
fn it_is_told_how_far_the_scrubber_has_come_and_when_it_was_last_through() {
    let store = Store::new();
    store.fill();
    let (copy, clock) = (store.fork(), Arc::new(TestClock::default()));
    clock.0.store(5_000, Ordering::Relaxed);
    let log = Log::open(OpenLog {
        clock: clock.clone(),
        ..copy.options()
    });
    let (log, segments) = (log.unwrap(), copy.segments().len() as u64);
    let told = |verified_segments, since_ms| Scrubbed {
        segments,
        verified_segments,
        since_ms,
    };
    assert_eq!(log.scrubbed(), told(0, 5_000), "before the first pass");
    clock.0.store(6_000, Ordering::Relaxed);
    let mut verified = vec![0];
    while !log.verify_step(400).unwrap().finished {
        let now = log.scrubbed();
        assert_eq!((now.segments, now.since_ms), (segments, 5_000));
        verified.push(now.verified_segments);
    }
    assert!(verified.is_sorted(), "{verified:?}");
    let most = verified[verified.len() - 1];
    assert!(most > 1 && most < segments, "{verified:?} of {segments}");
    assert_eq!(log.scrubbed(), told(segments, 6_000), "between two passes");
    clock.0.store(7_000, Ordering::Relaxed);
    assert!(!log.verify_step(1).unwrap().finished);
    assert_eq!(log.scrubbed(), told(0, 6_000), "in the second pass");
}
