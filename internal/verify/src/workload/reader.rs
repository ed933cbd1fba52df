//! A reader that looks at the end of a partition now and then, each time as a new client.
//!
//! It reads the last few records with each freshness that the library offers, and asks leaders where the log begins and
//! ends. A linearizable read is recorded with the high watermark that came with its first answer, or a later one: never a
//! lower one, so what the history says of it is at most too kind.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use highwater::{Consumer, Error, Position};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Choices, SEEN_AT_ONCE_MAX, Shared, seen, stopped, unreadable};
use crate::History;
use crate::history::{Freshness, NODE_UNKNOWN, OffsetAnswer, OffsetKind, Poll, PollAnswer, Seen, Span};

/// Readers draw their choices apart from producers.
const WORKERS_BEFORE: u64 = 1 << 32;
/// How far before the end a look begins, at most.
const BACK_MAX: u64 = 50;

struct Worker {
    shared: Arc<Shared>,
    choices: Choices,
    history: History,
}

/// Looks until it is stopped.
pub(crate) async fn run(shared: Arc<Shared>, number: u32, mut stop: watch::Receiver<bool>) -> History {
    let mut worker = Worker {
        choices: Choices::new(shared.workload.seed, WORKERS_BEFORE + u64::from(number)),
        history: History::default(),
        shared,
    };
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        () = worker.look_around() => {}
    }
    worker.history
}

impl Worker {
    async fn look_around(&mut self) {
        loop {
            sleep(self.shared.workload.reader_interval).await;
            let partition = self.choices.below(self.shared.ends.len() as u64) as u32;
            let end = self.shared.end(partition);
            match self.choices.below(5) {
                0 => self.ask(partition, OffsetKind::Earliest).await,
                1 => self.ask(partition, OffsetKind::Latest).await,
                _ if end == 0 => {} // Nothing to read yet, and a read would wait for it.
                2 => self.read(partition, end, Freshness::Committed).await,
                3 => self.read(partition, end, Freshness::MinOffset { offset: end }).await,
                _ => self.read(partition, end, Freshness::Linearizable).await,
            }
        }
    }

    fn span(&self, invoked_ns: u64) -> Span {
        Span {
            process: self.shared.new_process(),
            invoked_ns,
            returned_ns: self.shared.clock.now_ns(),
        }
    }

    /// Where the log begins or ends, as the leader confirms it.
    async fn ask(&mut self, partition: u32, kind: OffsetKind) {
        let workload = &self.shared.workload;
        let position = match kind {
            OffsetKind::Earliest => Position::Beginning,
            OffsetKind::Latest => Position::End,
        };
        let builder = self
            .shared
            .client
            .consumer(workload.topic.clone(), partition)
            .from(position);
        let invoked_ns = self.shared.clock.now_ns();
        // A consumer that has handed out nothing stands where the leader said.
        let Ok(consumer) = builder.build().await else { return };
        let Some(offset) = consumer.position(partition) else {
            return;
        };
        self.history.record_offset(OffsetAnswer {
            span: self.span(invoked_ns),
            partition,
            kind,
            offset,
        });
    }

    async fn read(&mut self, partition: u32, end: u64, freshness: Freshness) {
        let from = end - 1 - self.choices.below(BACK_MAX.min(end));
        let workload = &self.shared.workload;
        let builder = self.shared.client.consumer(workload.topic.clone(), partition);
        let builder = builder
            .from(Position::Offset(from))
            .deadline(workload.read_deadline)
            .freshness(match freshness {
                Freshness::Committed => highwater::Freshness::Committed,
                Freshness::MinOffset { offset } => highwater::Freshness::MinOffset(offset),
                Freshness::Linearizable => highwater::Freshness::Linearizable,
            });
        let invoked_ns = self.shared.clock.now_ns();
        let looking = async {
            let mut consumer = builder.build().await?;
            let records = read_some(&mut consumer).await?;
            Ok::<_, Error>((consumer, records))
        };
        // At most a build and a read; the library keeps to its own deadlines, this is for the case that nothing comes.
        let looked = timeout(workload.read_deadline * 2, looking).await;
        let (node, answer, records) = match looked {
            Ok(Ok((consumer, records))) if !records.is_empty() => {
                let read_to = records.last().map_or(from, |last| last.offset.saturating_add(1));
                let high_watermark = consumer.high_watermark(partition).unwrap_or(read_to);
                let node = self.shared.node_number(consumer.served_by(partition));
                (node, PollAnswer::Records { high_watermark }, records)
            }
            Ok(Err(Error::OffsetOutOfRange { range, .. })) => {
                let answer = PollAnswer::OutOfRange {
                    log_start: range.log_start,
                    high_watermark: range.high_watermark,
                };
                (NODE_UNKNOWN, answer, Vec::new())
            }
            // A stream that ended without a record says nothing about the log.
            Ok(_) | Err(_) => (NODE_UNKNOWN, PollAnswer::Failed, Vec::new()),
        };
        self.shared.read.fetch_add(records.len() as u64, Ordering::Relaxed);
        let poll = Poll {
            span: self.span(invoked_ns),
            partition,
            node,
            from,
            freshness,
            answer,
        };
        self.history.record_poll(poll, &records);
    }
}

/// The first record, and what is there with it.
async fn read_some(consumer: &mut Consumer) -> Result<Vec<Seen>, Error> {
    let mut records = Vec::new();
    let mut next = consumer.next_record().await;
    while let Some(result) = next {
        match result {
            Ok(record) => records.push(seen(&record)),
            Err(Error::CorruptBatch { offsets, .. }) => records.extend(unreadable(&offsets)),
            Err(error) if records.is_empty() => return Err(error),
            Err(_) => break,
        }
        if records.len() >= SEEN_AT_ONCE_MAX {
            break;
        }
        next = consumer.next_record().now_or_never().flatten();
    }
    Ok(records)
}
