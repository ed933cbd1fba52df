//! `make bench-cluster`: how long clients wait when a cluster loses a node, moves its leaders, is restarted or grows anew.
//!
//! One run prints everything, beside what the bare disk does in the same run. It measures, and asserts only what must never
//! be: every history is judged by the checker, and a violation ends the run. `bench_cluster [--runs N] [--only NAME]`.
//!
//! | section | what is measured |
//! |---|---|
//! | `failover` | SIGKILL of the node that leads most of 30 partitions, until each of them takes writes again |
//! | `transfer` | leaders moved away on purpose: how long each partition pauses, and what was refused |
//! | `rolling` | all nodes restarted one after the other: failed produces, longest pause |
//! | `freshness` | from sending a record to seeing it, on the leader and on a follower |
//! | `replacement` | a node with 1 GiB that loses its disk: time, bytes, and what producers feel |
//!
//! All clients are the library's, with its defaults; a pause is what its user sees.

mod failover;
mod floor;
mod freshness;
mod open_loop;
mod replacement;
mod rolling;
mod stand;
mod table;
mod transfer;

use std::process::ExitCode;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// How many times leaders are killed, and moved.
const RUNS: usize = 30;

struct Arguments {
    runs: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("error: {why}\nusage: bench_cluster [--runs N] [--only SECTION]");
            return ExitCode::from(2);
        }
    };
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Arguments, String> {
    let mut given = std::env::args().skip(1);
    let mut arguments = Arguments { runs: RUNS, only: None };
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--runs" => arguments.runs = value.parse().map_err(|_| format!("--runs {value}: not a number"))?,
            "--only" => arguments.only = Some(value),
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    type Section = fn(usize) -> Result<(), Failure>;
    let sections: [(&str, Section); 5] = [
        ("failover", failover::measure),
        ("transfer", transfer::measure),
        ("rolling", |_| rolling::measure()),
        ("freshness", |_| freshness::measure()),
        ("replacement", |_| replacement::measure()),
    ];
    floor::measure()?;
    for (name, section) in sections {
        if arguments.only.as_ref().is_none_or(|only| only == name) {
            section(arguments.runs)?;
        }
    }
    Ok(())
}
