//! The power is cut at every single operation of a scripted run, and at every operation of the opening that follows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;

use common::world::{Step, World};
use highwater_log::disk::simulated::{Fault, Keep};

/// Appends over several small segments, group commits, truncations within and across segments, votes, marks, checkpoints.
/// a = append, x = drop from the tail, v = vote, c = commit up to so far below the tail,
/// t = pass milliseconds and tick, p = purge what lies below the log start, r = round.
const SCRIPT: &str = "v r a1 r a3 a2 r c2 t1500 r a12 r v a4 r x5 a2 r a9 c4 r t40000 r a8 a7 r a6 r t1000 r \
     x20 r a5 x2 a3 v r t2000 r c0 a14 x13 a16 r c3 t31000 a1 p r v v r a10 r x9 r t1000 t1000 r a2 r \
     a3 t1000 r a2 c0 t31000 v r v v v r x4 r a1 r a20 p a9 x28 v r a1 r a30 r c9 r a30 c3 p a4 r c0 p x2 r a9 r";

fn script() -> impl Iterator<Item = Step> {
    SCRIPT.split_whitespace().map(|word| {
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
    })
}

/// Runs the script until the disk stops; false if it never did.
fn run_until_stopped(world: &mut World) -> bool {
    for step in script() {
        if let Err(error) = world.step(&step) {
            assert!(world.disk.is_stopped(), "{step:?}: {error}");
            return true;
        }
    }
    world.disk.is_stopped()
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

/// Calls `check` for a world stopped at each operation of the script in turn; returns how many there were.
fn at_each_operation(seeds: u64, mut check: impl FnMut(World, u64)) -> u64 {
    let mut operation = World::new(0, 0).disk.operations();
    loop {
        operation += 1;
        for seed in 0..seeds {
            let mut world = World::new(operation * 1_000 + seed, if seed % 2 == 0 { 0 } else { 1 << 20 });
            world.disk.fault_at(operation, Fault::Crash);
            if !run_until_stopped(&mut world) {
                world.check_now();
                assert!(world.log.floor().is_some(), "nothing was purged");
                return operation;
            }
            check(world, seed);
        }
    }
}

#[test]
fn nothing_promised_is_lost_when_the_power_fails_at_any_operation() {
    for keep in [Keep::Nothing, Keep::Everything] {
        let operations = at_each_operation(1, |mut world, _| {
            world.crash(keep).unwrap();
            world.check_recovered();
            go_on(&mut world);
        });
        assert!(operations > 100, "the script has only {operations} operations");
    }
}

#[test]
fn nothing_promised_is_lost_when_writes_are_torn_at_any_operation() {
    at_each_operation(12, |mut world, _| {
        world.crash(Keep::Torn).unwrap();
        world.check_recovered();
        go_on(&mut world);
    });
}

#[test]
fn the_opening_can_be_interrupted_at_any_operation() {
    at_each_operation(2, |mut world, seed| {
        for operation in 1..1_000 {
            world.disk.crash(Keep::Torn);
            world.disk.fault_at(world.disk.operations() + operation, Fault::Crash);
            match world.reopen() {
                Ok(()) => break,
                Err(error) => assert!(world.disk.is_stopped(), "seed {seed}: {error}"),
            }
        }
        world.disk.crash(Keep::Nothing);
        world.reopen().unwrap();
        world.check_recovered();
        go_on(&mut world);
    });
}

#[test]
fn what_was_found_after_a_crash_survives_the_next_one() {
    at_each_operation(3, |mut world, _| {
        world.crash(Keep::Torn).unwrap();
        world.check_recovered();
        world.crash(Keep::Nothing).unwrap();
        world.check_recovered();
        world.check_now();
    });
}

#[test]
fn what_was_found_after_the_process_was_killed_survives_a_power_cut() {
    at_each_operation(1, |mut world, _| {
        world.restart();
        world.check_recovered();
        world.crash(Keep::Nothing).unwrap();
        world.check_recovered();
        go_on(&mut world);
    });
}

#[test]
fn after_a_quiet_second_a_vote_survives_damage_to_either_slot() {
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
