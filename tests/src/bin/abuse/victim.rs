//! A client that does what clients should: records at a fixed rate, through `highwater bench latency`.

use highwater_tests::TestCluster;
use serde_json::Value;

use crate::Failure;

pub(crate) const TOPIC: &str = "orders";
/// Records a second.
pub(crate) const RATE: u64 = 500;
const WARM_UP_SECONDS: u64 = 3;

/// Once without looking: files, connections and caches are made by then.
pub(crate) fn warm_up(cluster: &TestCluster) -> Result<(), Failure> {
    p99_us(cluster, WARM_UP_SECONDS).map(drop)
}

/// From when a record was due to its acknowledgement.
pub(crate) fn p99_us(cluster: &TestCluster, seconds: u64) -> Result<f64, Failure> {
    let (rate, seconds) = (RATE.to_string(), seconds.to_string());
    let arguments = [
        "bench",
        "latency",
        TOPIC,
        "--rate",
        &rate,
        "--seconds",
        &seconds,
        "--record-bytes",
        "1024",
        "--output",
        "json",
    ];
    let finished = cluster.command(&arguments).output()?;
    let text = String::from_utf8_lossy(&finished.stdout);
    let measured: Value = serde_json::from_str(&text).map_err(|error| {
        let why = String::from_utf8_lossy(&finished.stderr).into_owned();
        format!("the victim gives no figures ({error}): {why}")
    })?;
    if !measured["failure"].is_null() {
        return Err(format!("the victim failed: {}", measured["failure"]).into());
    }
    let p99 = measured["acknowledgement_us"]["p99"].as_f64();
    p99.ok_or_else(|| format!("too few records for a p99: {text}").into())
}
