//! `highwater bench produce|consume|latency`: what the cluster does for a client, in figures.
//!
//! Everything goes through the client library, as any application does it: its batches, its window, its certificates.
//! A run takes one thread; what is measured is noted at once, in histograms of a fixed size, so that a run may take as
//! long as it likes. What the figures mean, and the names in the JSON, stand in `docs/benchmarking.md`.
//!
//! With `--rate` a record has a time at which it is *due*, and its latency counts from then, whether or not the client
//! could send it by then: a cluster that stalls for a second is seen in the latencies of all records of that second, and
//! not only in one. Without a rate the next record is sent as soon as the window lets it, and nothing is due.
//!
//! Deliberately absent: floors to compare with (`make bench` measures them), and load from several machines.

mod consume;
mod cpu;
mod latencies;
mod latency;
mod load;
mod payload;
mod produce;
mod report;
mod schedule;
mod target;

use tokio::signal::ctrl_c;
use tokio::sync::watch;

use crate::exit::Result;
use crate::output::Format;
use crate::profile::ProfileArgs;

/// The most records of a run.
const RECORDS_MAX: u64 = 10_000_000_000;
/// The longest run, seconds.
const SECONDS_MAX: u64 = 24 * 3_600;
/// How long a run takes unless said otherwise, seconds.
const SECONDS: u64 = 10;
/// The largest value of a record, bytes: what a batch holds, less room for the framing.
const RECORD_BYTES_MAX: u64 = 1_000_000;
/// The most records in flight, of each producer.
const WINDOW_MAX: u64 = 1_000_000;
/// The highest rate, records a second.
const RATE_MAX: u64 = 10_000_000;
/// The most producers.
const PRODUCERS_MAX: u64 = 64;

const EXAMPLES: &str = "\
Examples:
  highwater bench produce --partitions 12 --record-bytes 1024
  highwater bench produce orders --window 1 --records 2000     one record at a time
  highwater bench consume orders
  highwater bench latency --rate 1000 --seconds 30 --output json";

/// Measure records a second, latencies and CPU time.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Produce(produce::Args),
    Consume(consume::Args),
    Latency(latency::Args),
}

/// What all of them take.
#[derive(Debug, clap::Args)]
struct CommonArgs {
    #[command(flatten)]
    profile: ProfileArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Produce(args) => produce::run(args).await,
        Command::Consume(args) => consume::run(args).await,
        Command::Latency(args) => latency::run(args).await,
    }
}

/// The first interrupt ends the sending; ready at the second, which ends the waiting for answers, too.
async fn interrupted_twice(stop: &watch::Sender<bool>) {
    interrupted().await;
    stop.send_replace(true);
    interrupted().await;
}

/// Ready at Ctrl-C.
async fn interrupted() {
    // Without a listener there is nothing to wait for.
    if ctrl_c().await.is_err() {
        std::future::pending().await
    }
}
