//! `highwater bench produce`: how fast records are acknowledged, and what that costs.

use super::cpu::Used;
use super::load::{Load, LoadArgs};
use super::report::{LoadReport, print_latencies};
use super::target::Target;
use super::{PRODUCERS_MAX, RATE_MAX, interrupted_twice};
use crate::exit::Result;
use crate::output::{self, Format};

const NOTES: &str = "\
Without --rate a record is sent as soon as the window has room for it, and its latency counts from then: it says how
long an answer takes, not how long a user waits whom a slow answer keeps from asking again. With --rate each record is
due at a time, and its latency counts from then, however late it could be sent; that is what is called corrected for
coordinated omission.

The first record that fails ends the sending; the figures are shown, and the command ends with an error. Ctrl-C shows
what was measured until then, after the answers that are still due; a second one does not wait for them.";

/// Send records as fast as they are acknowledged, or at a rate.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Records a second, over all producers. Latencies then count from when a record was due.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// How many producers send, each with connections and a window of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=PRODUCERS_MAX))]
    producers: u64,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    let client = args.load.common.profile.connect(args.load.deadline).await?;
    let target = Target::open(&client, &args.load.target).await?;
    let measured = measure(args, &client, &target).await;
    target.close(&client).await;
    measured
}

async fn measure(args: &Args, client: &highwater::Client, target: &Target) -> Result<()> {
    let linger = args.load.linger();
    let mut load = Load::open(&args.load, target, args.producers, args.rate, linger).await?;
    let cluster = client.cluster();
    let used = Used::before(&cluster).await;
    load.begin();
    let progress = load.progress(args.load.common.output);
    tokio::select! {
        biased;
        () = interrupted_twice(&load.stop) => {}
        () = progress.follow(|| load.acknowledged()) => {}
        ran = load.run() => ran?,
    }
    drop(progress);
    let cost = used.since(&cluster).await;
    let measured = load.finish();
    let report = LoadReport {
        bench: "produce",
        args: &args.load,
        target,
        producers: args.producers,
        rate: args.rate,
        linger,
        measured: &measured,
    };
    let throughput = report.throughput(cost);
    match args.load.common.output {
        Format::Json => output::json(&report.document(&throughput))?,
        Format::Text => {
            report.print_heading()?;
            throughput.print()?;
            print_latencies(&[(report.latency_name(), &measured.tally.latencies)])?;
        }
    }
    measured.verdict()
}
