//! Running `highwater bench`, and reading what it prints.

use std::process::Stdio;

use highwater_tests::TestCluster;
use serde_json::Value;

use crate::{Failure, Shape};

/// Runs `highwater` with these arguments, and gives the JSON that it prints.
pub(crate) fn json(cluster: &TestCluster, arguments: &[&str]) -> Result<Value, Failure> {
    let mut command = cluster.command(arguments);
    let output = command.args(["--output", "json"]).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("highwater {} ended with {}", arguments.join(" "), output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Runs `highwater bench produce` for records of this shape.
pub(crate) fn produce(cluster: &TestCluster, shape: Shape, more: &[&str]) -> Result<Value, Failure> {
    let (bytes, partitions) = (shape.record_bytes.to_string(), shape.partitions.to_string());
    let arguments = [
        "bench",
        "produce",
        "--record-bytes",
        &bytes,
        "--partitions",
        &partitions,
        "--compression",
        shape.compression,
        "--payload",
        shape.payload(),
    ];
    json(cluster, &[&arguments[..], more].concat())
}

/// The number of that name.
pub(crate) fn number(document: &Value, name: &str) -> Result<f64, Failure> {
    let found = document[name].as_f64();
    found.ok_or_else(|| format!("there is no number {name} in {document}").into())
}

/// The number of that name, or none: nodes that are too busy to answer do not tell their CPU time.
pub(crate) fn number_if_known(document: &Value, name: &str) -> f64 {
    document[name].as_f64().unwrap_or(f64::NAN)
}
