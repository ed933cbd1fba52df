//! The command line.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Logs and groups on simulated disks and networks. The exit status is the verdict.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The log alone: every I/O operation of scripts as a crash point, every byte of a small store flipped.
    Log(LogArguments),
    /// Groups: openraft over the real log and partition.
    Group(GroupArguments),
    /// Deliberate mistakes, each of which must be caught.
    Mutants(MutantArguments),
}

/// What `sim log` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct LogArguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many scripts; each has its own seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Makes a mistake on purpose.
    #[arg(long)]
    pub(crate) mutant: Option<String>,
}

/// What `sim group` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct GroupArguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    pub(crate) seeds: u64,
    /// Replicas of the group, 3 or 5. By default three of four seeds have 3, the others 5.
    #[arg(long)]
    pub(crate) nodes: Option<usize>,
    /// How long there are faults, simulated seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// Only these faults (kebab-case names, divided by commas), each of them often.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Runs every seed twice and compares; without it one of 20.
    #[arg(long)]
    pub(crate) twice: bool,
    /// Prints every event to standard error.
    #[arg(long)]
    pub(crate) trace: bool,
    /// How many seeds are run at once. [default: one for each processor]
    #[arg(long)]
    pub(crate) threads: Option<usize>,
    /// Ends at the first seed with a violation.
    #[arg(long)]
    pub(crate) until_caught: bool,
    /// Makes a mistake on purpose.
    #[arg(long)]
    pub(crate) mutant: Option<String>,
}

/// What `sim mutants` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct MutantArguments {
    /// Only this one.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The first seed tried.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    match Arguments::parse().command {
        Command::Log(log) => {
            choose(log.mutant.as_deref());
            crate::logs::run(&log)
        }
        Command::Group(group) => {
            choose(group.mutant.as_deref());
            crate::groups::run(&group)
        }
        Command::Mutants(mutants) => crate::mutants::run(&mutants),
    }
}

fn choose(mutant: Option<&str>) {
    if let Some(name) = mutant {
        assert!(highwater_log::mutants::choose(name), "a mutant was chosen already");
    }
}
