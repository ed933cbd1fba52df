//! The log alone on a simulated disk.
//!
//! The trials are those of the log's own tests, included from there: what happens at each operation of a script, and what must
//! hold afterwards. There they run on one script; here on as many as wanted, each drawn from a seed (seed 1 is the script that
//! was written by hand). The log's checks of damage run too, so that mutants meet them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::arguments::LogArguments;
use crate::panics;
use crate::random::Random;

#[path = "../../../internal/log/tests/crash.rs"]
#[allow(dead_code, clippy::duplicate_mod)] // the tests' own parts; each file has its own helpers
mod crash;
#[path = "../../../internal/log/tests/damage.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod damage;
#[path = "../../../internal/log/tests/refill.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod refill;

use crash::common::world::Step;

/// Steps of a random script.
const STEPS: u64 = 70;

/// Checks that need no script.
const CHECKS: [(&str, fn()); 9] = [
    (
        "damage to a slot of the hard state",
        crash::after_a_quiet_second_a_vote_survives_damage_to_either_slot,
    ),
    (
        "segments cut at any byte",
        damage::a_file_cut_at_any_byte_behind_the_mark_keeps_the_whole_frames_before_it,
    ),
    (
        "missing and short segments",
        refill::any_missing_or_short_sealed_segments_are_made_anew,
    ),
    (
        "a lost hard state",
        damage::a_lost_hard_state_is_never_replaced_by_a_new_one,
    ),
    (
        "missing indexes and checkpoints",
        damage::missing_indexes_and_checkpoints_are_rebuilt,
    ),
    (
        "damage below the checkpoint",
        damage::damage_below_the_checkpoint_is_found_when_it_is_read,
    ),
    (
        "stale frames behind a truncation",
        damage::stale_frames_behind_a_truncation_do_not_follow_on,
    ),
    (
        "frames of another group",
        damage::frames_of_another_group_do_not_follow_on,
    ),
    (
        "a follower that decides otherwise",
        damage::a_follower_that_decides_otherwise_reports_it_and_stays_as_it_was,
    ),
];

/// What all scripts came to.
#[derive(Debug, Default)]
struct Totals {
    recoveries: AtomicU64,
    operations: AtomicU64,
    bad: AtomicU64,
}

/// Runs the checks and the scripts; fails if anything does.
pub(crate) fn run(arguments: &LogArguments) -> ExitCode {
    panics::keep();
    let began = Instant::now();
    let totals = Totals::default();
    for (name, check) in CHECKS {
        totals.attempt(
            || format!("check: {name}"),
            || {
                check();
                0
            },
        );
    }
    let flips = AtomicU64::new(0);
    totals.attempt(
        || "check: every byte flipped".to_owned(),
        || {
            flips.store(refill::flip_every_byte(), Ordering::Relaxed);
            0
        },
    );
    scripts(arguments, &totals);
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let (recoveries, operations) = (totals.recoveries.into_inner(), totals.operations.into_inner());
    let bad = totals.bad.into_inner();
    println!(
        "log: seeds {} to {}: {recoveries} crash recoveries at {operations} operations, {} bytes flipped, {bad} violations",
        arguments.seed,
        arguments.seed + arguments.seeds - 1,
        flips.into_inner()
    );
    println!(
        "     {seconds:.0} s, {:.0} recoveries a second",
        recoveries as f64 / seconds
    );
    if bad > 0 || recoveries == 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn scripts(arguments: &LogArguments, totals: &Totals) {
    let next = AtomicU64::new(arguments.seed);
    let stop = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seed + arguments.seeds {
                        return;
                    }
                    if !totals.script(seed) {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
}

impl Totals {
    /// Does something and counts its recoveries; a panic in it is a violation.
    fn attempt(&self, what: impl Fn() -> String, work: impl FnOnce() -> u64) -> bool {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(recoveries) => {
                self.recoveries.fetch_add(recoveries, Ordering::Relaxed);
                true
            }
            Err(_) => {
                self.bad.fetch_add(1, Ordering::Relaxed);
                println!("VIOLATION {}: {}", what(), panics::take().join("; ").replace('\n', " "));
                false
            }
        }
    }

    /// Every trial at every operation of the script of a seed; ends at the first violation.
    fn script(&self, seed: u64) -> bool {
        let script = if seed == 1 {
            crash::script()
        } else {
            random_script(seed)
        };
        let replay = format!("replay: target/sim/sim/sim log --seed {seed}");
        let mut operations = 0..0;
        let dry = || format!("seed {seed}, without any fault; {replay}");
        if !self.attempt(dry, || {
            operations = crash::operations(&script);
            0
        }) {
            return false;
        }
        for operation in operations {
            self.operations.fetch_add(1, Ordering::Relaxed);
            for trial in &crash::TRIALS {
                let what = || format!("seed {seed}, operation {operation}, {}; {replay}", trial.name);
                if !self.attempt(what, || trial.at(&script, operation, seed << 20)) {
                    return false;
                }
            }
        }
        true
    }
}

/// A script as one writes it by hand: mostly appends and rounds, now and then everything else.
fn random_script(seed: u64) -> Vec<Step> {
    let mut random = Random::stream(seed, "script", 0);
    let step = |random: &mut Random| match random.below(20) {
        0..7 => Step::Append(random.between(1, 16)),
        7..9 => Step::Truncate(random.between(1, 24)),
        9 => Step::Vote,
        10..12 => Step::Commit(random.below(9)),
        12 => Step::Tick(1_000),
        13 => Step::Tick(random.pick(&[40, 1_500, 31_000])),
        14 => Step::Purge,
        _ => Step::Round,
    };
    (0..STEPS).map(|_| step(&mut random)).collect()
}
