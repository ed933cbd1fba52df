//! The producer: from records to acknowledged batches.
//!
//! ```text
//! send ─► partitioner ─► lane (one per partition): open batch → sealed batches
//!                          └► worker (one task per lane): sequence → ProduceStream to the leader → deliveries
//! ```
//!
//! A record is encoded once, into the buffer of its batch; nothing else happens per record but a copy and two counters.
//! All memory that waits is counted in one buffer of `buffer_bytes`; when it is used up `send` waits, so a slow cluster
//! slows its producers down instead of filling their memory.
//!
//! Every producer is idempotent: [`flights`] explains how order and count are kept through failures.
//!
//! Batches are compressed one by one by their worker, if that is wanted and makes them smaller. The buffer counts records as
//! they were before.
//!
//! Deliberately absent: transactions, and topics that grow partitions while the producer runs.

mod batch;
mod delivery;
mod flights;
mod lane;
mod partitioner;
mod sizing;
mod stream;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use highwater_proto::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, DELIVERY_DEADLINE_MS_MAX, TOPIC_PARTITIONS_MAX};
use highwater_proto::v1;
use tokio::sync::{Semaphore, TryAcquireError};
use tracing::Instrument;

use self::batch::Batching;
pub use self::delivery::{Delivered, Delivery};
use self::lane::Lane;
pub use self::partitioner::{KeyHash, Partitioner};
use self::worker::{Route, Worker};
use crate::calls::Caller;
use crate::compression::Compression;
use crate::deadline::Deadline;
use crate::error::{Error, Outcome, ProduceError};
use crate::picture::TopicRef;
use crate::record::Record;

/// The linger unless the user says otherwise.
const LINGER: Duration = Duration::from_millis(2);
/// The longest linger.
const LINGER_MAX: Duration = Duration::from_secs(60);
/// The smallest batch size that may be asked for, bytes.
const BATCH_BYTES_MIN: usize = 1024;
/// The buffer unless the user says otherwise, bytes.
const BUFFER_BYTES: usize = 32 * 1024 * 1024;
/// The largest buffer, bytes.
const BUFFER_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// The delivery deadline unless the user says otherwise.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(120);
/// How long a node may be silent unless the user says otherwise.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = assert!(BUFFER_BYTES_MAX <= Semaphore::MAX_PERMITS);
const _: () = assert!(DELIVERY_DEADLINE.as_millis() <= DELIVERY_DEADLINE_MS_MAX as u128);

/// Settings of a [`Producer`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct ProducerBuilder {
    caller: Arc<Caller>,
    topic: String,
    look_up_deadline: Duration,
    linger: Duration,
    batch_bytes: usize,
    buffer_bytes: usize,
    deadline: Duration,
    answer_timeout: Duration,
    compression: Compression,
    partitioner: Arc<dyn Partitioner>,
}

impl ProducerBuilder {
    pub(crate) fn new(caller: Arc<Caller>, topic: String, look_up_deadline: Duration) -> Self {
        Self {
            caller,
            topic,
            look_up_deadline,
            linger: LINGER,
            batch_bytes: BATCH_BYTES_MAX,
            buffer_bytes: BUFFER_BYTES,
            deadline: DELIVERY_DEADLINE,
            answer_timeout: ANSWER_TIMEOUT,
            compression: Compression::None,
            partitioner: Arc::new(KeyHash),
        }
    }

    /// How long a batch that is not full waits for more records. Default 2 ms, at most a minute and half
    /// of the deadline; 0 sends at once.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How large a batch may grow before it is sent, bytes. Default and most: 1 MiB. A larger record goes alone. Batches begin with
    /// 32 KiB and grow up to this while they are full and not held back by a quota.
    pub fn batch_bytes(mut self, bytes: usize) -> Self {
        self.batch_bytes = bytes;
        self
    }

    /// How many bytes of records may wait or be in flight, over all partitions, before `send` waits. Default 32 MiB, at
    /// least 2 MiB (a record may be 1 MiB), at most 1 GiB.
    pub fn buffer_bytes(mut self, bytes: usize) -> Self {
        self.buffer_bytes = bytes;
        self
    }

    /// How long each batch is tried, counted from its first record. Default 2 minutes, at most 10 minutes: longer than
    /// that a partition does not remember a producer, and a retry might be stored twice.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long a node may leave batches without any answer before they are sent again. Default 10 s.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// How batches are compressed. Default: not at all. A batch that would not get smaller is sent as it is.
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Another way to choose partitions. Default: [`KeyHash`].
    pub fn partitioner(mut self, partitioner: Arc<dyn Partitioner>) -> Self {
        self.partitioner = partitioner;
        self
    }

    /// Looks the topic up and makes the producer. The producer means this topic by its id: if the topic is deleted, or made
    /// anew under the same name, its records are refused.
    ///
    /// Cancel safe: nothing is left behind.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::InvalidArgument`] for settings out of their limits; [`Error::Deadline`].
    pub async fn build(self) -> Result<Producer, Error> {
        self.check()?;
        let deadline = Deadline::after(self.look_up_deadline);
        let topic = self.caller.look_up(&self.topic, deadline).await?;
        let partitions = topic.partitions.len() as u32;
        if partitions == 0 || partitions > TOPIC_PARTITIONS_MAX {
            return Err(Error::invalid("topic", format!("has {partitions} partitions")));
        }
        let batching = Batching {
            topic: self.topic.into(),
            batch_bytes: self.batch_bytes,
            linger: self.linger,
            buffer: Arc::new(Semaphore::new(self.buffer_bytes)),
            metrics: self.caller.metrics.clone(),
        };
        let topic = TopicRef::from(&topic);
        let route = Arc::new(Route {
            wire_name: self.caller.wire_name(&topic),
            topic,
            caller: self.caller,
            deadline: self.deadline,
            compression: self.compression,
            // Beyond the deadline nothing waits for an answer.
            answer_timeout: self.answer_timeout.min(self.deadline),
        });
        let lanes = (0..partitions).map(|partition| {
            let lane = Arc::new(Lane::new(partition, batching.clone()));
            let worker = Worker::new(route.clone(), lane.clone());
            // It lives longer than whatever happens to be going on where it is made.
            let span = tracing::debug_span!(parent: None, "produce", topic = %batching.topic, partition);
            tokio::spawn(worker.run().instrument(span));
            lane
        });
        Ok(Producer {
            lanes: lanes.collect(),
            batching,
            partitioner: self.partitioner,
            sticky: AtomicU32::new(rand::random_range(0..partitions)),
        })
    }

    fn check(&self) -> Result<(), Error> {
        let deadline_max = Duration::from_millis(DELIVERY_DEADLINE_MS_MAX);
        if self.deadline.is_zero() || self.deadline > deadline_max {
            let problem = format!("{:?}; more than 0 and at most {deadline_max:?}", self.deadline);
            return Err(Error::invalid("deadline", problem));
        }
        if self.linger > LINGER_MAX {
            return Err(Error::invalid(
                "linger",
                format!("{:?}; at most {LINGER_MAX:?}", self.linger),
            ));
        }
        if !(BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&self.batch_bytes) {
            let problem = format!("{}; from {BATCH_BYTES_MIN} to {BATCH_BYTES_MAX}", self.batch_bytes);
            return Err(Error::invalid("batch_bytes", problem));
        }
        if !(2 * BATCH_BYTES_MAX..=BUFFER_BYTES_MAX).contains(&self.buffer_bytes) {
            let problem = format!(
                "{}; from {} to {BUFFER_BYTES_MAX}",
                self.buffer_bytes,
                2 * BATCH_BYTES_MAX
            );
            return Err(Error::invalid("buffer_bytes", problem));
        }
        if self.linger > self.deadline / 2 {
            let problem = format!("{:?}; at most half of the deadline, {:?}", self.linger, self.deadline);
            return Err(Error::invalid("linger", problem));
        }
        if self.answer_timeout.is_zero() {
            return Err(Error::invalid("answer_timeout", "must be more than 0"));
        }
        Ok(())
    }
}

/// Sends records to a topic. Share it by reference or in an `Arc`.
///
/// Records of one partition are stored in the order of the calls to `send`; calls made at the same time by several tasks
/// are in some order. When a producer is dropped, what it has taken is still sent in the background; [`close`](Self::close)
/// waits for that.
///
/// After a delivery has failed, later records are still sent: whoever must not have a hole between them stops at the first
/// failure.
#[derive(Debug)]
pub struct Producer {
    lanes: Vec<Arc<Lane>>,
    batching: Batching,
    partitioner: Arc<dyn Partitioner>,
    /// Where records without key go at present.
    sticky: AtomicU32,
}

impl Producer {
    /// Puts a record into a batch, waiting for space in the buffer first. The delivery tells what became of the record.
    ///
    /// Cancel safe: a dropped future has sent nothing.
    ///
    /// # Errors
    /// At once, with outcome *not applied*: record over a limit, no such partition.
    pub async fn send(&self, record: Record) -> Result<Delivery, ProduceError> {
        let (record, partition, size) = self.admit(record)?;
        let permit = match self.batching.buffer.try_acquire_many(size) {
            Ok(permit) => permit,
            Err(_) => self
                .batching
                .buffer
                .acquire_many(size)
                .await
                .map_err(|_| self.closed())?,
        };
        permit.forget();
        self.append(&record, partition, size)
    }

    /// Like [`send`](Self::send), but gives the record back if there is no space now.
    ///
    /// # Errors
    /// [`TrySendError::Full`] with the record; otherwise as `send`.
    pub fn try_send(&self, record: Record) -> Result<Delivery, TrySendError> {
        let timestamp_ms = record.timestamp_ms;
        let (record, partition, size) = self.admit(record)?;
        match self.batching.buffer.try_acquire_many(size) {
            Ok(permit) => permit.forget(),
            Err(TryAcquireError::Closed) => return Err(self.closed().into()),
            Err(TryAcquireError::NoPermits) => {
                return Err(TrySendError::Full(Box::new(Record {
                    key: record.key,
                    value: record.value,
                    headers: record.headers,
                    timestamp_ms,
                    partition,
                })));
            }
        }
        Ok(self.append(&record, partition, size)?)
    }

    /// Appends records as one batch, if the first of them gets exactly the offset `expected`; all or none. Behind everything that was
    /// sent to this partition before; waits for space and for the answer.
    ///
    /// That is how several writers take turns without a lock: read up to the end, decide, and append at that offset. Whoever was
    /// faster has made the condition false for the others; [`ProduceError::log_end`] then says where the log ends.
    ///
    /// Not cancel safe: if the future is dropped, the batch may still be sent.
    ///
    /// # Errors
    /// Reason `OFFSET_MISMATCH` with outcome *not applied* if the condition does not hold, also for a retry of a batch whose first
    /// attempt it did not hold for; [`Error::InvalidArgument`] for no records, too many for a batch, or one that is meant for another
    /// partition; otherwise as [`send`](Self::send) and its delivery.
    #[tracing::instrument(level = "debug", skip_all, fields(topic = %self.batching.topic, partition, expected))]
    pub async fn append_at(
        &self,
        partition: u32,
        expected: u64,
        records: Vec<Record>,
    ) -> Result<Delivered, ProduceError> {
        let (records, size) = self.admit_batch(partition, records)?;
        let permit = self.batching.buffer.acquire_many(size).await;
        permit.map_err(|_| self.closed())?.forget();
        let lane = &self.lanes[partition as usize];
        let Some(delivery) = lane.append_at(&records, size as usize, expected) else {
            self.batching.buffer.add_permits(size as usize);
            return Err(self.closed());
        };
        delivery.await
    }

    /// Checks the records of one batch; their wire forms, and their size together.
    fn admit_batch(&self, partition: u32, records: Vec<Record>) -> Result<(Vec<v1::Record>, u32), ProduceError> {
        let topic = self.batching.topic.clone();
        let refuse = |field, problem| {
            let error = Error::invalid(field, problem);
            ProduceError::new(&topic, Some(partition), Outcome::NotApplied, error)
        };
        if !(1..=BATCH_RECORDS_MAX as usize).contains(&records.len()) {
            let problem = format!("there are {}; a batch has 1 to {BATCH_RECORDS_MAX}", records.len());
            return Err(refuse("records", problem));
        }
        let mut admitted = Vec::with_capacity(records.len());
        let mut bytes = 0;
        for record in records {
            if record.partition.is_some_and(|other| other != partition) {
                return Err(refuse("record.partition", format!("is not {partition}")));
            }
            let (wire, _, size) = self.admit(record.with_partition(partition))?;
            admitted.push(wire);
            bytes += size as usize;
        }
        if bytes > BATCH_BYTES_MAX {
            let problem = format!("take {bytes} bytes; a batch has at most {BATCH_BYTES_MAX}");
            return Err(refuse("records", problem));
        }
        Ok((admitted, bytes as u32))
    }

    /// Sends what waits without further linger, and returns when everything sent before this call has its answer. That may
    /// be an error; the deliveries tell.
    ///
    /// Cancel safe: what waits is sent all the same.
    #[tracing::instrument(level = "debug", skip_all, fields(topic = %self.batching.topic))]
    pub async fn flush(&self) {
        let newest: Vec<Delivery> = self.lanes.iter().filter_map(|lane| lane.flush()).collect();
        for delivery in newest {
            // Told to whoever holds the record's own delivery.
            let _ = delivery.await;
        }
    }

    /// Flushes and ends the producer.
    ///
    /// Cancel safe: a dropped future ends the producer as dropping it does, and what it has taken is still sent.
    pub async fn close(self) {
        self.flush().await;
    }

    /// How many partitions the topic has.
    pub fn partitions(&self) -> u32 {
        self.lanes.len() as u32
    }

    /// Checks a record; its wire form, the partition if one is fixed, and its size in a batch.
    fn admit(&self, record: Record) -> Result<(v1::Record, Option<u32>, u32), ProduceError> {
        let refuse = |error| ProduceError::new(&self.batching.topic, record.partition, Outcome::NotApplied, error);
        let count = self.partitions();
        if record.partition.is_some_and(|partition| partition >= count) {
            let problem = format!("the topic has {count} partitions, numbered from 0");
            return Err(refuse(Error::invalid("record.partition", problem)));
        }
        #[cfg_attr(not(feature = "opentelemetry"), allow(unused_mut))]
        let mut wire = v1::Record {
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp_ms: record.timestamp_ms.unwrap_or_else(now_ms),
        };
        #[cfg(feature = "opentelemetry")]
        crate::trace::add_current(&mut wire);
        batch::check_limits(&wire).map_err(refuse)?;
        let size = batch::size_in_batch(&wire) as u32;
        Ok((wire, record.partition, size))
    }

    fn append(&self, record: &v1::Record, partition: Option<u32>, size: u32) -> Result<Delivery, ProduceError> {
        let size = size as usize;
        let count = self.partitions();
        let partition = partition.or_else(|| self.partitioner.partition(record.key.as_deref(), count));
        let partition = match partition {
            Some(partition) => partition % count,
            None => self.sticky_partition(size),
        };
        let delivery = self.lanes[partition as usize].append(record, size);
        delivery.ok_or_else(|| {
            self.batching.buffer.add_permits(size);
            self.closed()
        })
    }

    /// Stays with a batch until that is sent; then takes the less busy of two partitions chosen by chance.
    fn sticky_partition(&self, size: usize) -> u32 {
        let present = self.sticky.load(Ordering::Relaxed);
        if self.lanes[present as usize].has_begun(size) {
            return present;
        }
        let [one, other] = [0; 2].map(|_: u32| rand::random_range(0..self.partitions()));
        let backlog = |partition: u32| self.lanes[partition as usize].backlog();
        let next = if backlog(one) <= backlog(other) { one } else { other };
        self.sticky.store(next, Ordering::Relaxed);
        next
    }

    /// The producer's tasks have ended with their runtime.
    fn closed(&self) -> ProduceError {
        ProduceError::new(&self.batching.topic, None, Outcome::NotApplied, Error::Closed)
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.close());
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

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
