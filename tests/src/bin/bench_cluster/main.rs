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

use highwater_tests::measured;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// How many times leaders are killed, and moved.
const RUNS: usize = 30;

/// What is measured, under which name.
type Section = (&'static str, fn(usize) -> Result<(), Failure>);

const SECTIONS: [Section; 5] = [
    ("failover", failover::measure),
    ("transfer", transfer::measure),
    ("rolling", |_| rolling::measure()),
    ("freshness", |_| freshness::measure()),
    ("replacement", |_| replacement::measure()),
];

#[derive(Debug)]
struct Arguments {
    runs: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    measured("bench_cluster [--runs N] [--only SECTION]", arguments, measure)
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { runs: RUNS, only: None };
    while let Some(name) = given.next() {
        if !["--runs", "--only"].contains(&name.as_str()) {
            return Err(format!("{name} is not known"));
        }
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--runs" => arguments.runs = value.parse().map_err(|_| format!("--runs {value}: not a number"))?,
            _ => arguments.only = Some(section(value)?),
        }
    }
    Ok(arguments)
}

fn section(name: String) -> Result<String, String> {
    let known = SECTIONS.map(|(known, _)| known);
    if known.contains(&name.as_str()) {
        return Ok(name);
    }
    Err(format!(
        "--only {name}: there is no such section, but {}",
        known.join(", ")
    ))
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    floor::measure()?;
    for (name, section) in SECTIONS {
        if arguments.only.as_ref().is_none_or(|only| only == name) {
            section(arguments.runs)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(line: &str) -> Result<Arguments, String> {
        arguments(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn only_sections_that_there_are_can_be_asked_for() {
        let arguments = read("--runs 3 --only rolling").unwrap();
        assert_eq!((arguments.runs, arguments.only.as_deref()), (3, Some("rolling")));
        for (line, expected) in [
            ("--only roling", "no such section, but failover, transfer"),
            ("--runs many", "not a number"),
            ("--only", "needs a value"),
            ("--hlep", "--hlep is not known"),
        ] {
            let why = read(line).unwrap_err();
            assert!(why.contains(expected), "{line}: {why}");
        }
    }
}
