//! The producer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::{Error, ProduceError, Record};

/// Settings of a [`Producer`].
#[derive(Debug)]
pub struct ProducerBuilder {}

impl ProducerBuilder {
    /// How long a batch that is not full waits for more records. Default 2 ms; 0 sends at once.
    #[must_use]
    pub fn linger(self, linger: Duration) -> Self {
        let _ = linger;
        self
    }

    /// How large a batch may grow before it is sent, bytes. Default and most: 1 MiB.
    #[must_use]
    pub fn batch_bytes(self, bytes: usize) -> Self {
        let _ = bytes;
        self
    }

    /// How many bytes of records may wait or be in flight before `send` waits. Default 32 MiB.
    #[must_use]
    pub fn buffer_bytes(self, bytes: usize) -> Self {
        let _ = bytes;
        self
    }

    /// How long each batch is tried. Default 2 minutes, at most 10 minutes.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        let _ = deadline;
        self
    }

    /// Looks the topic up and makes the producer.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::InvalidArgument`] for settings out of their limits; [`Error::Deadline`].
    pub async fn build(self) -> Result<Producer, Error> {
        todo!()
    }
}

/// Sends records to a topic. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct Producer {}

impl Producer {
    /// Puts a record into a batch, waiting for space first. The answer tells what became of the record.
    ///
    /// # Errors
    /// At once, with outcome *not applied*: record over a limit, no such partition, producer closed.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let _ = record;
        todo!()
    }

    /// Like [`send`](Self::send), but gives the record back if there is no space now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] with the record; otherwise as `send`.
    pub fn try_send(&self, record: Record) -> Result<Delivery, TrySendError> {
        let _ = record;
        todo!()
    }

    /// Sends what waits and returns when everything sent before has its answer (also if that is an error; the
    /// deliveries tell).
    pub async fn flush(&self) {
        todo!()
    }

    /// Flushes, then ends the producer; later sends fail with [`Error::Closed`].
    pub async fn close(self) {
        todo!()
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        todo!()
    }
}

/// Why `try_send` did not take a record.
#[derive(Debug, thiserror::Error)]
pub enum TrySendError {
    /// No space at the moment; here is the record back.
    #[error("the producer's buffer is full")]
    Full(Box<Record>),
    /// The record cannot be sent.
    #[error(transparent)]
    Failed(#[from] ProduceError),
}

/// Resolves when the record is on the disks of a majority, or will not be. May be dropped without effect.
#[derive(Debug)]
#[must_use = "what became of the record is known only through the delivery"]
pub struct Delivery {}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// The record's place in it.
    pub offset: u64,
    /// When the leader appended it, milliseconds since 1970-01-01 UTC.
    pub append_time_ms: u64,
    /// Whether a retry found the batch already there.
    pub duplicate: bool,
}

impl Delivery {
    /// The partition that was chosen.
    pub fn partition(&self) -> u32 {
        todo!()
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        todo!()
    }
}
