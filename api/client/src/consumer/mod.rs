//! The consumer.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use crate::{ConsumedRecord, Error};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that can be read.
    Beginning,
    /// Behind the last committed record: only what comes.
    End,
    /// This offset.
    Offset(u64),
    /// The first record appended at or after this time, milliseconds since 1970-01-01 UTC.
    Time(u64),
}

/// How fresh the first answer of a stream must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the replica knows to be committed.
    Committed,
    /// Everything below this offset (read your own writes).
    MinOffset(u64),
    /// Everything committed before the call.
    Linearizable,
}

/// Settings of a [`Consumer`].
#[derive(Debug)]
pub struct ConsumerBuilder {}

impl ConsumerBuilder {
    /// Where to begin. Default: the beginning.
    #[must_use]
    pub fn from(self, position: Position) -> Self {
        let _ = position;
        self
    }

    /// How many bytes may be read ahead, over all partitions. Default 8 MiB.
    #[must_use]
    pub fn prefetch_bytes(self, bytes: usize) -> Self {
        let _ = bytes;
        self
    }

    /// How fresh the first answer must be. Default: committed.
    #[must_use]
    pub fn freshness(self, freshness: Freshness) -> Self {
        let _ = freshness;
        self
    }

    /// End the stream at the ends of the partitions as the leaders confirm them when `build` is called.
    #[must_use]
    pub fn stop_at_end(self) -> Self {
        self
    }

    /// Looks the topic up, finds the first offsets and begins to read ahead.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`; [`Error::Deadline`].
    pub async fn build(self) -> Result<Consumer, Error> {
        todo!()
    }
}

/// A stream of records: of one partition in order, of several partitions each in order.
///
/// It ends after an error that cannot pass (offset out of range, topic gone, permission), and with `stop_at_end` at the
/// end. After [`Error::CorruptBatch`] it goes on behind the corrupt batch.
#[derive(Debug)]
pub struct Consumer {}

impl Consumer {
    /// The next record; `None` at the end. Cancel safe.
    pub async fn next_record(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        todo!()
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> Vec<u32> {
        todo!()
    }

    /// The offset of the next record to come from a partition.
    pub fn position(&self, partition: u32) -> Option<u64> {
        let _ = partition;
        todo!()
    }

    /// The name of the node that serves a partition at the moment, once it has answered.
    pub fn served_by(&self, partition: u32) -> Option<String> {
        let _ = partition;
        todo!()
    }

    /// The high watermark that the serving node last told, exclusive.
    pub fn high_watermark(&self, partition: u32) -> Option<u64> {
        let _ = partition;
        todo!()
    }

    /// The end of a partition (exclusive), confirmed by its leader.
    ///
    /// # Errors
    /// [`Error::Deadline`], reasons as in the contract.
    pub async fn end_offset(&self, partition: u32) -> Result<u64, Error> {
        let _ = partition;
        todo!()
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        todo!()
    }
}
