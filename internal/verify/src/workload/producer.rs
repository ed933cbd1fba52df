//! A producer: unique values to all partitions, and what became of each.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use highwater::{Delivered, Outcome, ProduceError, Producer, Record};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::{Choices, PAUSE, Shared, stopped};
use crate::History;
use crate::history::{Numbering, RecordId, Send, SendOutcome, Span};
use crate::value;

/// A record on its way.
struct Attempt {
    partition: u32,
    sequence: u64,
    number: u32,
    invoked_ns: u64,
    digest: u64,
}

struct Worker {
    shared: Arc<Shared>,
    /// Its number as a producer.
    number: u32,
    process: u32,
    choices: Choices,
    next_number: u32,
    /// By partition.
    sequences: Vec<u64>,
    history: History,
}

/// Sends until it is stopped, and then waits for what is in flight.
pub(crate) async fn run(shared: Arc<Shared>, number: u32, mut stop: watch::Receiver<bool>) -> History {
    let worker = Worker {
        number,
        process: shared.new_process(),
        choices: Choices::new(shared.workload.seed, u64::from(number)),
        next_number: 0,
        sequences: vec![0; shared.ends.len()],
        history: History::default(),
        shared,
    };
    loop {
        let workload = &worker.shared.workload;
        let builder = worker.shared.client.producer(workload.topic.clone());
        match builder.deadline(workload.delivery_deadline).build().await {
            Ok(producer) => return worker.produce(producer, stop).await,
            Err(error) => {
                // Nothing was sent, so there is nothing to record.
                if stopped(&mut stop).now_or_never().is_some() || !error.is_retryable() {
                    return worker.history;
                }
                sleep(PAUSE).await;
            }
        }
    }
}

impl Worker {
    async fn produce(mut self, producer: Producer, mut stop: watch::Receiver<bool>) -> History {
        let in_flight_max = self.shared.workload.in_flight_max.max(1);
        let mut pace = Pace::new(&self.shared);
        let mut in_flight = FuturesUnordered::new();
        loop {
            let enough = self.shared.acknowledged.load(Ordering::Relaxed) >= self.shared.workload.acknowledged_max;
            let may_send = in_flight.len() < in_flight_max && !enough && self.next_number < u32::MAX;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some((attempt, result)) = in_flight.next(), if !in_flight.is_empty() => self.note(&attempt, result),
                () = pace.tick(), if may_send => {
                    let (attempt, record) = self.next_record();
                    match producer.send(record).await {
                        Ok(delivery) => in_flight.push(async move { (attempt, delivery.await) }),
                        Err(error) => {
                            self.note(&attempt, Err(error));
                            sleep(PAUSE).await;
                        }
                    }
                }
            }
        }
        while let Some((attempt, result)) = in_flight.next().await {
            self.note(&attempt, result);
        }
        self.history
    }

    fn next_record(&mut self) -> (Attempt, Record) {
        let partition = self.choices.below(self.sequences.len() as u64) as u32;
        let (least, most) = self.shared.workload.value_bytes;
        let bytes = least + self.choices.below((most.saturating_sub(least) + 1) as u64) as usize;
        let id = RecordId {
            producer: self.number,
            number: self.next_number,
        };
        let value = value::make_value(id, bytes);
        let sequence = &mut self.sequences[partition as usize];
        let attempt = Attempt {
            partition,
            sequence: *sequence,
            number: id.number,
            invoked_ns: self.shared.clock.now_ns(),
            digest: value::digest(&value),
        };
        *sequence += 1;
        self.next_number += 1;
        (attempt, Record::new(value).with_partition(partition))
    }

    fn note(&mut self, attempt: &Attempt, result: Result<Delivered, ProduceError>) {
        let returned_ns = self.shared.clock.now_ns();
        let outcome = match result {
            Ok(delivered) => {
                self.shared.raise_end(attempt.partition, delivered.offset + 1);
                self.shared.note_served(attempt.partition, attempt.invoked_ns);
                self.shared.acknowledged.fetch_add(1, Ordering::Relaxed);
                SendOutcome::Appended {
                    base_offset: delivered.offset,
                }
            }
            Err(error) if error.outcome() == Outcome::NotApplied => SendOutcome::Refused,
            // Applied, but nobody knows where: all that can be said is that it may be there.
            Err(_) => SendOutcome::Unknown,
        };
        let send = Send {
            span: Span {
                process: self.process,
                invoked_ns: attempt.invoked_ns,
                returned_ns,
            },
            partition: attempt.partition,
            producer: self.number,
            numbering: Numbering::Calls,
            sequence: attempt.sequence,
            first_number: attempt.number,
            outcome,
        };
        self.history.record_send(send, &[attempt.digest]);
    }
}

/// The time between two records.
struct Pace(Option<Interval>);

impl Pace {
    fn new(shared: &Shared) -> Self {
        let between = shared.workload.send_interval;
        Self((!between.is_zero()).then(|| {
            let mut ticks = interval(between);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        }))
    }

    async fn tick(&mut self) {
        if let Some(ticks) = &mut self.0 {
            ticks.tick().await;
        }
    }
}
