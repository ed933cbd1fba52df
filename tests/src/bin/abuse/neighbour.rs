//! Another tenant, which sends nearly as much as its quota allows, or ten times as much.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use highwater_tests::TestCluster;

use crate::Failure;

const TENANT: &str = "noisy";
const CLIENT: &str = "app";
const TOPIC: &str = "flood";
const PARTITIONS: &str = "3";
/// Bytes a second that it may send.
const QUOTA: u64 = 1_000_000;
const RECORD_BYTES: u64 = 1_000;

/// How much a tenant sends, in percent of its quota: what that allows.
pub(crate) const WITHIN: u64 = 80;
/// Ten times as much.
pub(crate) const BEYOND: u64 = 1_000;

/// Makes the tenant, its topic and its quota, unless they are there.
pub(crate) fn prepare(cluster: &TestCluster) -> Result<(), Failure> {
    if profile(cluster).exists() {
        return Ok(());
    }
    let profile = cluster.profile_for(TENANT, CLIENT);
    cluster.run(&["tenant", "create", TENANT]).success();
    let quota = format!("produce_bytes_per_second={QUOTA}");
    cluster.run(&["tenant", "quota", TENANT, "--set", &quota]).success();
    let create = ["topic", "create", TOPIC, "--partitions", PARTITIONS];
    let created = cluster.command_as(&profile, &create).output()?;
    match created.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&created.stderr).into_owned().into()),
    }
}

fn profile(cluster: &TestCluster) -> PathBuf {
    cluster.directory().join(format!("{TENANT}-{CLIENT}.toml"))
}

/// Sends for a while. What does not fit in its quota is late, and at the end given up.
pub(crate) fn start(cluster: &TestCluster, seconds: u64, percent: u64) -> Result<Child, Failure> {
    let profile = profile(cluster);
    let rate = percent * QUOTA / 100 / RECORD_BYTES;
    let (rate, bytes) = (rate.to_string(), RECORD_BYTES.to_string());
    // Longer than the victim, which is measured to its end.
    let seconds = (seconds + 5).to_string();
    let arguments = [
        "bench",
        "produce",
        TOPIC,
        "--rate",
        &rate,
        "--record-bytes",
        &bytes,
        "--seconds",
        &seconds,
    ];
    let bench = cluster.command_as(&profile, &arguments);
    let mut command = Command::new("nice");
    command
        .args(["-n", "19"])
        .arg(bench.get_program())
        .args(bench.get_args());
    for (name, value) in bench.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}
