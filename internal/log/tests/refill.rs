//! Damage inside a log is found exactly, everything else is served, and the entries come back from any replica that has them until the
//! files are the same bytes again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::pair::{COMMITTED, MARKED, Pair, damaged_log, files, open_repaired, range, refill, scrub};
use common::store::{Store, read_all};
use common::{identity, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{DamagedRange, Disk, Error, Frame, Grade, Log};

#[cfg_attr(test, test)]
pub(crate) fn any_flipped_byte_has_the_right_grade_and_is_refilled_to_the_same_bytes() {
    assert!(flip_every_byte() > 1_000);
}

/// Flips a bit of the bytes of small stores, each in a copy of its own; says how many.
pub(crate) fn flip_every_byte() -> u64 {
    let mut flips = 0;
    for (pair, folded) in [(Pair::new(), false), (Pair::without_checkpoint(), true)] {
        let mut dead = 0;
        for path in pair.store.disk.files() {
            let is_segment = path.extension().is_some_and(|end| end == "log");
            let step = if folded { 3 } else { 1 }; // the same opening for the most part
            for position in (0..pair.store.disk.bytes(&path).unwrap().len() as u64).step_by(step) {
                let what = format!("{} byte {position}", path.display());
                let copy = pair.store.fork();
                let mask = if position % 2 == 0 { 0x01 } else { 0x80 };
                assert!(copy.disk.flip(&path, position, mask));
                flips += 1;
                let whole_bytes = pair.whole.get(&path).map_or(0, Vec::len) as u64;
                let index = (is_segment && position < whole_bytes).then(|| pair.entry_at(&path, position));
                let opened = copy.open();
                let in_header = is_segment && position < 80;
                match index {
                    // The last segment's header is known without it: the mark stands there.
                    Some(index) if (COMMITTED..MARKED).contains(&index) && !in_header => {
                        dead += 1;
                        assert_eq!(opened.err().unwrap().grade(), Grade::Dead, "{what}");
                        continue;
                    }
                    Some(index) if index < COMMITTED && folded && !in_header => {
                        let ranges = vec![range(index..index + 1)];
                        assert!(
                            matches!(opened, Err(Error::NeedsRefill { ranges: found, .. }) if found == ranges),
                            "{what}"
                        );
                    }
                    Some(index) if index < COMMITTED && !folded => {
                        let log = opened.unwrap();
                        scrub(&copy, &log);
                        assert_eq!(log.damage(), [range(index..index + 1)], "{what}");
                    }
                    Some(index) if index >= MARKED && !in_header => {
                        assert_eq!(opened.unwrap().last(), Some(ids(1, index - 1)), "{what}");
                    }
                    _ => assert_eq!(opened.unwrap().damage(), [], "{what}"),
                }
                let copy = copy.fork();
                let log = open_repaired(&copy, &pair.twin);
                pair.check_mended(&copy, log, &what);
            }
        }
        assert!(dead > 0);
    }
    flips
}

#[cfg_attr(test, test)]
pub(crate) fn any_missing_or_short_sealed_segments_are_made_anew() {
    for pair in [Pair::new(), Pair::without_checkpoint()] {
        let segments = pair.store.segments();
        let sealed = &segments[..segments.len() - 2]; // the others hold what is not committed
        assert!(sealed.len() >= 2, "{sealed:?}");
        for kept in 0..3_u32.pow(sealed.len() as u32) {
            let copy = pair.store.fork();
            let mut what = String::new();
            for (place, path) in sealed.iter().enumerate() {
                let how = kept / 3_u32.pow(place as u32) % 3;
                what += ["kept ", "missing ", "short "][how as usize];
                match how {
                    1 => copy.disk.remove(path).unwrap(),
                    2 => copy.cut(path, 700 + 300 * place as u64),
                    _ => {}
                }
            }
            let copy = copy.fork();
            let log = open_repaired(&copy, &pair.twin);
            if kept > 0 && copy.disk.bytes(Path::new("/log/checkpoint")).is_some() {
                assert!(!log.damage().is_empty(), "{what}: found while opening");
            }
            pair.check_mended(&copy, log, &what);
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn missing_segments_are_made_anew_without_their_indexes_as_well() {
    let pair = Pair::new();
    let copy = pair.store.fork();
    for path in copy.disk.files() {
        let gone = pair.store.segments()[1].clone();
        if path.extension().is_some_and(|end| end == "index") || path == gone {
            copy.disk.remove(&path).unwrap();
        }
    }
    let copy = copy.fork();
    let log = copy.open().unwrap();
    pair.check_mended(&copy, log, "no indexes");
}

#[cfg_attr(test, test)]
pub(crate) fn several_bad_frames_of_one_segment_are_told_apart() {
    let pair = Pair::new();
    let places = pair.places();
    let bad = [1_usize, 2, 5, 7];
    for (number, index) in bad.into_iter().enumerate() {
        let (path, at) = &places[index];
        let position = at.start + [0, 40, 70, 8][number]; // header checksum, record count, detail, payload length
        assert!(pair.store.disk.flip(path, position, 0x40));
    }
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    assert!(log.read(7, 8, 1).is_err(), "whichever is read first");
    assert_eq!(log.damage(), [range(1..3), range(5..6), range(7..8)]);
    pair.check_reads(&log);
    pair.check_mended(&copy, log, "several");
}

#[cfg_attr(test, test)]
pub(crate) fn frames_inside_a_payload_are_not_taken_for_the_next_ones() {
    let pair = Pair::new();
    let places = pair.places();
    let (path, at) = &places[2];
    let embedded = [pair.frames[3].head.clone(), pair.frames[3].payload.clone()].concat();
    let length = embedded.len() as u64;
    assert!(at.end - at.start > length + 130, "the payload has room for it");
    let file = pair.store.disk.open(path).unwrap();
    file.write_at(&[bytes::Bytes::from(embedded)], at.start + 130).unwrap();
    assert!(pair.store.disk.flip(path, at.start, 1));
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    scrub(&copy, &log);
    assert!(!log.damage().is_empty());
    pair.check_reads(&log);
    pair.check_mended(&copy, log, "embedded");
}

#[cfg_attr(test, test)]
pub(crate) fn three_replicas_damaged_in_different_places_mend_each_other() {
    let pair = Pair::new();
    let segments = pair.store.segments();
    let sealed = segments.len() - 2;
    for turn in 0..3 {
        let replicas: Vec<Store> = (0..3).map(|_| pair.store.fork()).collect();
        for (number, replica) in replicas.iter().enumerate() {
            let here = |(place, _): &(usize, &PathBuf)| place % 3 == (number + turn) % 3;
            for (place, path) in segments[..=sealed].iter().enumerate().filter(here) {
                match (turn + place) % 3 {
                    _ if place == sealed => assert!(replica.disk.flip(path, 300, 2)),
                    0 => replica.disk.remove(path).unwrap(),
                    1 => replica.cut(path, 60),
                    _ => assert!(
                        (200..1_500)
                            .step_by(90)
                            .all(|position| replica.disk.flip(path, position, 2))
                    ),
                }
            }
        }
        let replicas: Vec<Store> = replicas.iter().map(Store::fork).collect();
        let logs: Vec<Log> = replicas.iter().map(|replica| replica.open().unwrap()).collect();
        for (replica, log) in replicas.iter().zip(&logs) {
            scrub(replica, log);
        }
        assert!(logs.iter().all(|log| !log.damage().is_empty()));
        for (replica, log) in replicas.iter().zip(&logs) {
            logs.iter().for_each(|peer| refill(replica, log, peer));
        }
        for (number, (replica, log)) in replicas.iter().zip(logs).enumerate() {
            assert_eq!(log.damage(), [], "replica {number}");
            pair.check_mended(replica, log, "three replicas");
        }
    }
}

/// A copy with a flipped payload, a missing file and a bad header.
fn damaged(pair: &Pair) -> Store {
    let copy = pair.store.fork();
    let segments = copy.segments();
    copy.disk.remove(&segments[1]).unwrap();
    assert!(copy.disk.flip(&segments[0], 900, 1));
    assert!(copy.disk.flip(&segments[0], 30, 1));
    copy.fork()
}

#[cfg_attr(test, test)]
pub(crate) fn a_refill_can_be_interrupted_at_any_operation() {
    let pair = Pair::new();
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for operation in 1.. {
            let copy = damaged(&pair);
            let log = copy.open().unwrap();
            scrub(&copy, &log);
            copy.disk.fault_at(copy.disk.operations() + operation, Fault::Crash);
            for DamagedRange { first_index, end_index } in log.damage() {
                let frames = pair.twin.read_for_refill(first_index, end_index, 1 << 20).unwrap();
                let _ = log.refill(frames, Box::new(|_| {}));
            }
            copy.rounds();
            if !copy.disk.is_stopped() {
                assert!(operation > 8, "only {operation} operations");
                break;
            }
            copy.disk.crash(keep);
            let again = copy.fork();
            let log = again.open().unwrap();
            pair.check_mended(&again, log, &format!("{keep:?} at {operation}"));
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn an_offline_repair_can_be_interrupted_at_any_operation() {
    let pair = Pair::without_checkpoint();
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for operation in 1.. {
            let copy = damaged(&pair);
            let mut repair = damaged_log(&copy);
            copy.disk.fault_at(copy.disk.operations() + operation, Fault::Crash);
            while let Some(first) = repair.damage().first().copied() {
                let frames = pair
                    .twin
                    .read_for_refill(first.first_index, first.end_index, 1 << 20)
                    .unwrap();
                if repair.refill(&frames).is_err() {
                    break;
                }
            }
            if !copy.disk.is_stopped() {
                assert!(operation > 8, "only {operation} operations");
                break;
            }
            copy.disk.crash(keep);
            let again = copy.fork();
            let log = open_repaired(&again, &pair.twin);
            pair.check_mended(&again, log, &format!("{keep:?} at {operation}"));
        }
    }
}

#[cfg_attr(test, test)]
pub(crate) fn only_frames_that_fit_are_taken() {
    let pair = Pair::new();
    let (path, at) = pair.places()[5].clone();
    assert!(pair.store.disk.flip(&path, at.start + 70, 1));
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    let offer = |frames: &[Frame]| log.refill(frames.to_vec(), Box::new(|_| {}));
    assert!(
        matches!(offer(&pair.frames[5..6]), Err(Error::Refused { index: 5, .. })),
        "not known to be damaged yet"
    );
    scrub(&copy, &log);
    assert_eq!(log.damage(), [range(5..6)]);
    let before = files(&copy);
    let other = Store::on(SimulatedDisk::new(4), "/log", identity());
    let elsewhere = Log::create(other.options()).unwrap();
    other.follow(&elsewhere, &pair.frames[..5]);
    other.append(&elsewhere, 2, 5..7); // follows on the same prefix, but is not what follows here
    let theirs = elsewhere.read(5, 7, 1 << 20).unwrap();
    assert!(matches!(offer(&theirs), Err(Error::Refused { index: 5, .. })));
    assert!(matches!(
        offer(&pair.frames[4..6]),
        Err(Error::Refused { index: 4, .. })
    ));
    assert!(matches!(
        offer(&pair.frames[6..7]),
        Err(Error::Refused { index: 6, .. })
    ));
    assert!(
        log.damage()[0].end_index > 6,
        "wider, as what stood behind did not follow on frames that did"
    );
    let mut group = identity();
    group.group_id.0 += 1;
    let foreign = Store::on(SimulatedDisk::new(4), "/log", group);
    let foreign = foreign.fill();
    assert!(
        matches!(offer(&foreign[5..6]), Err(Error::Refused { index: 5, .. })),
        "not even as a part"
    );
    let mut torn = pair.frames[5].clone();
    torn.payload = bytes::Bytes::from_static(b"other");
    assert!(matches!(offer(&[torn]), Err(Error::Refused { index: 5, .. })));
    assert!(
        matches!(log.read_for_refill(5, 6, 1), Err(Error::Damaged { .. })),
        "nothing bad is served"
    );
    copy.rounds();
    assert_eq!(files(&copy), before, "nothing was changed");
    copy.certain(|done| log.refill(pair.frames[5..9].to_vec(), done)); // more than is needed
    assert_eq!(log.damage(), []);
    assert_eq!(read_all(&log).unwrap(), pair.frames);
    assert_eq!(
        log.read_for_refill(COMMITTED, 40, 1).unwrap(),
        [],
        "only what is committed is served"
    );
}

#[cfg_attr(test, test)]
pub(crate) fn the_owner_hears_of_damage_and_of_its_end() {
    let pair = Pair::new();
    let (path, at) = pair.places()[12].clone();
    assert!(pair.store.disk.flip(&path, at.start + 3, 1));
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let counter = heard.clone();
    log.on_damage(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    assert!(log.verify_step(0).unwrap().bytes > 0, "a step goes on, however small");
    let mut found = Vec::new();
    while found.is_empty() {
        let verified = log.verify_step(400).unwrap();
        assert!(verified.bytes <= 4_000 && !verified.finished);
        found = verified.found;
    }
    assert_eq!(found, [range(12..13)]);
    assert_eq!(heard.load(Ordering::Relaxed), 1);
    assert!(log.read(12, 13, 1).is_err());
    assert_eq!(heard.load(Ordering::Relaxed), 1, "it is no news");
    let frames = pair.frames[12..13].to_vec();
    log.refill(frames, Box::new(|_| {})).unwrap();
    assert_eq!(log.damage(), [range(12..13)], "until it is synced");
    copy.rounds();
    assert_eq!((log.damage(), heard.load(Ordering::Relaxed)), (vec![], 2));
}

/// Damage that was found while the log ran is inside after a crash as well, although the mark was older.
#[cfg_attr(test, test)]
pub(crate) fn damage_found_in_committed_entries_behind_the_mark_is_inside_after_a_crash() {
    let pair = Pair::new();
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    log.commit(39).unwrap();
    pair.twin.commit(39).unwrap();
    let (path, at) = pair.places()[36].clone();
    assert!(copy.disk.flip(&path, at.start + 20, 1));
    scrub(&copy, &log);
    assert_eq!(log.damage(), [range(36..37)]);
    copy.disk.crash(Keep::Nothing);
    let again = copy.fork();
    let log = again.open().unwrap();
    assert_eq!((log.last(), log.noted_commit()), (Some(ids(1, 39)), Some(ids(1, 39))));
    pair.check_mended(&again, log, "behind the mark");
}

#[cfg_attr(test, test)]
pub(crate) fn damage_above_the_committed_index_is_the_replica_s_end_when_it_is_read() {
    let pair = Pair::new();
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    let (path, at) = pair.places()[36].clone();
    assert!(copy.disk.flip(&path, at.start + 20, 1));
    let error = log.read(36, 37, 1).unwrap_err();
    assert!(matches!(error, Error::Dead { index: 36, .. }), "{error}");
    assert_eq!(error.grade(), Grade::Dead);
}

#[cfg_attr(test, test)]
pub(crate) fn a_lost_log_end_is_the_replica_s_end() {
    for (commit, checkpoint) in [(29, true), (39, true), (39, false)] {
        let closed = Pair::new().store.fork();
        let log = closed.open().unwrap();
        log.commit(commit).unwrap();
        closed.certain(|done| log.note_end(done));
        drop(log);
        closed.disk.restart();
        if !checkpoint {
            closed.disk.remove(Path::new("/log/checkpoint")).unwrap();
        }
        let last = closed.segments().pop().unwrap();
        let length = closed.disk.bytes(&last).unwrap().len() as u64;
        for bytes in [0, 79, 80, length - 1] {
            let copy = closed.fork();
            copy.cut(&last, bytes);
            let grade = copy.open().err().map(|error| error.grade());
            assert_eq!(grade, Some(Grade::Dead), "{commit} {checkpoint}: {bytes} bytes");
        }
        let copy = closed.fork();
        copy.disk.remove(&last).unwrap();
        assert_eq!(copy.open().err().unwrap().grade(), Grade::Dead);
        closed.fork().open().unwrap();
    }
}

#[cfg_attr(test, test)]
pub(crate) fn a_purge_below_which_all_damage_lies_ends_it() {
    let pair = Pair::new();
    assert!(pair.store.disk.flip(&pair.store.segments()[0], 900, 1));
    let copy = pair.store.fork();
    let log = copy.open().unwrap();
    scrub(&copy, &log);
    let floor = log.floor_for(u64::MAX).unwrap().unwrap();
    assert!(
        matches!(log.fold_manifest(floor), Err(Error::Damaged { .. })),
        "it cannot be folded here"
    );
    let manifest = pair.twin.fold_manifest(floor).unwrap(); // but elsewhere
    copy.certain(|done| log.purge(manifest, done));
    assert_eq!(log.damage(), []);
    assert_eq!(read_all(&log).unwrap(), pair.frames[floor as usize + 1..]);
}

#[cfg_attr(test, test)]
pub(crate) fn a_lost_manifest_is_replaced_by_another_replica_s() {
    for checkpoint in [true, false] {
        let pair = Pair::new();
        let copy = pair.store.fork();
        let log = copy.open().unwrap();
        let floor = log.floor_for(pair.frames[9].header.base_offset).unwrap().unwrap();
        let manifest = log.fold_manifest(floor).unwrap();
        copy.certain(|done| log.purge(manifest, done));
        drop(log);
        copy.disk.restart();
        assert!(copy.disk.flip(Path::new("/log/manifest"), 60, 1));
        if !checkpoint {
            copy.disk.remove(Path::new("/log/checkpoint")).unwrap();
        }
        let copy = copy.fork();
        let theirs = pair
            .twin
            .fold_manifest(pair.twin.floor_for(u64::MAX).unwrap().unwrap())
            .unwrap();
        if checkpoint {
            let log = copy.open().unwrap();
            assert_eq!(log.damage(), [range(0..floor + 1)]);
            copy.certain(|done| log.purge(theirs.clone(), done));
        } else {
            assert_eq!(copy.open().err().unwrap().grade(), Grade::Inside);
            let mut repair = damaged_log(&copy);
            assert_eq!(repair.damage(), [range(0..floor + 1)]);
            repair.replace_manifest(&theirs).unwrap();
            assert_eq!(repair.damage(), []);
        }
        let log = copy.fork().open().unwrap();
        assert_eq!((log.floor(), log.damage()), (Some(theirs.last()), vec![]));
        assert_eq!(read_all(&log).unwrap(), pair.frames[theirs.last().index as usize + 1..]);
    }
}
