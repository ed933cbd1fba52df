//! Creating a log, and the power cut at every operation of it: what is left is either nothing, or a whole empty log, or a directory that
//! says that it never became one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::world::{TestClock, entry};
use common::{identity, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{Disk, DiskWriter, Error, Grade, Log, LogConfig, OpenLog, TailCache};

const DIR: &str = "/1";
const HARD_STATE: &str = "/1/hard-state";

fn options(disk: &Arc<SimulatedDisk>) -> OpenLog {
    OpenLog {
        dir: PathBuf::from(DIR),
        identity: identity(),
        disk: disk.clone(),
        clock: Arc::new(TestClock::default()),
        writer: DiskWriter::manual(disk.clone()),
        cache: TailCache::new(0),
        config: LogConfig::default(),
    }
}

/// What a crash in the middle of `create` left.
#[derive(Default, Debug)]
struct Left {
    nothing: u32,
    unfinished: u32,
    whole: u32,
}

impl Left {
    /// Opens what is left; it must be one of the three, and `create` must agree.
    fn note(&mut self, disk: &Arc<SimulatedDisk>) {
        match Log::open(options(disk)) {
            Ok(log) => {
                assert_eq!((log.last(), log.vote()), (None, None));
                self.whole += 1;
            }
            Err(error @ Error::NeverCreated { .. }) => {
                assert_eq!(error.grade(), Grade::Fatal);
                assert!(error.to_string().contains("never completed"), "{error}");
                self.unfinished += 1;
            }
            Err(Error::HardStateLost { .. }) => {
                assert!(
                    disk.list(Path::new(DIR)).is_err(),
                    "only a missing directory is nothing"
                );
                Log::create(options(disk)).unwrap();
                self.nothing += 1;
                return;
            }
            Err(other) => panic!("{other}"),
        }
        assert!(matches!(Log::create(options(disk)), Err(Error::AlreadyExists { .. })));
    }
}

#[test]
fn a_creation_that_was_interrupted_anywhere_says_so_when_it_is_opened() {
    let mut left = Left::default();
    for keep in [Keep::Nothing, Keep::Everything, Keep::Torn] {
        for seed in 0..20 {
            for operation in 1.. {
                let disk = SimulatedDisk::new(seed);
                disk.fault_at(operation, Fault::Crash);
                if Log::create(options(&disk)).is_ok() {
                    assert!(operation > 8, "only {operation} operations");
                    break;
                }
                disk.crash(keep);
                left.note(&disk);
            }
        }
    }
    assert!(left.nothing > 0 && left.unfinished > 0 && left.whole > 0, "{left:?}");
}

#[test]
fn a_creation_that_failed_says_so_when_it_is_opened() {
    let mut left = Left::default();
    for operation in 2.. {
        let disk = SimulatedDisk::new(1);
        disk.fault_at(operation, Fault::Fail);
        if Log::create(options(&disk)).is_ok() {
            break;
        }
        disk.restart();
        left.note(&disk);
    }
    assert!(left.unfinished > 0 && left.whole > 0, "{left:?}");
}

#[test]
fn a_log_that_lost_its_hard_state_is_not_taken_for_one_that_never_was() {
    let disk = SimulatedDisk::new(1);
    let open = options(&disk);
    let writer = open.writer.clone();
    let log = Log::create(open).unwrap();
    log.append(vec![entry(ids(1, 0))], Box::new(|_| {})).unwrap();
    log.note_end(Box::new(|_| {})).unwrap();
    writer.run_round();
    disk.remove(Path::new(HARD_STATE)).unwrap();
    assert!(matches!(Log::open(options(&disk)), Err(Error::HardStateLost { .. })));
}
