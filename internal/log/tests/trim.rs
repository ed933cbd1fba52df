//! How the front of a log goes, and how a replica begins behind it: nothing that was promised goes with it, at whatever operation the
//! power fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use bytes::Bytes;
use common::store::{Store, VOTE, read_all};
use common::world::entry;
use common::{batch, identity, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{Disk, Entry, Error, Frame, Log, Manifest, Verdict};

const KEEPS: [Keep; 3] = [Keep::Nothing, Keep::Everything, Keep::Torn];

fn purge(store: &Store, log: &Log, upto: u64) {
    let manifest = log.fold_manifest(upto).unwrap();
    store.certain(|done| log.purge(manifest, done));
}

/// The floor that keeps what the 20th entry brought.
fn some_floor(log: &Log, frames: &[Frame]) -> u64 {
    log.floor_for(frames[20].header.base_offset).unwrap().unwrap()
}

fn check_from(log: &Log, frames: &[Frame], first: u64) {
    let found = read_all(log).unwrap();
    assert_eq!(found, frames[first as usize..]);
    assert_eq!(
        log.floor(),
        first.checked_sub(1).map(|index| frames[index as usize].id())
    );
}

#[test]
fn a_purge_removes_whole_segments_below_the_offset_and_nothing_else() {
    let store = Store::new();
    let frames = store.fill();
    let log = store.open().unwrap();
    let offset = frames[20].header.base_offset;
    let before = store.segments().len();
    let floor = log.floor_for(offset).unwrap().unwrap();
    assert!(frames[floor as usize].offset_end() <= offset);
    purge(&store, &log, floor);
    assert!(store.segments().len() < before);
    let first = store.segments()[0]
        .file_stem()
        .unwrap()
        .to_string_lossy()
        .parse::<u64>()
        .unwrap();
    assert_eq!(first, floor + 1, "a floor for an offset is the end of a segment");
    check_from(&log, &frames, floor + 1);
    assert_eq!(log.floor_for(offset).unwrap(), None, "there is nothing more to purge");
    assert!(
        matches!(log.read(floor, 40, 1), Err(Error::Purged { index, first_index }) if index == floor && first_index == first)
    );
    assert!(log.read_cached(floor, 40, 1).is_none());
    assert_eq!(log.entry_id(floor).unwrap(), Some(frames[floor as usize].id()));
    assert_eq!(log.entry_id(floor - 1).unwrap(), None);
    for log in [store.fork().open().unwrap(), log] {
        check_from(&log, &frames, floor + 1);
        assert_eq!(log.manifest().unwrap().last(), frames[floor as usize].id());
        assert_eq!(log.vote(), Some(VOTE));
    }
}

#[test]
fn the_floor_never_passes_what_is_not_committed() {
    let store = Store::new();
    let frames = store.fill();
    let log = store.open().unwrap();
    let floor = log.floor_for(u64::MAX).unwrap().unwrap();
    assert!(floor < 30);
    assert!(matches!(
        log.fold_manifest(30),
        Err(Error::NotCommitted {
            index: 30,
            committed_end: 30
        })
    ));
    let other = Store::on(SimulatedDisk::new(2), "/log", identity());
    let ahead = Log::create(other.options()).unwrap();
    other.follow(&ahead, &frames);
    ahead.commit(39).unwrap();
    let early = log.purge(ahead.fold_manifest(35).unwrap(), Box::new(|_| {}));
    assert!(matches!(early, Err(Error::NotCommitted { index: 35, .. })));
    assert_eq!(log.floor(), None);
}

#[test]
fn a_manifest_is_the_state_that_the_entries_below_it_made() {
    let store = Store::new();
    let frames = store.fill();
    let log = store.open().unwrap();
    for upto in 0..30 {
        let other = Store::on(SimulatedDisk::new(2), "/log", identity());
        let follower = Log::create(other.options()).unwrap();
        other.follow(&follower, &frames[..=upto]);
        follower.commit(upto as u64).unwrap();
        let manifest = log.fold_manifest(upto as u64).unwrap();
        follower.committed(|state| assert_eq!(state, manifest.state(), "up to {upto}"));
        assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
    }
    let operations = store.disk.operations();
    log.fold_manifest(29).unwrap();
    assert_eq!(store.disk.operations(), operations, "folding changes nothing");
}

#[test]
fn a_manifest_folded_from_an_earlier_one_is_the_same() {
    let store = Store::new();
    store.fill();
    let log = store.open().unwrap();
    let whole = log.fold_manifest(28).unwrap();
    for floor in [3, 11, 12, 27] {
        purge(&store, &log, floor);
        assert_eq!(log.fold_manifest(28).unwrap(), whole, "from {floor}");
        assert!(matches!(log.fold_manifest(floor - 1), Err(Error::Purged { .. })));
    }
}

#[test]
fn a_log_opens_from_its_manifest_without_a_checkpoint_wherever_the_floor_is() {
    for floor in 0..29 {
        let store = Store::new();
        let frames = store.fill();
        let log = store.open().unwrap();
        purge(&store, &log, floor);
        drop(log);
        store.disk.restart();
        assert!(store.disk.flip(Path::new("/log/checkpoint"), 20, 1));
        let log = store.fork().open().unwrap();
        check_from(&log, &frames, floor + 1);
        let whole = Store::new();
        whole.fill();
        let whole = whole.open().unwrap();
        log.committed(|state| whole.committed(|other| assert_eq!(state, other, "floor {floor}")));
        let records = frames[floor as usize + 1..30]
            .iter()
            .filter(|frame| frame.header.record_count > 0);
        let log_start = log.committed(|state| state.log_start);
        for frame in records.filter(|frame| frame.header.base_offset >= log_start) {
            let found = log.read_records(frame.header.base_offset, 1).unwrap();
            assert_eq!(found[0], *frame, "floor {floor}");
        }
        log.offset_at(0).unwrap();
    }
}

#[test]
fn a_producer_is_still_known_behind_a_trim() {
    let store = Store::new();
    let log = Log::create(store.options()).unwrap();
    let sent = |index: u64, sequence: u64, producer: u8| vec![batch(1, index, sequence, producer)];
    log.append(sent(0, 0, 77), Box::new(|_| {})).unwrap();
    for index in 1..40 {
        log.append(sent(index, index - 1, 1), Box::new(|_| {})).unwrap();
    }
    store.rounds();
    log.commit(39).unwrap();
    purge(&store, &log, 30);
    drop(log);
    store.disk.restart();
    store.disk.remove(Path::new("/log/checkpoint")).unwrap();
    let copy = store.fork();
    let log = copy.open().unwrap();
    let again = batch(1, 0, 0, 77);
    let Entry::Proposed { body, .. } = again else {
        unreachable!()
    };
    let retry = Entry::Proposed { id: ids(1, 40), body };
    log.append(vec![retry], Box::new(|_| {})).unwrap();
    let decision = log.decision(ids(1, 40)).unwrap();
    assert_eq!((decision.verdict, decision.base_offset), (Verdict::Duplicate, 0));
}

#[test]
fn the_machine_s_checkpoint_stands_in_the_manifest() {
    let store = Store::new();
    let frames = store.fill();
    let log = store.open().unwrap();
    let manifest = log.fold_manifest(some_floor(&log, &frames)).unwrap();
    let manifest = manifest.with_machine(Bytes::from_static(b"topics"));
    store.certain(|done| log.purge(manifest, done));
    let log = store.fork().open().unwrap();
    assert_eq!(log.manifest().unwrap().machine(), "topics");
}

#[test]
fn a_manifest_of_another_log_is_refused() {
    let store = Store::new();
    store.fill();
    let log = store.open().unwrap();
    let mut other = identity();
    other.group_id.0 += 1;
    let foreign = Store::on(SimulatedDisk::new(2), "/log", other);
    foreign.fill();
    let theirs = foreign.open().unwrap().fold_manifest(20).unwrap();
    assert!(matches!(
        log.purge(theirs.clone(), Box::new(|_| {})),
        Err(Error::Format(_))
    ));
    assert!(matches!(log.install(theirs, Box::new(|_| {})), Err(Error::Format(_))));
    let split = Store::on(SimulatedDisk::new(3), "/log", identity());
    let diverged = Log::create(split.options()).unwrap();
    split.append(&diverged, 2, 0..30);
    diverged.commit(29).unwrap();
    let theirs = diverged.fold_manifest(20).unwrap();
    assert!(matches!(
        log.purge(theirs, Box::new(|_| {})),
        Err(Error::Diverged { .. })
    ));
    assert_eq!(log.floor(), None);
}

/// A replica with the first entries of `frames`, some of them committed, and the manifest of one that is far ahead.
struct Lagging {
    store: Store,
    log: Log,
    manifest: Manifest,
    frames: Vec<Frame>,
}

impl Lagging {
    fn new(count: usize, commit: u64) -> Lagging {
        let ahead = Store::new();
        let frames = ahead.fill();
        let leader = ahead.open().unwrap();
        let manifest = leader.fold_manifest(25).unwrap();
        let store = Store::on(SimulatedDisk::new(9), "/log", identity());
        let log = Log::create(store.options()).unwrap();
        log.save_vote(VOTE, Box::new(|_| {})).unwrap();
        store.follow(&log, &frames[..count]);
        log.commit(commit).unwrap();
        store.certain(|done| log.note_end(done));
        Lagging {
            store,
            log,
            manifest,
            frames,
        }
    }
}

#[test]
fn a_replica_behind_the_floor_begins_behind_the_manifest_and_follows() {
    let Lagging {
        store,
        log,
        manifest,
        frames,
    } = Lagging::new(10, 4);
    for _ in 0..2 {
        store.certain(|done| log.install(manifest.clone(), done)); // the second time nothing is left to do
        assert_eq!(store.segments().len(), 1);
        assert_eq!((log.floor(), log.last()), (Some(ids(1, 25)), Some(ids(1, 25))));
        assert!(matches!(log.read(9, 26, 1), Err(Error::Purged { .. })));
    }
    store.follow(&log, &frames[26..]);
    check_from(&log, &frames, 26);
    let reopened = store.fork().open().unwrap();
    check_from(&reopened, &frames, 26);
    assert_eq!(reopened.vote(), Some(VOTE));
    assert_eq!(reopened.noted_commit(), Some(ids(1, 25)));
}

#[test]
fn an_installation_drops_a_suffix_that_went_another_way() {
    let Lagging {
        store,
        log,
        manifest,
        frames,
    } = Lagging::new(10, 9);
    store.append(&log, 7, 10..38); // never committed
    store.certain(|done| log.note_end(done));
    store.certain(|done| log.install(manifest, done));
    assert_eq!(log.last(), Some(ids(1, 25)));
    store.follow(&log, &frames[26..]);
    check_from(&store.fork().open().unwrap(), &frames, 26);
}

/// The manifest's own state has the log start of that entry; the trim that let it be purged comes behind it.
#[test]
fn what_a_manifest_stands_for_is_below_the_log_start_before_the_trim_is_here() {
    let Lagging {
        store,
        log,
        manifest,
        frames,
    } = Lagging::new(10, 9);
    let (folded_start, purged_end) = (manifest.state().log_start, manifest.state().log_end);
    assert!(folded_start < purged_end);
    store.certain(|done| log.install(manifest, done));
    store.follow(&log, &frames[26..]);
    for log in [store.fork().open().unwrap(), log] {
        assert_eq!(log.readable().0, purged_end);
        for offset in [folded_start, purged_end - 1] {
            let refused = log.read_records(offset, 1);
            assert!(matches!(refused, Err(Error::BelowStart { log_start, .. }) if log_start == purged_end));
        }
    }
}

#[test]
fn an_installation_of_what_is_here_already_keeps_what_follows_it() {
    let Lagging {
        store,
        log,
        manifest,
        frames,
    } = Lagging::new(35, 4);
    store.certain(|done| log.install(manifest, done));
    check_from(&log, &frames[..35], 26);
    assert_eq!(log.committed(|state| state.next_index), 26);
    check_from(&store.fork().open().unwrap(), &frames[..35], 26);
}

/// Does `act` on copies of `store`, with a crash at each operation in turn, and `check`s what is opened then.
fn at_each_operation(store: &Store, act: impl Fn(&Store, &Log), check: impl Fn(&Store, Log)) {
    for keep in KEEPS {
        for operation in 1.. {
            let copy = store.fork();
            let log = copy.open().unwrap();
            copy.disk.fault_at(copy.disk.operations() + operation, Fault::Crash);
            act(&copy, &log);
            if !copy.disk.is_stopped() {
                assert!(operation > 8, "only {operation} operations");
                break;
            }
            copy.disk.crash(keep);
            for again in 1.. {
                let other = copy.fork();
                other.disk.fault_at(other.disk.operations() + again, Fault::Crash);
                let opened = other.open();
                if !other.disk.is_stopped() {
                    other.disk.fault_at(u64::MAX, Fault::Crash);
                    check(&other, opened.unwrap());
                    break;
                }
                other.disk.crash(Keep::Torn);
                let third = other.fork(); // a writer that was not poisoned
                check(&third, third.open().unwrap());
            }
        }
    }
}

fn go_on(store: &Store, log: &Log) {
    let next = log.last().map_or(0, |last| last.index + 1);
    store.append(log, 9, next..next + 12);
    let all = read_all(log).unwrap();
    assert_eq!(read_all(&store.fork().open().unwrap()).unwrap(), all);
}

#[test]
fn a_purge_can_be_interrupted_at_any_operation() {
    let store = Store::new();
    let frames = store.fill();
    at_each_operation(
        &store,
        |store, log| {
            let manifest = log.fold_manifest(some_floor(log, &frames)).unwrap();
            log.purge(manifest, Box::new(|_| {})).unwrap();
            store.rounds();
        },
        |store, log| {
            let first = log.floor().map_or(0, |floor| floor.index + 1);
            check_from(&log, &frames, first);
            let present = store.segments();
            assert_eq!(
                log.floor().is_some(),
                !present[0].ends_with("00000000000000000000.log"),
                "{present:?}"
            );
            assert_eq!(log.noted_commit(), Some(ids(1, 29)));
            go_on(store, &log);
        },
    );
}

#[test]
fn a_purge_beside_appends_that_roll_can_be_interrupted_at_any_operation() {
    let store = Store::new();
    let frames = store.fill();
    let more = || (40..60).map(|index| entry(ids(1, index)));
    at_each_operation(
        &store,
        |store, log| {
            log.append(more().take(10).collect(), Box::new(|_| {})).unwrap();
            log.commit(44).unwrap();
            let manifest = log.fold_manifest(log.floor_for(u64::MAX).unwrap().unwrap()).unwrap();
            log.purge(manifest, Box::new(|_| {})).unwrap();
            log.append(more().skip(10).collect(), Box::new(|_| {})).unwrap();
            store.rounds();
        },
        |store, log| {
            let first = log.floor().map_or(0, |floor| floor.index + 1);
            let found = read_all(&log).unwrap();
            assert!(found.len() as u64 + first >= 40);
            let shared = (40 - first.min(40)) as usize;
            assert_eq!(found[..shared], frames[first.min(40) as usize..]);
            go_on(store, &log);
        },
    );
}

#[test]
fn an_installation_can_be_interrupted_at_any_operation() {
    for (count, commit, diverging) in [(10, 4, 0), (12, 9, 38), (1, 0, 0)] {
        let Lagging {
            store,
            log,
            manifest,
            frames,
        } = Lagging::new(count, commit);
        if diverging > 0 {
            store.append(&log, 7, count as u64..diverging);
            store.certain(|done| log.note_end(done)); // marked beyond the floor
        }
        let before = read_all(&log).unwrap();
        drop(log);
        store.disk.restart();
        at_each_operation(
            &store,
            |store, log| {
                log.install(manifest.clone(), Box::new(|_| {})).unwrap();
                let rest = frames[26..].iter().cloned().map(Entry::Replicated).collect();
                log.append(rest, Box::new(|_| {})).unwrap();
                store.rounds();
            },
            |store, log| {
                assert_eq!(log.vote(), Some(VOTE));
                if log.floor().is_none() {
                    let found = read_all(&log).unwrap();
                    assert_eq!(found, before[..found.len()]);
                    assert!(found.len() as u64 > commit, "committed entries are lost");
                    store.certain(|done| log.install(manifest.clone(), done));
                }
                let found = read_all(&log).unwrap();
                assert_eq!(found, frames[26..26 + found.len()]);
                store.follow(&log, &frames[26 + found.len()..]);
                check_from(&log, &frames, 26);
                check_from(&store.fork().open().unwrap(), &frames, 26);
            },
        );
    }
}
