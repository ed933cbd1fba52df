//! `highwater log`: what stands in log directories, read offline or beside a running node; nothing is changed.
//!
//! `inspect` looks at files and headers, and on demand lists frames; `verify` reads every byte and judges. Both take one
//! log's directory, or a node's data directory for all logs in it. Mending is no command: a node does it by itself from
//! the other replicas.

mod json;
mod text;

use std::path::{Path, PathBuf};

use highwater_log::RealDisk;
use highwater_log::inspect::{Depth, FrameReport, Inspection, inspect, inspect_frames};

pub(crate) use text::time;

use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};

/// Where a data directory keeps its logs.
const GROUPS: &str = "groups";

/// Read logs offline.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show a log's segments, states and damage; with --frames also every frame.
    Inspect(InspectArgs),
    /// Read every byte, and fail if anything is damaged.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct InspectArgs {
    /// A log's directory, or a node's data directory.
    dir: PathBuf,
    /// List the frames, too: of all segments, or of the one that --segment names.
    #[arg(long)]
    frames: bool,
    /// The index with which the segment's file name begins.
    #[arg(long, value_name = "INDEX", requires = "frames")]
    segment: Option<u64>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// A log's directory, or a node's data directory.
    dir: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) fn run(command: &Command) -> Result<()> {
    match command {
        Command::Inspect(args) => show(args),
        Command::Verify(args) => verify(args),
    }
}

fn show(args: &InspectArgs) -> Result<()> {
    let logs = logs_in(&args.dir)?;
    let found = look(&logs, Depth::Headers)?;
    if args.output == Format::Json {
        let frames = |log: &Inspection| match args.frames {
            true => collect_frames(log, args.segment).map(Some),
            false => Ok(None),
        };
        let documents: Vec<serde_json::Value> = found
            .iter()
            .map(|log| Ok(json::document(log, frames(log)?)))
            .collect::<Result<_>>()?;
        return output::json(&documents);
    }
    for (place, log) in found.iter().enumerate() {
        if place > 0 {
            output::line("")?;
        }
        text::print(log)?;
        if args.frames {
            print_frames(log, args.segment)?;
        }
    }
    Ok(())
}

fn verify(args: &VerifyArgs) -> Result<()> {
    let logs = logs_in(&args.dir)?;
    let found = look(&logs, Depth::Frames)?;
    match args.output {
        Format::Json => {
            let documents: Vec<serde_json::Value> = found.iter().map(|log| json::document(log, None)).collect();
            output::json(&documents)?;
        }
        Format::Text => found.iter().try_for_each(text::judge)?,
    }
    if found.iter().any(|log| log.changed) {
        output::note("a log was written to meanwhile: what was found there may be of two moments, look again");
    }
    let damaged = found.iter().filter(|log| !log.damage.is_empty()).count();
    if damaged == 0 {
        return Ok(());
    }
    let message = format!(
        "{damaged} of {} logs in {} are damaged",
        found.len(),
        args.dir.display()
    );
    Err(Failure::new(Code::Failure, message)
        .hint("leave the files as they are: the node mends them from the other replicas when it runs"))
}

/// The directory itself if it is a log's, or all logs of a data directory, by name.
fn logs_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let groups = dir.join(GROUPS);
    if !groups.is_dir() {
        return match names_in(dir)?.iter().any(|name| is_of_a_log(name)) {
            true => Ok(vec![dir.to_owned()]),
            false => Err(Failure::setup(format!("{} holds no log", dir.display())).hint(format!(
                "name a node's data directory, or a directory like {}",
                groups.join("1-4").display()
            ))),
        };
    }
    let mut logs: Vec<PathBuf> = names_in(&groups)?.iter().map(|name| groups.join(name)).collect();
    logs.retain(|path| path.is_dir());
    logs.sort_by_key(|path| number_of(path));
    Ok(logs)
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let failed = |error| Failure::setup(format!("cannot read {}: {error}", dir.display()));
    let entries = std::fs::read_dir(dir).map_err(failed)?;
    let names = entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn is_of_a_log(name: &str) -> bool {
    name == "hard-state" || name.ends_with(".log")
}

/// Group and replica, which the directory's name says, as numbers.
fn number_of(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.split('-')
        .map(|number| number.parse().unwrap_or(u64::MAX))
        .collect()
}

fn look(logs: &[PathBuf], depth: Depth) -> Result<Vec<Inspection>> {
    let one = |dir: &PathBuf| inspect(&RealDisk, dir, depth).map_err(|error| failure(dir, &error));
    logs.iter().map(one).collect()
}

fn failure(dir: &Path, error: &highwater_log::Error) -> Failure {
    Failure::setup(format!("cannot look at {}: {error}", dir.display()))
}

fn print_frames(log: &Inspection, only: Option<u64>) -> Result<()> {
    for segment in segments(log, only) {
        output::line("")?;
        text::frames_heading(segment)?;
        let mut printed = Ok(());
        visit(log, segment, &mut |frame| {
            if printed.is_ok() {
                printed = text::frame(&frame);
            }
        })?;
        printed?;
    }
    Ok(())
}

fn collect_frames(log: &Inspection, only: Option<u64>) -> Result<Vec<serde_json::Value>> {
    let mut frames = Vec::new();
    for segment in segments(log, only) {
        visit(log, segment, &mut |frame| frames.push(json::frame(&frame)))?;
    }
    Ok(frames)
}

fn segments(log: &Inspection, only: Option<u64>) -> impl Iterator<Item = u64> + '_ {
    let all = log.segments.iter().map(|segment| segment.first_index);
    all.filter(move |first_index| only.is_none_or(|only| only == *first_index))
}

fn visit(log: &Inspection, segment: u64, visit: &mut dyn FnMut(FrameReport)) -> Result<()> {
    inspect_frames(&RealDisk, &log.dir, segment, visit).map_err(|error| failure(&log.dir, &error))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_data_directory_is_all_its_logs_in_order_and_a_directory_without_any_is_refused() {
        let directory = tempfile::TempDir::new().unwrap();
        let refused = logs_in(directory.path()).unwrap_err();
        assert_eq!(refused.code, Code::Setup);
        assert!(refused.message.contains("holds no log"), "{refused}");
        for name in ["10-11", "0-1", "9-12"] {
            std::fs::create_dir_all(directory.path().join(GROUPS).join(name)).unwrap();
        }
        let logs = logs_in(directory.path()).unwrap();
        let names: Vec<_> = logs
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy())
            .collect();
        assert_eq!(names, ["0-1", "9-12", "10-11"]);
        assert!(logs_in(&directory.path().join("missing")).is_err());
    }
}
