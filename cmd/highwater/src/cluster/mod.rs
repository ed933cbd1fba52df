//! `highwater cluster`: look at the cluster, and change it.
//!
//! Changes need a client that the nodes' configuration calls an operator. What takes long goes on in the cluster; the
//! command shows how far it is, may be interrupted at any time, and goes on where it is when it is given again.

mod describe;
mod operate;
mod recover;
mod waiting;
mod watch;

use std::time::Duration;

use crate::durations;
use crate::exit::Result;
use crate::output::Format;
use crate::profile::ProfileArgs;

const EXAMPLES: &str = "\
Examples:
  highwater cluster describe
  highwater cluster drain n3                      before its machine is serviced; --undo afterwards
  highwater cluster decommission n3               moves everything off it, then removes it
  highwater cluster transfer orders 0 n2
  highwater cluster move orders 0 --from n1 --to n4
  highwater cluster settings --replace-after 30m
  highwater cluster recover orders 0 --from n1    shows what would be lost; --accept-loss does it";

/// Look at the cluster, and change it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Format,
    /// How long to try each call, at most 24h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "10s", global = true)]
    deadline: Duration,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the nodes and their replicas, as one node sees them.
    Describe,
    /// Show each change of nodes, topics and leaders as it happens, until Ctrl-C.
    Watch(watch::Args),
    /// Have another replica lead a partition.
    Transfer(operate::TransferArgs),
    /// Move all leaderships off a node and keep them away, before it is serviced.
    Drain(operate::DrainArgs),
    /// Move everything off a node and remove it from the cluster.
    Decommission(operate::DecommissionArgs),
    /// Move a replica from one node to another.
    Move(operate::MoveArgs),
    /// Have a partition go on from one replica when the majority is gone for good. What only the others had is lost.
    Recover(recover::Args),
    /// Show the cluster's settings, or change some of them.
    Settings(operate::SettingsArgs),
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let common = &args.common;
    let cluster = common.profile.connect(common.deadline).await?.cluster();
    let format = common.output;
    match &args.command {
        Command::Describe => describe::describe(&cluster, format).await,
        Command::Watch(args) => watch::watch(&cluster, args, format).await,
        Command::Transfer(args) => operate::transfer(&cluster, args, format).await,
        Command::Drain(args) => operate::drain(&cluster, args, format).await,
        Command::Decommission(args) => operate::decommission(&cluster, args, format).await,
        Command::Move(args) => operate::move_replica(&cluster, args, format).await,
        Command::Recover(args) => recover::recover(&cluster, args, format).await,
        Command::Settings(args) => operate::settings(&cluster, args, format).await,
    }
}
