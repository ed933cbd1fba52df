//! What the figures depend on beside the program.

use std::fs;

use highwater_tests::binary;
use serde_json::{Value, json};

use crate::{Effort, Failure, NODES};

/// Cores, processor, kernel, and the size of the program.
pub(crate) fn facts() -> Result<Value, Failure> {
    let processors = fs::read_to_string("/proc/cpuinfo")?;
    let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("of unknown make", |rest| rest.trim_start_matches([' ', '\t', ':']));
    Ok(json!({
        "cores": std::thread::available_parallelism()?.get(),
        "processor": model,
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
        "version": env!("CARGO_PKG_VERSION"),
        "binary_bytes": fs::metadata(binary())?.len(),
    }))
}

pub(crate) fn print(facts: &Value, effort: Effort) {
    let text = |name: &str| facts[name].as_str().unwrap_or_default().to_owned();
    println!(
        "Highwater {}, {:.1} MiB; {} cores ({}), Linux {}",
        text("version"),
        facts["binary_bytes"].as_f64().unwrap_or(0.0) / (1024.0 * 1024.0),
        facts["cores"],
        text("processor"),
        text("kernel"),
    );
    println!(
        "{NODES} nodes and all clients on this machine, 3 replicas, mutual TLS; runs {}, of which medians are shown; bulk for {} s each",
        effort.runs, effort.seconds
    );
}
