//! A log that goes on under another replica id, and the power cut at every operation of that.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::world::{TestClock, entry};
use common::{identity, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{
    Disk, DiskWriter, Error, Identity, Log, LogConfig, OpenLog, ReplicaId, TailCache, Vote, take_over,
};

const FORMER: ReplicaId = ReplicaId(9);
const NEW: ReplicaId = ReplicaId(90);
const VOTE: Vote = Vote {
    term: 3,
    voted_for: Some(9),
    committed: true,
};

fn options(disk: &Arc<SimulatedDisk>, replica_id: ReplicaId) -> OpenLog {
    OpenLog {
        dir: PathBuf::from("/1"),
        identity: Identity {
            replica_id,
            ..identity()
        },
        disk: disk.clone(),
        clock: Arc::new(TestClock::default()),
        writer: DiskWriter::manual(disk.clone()),
        cache: TailCache::new(0),
        config: LogConfig::default(),
    }
}

/// A disk with a log of three entries and a vote, all synced; it was written to so often that either slot may hold.
fn disk(seed: u64) -> Arc<SimulatedDisk> {
    let disk = SimulatedDisk::new(seed);
    let open = options(&disk, FORMER);
    let writer = open.writer.clone();
    let log = Log::create(open).unwrap();
    for index in 0..3 {
        log.append(vec![entry(ids(1, index))], Box::new(|_| {})).unwrap();
    }
    log.save_vote(VOTE, Box::new(|_| {})).unwrap();
    for _ in 0..seed % 3 {
        writer.run_round();
        log.note_end(Box::new(|_| {})).unwrap();
    }
    writer.run_round();
    disk
}

fn assert_same(log: &Log) {
    assert_eq!((log.last(), log.vote()), (Some(ids(1, 2)), Some(VOTE)));
    assert_eq!(log.read(0, 3, usize::MAX).unwrap().len(), 3);
}

#[test]
fn it_is_the_same_log_of_another_replica_and_may_be_taken_over_twice() {
    for seed in 0..6 {
        let disk = disk(seed);
        for _ in 0..2 {
            take_over(&options(&disk, NEW), FORMER).unwrap();
            disk.crash(Keep::Nothing);
        }
        let former = Log::open(options(&disk, FORMER));
        assert!(matches!(former, Err(Error::WrongIdentity { .. })));
        let open = options(&disk, NEW);
        let writer = open.writer.clone();
        let log = Log::open(open).unwrap();
        assert_same(&log);
        log.save_vote(Vote { term: 4, ..VOTE }, Box::new(|_| {})).unwrap();
        writer.run_round();
        disk.crash(Keep::Nothing);
        let log = Log::open(options(&disk, NEW)).unwrap();
        assert_eq!(log.vote().map(|vote| vote.term), Some(4), "later votes hold");
    }
}

#[test]
fn interrupted_anywhere_it_is_the_one_s_or_the_other_s() {
    let (mut before, mut after) = (0, 0);
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for seed in 0..12 {
            for operation in 1.. {
                let disk = disk(seed);
                disk.fault_at(disk.operations() + operation, Fault::Crash);
                if take_over(&options(&disk, NEW), FORMER).is_ok() {
                    assert!(operation > 4, "only {operation} operations");
                    break;
                }
                disk.crash(keep);
                match Log::open(options(&disk, FORMER)) {
                    Ok(log) => {
                        assert_same(&log);
                        before += 1;
                    }
                    Err(Error::WrongIdentity { .. }) => after += 1,
                    Err(other) => panic!("{other}"),
                }
                take_over(&options(&disk, NEW), FORMER).unwrap();
                assert_same(&Log::open(options(&disk, NEW)).unwrap());
            }
        }
    }
    assert!(before > 0 && after > 0, "{before} before, {after} after");
}

#[test]
fn nobody_takes_over_the_log_of_a_third_one_or_one_without_a_vote() {
    let disk = disk(1);
    let refused = take_over(&options(&disk, NEW), ReplicaId(8));
    assert!(matches!(refused, Err(Error::WrongIdentity { .. })), "{refused:?}");
    assert_same(&Log::open(options(&disk, FORMER)).unwrap());
    disk.remove(&PathBuf::from("/1/hard-state")).unwrap();
    let lost = take_over(&options(&disk, NEW), FORMER);
    assert!(matches!(lost, Err(Error::HardStateLost { .. })), "{lost:?}");
}
