//! Groups: openraft over the real log and the real partition, on simulated disks and an in-memory network, on paused time.
//!
//! One seed is one world ([`world`]): its plan ([`plan`]) says what may go wrong and how often, the faults come from
//! [`nemesis`], load from [`clients`], and the judgement from three sides: [`oracle`] looks into every replica at every
//! round of its disk, the checker of `highwater-verify` judges what clients and replicas said ([`run`] hands it the history),
//! and [`ending`] turns all faults off and demands that the group heals.
//!
//! The same seed gives the same run, event by event: one thread, a paused clock, seeded tasks (`highwater_partition`'s
//! simulation runtime and tokio's own seed), and no draw that depends on anything else. A seed is only good for one version of
//! this crate.

mod clients;
mod ending;
mod everywhere;
mod figures;
mod nemesis;
mod network;
mod node;
mod old_copy;
mod oracle;
mod plan;
mod replacement;
mod rot;
mod rounds;
mod shared;
mod trace;
mod trims;
mod world;

use std::sync::Arc;

use highwater_verify::{Outcome, Requirements, Verdict, check};

use clients::{Client, Manner};
pub(crate) use figures::{Figures, KINDS};
pub(crate) use plan::Plan;
use world::World;

use crate::panics;

/// What came of one seed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// What must not be; empty for a good run.
    pub(crate) violations: Vec<String>,
    /// Why the run proves little, if it does.
    pub(crate) void: Vec<String>,
    /// Digest and number of its events.
    pub(crate) trace: (u64, u64),
    pub(crate) figures: Figures,
    /// Records acknowledged.
    pub(crate) acknowledged: u64,
    /// Simulated time.
    pub(crate) simulated_ms: u64,
}

/// Runs one seed.
pub(crate) fn run(plan: Plan, print: bool) -> Report {
    let seed = plan.seed;
    panics::take();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()))
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => panic!("no runtime: {error}"),
    };
    let world = runtime.block_on(async {
        let world = World::new(plan, print);
        live(&world).await;
        world.clear();
        world
    });
    drop(runtime);
    report(&world)
}

async fn live(world: &Arc<World>) {
    for node in 0..world.plan.nodes {
        node::start_if_down(world, node).await;
    }
    let mut clients = Vec::new();
    let manners = [Manner::Steady, Manner::Single, Manner::Conditional, Manner::Single];
    for number in 0..world.plan.producers {
        let manner = manners[number as usize % manners.len()];
        clients.push(tokio::spawn(Client::new(world, number).produce(manner)));
    }
    for node in 0..world.plan.nodes {
        clients.push(tokio::spawn(Client::new(world, 100 + node as u64).read(node)));
    }
    clients.push(tokio::spawn(trims::trim(world.clone())));
    nemesis::rage(world.clone()).await;
    ending::come_to_rest(world).await;
    for client in clients {
        let _ = client.await; // a panic is in the report by itself
    }
}

fn report(world: &Arc<World>) -> Report {
    let verdict = check(&world.history(), &requirements(world));
    let mut violations = world.violations();
    violations.extend(panics::take().into_iter().map(|panic| format!("panic: {panic}")));
    if verdict.outcome == Outcome::Fail {
        violations.extend(described(&verdict));
    }
    let figures = world.figures();
    let mut void = verdict.void;
    if figures.bitten() == 0 {
        void.push("no fault did anything".to_owned());
    }
    Report {
        seed: world.plan.seed,
        nodes: world.plan.nodes,
        violations,
        void,
        trace: world.trace_sum(),
        figures,
        acknowledged: verdict.counts.records_acknowledged,
        simulated_ms: world.now_ms_at_end(),
    }
}

fn requirements(world: &World) -> Requirements {
    Requirements {
        acknowledged_min: 50,
        read_min: 20,
        replicas_min: world.plan.nodes as u64,
        ..Requirements::default()
    }
}

fn described(verdict: &Verdict) -> Vec<String> {
    let line = |violation: &highwater_verify::Violation| {
        let events: Vec<&str> = violation.events.iter().map(|proof| proof.line.as_str()).collect();
        format!(
            "{:?} {}: {} [{}]",
            violation.invariant,
            violation.what,
            violation.message,
            events.join("; ")
        )
    };
    verdict.violations.iter().map(line).collect()
}
