//! The command line: which verbs there are, and the runtime that each of them runs on.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand};

use crate::exit::{Code, EXIT_CODES_HELP, Failure, Result};
use crate::{
    access, audit, backup, bench, certs, cluster, completions, consume, dev, group, health, log, produce, profiles,
    reload, serve, tenant, top, topic, version,
};

const EXAMPLES: &str = "\
Examples:
  highwater dev                                     a local cluster of three nodes, until Ctrl-C
  export HIGHWATER_CONFIG=highwater-dev/profile.toml
  highwater topic create numbers --partitions 3
  seq 1 1000 | highwater produce numbers
  highwater consume numbers --from beginning --exit-at-end";

/// A replicated log: a record that is acknowledged is on the disks of a majority.
#[derive(Debug, Parser)]
#[command(name = "highwater", version = version::SUMMARY, propagate_version = true, max_term_width = 110)]
#[command(after_help = EXIT_CODES_HELP, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES_HELP}"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Dev(dev::Args),
    Serve(Box<serve::Args>),
    Reload(reload::Args),
    Topic(topic::Args),
    Produce(produce::Args),
    Consume(consume::Args),
    Group(group::Args),
    Access(access::Args),
    Tenant(tenant::Args),
    Audit(audit::Args),
    Backup(Box<backup::Args>),
    Restore(Box<backup::RestoreArgs>),
    Bench(Box<bench::Args>),
    Cluster(cluster::Args),
    Top(top::Args),
    Config(profiles::Args),
    Health(health::Args),
    #[command(subcommand)]
    Log(log::Command),
    #[command(subcommand)]
    Certs(certs::Command),
    Completions(completions::Args),
    Version(version::Args),
}

impl Cli {
    /// Runs the verb to its end.
    pub(crate) fn run(self) -> Result<()> {
        match self.command {
            Command::Dev(args) => block_on(dev::run(&args)),
            Command::Serve(args) => serve::run(&args),
            Command::Reload(args) => reload::run(&args),
            Command::Topic(args) => block_on(topic::run(&args)),
            Command::Produce(args) => block_on(produce::run(&args)),
            Command::Consume(args) => block_on(consume::run(&args)),
            Command::Group(args) => block_on(group::run(&args)),
            Command::Access(args) => block_on(access::run(&args)),
            Command::Tenant(args) => block_on(tenant::run(&args)),
            Command::Audit(args) => block_on(audit::run(&args)),
            Command::Backup(args) => block_on(backup::run(&args)),
            Command::Restore(args) => block_on(backup::restore(&args)),
            Command::Bench(args) => block_on(bench::run(&args)),
            Command::Cluster(args) => block_on(cluster::run(&args)),
            Command::Top(args) => block_on(top::run(&args)),
            Command::Config(args) => profiles::run(&args),
            Command::Health(args) => block_on(health::run(&args)),
            Command::Log(command) => log::run(&command),
            Command::Certs(command) => certs::run(&command),
            Command::Completions(args) => completions::run(&args),
            Command::Version(args) => version::run(&args),
        }
    }
}

/// Runs a client's work on one thread: a command should leave the machine to the cluster and to its pipe.
fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failure, format!("cannot start the runtime: {error}")))?;
    runtime.block_on(work)
}

/// The path that a flag or a variable names. An empty one is taken as well: a variable that is set to nothing is as good as none.
pub(crate) fn path_or_nothing() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
