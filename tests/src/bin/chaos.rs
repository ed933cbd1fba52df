//! `make chaos`: a cluster of real processes, faults of processes, links and disks, and a verdict.
//!
//! `chaos [--seed N] [--rounds N | --short | --only NAME] [--runs N]`, or `chaos --self-test [--seed N]`. Without a seed one is drawn and
//! printed. The exit code is 0 if everything passed, 1 if something failed, 2 if a run proves nothing.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use highwater_tests::chaos::{Amount, Plan, SelfTestError, Stop, in_sandbox, run, self_test};
use highwater_verify::{Invariant, Outcome};

/// What a full run must have acknowledged.
const ACKNOWLEDGED_MIN: u64 = 1_000_000;
const ACKNOWLEDGED_MIN_SHORT: u64 = 10_000;
const ROUNDS_OF_FULL_RUN: usize = 5;
/// How often a scenario that is asked for by name is played.
const TIMES_OF_ONLY: usize = 5;
const FAILED: u8 = 1;
const VOID: u8 = 2;

struct Arguments {
    seed: u64,
    amount: Amount,
    /// One after the other, each with the next seed.
    runs: u64,
    self_test: bool,
}

fn main() -> ExitCode {
    match arguments() {
        Ok(arguments) => in_sandbox(|stop| work(&arguments, &stop)),
        Err(why) => {
            eprintln!(
                "error: {why}\nusage: chaos [--seed N] [--rounds N | --short | --only NAME] [--runs N] | --self-test [--seed N]"
            );
            ExitCode::from(VOID)
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut given = std::env::args().skip(1);
    let drawn = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut arguments = Arguments {
        seed: drawn.map_or(1, |time| time.as_nanos() as u64 % 1_000_000_000),
        amount: Amount::Rounds(ROUNDS_OF_FULL_RUN),
        runs: 1,
        self_test: false,
    };
    while let Some(name) = given.next() {
        let mut number = || {
            let value = given.next().ok_or_else(|| format!("{name} needs a number"))?;
            value
                .parse::<u64>()
                .map_err(|_| format!("{name} {value}: not a number"))
        };
        match name.as_str() {
            "--seed" => arguments.seed = number()?,
            "--rounds" => arguments.amount = Amount::Rounds(number()? as usize),
            "--runs" => arguments.runs = number()?,
            "--only" => {
                let name = given.next().ok_or("--only needs (a part of) the name of a scenario")?;
                arguments.amount = Amount::Only(name, TIMES_OF_ONLY);
            }
            "--short" => arguments.amount = Amount::Short,
            "--self-test" => arguments.self_test = true,
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn work(arguments: &Arguments, stop: &Stop) -> ExitCode {
    if arguments.self_test {
        return show_self_test(arguments.seed, stop);
    }
    let began = Instant::now();
    let mut worst = 0;
    for seed in arguments.seed..arguments.seed + arguments.runs {
        let acknowledged_min = match arguments.amount {
            Amount::Short | Amount::Only(..) => ACKNOWLEDGED_MIN_SHORT,
            Amount::Rounds(rounds) => ACKNOWLEDGED_MIN * rounds as u64 / ROUNDS_OF_FULL_RUN as u64,
        };
        let plan = Plan {
            seed,
            amount: arguments.amount.clone(),
            acknowledged_min,
            evidence: evidence(),
        };
        let code = one_run(&plan, stop);
        println!("{:.0} s in all", began.elapsed().as_secs_f64());
        worst = match (worst, code) {
            (FAILED, _) | (_, FAILED) => FAILED,
            (before, now) => before.max(now),
        };
        if stop.is_asked() {
            break;
        }
    }
    ExitCode::from(worst)
}

fn one_run(plan: &Plan, stop: &Stop) -> u8 {
    let report = match run(plan, stop.clone()) {
        Ok(report) => report,
        Err(why) => {
            println!("chaos: no verdict; seed {}: {why}", plan.seed);
            return if stop.is_asked() { VOID } else { FAILED };
        }
    };
    print!("{report}");
    match report.outcome() {
        Outcome::Pass => 0,
        Outcome::Fail => FAILED,
        Outcome::Void => VOID,
    }
}

fn show_self_test(seed: u64, stop: &Stop) -> ExitCode {
    match self_test(seed, stop.clone()) {
        Ok(verdict) => {
            let lost = verdict
                .violations
                .iter()
                .find(|violation| violation.invariant == Invariant::I1);
            if let Some(lost) = lost {
                println!("for example: {}", lost.message);
                lost.events.iter().for_each(|event| println!("  {}", event.line));
            }
            for judged in verdict.judged.iter().filter(|judged| judged.violated > 0) {
                println!(
                    "{:?} {}: {} violations",
                    judged.invariant,
                    judged.invariant.name(),
                    judged.violated
                );
            }
            println!("self-test: a cluster on disks that lie was caught; seed {seed}");
            ExitCode::SUCCESS
        }
        Err(SelfTestError::NotHere(why)) => {
            println!("self-test: SKIPPED, it cannot be tried here: {why}");
            ExitCode::from(VOID)
        }
        Err(SelfTestError::NotCaught(why)) => {
            println!("self-test: NOT caught; seed {seed}: {why}");
            ExitCode::from(FAILED)
        }
    }
}

/// Beside the build's own directories, so that it is never taken for source.
fn evidence() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(2)
        .map(|target| target.join("chaos"))
        .unwrap_or_default()
}
