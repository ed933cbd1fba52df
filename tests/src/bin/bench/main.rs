//! `make bench`: what a cluster does on this machine, each figure beside a floor measured in the same run by plain code.
//!
//! It starts three nodes, real processes of the release binary, and runs a fixed matrix through `highwater bench`:
//! records of 100 B and 1 KiB, 1 and 12 partitions, one record and many in flight, plain and with LZ4. Beside them:
//!
//! | floor | what it does |
//! |---|---|
//! | fdatasync | appends as much as one record takes to a file of the log's mode, and syncs it, one at a time |
//! | stream | a client sends the same bytes over mutual TLS to a leader, which writes and syncs them and sends them on to two followers, which do the same; answered when a majority has synced |
//! | disk | writes the same bytes to one file, and syncs after each batch |
//! | read stream | sends the same bytes over mutual TLS from memory to one reader |
//!
//! `bench [--quick] [--out FILE]`. It measures and asserts nothing but that all records came back; quote medians, and the
//! ratio to a floor rather than the absolute number, for machines differ and are shared. `docs/benchmarking.md` says how to
//! read it.

mod bulk;
mod command;
mod disk;
mod lone;
mod machine;
mod processes;
mod restart;
mod stream;
mod table;
mod tls;

use std::path::PathBuf;
use std::process::ExitCode;

use highwater_tests::{TestCluster, measured};
use serde_json::json;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// What a full batch takes, and with it what a floor moves and syncs at once.
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;
const NODES: usize = 3;

/// How long it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// How many times everything is measured; medians are shown.
    pub(crate) runs: usize,
    /// For how long records are sent, each time.
    pub(crate) seconds: u64,
    /// How many records are sent one at a time, each time.
    pub(crate) lone_records: usize,
}

const USUAL: Effort = Effort {
    runs: 3,
    seconds: 3,
    lone_records: 2_000,
};
const QUICK: Effort = Effort {
    runs: 1,
    seconds: 1,
    lone_records: 500,
};

struct Arguments {
    effort: Effort,
    out: Option<PathBuf>,
}

/// One line of the matrix.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) record_bytes: usize,
    pub(crate) partitions: u32,
    pub(crate) compression: &'static str,
}

impl Shape {
    fn all() -> Vec<Shape> {
        let mut shapes = Vec::new();
        for record_bytes in [1024, 100] {
            for partitions in [1, 12] {
                shapes.extend(["none", "lz4"].map(|compression| Shape {
                    record_bytes,
                    partitions,
                    compression,
                }));
            }
        }
        shapes
    }

    /// What compresses is sent where that is wanted: random bytes would be sent as they are.
    pub(crate) fn payload(&self) -> &'static str {
        if self.compression == "none" { "random" } else { "text" }
    }

    /// The cells that begin its line.
    pub(crate) fn cells(&self) -> [String; 3] {
        let record = format!("{} B", self.record_bytes);
        [record, self.partitions.to_string(), self.compression.to_owned()]
    }
}

fn main() -> ExitCode {
    measured("bench [--quick] [--out FILE]", arguments, measure)
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        effort: USUAL,
        out: None,
    };
    while let Some(name) = given.next() {
        match name.as_str() {
            "--quick" => arguments.effort = QUICK,
            "--out" => arguments.out = Some(given.next().ok_or("--out needs a value")?.into()),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let effort = arguments.effort;
    let machine = machine::facts()?;
    machine::print(&machine, effort);
    let mut cluster = TestCluster::start(NODES);
    cluster.wait_acquainted();
    let mut lone = Vec::new();
    for shape in Shape::all() {
        lone.push(lone::measure(&cluster, shape, effort)?);
    }
    lone::print(&lone);
    let mut bulk = Vec::new();
    for shape in Shape::all() {
        bulk.push(bulk::measure(&cluster, shape, effort)?);
    }
    bulk::print(&bulk);
    let restart = restart::measure(&mut cluster, effort.runs);
    restart::print(&restart);
    let Some(path) = &arguments.out else {
        return Ok(());
    };
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let document = json!({
        "machine": machine,
        "runs": effort.runs,
        "seconds": effort.seconds,
        "one_at_a_time": lone.iter().map(lone::Row::document).collect::<Vec<_>>(),
        "many_in_flight": bulk.iter().map(bulk::Row::document).collect::<Vec<_>>(),
        "restart": restart.document(),
    });
    std::fs::write(path, serde_json::to_string_pretty(&document)?)?;
    Ok(())
}

/// The middle one; of two the larger. 0 if there is none.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(0.0)
}
