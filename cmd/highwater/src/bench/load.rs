//! The load: producers that send on a schedule or as fast as their window lets them, and what becomes of the records.
//!
//! ```text
//! schedule, window ─► send ─► producer
//!                      └► one queue per partition ─► collect: answer ─► histogram, window
//! ```
//!
//! Answers of a partition come in the order of its records, so one collector per partition sees each of them at once,
//! and none waits behind a slower partition. Whatever waits for an answer is bounded by the window.
//!
//! The first record that fails ends the sending: what would follow is not the load that was asked for.

use std::cell::{Cell, RefCell};
use std::io;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use clap::ValueEnum;
use futures::future::{join_all, try_join_all};
use highwater::proto::limits::BATCH_BYTES_MAX;
use highwater::{Delivered, Delivery, Outcome, ProduceError, Producer, Record};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::unconstrained;

use super::latencies::Latencies;
use super::payload::{Kind, Payload};
use super::schedule::{Schedule, Timer};
use super::target::{Target, TargetArgs};
use super::{CommonArgs, RECORD_BYTES_MAX, RECORDS_MAX, SECONDS, SECONDS_MAX, WINDOW_MAX};
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::output::Format;
use crate::produce::Compression;
use crate::profile::failure;
use crate::progress::{self, Progress, Unit};

/// The linger of a record that others may join.
const LINGER: Duration = Duration::from_millis(2);

/// What is sent, and how.
#[derive(Debug, clap::Args)]
pub(super) struct LoadArgs {
    #[command(flatten)]
    pub(super) target: TargetArgs,
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// How many records are sent.
    #[arg(long, value_name = "COUNT", conflicts_with = "seconds",
        value_parser = clap::value_parser!(u64).range(1..=RECORDS_MAX))]
    records: Option<u64>,
    /// For how long records are sent. Default, without --records: 10.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: Option<u64>,
    /// Bytes of each record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024,
        value_parser = clap::value_parser!(u64).range(1..=RECORD_BYTES_MAX))]
    pub(super) record_bytes: u64,
    /// What the records hold.
    #[arg(long, value_enum, default_value_t)]
    pub(super) payload: Kind,
    /// How large a batch grows before it is sent.
    #[arg(long, value_name = "BYTES", default_value_t = BATCH_BYTES_MAX as u64,
        value_parser = clap::value_parser!(u64).range(1024..=BATCH_BYTES_MAX as u64))]
    pub(super) batch_bytes: u64,
    /// How long a batch that is not full waits for more records, at most 60s. Default: 2ms; 0ms for one record at a time
    /// and for `bench latency`.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse_linger)]
    pub(super) linger: Option<Duration>,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value_t)]
    pub(super) compression: Compression,
    /// How many records each producer has in flight at most; 1: one at a time.
    #[arg(long, value_name = "RECORDS", default_value_t = 65_536,
        value_parser = clap::value_parser!(u64).range(1..=WINDOW_MAX))]
    pub(super) window: u64,
    /// How long to look for the topic, and then how long each batch is tried, at most 10m.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse_delivery_deadline, default_value = "30s")]
    pub(super) deadline: Duration,
}

impl LoadArgs {
    pub(super) fn linger(&self) -> Duration {
        let usual = if self.window == 1 { Duration::ZERO } else { LINGER };
        self.linger.unwrap_or(usual)
    }
}

/// When the sending ends.
#[derive(Debug, Clone, Copy)]
enum End {
    Records(u64),
    Time(Duration),
}

impl End {
    /// With a rate it is known how many records are due, and all of them are sent, however late.
    fn of(args: &LoadArgs, schedule: &Schedule) -> Self {
        if let Some(records) = args.records {
            return Self::Records(records);
        }
        let time = Duration::from_secs(args.seconds.unwrap_or(SECONDS));
        schedule.count(time).map_or(Self::Time(time), Self::Records)
    }
}

/// What became of the records.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) latencies: Latencies,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    pub(super) not_applied: u64,
    pub(super) unknown: u64,
    pub(super) batches: u64,
    /// Why the first record failed that did.
    pub(super) failure: Option<ProduceError>,
    last_answer: Option<Instant>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            latencies: Latencies::new()?,
            sent: 0,
            acknowledged: 0,
            not_applied: 0,
            unknown: 0,
            batches: 0,
            failure: None,
            last_answer: None,
        })
    }

    pub(super) fn failed(&self) -> u64 {
        self.not_applied + self.unknown
    }

    fn fail(&mut self, error: ProduceError) {
        match error.outcome() {
            Outcome::NotApplied => self.not_applied += 1,
            // Without an acknowledgement nothing was promised.
            Outcome::Unknown | Outcome::Applied => self.unknown += 1,
        }
        self.failure.get_or_insert(error);
    }
}

/// A record on its way.
struct Sent {
    delivery: Delivery,
    /// From when on its latency counts.
    from: Instant,
}

/// One producer and the timer that it waits for.
struct Sender {
    producer: Producer,
    timer: Option<Timer>,
    window: Semaphore,
}

/// A run of the load. It is used from one thread.
pub(super) struct Load {
    senders: Vec<Sender>,
    schedule: Schedule,
    end: End,
    payload: Payload,
    /// Marks the records, if they are to be recognised.
    stamp: Option<u64>,
    window: usize,
    tally: RefCell<Tally>,
    /// Set when nothing more is to be sent.
    pub(super) stop: watch::Sender<bool>,
    /// Whether all answers are there.
    complete: Cell<bool>,
}

/// Bytes of a stamp: whose record it is, and when it was due.
pub(super) const STAMP_BYTES: usize = 16;

impl Load {
    /// Connects the producers; the schedule begins when that is done.
    pub(super) async fn open(
        args: &LoadArgs,
        target: &Target,
        producers: u64,
        rate: Option<u64>,
        linger: Duration,
    ) -> Result<Self> {
        let mut senders = Vec::new();
        for _ in 0..producers {
            senders.push(connect(args, target, rate, linger).await?);
        }
        let schedule = Schedule {
            start: Instant::now(),
            rate,
        };
        Ok(Self {
            senders,
            schedule,
            end: End::of(args, &schedule),
            payload: Payload::new(args.payload, args.record_bytes as usize),
            stamp: None,
            window: args.window as usize,
            tally: RefCell::new(Tally::new()?),
            stop: watch::Sender::new(false),
            complete: Cell::new(false),
        })
    }

    /// The same, with records that begin with this mark.
    pub(super) fn stamped(mut self, stamp: u64) -> Self {
        self.stamp = Some(stamp);
        self
    }

    /// Begins the schedule anew; to be called right before [`Load::run`].
    pub(super) fn begin(&mut self) -> Instant {
        self.schedule.start = Instant::now();
        self.schedule.start
    }

    /// Tells on a terminal how far the run is; to be called right before [`Load::run`].
    pub(super) fn progress(&self, format: Format) -> Progress {
        let end = match self.end {
            End::Records(records) => progress::End::At(records),
            End::Time(time) => progress::End::After(time),
        };
        Progress::beside(format, Unit::Records, end)
    }

    /// How many records were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.tally.borrow().acknowledged
    }

    /// Sends, and returns when everything sent has its answer.
    pub(super) async fn run(&self) -> Result<()> {
        let runs = self
            .senders
            .iter()
            .zip(0..)
            .map(|(sender, place)| self.drive(sender, place));
        try_join_all(runs)
            .await
            .map_err(|error| Failure::new(Code::Failure, format!("cannot wait for the time of a record: {error}")))?;
        self.complete.set(true);
        Ok(())
    }

    /// What was measured, also in the middle of a run.
    pub(super) fn finish(self) -> Measured {
        let tally = self.tally.into_inner();
        let start = self.schedule.start;
        let elapsed = tally.last_answer.map_or_else(|| start.elapsed(), |last| last - start);
        let due = match (self.end, self.schedule.count(start.elapsed())) {
            (End::Records(records), Some(due)) => due.min(records),
            _ => tally.sent,
        };
        Measured {
            unsent: due.saturating_sub(tally.sent),
            interrupted: !self.complete.get() || (*self.stop.borrow() && tally.failure.is_none()),
            elapsed,
            tally,
        }
    }

    async fn drive(&self, sender: &Sender, place: u64) -> io::Result<()> {
        let partitions = sender.producer.partitions();
        let (queues, waiting): (Vec<_>, Vec<_>) = (0..partitions).map(|_| mpsc::channel(self.window)).unzip();
        let mut stopped = self.stop.subscribe();
        let sending = async {
            // A sending that is dropped in the middle has sent nothing of that record.
            let sent = tokio::select! {
                biased;
                _ = stopped.wait_for(|stop| *stop) => Ok(()),
                sent = self.send_all(sender, place, &queues) => sent,
            };
            drop(queues);
            sender.producer.flush().await;
            sent
        };
        // All of this is one task, and a task may do only so much in a turn: without this the sending would use that up, and answers
        // would wait for their turn, longest those of the last partitions.
        let collecting = waiting
            .into_iter()
            .map(|waiting| unconstrained(self.collect(sender, waiting)));
        tokio::join!(sending, join_all(collecting)).0
    }

    /// Every so many-th record, as many as there are producers.
    async fn send_all(&self, sender: &Sender, place: u64, queues: &[mpsc::Sender<Sent>]) -> io::Result<()> {
        let mut number = place;
        let mut now = self.schedule.start;
        while self.wants(number, now) {
            if let (Some(timer), Some(due)) = (&sender.timer, self.schedule.due(number)) {
                timer.wait_until(due).await?;
            }
            // It also gives the others a turn after some records.
            let Ok(room) = sender.window.acquire().await else {
                break;
            };
            now = Instant::now();
            let from = self.schedule.measured_from(number, now);
            let sent = sender.producer.send(self.record(number, from)).await;
            self.tally.borrow_mut().sent += 1;
            match sent {
                Ok(delivery) => {
                    room.forget();
                    let queue = &queues[delivery.partition() as usize];
                    // There is room for the whole window, and the collector stays for as long as we do.
                    let _ = queue.try_send(Sent { delivery, from });
                }
                Err(error) => self.fail(error),
            }
            number += self.senders.len() as u64;
        }
        Ok(())
    }

    fn wants(&self, number: u64, now: Instant) -> bool {
        match self.end {
            End::Records(records) => number < records,
            End::Time(time) => now - self.schedule.start < time,
        }
    }

    fn record(&self, number: u64, from: Instant) -> Record {
        let value = self.payload.value(number);
        Record::new(match self.stamp {
            None => value,
            Some(stamp) => stamped(stamp, from - self.schedule.start, &value),
        })
    }

    async fn collect(&self, sender: &Sender, mut waiting: mpsc::Receiver<Sent>) {
        let mut before: Option<Delivery> = None;
        let mut answered = self.schedule.start;
        while let Some(Sent { mut delivery, from }) = waiting.recv().await {
            let outcome = (&mut delivery).await;
            if !before.is_some_and(|before| before.is_with(&delivery)) {
                answered = Instant::now();
                self.tally.borrow_mut().batches += u64::from(outcome.is_ok());
            }
            self.note(outcome, from, answered);
            sender.window.add_permits(1);
            before = Some(delivery);
        }
    }

    fn note(&self, outcome: std::result::Result<Delivered, ProduceError>, from: Instant, answered: Instant) {
        if let Err(error) = outcome {
            return self.fail(error);
        }
        let mut tally = self.tally.borrow_mut();
        tally.acknowledged += 1;
        tally.latencies.note(answered - from);
        tally.last_answer = tally.last_answer.max(Some(answered));
    }

    fn fail(&self, error: ProduceError) {
        self.tally.borrow_mut().fail(error);
        self.stop.send_replace(true);
    }
}

/// A producer with connections of its own.
async fn connect(args: &LoadArgs, target: &Target, rate: Option<u64>, linger: Duration) -> Result<Sender> {
    let client = args.common.profile.connect(args.deadline).await?;
    let producer = client
        .producer(&target.name)
        .linger(linger)
        .batch_bytes(args.batch_bytes as usize)
        .compression(args.compression.into())
        .deadline(args.deadline)
        .build()
        .await
        .map_err(failure)?;
    let timer = rate.map(|_| Timer::new()).transpose();
    Ok(Sender {
        producer,
        timer: timer.map_err(|error| Failure::new(Code::Failure, format!("cannot make a timer: {error}")))?,
        window: Semaphore::new(args.window as usize),
    })
}

/// A value that tells whose it is and when it was due; as long as it was, or as long as that takes.
fn stamped(stamp: u64, due: Duration, value: &Bytes) -> Bytes {
    let mut bytes = BytesMut::with_capacity(value.len().max(STAMP_BYTES));
    bytes.put_u64(stamp);
    bytes.put_u64(u64::try_from(due.as_nanos()).unwrap_or(u64::MAX));
    bytes.extend_from_slice(value.get(STAMP_BYTES..).unwrap_or_default());
    bytes.freeze()
}

/// When a record of this mark was due, counted from the start; `None` if it is somebody else's.
pub(super) fn due(stamp: u64, value: &[u8]) -> Option<Duration> {
    let (mark, rest) = value.split_first_chunk::<8>()?;
    let ns = rest.first_chunk::<8>()?;
    (u64::from_be_bytes(*mark) == stamp).then(|| Duration::from_nanos(u64::from_be_bytes(*ns)))
}

/// A run of the load that has ended.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) tally: Tally,
    /// From the first record to the last answer.
    pub(super) elapsed: Duration,
    /// Records that were due and not sent any more.
    pub(super) unsent: u64,
    pub(super) interrupted: bool,
}

impl Measured {
    /// What the command says after it has shown the figures.
    pub(super) fn verdict(&self) -> Result<()> {
        let Some(error) = &self.tally.failure else {
            return Ok(());
        };
        let mut failure = failure(error.cause().clone());
        failure.message = format!(
            "{} of {} records were not acknowledged ({} not applied, {} unknown); the first: {error}",
            self.tally.failed(),
            self.tally.acknowledged + self.tally.failed(),
            self.tally.not_applied,
            self.tally.unknown,
        );
        Err(failure)
    }
}

/// What a choice is called on the command line.
pub(super) fn name_of(choice: &impl ValueEnum) -> String {
    let value = choice.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_again_by_its_owner_only() {
        let value = Bytes::from_static(&[7; 20]);
        let bytes = stamped(42, Duration::from_nanos(9), &value);
        assert_eq!(bytes.len(), 20);
        assert_eq!(due(42, &bytes), Some(Duration::from_nanos(9)));
        assert_eq!(due(43, &bytes), None);
        assert_eq!(due(42, &bytes[..15]), None);
        assert_eq!(stamped(42, Duration::ZERO, &Bytes::new()).len(), STAMP_BYTES);
    }
}
