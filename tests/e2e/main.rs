//! What the system promises, seen from outside: real processes, real disks, real kills.
//!
//! Each test has a cluster of its own. Sizes are small enough for two cores and an unoptimised build; the same
//! scenarios with larger numbers are the demonstration and the benchmarks.

mod access;
mod audit;
mod backup;
mod bad_input;
mod bench;
mod certificates;
mod chaos;
mod dev;
mod faults;
mod gateway;
mod group_troubles;
mod groups;
mod json_lines;
mod members;
mod nodes;
mod profiles;
mod quotas;
mod replicas;
mod round_trip;
mod settings;
mod tail;
mod traces;
mod turns;

use std::time::Duration;

use highwater_tests::{TestCluster, eventually, run_with_input};

/// Longer than anything takes unless it hangs, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Produces `input`, and expects that every line is acknowledged.
#[track_caller]
fn produce(cluster: &TestCluster, topic: &str, input: impl Into<Vec<u8>>) {
    run_with_input(&mut cluster.command(&["produce", topic]), input.into(), PATIENCE).success();
}

/// Makes a tenant, as soon as the cluster has its first policy.
#[track_caller]
fn create_tenant(cluster: &TestCluster, tenant: &str) {
    eventually("a tenant can be made", PATIENCE, || {
        (cluster.run(&["tenant", "create", tenant]).code() == 0).then_some(())
    });
}

/// What the topic holds now, as printed.
#[track_caller]
fn consume(cluster: &TestCluster, topic: &str) -> Vec<u8> {
    cluster
        .run(&["consume", topic, "--from", "beginning", "--exit-at-end"])
        .success()
        .bytes
}

/// The numbers from 0 on, a line each.
fn numbers(count: usize) -> Vec<u8> {
    (0..count)
        .map(|number| format!("{number}\n"))
        .collect::<String>()
        .into_bytes()
}

/// Compares without printing megabytes.
#[track_caller]
fn assert_same_bytes(found: &[u8], expected: &[u8]) {
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(found.len(), expected.len(), "bytes");
}
