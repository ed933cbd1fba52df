//! The power is cut at every single operation of a scripted run, and at every operation of the opening that follows.
//!
//! The simulation (`tests/sim`) runs the same trials on many random scripts; here they run on one that was written by hand.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub(crate) mod common;

use std::ops::Range;
use std::path::Path;

use common::world::{Step, World};
use highwater_log::disk::simulated::{Fault, Keep};

/// Appends over several small segments, group commits, truncations within and across segments, votes, marks, checkpoints.
/// a = append, x = drop from the tail, v = vote, c = commit up to so far below the tail,
/// t = pass milliseconds and tick, p = purge what lies below the log start, r = round.
const SCRIPT: &str = "v r a1 r a3 a2 r c2 t1500 r a12 r v a4 r x5 a2 r a9 c4 r t40000 r a8 a7 r a6 r t1000 r \
     x20 r a5 x2 a3 v r t2000 r c0 a14 x13 a16 r c3 t31000 a1 p r v v r a10 r x9 r t1000 t1000 r a2 r \
     a3 t1000 r a2 c0 t31000 v r v v v r x4 r a1 r a20 p a9 x28 v r a1 r a30 r c9 r a30 c3 p a4 r c0 p x2 r a9 r";

pub(crate) fn script() -> Vec<Step> {
    let step = |word: &str| {
        let number = word[1..].parse().unwrap_or(0);
        match &word[..1] {
            "a" => Step::Append(number),
            "x" => Step::Truncate(number),
            "v" => Step::Vote,
            "c" => Step::Commit(number),
            "t" => Step::Tick(number),
            "p" => Step::Purge,
            _ => Step::Round,
        }
    };
    SCRIPT.split_whitespace().map(step).collect()
}

/// What is done with a world at each operation: what happens there, how often with other seeds, and what must hold then.
/// Says how many recoveries there were.
pub(crate) struct Trial {
    pub(crate) name: &'static str,
    pub(crate) fault: Fault,
    pub(crate) repeats: u64,
    pub(crate) check: fn(World, u64) -> u64,
}

pub(crate) const TRIALS: [Trial; 9] = [
    Trial {
        name: "nothing unsynced is kept",
        fault: Fault::Crash,
        repeats: 1,
        check: |world, _| recover(world, Keep::Nothing),
    },
    Trial {
        name: "everything unsynced is kept",
        fault: Fault::Crash,
        repeats: 1,
        check: |world, _| recover(world, Keep::Everything),
    },
    Trial {
        name: "any of the unsynced writes are kept",
        fault: Fault::Crash,
        repeats: 4,
        check: |world, _| recover(world, Keep::Reordered),
    },
    Trial {
        name: "writes are torn",
        fault: Fault::Crash,
        repeats: 12,
        check: |world, _| recover(world, Keep::Torn),
    },
    Trial {
        name: "the opening is interrupted at each operation",
        fault: Fault::Crash,
        repeats: 2,
        check: interrupt_opening,
    },
    Trial {
        name: "a second crash follows the first",
        fault: Fault::Crash,
        repeats: 3,
        check: crash_again,
    },
    Trial {
        name: "the process is killed, and the power cut later",
        fault: Fault::Crash,
        repeats: 1,
        check: kill_then_cut,
    },
    Trial {
        name: "the operation fails, and the machine starts anew",
        fault: Fault::Fail,
        repeats: 2,
        check: |world, repeat| recover(world, if repeat == 0 { Keep::Nothing } else { Keep::Torn }),
    },
    Trial {
        name: "the operation fails, only the process starts anew, and the power is cut later",
        fault: Fault::Fail,
        repeats: 3,
        check: restart_then_cut,
    },
];

/// The operations of a script.
pub(crate) fn operations(script: &[Step]) -> Range<u64> {
    let mut world = World::new(0, 0);
    let first = world.disk.operations() + 1;
    for step in script {
        world.step(step).unwrap();
    }
    world.check_now();
    first..world.disk.operations() + 1
}

impl Trial {
    /// Runs the script up to this operation, lets it fail, and checks; as often as the trial wants.
    pub(crate) fn at(&self, script: &[Step], operation: u64, seed: u64) -> u64 {
        let one = |repeat: u64| {
            let cache_bytes = if repeat.is_multiple_of(2) { 0 } else { 1 << 20 };
            let mut world = World::new(seed ^ (operation * 1_000 + repeat), cache_bytes);
            world.disk.fault_at(operation, self.fault);
            for step in script {
                if let Err(error) = world.step(step) {
                    let explained = self.fault == Fault::Fail || world.disk.is_stopped();
                    assert!(explained, "{step:?}: {error}");
                    break;
                }
            }
            (self.check)(world, repeat)
        };
        (0..self.repeats).map(one).sum()
    }
}

fn recover(mut world: World, keep: Keep) -> u64 {
    world.crash(keep).unwrap();
    world.check_recovered();
    go_on(&mut world);
    1
}

fn interrupt_opening(mut world: World, repeat: u64) -> u64 {
    let mut recoveries = 1;
    for operation in 1..1_000 {
        world.disk.crash(Keep::Torn);
        world.disk.fault_at(world.disk.operations() + operation, Fault::Crash);
        recoveries += 1;
        match world.reopen() {
            Ok(()) => break,
            Err(error) => assert!(world.disk.is_stopped(), "repeat {repeat}: {error}"),
        }
    }
    world.disk.crash(Keep::Nothing);
    world.reopen().unwrap();
    world.check_recovered();
    go_on(&mut world);
    recoveries
}

fn crash_again(mut world: World, _: u64) -> u64 {
    world.crash(Keep::Torn).unwrap();
    world.check_recovered();
    world.crash(Keep::Nothing).unwrap();
    world.check_recovered();
    world.check_now();
    2
}

fn kill_then_cut(mut world: World, _: u64) -> u64 {
    world.restart();
    world.check_recovered();
    world.crash(Keep::Nothing).unwrap();
    world.check_recovered();
    go_on(&mut world);
    2
}

/// What a failed sync left in the page cache is read there, acknowledged, and must be on the disk by then.
fn restart_then_cut(mut world: World, repeat: u64) -> u64 {
    world.restart();
    world.check_recovered();
    if repeat > 0 {
        go_on(&mut world);
    }
    let keep = if repeat > 1 { Keep::Torn } else { Keep::Nothing };
    world.crash(keep).unwrap();
    world.check_recovered();
    go_on(&mut world);
    2
}

fn go_on(world: &mut World) {
    for step in [Step::Append(5), Step::Round, Step::Truncate(2), Step::Round] {
        world.step(&step).unwrap();
    }
    world.check_files();
    for step in [Step::Append(3), Step::Round, Step::Tick(1_000), Step::Round] {
        world.step(&step).unwrap();
    }
    world.check_now();
    world.check_files();
}

/// Whether the script takes anything from the log's front.
#[cfg(test)]
fn purges(script: &[Step]) -> bool {
    let mut world = World::new(0, 0);
    script.iter().for_each(|step| world.step(step).unwrap());
    world.log.floor().is_some()
}

/// Runs some trials at all operations of the script.
#[cfg(test)]
fn try_all(trials: &[Trial]) {
    let script = script();
    let operations = operations(&script);
    assert!(purges(&script), "the script purges nothing");
    assert!(operations.end > 100, "the script has only {operations:?}");
    for trial in trials {
        for operation in operations.clone() {
            assert!(trial.at(&script, operation, 0) > 0, "{}", trial.name);
        }
    }
}

#[test]
fn nothing_promised_is_lost_when_the_power_fails_at_any_operation() {
    try_all(&TRIALS[..3]);
}

#[test]
fn nothing_promised_is_lost_when_writes_are_torn_at_any_operation() {
    try_all(&TRIALS[3..4]);
}

#[test]
fn the_opening_can_be_interrupted_at_any_operation() {
    try_all(&TRIALS[4..5]);
}

#[test]
fn what_was_found_after_a_crash_survives_the_next_one() {
    try_all(&TRIALS[5..6]);
}

#[test]
fn what_was_found_after_the_process_was_killed_survives_a_power_cut() {
    try_all(&TRIALS[6..7]);
}

#[test]
fn nothing_promised_is_lost_when_any_operation_fails_and_the_power_then() {
    try_all(&TRIALS[7..8]);
}

#[test]
fn what_a_failed_sync_left_in_memory_is_certain_once_a_restarted_process_has_opened_the_log() {
    try_all(&TRIALS[8..]);
}

#[cfg_attr(test, test)]
pub(crate) fn after_a_quiet_second_a_vote_survives_damage_to_either_slot() {
    for slot in [0, 4096] {
        let mut world = World::new(1, 0);
        for step in [Step::Vote, Step::Round, Step::Tick(1_000), Step::Round] {
            world.step(&step).unwrap();
        }
        let vote = world.log.vote();
        assert!(vote.is_some());
        assert!(world.disk.flip(Path::new("/log/hard-state"), slot + 20, 1));
        world.restart();
        assert_eq!(world.log.vote(), vote, "slot at {slot}");
    }
}
