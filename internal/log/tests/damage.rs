//! Bytes that rot, files that end early, frames that belong elsewhere: wrong data is never read, nothing synced is cut in silence.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};

use common::store::{Store, VOTE, read_all};
use common::{identity, ids};
use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{Disk, EntryId, Error, Frame, Grade, Log};

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
                Err(error) => assert!(matches!(error, Error::Dead { index, .. } if index < 32), "{error}"),
            }
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
    let lost = copy.open().err().unwrap();
    assert!(matches!(lost, Error::HardStateLost { .. }));
    assert_eq!(lost.grade(), Grade::Dead);
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
    let Err(error @ Error::Damaged { .. }) = read_all(&log) else {
        panic!("not found");
    };
    assert_eq!(error.grade(), Grade::Inside);
    let Error::Damaged {
        path, position, index, ..
    } = error
    else {
        unreachable!()
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
    let log = swapped.open().unwrap();
    assert_eq!(log.damage()[0].first_index, 0, "a foreign segment is no segment");
    assert!(matches!(log.read(0, 1, 1), Err(Error::Damaged { .. })));
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
