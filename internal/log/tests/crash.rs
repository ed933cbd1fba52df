//! The power is cut at every single operation of a scripted run, and at every operation of the opening that follows.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::world::{Step, World};
use highwater_log::disk::simulated::{Fault, Keep};

/// Appends over several small segments, group commits, truncations within and across segments, votes, marks, checkpoints.
fn script() -> Vec<Step> {
    use Step::*;
    let mut steps = vec![
        Vote,
        Round,
        Append(1),
        Round,
        Append(3),
        Append(2),
        Round,
        Commit(2),
        Tick(1_500),
        Round,
    ];
    steps.extend([
        Append(12),
        Round,
        Vote,
        Append(4),
        Round,
        Truncate(5),
        Append(2),
        Round,
        Append(9),
        Commit(4),
    ]);
    steps.extend([
        Round,
        Tick(40_000),
        Round,
        Append(8),
        Append(7),
        Round,
        Append(6),
        Round,
        Tick(1_000),
        Round,
    ]);
    steps.extend([
        Truncate(20),
        Round,
        Append(5),
        Truncate(2),
        Append(3),
        Vote,
        Round,
        Tick(2_000),
        Round,
        Commit(0),
    ]);
    steps.extend([
        Append(14),
        Truncate(13),
        Append(16),
        Round,
        Commit(3),
        Tick(31_000),
        Append(1),
        Round,
        Vote,
        Vote,
    ]);
    steps.extend([
        Round,
        Append(10),
        Round,
        Truncate(9),
        Round,
        Tick(1_000),
        Tick(1_000),
        Round,
        Append(2),
        Round,
    ]);
    steps
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
    for step in [
        Step::Append(5),
        Step::Round,
        Step::Truncate(2),
        Step::Append(3),
        Step::Round,
        Step::Tick(1_000),
    ] {
        world.step(&step).unwrap();
    }
    world.check_now();
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
