//! `highwater bench latency`: from when a record is due until it is acknowledged, and until a consumer has it.
//!
//! Producer and consumer are in one process, so one clock tells both times; when a record was due stands at the
//! beginning of its value, behind a mark by which the run knows its own records.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures::StreamExt;
use highwater::{Client, Consumer, Position};
use serde_json::json;
use tokio::sync::Notify;

use super::cpu::Used;
use super::latencies::Latencies;
use super::load::{Load, LoadArgs, STAMP_BYTES, due};
use super::report::{LoadReport, print_latencies};
use super::target::Target;
use super::{RATE_MAX, interrupted_twice};
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};
use crate::profile::failure;

const NOTES: &str = "\
Records are sent at the rate, whether the ones before are answered or not, as long as the window has room. All latencies
count from when a record was due, however late it could be sent: corrected for coordinated omission.

The first record that fails ends the sending; the figures are shown, and the command ends with an error. Ctrl-C shows
what was measured until then.";

/// Send records at a rate, read them, and measure how long that takes.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Records a second.
    #[arg(long, value_name = "RECORDS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
}

pub(super) async fn run(args: &Args) -> Result<()> {
    if args.load.record_bytes < STAMP_BYTES as u64 {
        let asked = args.load.record_bytes;
        let message = format!("--record-bytes {asked}: a record needs {STAMP_BYTES} bytes for its mark and its time");
        return Err(Failure::usage(message).hint(format!("give at least {STAMP_BYTES}")));
    }
    let client = args.load.common.profile.connect(args.load.deadline).await?;
    let target = Target::open(&client, &args.load.target).await?;
    let measured = measure(args, &client, &target).await;
    target.close(&client).await;
    measured
}

/// What the consumer has seen of this run.
struct Seen {
    stamp: u64,
    start: Instant,
    latencies: RefCell<Latencies>,
    count: Cell<u64>,
    changed: Notify,
}

impl Seen {
    fn new(start: Instant, stamp: u64) -> Result<Self> {
        Ok(Self {
            stamp,
            start,
            latencies: RefCell::new(Latencies::new()?),
            count: Cell::new(0),
            changed: Notify::new(),
        })
    }

    /// Reads until there is an error.
    async fn watch(&self, consumer: &mut Consumer) -> Failure {
        loop {
            let Some(record) = consumer.next().await else {
                return Failure::new(Code::Failure, "the consumer's stream ended");
            };
            let record = match record {
                Ok(record) => record,
                Err(error) => return failure(error),
            };
            if let Some(due) = due(self.stamp, &record.value) {
                let latency = self.start.elapsed().saturating_sub(due);
                self.latencies.borrow_mut().note(latency);
                self.count.set(self.count.get() + 1);
                self.changed.notify_one();
            }
        }
    }

    /// Waits until so many were seen.
    async fn reaches(&self, count: u64) {
        while self.count.get() < count {
            self.changed.notified().await;
        }
    }
}

async fn measure(args: &Args, client: &Client, target: &Target) -> Result<()> {
    let linger = args.load.linger.unwrap_or(Duration::ZERO);
    let stamp = rand::random();
    let load = Load::open(&args.load, target, 1, Some(args.rate), linger).await?;
    let mut load = load.stamped(stamp);
    // It begins at the ends as they are now, so it sees every record of the run.
    let builder = client.consume_topic(&target.name).from(Position::End);
    let mut consumer = builder.deadline(args.load.deadline).build().await.map_err(failure)?;
    let cluster = client.cluster();
    let used = Used::before(&cluster).await;
    let seen = Seen::new(load.begin(), stamp)?;
    let progress = load.progress(args.load.common.output);
    let watched = tokio::select! {
        biased;
        () = interrupted_twice(&load.stop) => Ok(()),
        () = progress.follow(|| load.acknowledged()) => Ok(()),
        ran = send_and_see(&load, &seen, args.load.deadline) => ran,
        failure = seen.watch(&mut consumer) => Err(failure),
    };
    drop(progress);
    let cost = used.since(&cluster).await;
    let measured = load.finish();
    let report = LoadReport {
        bench: "latency",
        args: &args.load,
        target,
        producers: 1,
        rate: Some(args.rate),
        linger,
        measured: &measured,
    };
    let throughput = report.throughput(cost);
    let latencies = seen.latencies.borrow();
    match args.load.common.output {
        Format::Json => {
            let mut document = report.document(&throughput);
            document["seen"] = json!(seen.count.get());
            document["end_to_end_us"] = latencies.document();
            output::json(&document)?;
        }
        Format::Text => {
            report.print_heading()?;
            throughput.print()?;
            let acknowledged = (report.latency_name(), &measured.tally.latencies);
            print_latencies(&[acknowledged, ("due to consumer", &latencies)])?;
        }
    }
    measured.verdict()?;
    watched
}

/// Sends all, and waits until the consumer has what was acknowledged.
async fn send_and_see(load: &Load, seen: &Seen, deadline: Duration) -> Result<()> {
    load.run().await?;
    let acknowledged = load.acknowledged();
    let all = tokio::time::timeout(deadline, seen.reaches(acknowledged)).await;
    all.map_err(|_| {
        let message = format!(
            "{} of {acknowledged} acknowledged records were seen by the consumer within {} ms",
            seen.count.get(),
            deadline.as_millis()
        );
        Failure::new(Code::Unavailable, message)
    })
}
