//! Many seeds of groups: on all processors, with figures at the end.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::arguments::GroupArguments;
use crate::group::{self, Figures, KINDS, Plan, Report};
use crate::panics;

/// One of so many seeds is run twice, to see that it is the same run.
const TWICE_EVERY: u64 = 20;

/// What all seeds came to.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    twice: u64,
    void: u64,
    bad: u64,
    acknowledged: u64,
    figures: Figures,
    simulated_ms: u64,
    events: u64,
}

/// Runs the seeds; fails if one of them does.
pub(crate) fn run(arguments: &GroupArguments) -> ExitCode {
    panics::keep();
    let began = Instant::now();
    let next = AtomicU64::new(arguments.seed);
    let stop = AtomicBool::new(false);
    let totals = Mutex::new(Totals::default());
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = arguments.threads.unwrap_or(processors).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seed + arguments.seeds {
                        return;
                    }
                    let good = one(arguments, seed, &totals);
                    if !good && arguments.until_caught {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    print_totals(arguments, &totals, began);
    let idle = idle_faults(arguments, &totals);
    if totals.bad > 0 || totals.void == totals.seeds || idle {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whether a kind of fault never did anything, over enough seeds that it should have.
fn idle_faults(arguments: &GroupArguments, totals: &Totals) -> bool {
    const ENOUGH: u64 = 40;
    if !arguments.only.is_empty() || totals.seeds < ENOUGH || arguments.mutant.is_some() {
        return false;
    }
    let idle = totals.figures.faults().filter(|(_, _, bit)| *bit == 0);
    let idle: Vec<&str> = idle.map(|(name, ..)| name).collect();
    if !idle.is_empty() {
        println!(
            "VOID of all {} kinds of faults these did nothing: {idle:?}",
            KINDS.len()
        );
    }
    !idle.is_empty()
}

/// Replicas of the group of this seed.
fn nodes_of(arguments: &GroupArguments, seed: u64) -> usize {
    arguments.nodes.unwrap_or(if seed.is_multiple_of(4) { 5 } else { 3 })
}

fn plan(arguments: &GroupArguments, seed: u64) -> Plan {
    let plan = Plan::new(seed, nodes_of(arguments, seed), arguments.seconds * 1_000);
    match arguments.only.is_empty() {
        true => plan,
        false => plan.only(&arguments.only),
    }
}

/// Runs a seed, once or twice. False if it violates anything.
fn one(arguments: &GroupArguments, seed: u64, totals: &Mutex<Totals>) -> bool {
    let mut report = group::run(plan(arguments, seed), arguments.trace);
    let twice = arguments.twice || seed.is_multiple_of(TWICE_EVERY);
    if twice {
        let again = group::run(plan(arguments, seed), false);
        if again.trace != report.trace {
            let (one, other) = (report.trace, again.trace);
            let what = format!("not deterministic: {one:?} and {other:?} (digest and number of events)");
            report.violations.push(what);
        }
    }
    let good = report.violations.is_empty();
    let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
    totals.add(&report, twice);
    if !good {
        print_violations(arguments, &report);
    }
    good
}

impl Totals {
    fn add(&mut self, report: &Report, twice: bool) {
        self.seeds += 1;
        self.twice += u64::from(twice);
        self.void += u64::from(!report.void.is_empty());
        self.bad += u64::from(!report.violations.is_empty());
        self.acknowledged += report.acknowledged;
        self.figures.add(&report.figures);
        self.simulated_ms += report.simulated_ms;
        self.events += report.trace.1;
    }
}

fn print_violations(arguments: &GroupArguments, report: &Report) {
    /// The first ones tell; the rest follows from them.
    const SHOWN: usize = 8;
    for violation in report.violations.iter().take(SHOWN) {
        println!("VIOLATION seed {} of {} nodes: {violation}", report.seed, report.nodes);
    }
    let more = report.violations.len().saturating_sub(SHOWN);
    if more > 0 {
        println!("          and {more} more");
    }
    println!("  replay: {}", replay(arguments, report));
}

fn replay(arguments: &GroupArguments, report: &Report) -> String {
    let (seed, nodes, seconds) = (report.seed, report.nodes, arguments.seconds);
    let mut line = format!("target/sim/sim/sim group --seed {seed} --nodes {nodes} --seconds {seconds} --trace");
    if !arguments.only.is_empty() {
        line += &format!(" --only {}", arguments.only.join(","));
    }
    if let Some(mutant) = &arguments.mutant {
        line += &format!(" --mutant {mutant:?}");
    }
    line
}

fn print_totals(arguments: &GroupArguments, totals: &Totals, began: Instant) {
    let wall = began.elapsed().as_secs_f64().max(0.001);
    let runs = totals.seeds + totals.twice;
    let simulated_s = totals.simulated_ms as f64 / 1_000.0;
    println!(
        "group: seeds {} to {}: {} run ({} of them twice), {} void, {} with violations",
        arguments.seed,
        arguments.seed + arguments.seeds - 1,
        totals.seeds,
        totals.twice,
        totals.void,
        totals.bad
    );
    let Figures {
        recoveries,
        contract_checks,
        mended,
        healed,
        trims,
        purges,
        installs,
        refused_full,
        old_copies,
        replaced,
        everywhere,
        ..
    } = totals.figures;
    let (acknowledged, events) = (totals.acknowledged, totals.events);
    println!(
        "       {acknowledged} records acknowledged, {recoveries} recoveries, {contract_checks} looks at synced bytes, {events} events"
    );
    let faults = totals
        .figures
        .faults()
        .map(|(name, faults, bit)| format!("{bit} of {faults} {name}"));
    println!(
        "       faults that did something: {}",
        faults.collect::<Vec<_>>().join(", ")
    );
    println!(
        "       {trims} trims, {purges} purges, {installs} manifests installed; {healed} rotten places made whole, {mended} logs mended before they opened, {everywhere} records damaged everywhere and reported"
    );
    println!(
        "       {refused_full} batches refused by full disks; {replaced} replicas replaced, {old_copies} of them found to have an older disk"
    );
    println!(
        "       {:.1} simulated hours in {wall:.0} s: {:.1} runs/s, {:.0} simulated seconds a second",
        simulated_s / 3_600.0,
        runs as f64 / wall,
        simulated_s * runs as f64 / totals.seeds.max(1) as f64 / wall
    );
}
