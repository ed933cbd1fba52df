//! Bytes that rot, files that end early, frames that belong elsewhere: wrong data is never read, nothing synced is cut in silence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use common::store::{Store, VOTE, read_all};
use common::{identity, ids};
use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{Disk, EntryId, Error, Frame, Grade, Log};

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
    let store = Store::new();
    let frames = store.fill();
    let (mut refused, mut cut, mut unread, mut harmless) = (0, 0, 0, 0);
    for path in store.disk.files() {
        for position in 0..store.disk.bytes(&path).unwrap().len() as u64 {
            let copy = store.fork();
            assert!(
                copy.disk
                    .flip(&path, position, if position % 2 == 0 { 0x01 } else { 0x80 })
            );
            let log = match copy.open() {
                Ok(log) => log,
                Err(error) => {
                    assert_eq!(
                        error.grade(),
                        Grade::Fatal,
                        "{}: byte {position}: {error}",
                        path.display()
                    );
                    refused += 1;
                    continue;
                }
            };
            assert_eq!(log.vote(), Some(VOTE), "{}: byte {position}", path.display());
            let length = log.last().unwrap().index + 1;
            assert!(
                length >= 30,
                "{}: byte {position}: marked entries were cut to {length}",
                path.display()
            );
            match read_all(&log) {
                Ok(found) => assert_eq!(found, frames[..length as usize], "{}: byte {position}", path.display()),
                Err(error) => {
                    assert!(
                        matches!(error, Error::Damaged { .. }),
                        "{}: byte {position}: {error}",
                        path.display()
                    );
                    unread += 1;
                    check_each(&log, &frames);
                    continue;
                }
            }
            if length < 40 { cut += 1 } else { harmless += 1 }
        }
    }
    assert!(
        refused > 0 && cut > 0 && unread > 0 && harmless > 0,
        "{refused} {cut} {unread} {harmless}"
    );
}

#[test]
fn a_file_cut_at_any_byte_behind_the_mark_keeps_the_whole_frames_before_it() {
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

#[test]
fn a_missing_segment_is_damage() {
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

#[test]
fn a_lost_hard_state_is_never_replaced_by_a_new_one() {
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

#[test]
fn missing_indexes_and_checkpoints_are_rebuilt() {
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

#[test]
fn damage_below_the_checkpoint_is_found_when_it_is_read() {
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

#[test]
fn stale_frames_behind_a_truncation_do_not_follow_on() {
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

#[test]
fn frames_of_another_group_do_not_follow_on() {
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

#[test]
fn a_follower_that_decides_otherwise_reports_it_and_stays_as_it_was() {
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
