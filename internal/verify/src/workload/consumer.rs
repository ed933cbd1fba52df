//! A consumer that follows the tail of one partition, from the beginning and through every failure.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use highwater::{ConsumedRecord, Consumer, Error, Position};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{PAUSE, SEEN_AT_ONCE_MAX, Shared, seen, stopped, unreadable};
use crate::History;
use crate::history::{Freshness, Poll, PollAnswer, Seen, Span};

struct Worker {
    shared: Arc<Shared>,
    partition: u32,
    /// Where to go on.
    position: u64,
    history: History,
}

/// Whether the same consumer can go on.
#[derive(PartialEq, Eq)]
enum Next {
    Same,
    Another,
}

/// Reads until it is stopped.
pub(crate) async fn run(shared: Arc<Shared>, partition: u32, mut stop: watch::Receiver<bool>) -> History {
    let mut worker = Worker {
        shared,
        partition,
        position: 0,
        history: History::default(),
    };
    tokio::select! {
        biased;
        () = stopped(&mut stop) => {}
        () = worker.consume() => {}
    }
    worker.history
}

impl Worker {
    async fn consume(&mut self) {
        loop {
            let workload = &self.shared.workload;
            let builder = self.shared.client.consumer(workload.topic.clone(), self.partition);
            let builder = builder
                .from(Position::Offset(self.position))
                .deadline(workload.read_deadline);
            // A new consumer may be served by a replica that knows less: it is a client of its own.
            let process = self.shared.new_process();
            match builder.build().await {
                Ok(mut consumer) => while self.read(&mut consumer, process).await == Next::Same {},
                Err(_) => self.note_failure(process),
            }
            sleep(PAUSE).await;
        }
    }

    /// One event: what comes first, and what is there with it.
    async fn read(&mut self, consumer: &mut Consumer, process: u32) -> Next {
        let invoked_ns = self.shared.clock.now_ns();
        let mut records = Vec::new();
        let mut result = consumer.next_record().await;
        let error = loop {
            match result {
                Some(Ok(record)) => records.push(seen(&record)),
                Some(Err(Error::CorruptBatch { ref offsets, .. })) => records.extend(unreadable(offsets)),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
            if records.len() >= SEEN_AT_ONCE_MAX {
                break None;
            }
            match waiting(consumer) {
                Some(next) => result = next,
                None => break None,
            }
        };
        let ended = records.is_empty() && error.is_none();
        let span = self.span(process, invoked_ns);
        if !records.is_empty() {
            self.note_records(consumer, span, &records);
        }
        match error {
            Some(error) => self.note_error(span, &error),
            None if ended => Next::Another,
            None => Next::Same,
        }
    }

    fn span(&self, process: u32, invoked_ns: u64) -> Span {
        Span {
            process,
            invoked_ns,
            returned_ns: self.shared.clock.now_ns(),
        }
    }

    fn note_records(&mut self, consumer: &Consumer, span: Span, records: &[Seen]) {
        let read_to = records
            .last()
            .map_or(self.position, |last| last.offset.saturating_add(1));
        let high_watermark = consumer.high_watermark(self.partition).unwrap_or(read_to);
        self.shared.read.fetch_add(records.len() as u64, Ordering::Relaxed);
        self.shared.raise_end(self.partition, read_to);
        let node = self.shared.node_number(consumer.served_by(self.partition));
        self.record(span, node, PollAnswer::Records { high_watermark }, records);
        self.position = read_to;
    }

    fn note_error(&mut self, span: Span, error: &Error) -> Next {
        match error {
            Error::OffsetOutOfRange { range, .. } => {
                let answer = PollAnswer::OutOfRange {
                    log_start: range.log_start,
                    high_watermark: range.high_watermark,
                };
                self.record(span, super::NODE_UNKNOWN, answer, &[]);
                self.position = self.position.max(range.log_start);
            }
            _ => self.record(span, super::NODE_UNKNOWN, PollAnswer::Failed, &[]),
        }
        Next::Another
    }

    fn note_failure(&mut self, process: u32) {
        let span = self.span(process, self.shared.clock.now_ns());
        self.record(span, super::NODE_UNKNOWN, PollAnswer::Failed, &[]);
    }

    fn record(&mut self, span: Span, node: u32, answer: PollAnswer, records: &[Seen]) {
        let poll = Poll {
            span,
            partition: self.partition,
            node,
            from: self.position,
            freshness: Freshness::Committed,
            answer,
        };
        self.history.record_poll(poll, records);
    }
}

/// What the consumer has at hand, without waiting.
fn waiting(consumer: &mut Consumer) -> Option<Option<Result<ConsumedRecord, Error>>> {
    consumer.next_record().now_or_never()
}
