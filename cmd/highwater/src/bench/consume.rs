//! `highwater bench consume`: how fast the records of a topic can be read, from the beginning.

use std::time::{Duration, Instant};

use highwater::{Client, ConsumedRecord, Consumer, Position};
use serde_json::json;

use super::cpu::{Cost, Used};
use super::report::{Throughput, show};
use super::target::Target;
use super::{CommonArgs, RECORDS_MAX, SECONDS_MAX, interrupted};
use crate::durations;
use crate::exit::Result;
use crate::output::{self, Format};
use crate::profile::failure;
use crate::progress::{End, Progress, Unit};

/// Read a topic from the beginning, all partitions at once, as fast as the records come.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The topic.
    topic: String,
    #[command(flatten)]
    common: CommonArgs,
    /// End after so many records. Default: at the ends of the partitions, as they are now.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=RECORDS_MAX))]
    records: Option<u64>,
    /// End after so long, if the records last that long.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// How long to look for the topic, and then how long no replica may serve a partition; at most 24h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "30s")]
    deadline: Duration,
}

/// What was read so far.
#[derive(Debug, Default)]
struct Reading {
    records: u64,
    bytes: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Reading {
    fn note(&mut self, record: &ConsumedRecord) {
        self.first.get_or_insert_with(Instant::now);
        self.records += 1;
        self.bytes += (record.value.len() + record.key.as_ref().map_or(0, bytes::Bytes::len)) as u64;
    }
}

pub(super) async fn run(args: &Args) -> Result<()> {
    let client = args.common.profile.connect(args.deadline).await?;
    let target = Target::find(&client, &args.topic).await?;
    let cluster = client.cluster();
    let used = Used::before(&cluster).await;
    let start = Instant::now();
    let mut reading = Reading::default();
    let (outcome, was_interrupted) = tokio::select! {
        biased;
        () = interrupted() => (Ok(()), true),
        outcome = read(args, &client, start, &mut reading) => (outcome, false),
    };
    let end = reading.last.unwrap_or_else(Instant::now);
    let cost = used.since(&cluster).await;
    let to_first = reading.first.map(|first| first - start);
    show_all(args, &target, &reading, (end - start, to_first, was_interrupted), cost)?;
    outcome
}

async fn read(args: &Args, client: &Client, start: Instant, reading: &mut Reading) -> Result<()> {
    let mut consumer = client
        .consume_topic(&args.topic)
        .from(Position::Beginning)
        .deadline(args.deadline)
        .stop_at_end()
        .build()
        .await
        .map_err(failure)?;
    let time = args.seconds.map(Duration::from_secs);
    let progress = Progress::beside(args.common.output, Unit::Records, end(args, &consumer));
    let read = read_all(&mut consumer, (args.records, time), start, (reading, &progress)).await;
    reading.last = Some(Instant::now());
    read
}

/// When the reading is over, as far as that is known before it begins.
fn end(args: &Args, consumer: &Consumer) -> End {
    if let Some(seconds) = args.seconds {
        return End::After(Duration::from_secs(seconds));
    }
    let left = |partition: u32| {
        let (stop, position) = (consumer.stop_offset(partition)?, consumer.position(partition)?);
        Some(stop.saturating_sub(position))
    };
    let to_ends: Option<u64> = consumer.partitions().into_iter().map(left).sum();
    [to_ends, args.records].into_iter().flatten().min().into()
}

async fn read_all(
    consumer: &mut Consumer,
    (records, time): (Option<u64>, Option<Duration>),
    start: Instant,
    (reading, progress): (&mut Reading, &Progress),
) -> Result<()> {
    while let Some(batch) = consumer.next_batch().await {
        for record in batch.map_err(failure)? {
            reading.note(&record.map_err(failure)?);
            if records.is_some_and(|records| reading.records >= records) {
                return Ok(());
            }
        }
        progress.set(reading.records);
        if time.is_some_and(|time| start.elapsed() >= time) {
            break;
        }
    }
    Ok(())
}

fn show_all(
    args: &Args,
    target: &Target,
    reading: &Reading,
    (elapsed, to_first, interrupted): (Duration, Option<Duration>, bool),
    cost: Cost,
) -> Result<()> {
    let throughput = Throughput {
        records: reading.records,
        bytes: reading.bytes,
        elapsed,
        cost,
    };
    if args.common.output == Format::Json {
        let mut document = json!({
            "bench": "consume",
            "topic": target.name,
            "partitions": target.partitions,
            "replication": target.replication,
            "interrupted": interrupted,
            "records": reading.records,
            "first_record_us": to_first.map(|time| time.as_secs_f64() * 1e6),
        });
        throughput.tell(&mut document);
        return output::json(&document);
    }
    let (partitions, replication) = (target.partitions, target.replication);
    output::line(format!(
        "consume {}: {partitions} partitions, {replication} replicas",
        target.name
    ))?;
    if interrupted {
        output::line("Interrupted: these are the figures until then.")?;
    }
    output::line(format!("First record after {}.\n", show(to_first)))?;
    throughput.print()
}
