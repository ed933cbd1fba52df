//! Batches: records encoded one behind the other, straight into the buffer that goes on the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use highwater_proto::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, HEADER_NAME_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADERS_MAX,
    RECORD_KEY_BYTES_MAX,
};
use highwater_proto::v1;
use prost::Message;
use prost::encoding::message;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::delivery::{Appended, Delivery, Promise};
use crate::compression::{self, Compression};
use crate::error::{Error, Outcome};
use crate::metrics::{BatchInfo, Metrics};
use crate::trace::{self, TraceParent};

/// The number of the field `records` in `RecordBatch`.
const RECORDS_TAG: u32 = 1;

/// How batches are made; the same for all lanes of a producer.
#[derive(Debug, Clone)]
pub(crate) struct Batching {
    pub(crate) topic: Arc<str>,
    pub(crate) batch_bytes: usize,
    pub(crate) linger: Duration,
    /// Bytes that records may still take.
    pub(crate) buffer: Arc<Semaphore>,
    pub(crate) metrics: Arc<dyn Metrics>,
}

/// Refuses a record that no node would take, naming the limit.
pub(crate) fn check_limits(record: &v1::Record) -> Result<(), Error> {
    let within = |field: &'static str, size: usize, limit: usize| match size <= limit {
        true => Ok(()),
        false => Err(Error::TooLarge { field, size, limit }),
    };
    within(
        "record.key",
        record.key.as_ref().map_or(0, Bytes::len),
        RECORD_KEY_BYTES_MAX,
    )?;
    within("record.headers", record.headers.len(), RECORD_HEADERS_MAX)?;
    for header in &record.headers {
        within("record.headers.name", header.name.len(), HEADER_NAME_BYTES_MAX)?;
    }
    within("record", record.encoded_len(), RECORD_BYTES_MAX)
}

/// How many bytes a record takes in a batch.
pub(crate) fn size_in_batch(record: &v1::Record) -> usize {
    message::encoded_len(RECORDS_TAG, record)
}

/// Bytes taken from the producer's buffer; given back when dropped.
#[derive(Debug)]
struct Reservation {
    buffer: Arc<Semaphore>,
    bytes: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.buffer.add_permits(self.bytes);
    }
}

/// A batch that still takes records.
#[derive(Debug)]
pub(crate) struct OpenBatch {
    bytes: BytesMut,
    record_count: u32,
    expected_offset: Option<u64>,
    /// The trace of the first record that is part of one.
    trace: Option<TraceParent>,
    promise: Promise,
    metrics: Arc<dyn Metrics>,
    reservation: Reservation,
    /// When its first record came.
    pub(crate) born: Instant,
    /// When it is sent although it is not full.
    pub(crate) due: Instant,
}

impl OpenBatch {
    pub(crate) fn new(promise: Promise, batching: &Batching, capacity: usize) -> Self {
        let born = Instant::now();
        let buffer = batching.buffer.clone();
        Self {
            bytes: BytesMut::with_capacity(capacity),
            record_count: 0,
            expected_offset: None,
            trace: None,
            promise,
            metrics: batching.metrics.clone(),
            reservation: Reservation { buffer, bytes: 0 },
            born,
            due: born + batching.linger,
        }
    }

    /// Whether a record of that size still fits, if batches may have `batch_bytes`.
    pub(crate) fn fits(&self, size: usize, batch_bytes: usize) -> bool {
        self.record_count == 0 || (self.bytes.len() + size <= batch_bytes && self.record_count < BATCH_RECORDS_MAX)
    }

    /// Adds a record whose `size` the caller has already taken from the buffer.
    pub(crate) fn push(&mut self, record: &v1::Record, size: usize) -> Delivery {
        let before = self.bytes.len();
        message::encode(RECORDS_TAG, record, &mut self.bytes);
        assert_eq!(
            self.bytes.len(),
            before + size,
            "a record must take what was reserved for it"
        );
        self.reservation.bytes += size;
        self.record_count += 1;
        self.trace = self.trace.or_else(|| trace::sampled_parent_of(record));
        self.promise.delivery(self.record_count - 1)
    }

    /// Has the batch appended only if its first record gets this offset.
    pub(crate) fn expect(&mut self, offset: u64) {
        self.expected_offset = Some(offset);
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// A delivery that resolves with the batch.
    pub(crate) fn end(&self) -> Delivery {
        self.promise.delivery(0)
    }

    pub(crate) fn seal(self) -> Batch {
        assert!(
            self.bytes.len() <= BATCH_BYTES_MAX,
            "a batch of {} bytes is over the limit of {BATCH_BYTES_MAX}",
            self.bytes.len()
        );
        Batch {
            bytes: self.bytes.freeze(),
            compression: Compression::None,
            record_count: self.record_count,
            expected_offset: self.expected_offset,
            trace: self.trace,
            promise: self.promise,
            metrics: self.metrics,
            born: self.born,
            _reservation: self.reservation,
        }
    }
}

/// A batch that is complete: once it has its sequence, its bytes never change again.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) bytes: Bytes,
    /// How `bytes` is compressed.
    pub(crate) compression: Compression,
    pub(crate) record_count: u32,
    /// It is appended only if its first record gets this offset.
    pub(crate) expected_offset: Option<u64>,
    /// The trace that it is part of.
    pub(crate) trace: Option<TraceParent>,
    promise: Promise,
    metrics: Arc<dyn Metrics>,
    pub(crate) born: Instant,
    _reservation: Reservation,
}

impl Batch {
    /// The same batch, compressed if that makes it smaller.
    pub(crate) fn compressed(mut self, method: Compression) -> Self {
        if let Some(smaller) = compression::compress(method, &self.bytes) {
            self.bytes = smaller;
            self.compression = method;
        }
        self
    }

    /// It goes on its way for the `attempt`th time.
    pub(crate) fn departs(&self, attempt: u32) {
        self.metrics.batch_sent(&self.info(), attempt);
    }

    /// It is in the log: tells its senders.
    pub(crate) fn appended(self, appended: Appended) {
        let latency = self.born.elapsed();
        tracing::trace!(
            offset = appended.base_offset,
            records = self.record_count,
            ?latency,
            "acknowledged"
        );
        self.metrics.batch_acknowledged(&self.info(), latency);
        self.promise.appended(appended);
    }

    /// It was given up: tells its senders.
    pub(crate) fn failed(self, outcome: Outcome, cause: Error) {
        tracing::debug!(records = self.record_count, %outcome, error = %cause, "a batch has failed");
        self.metrics.batch_failed(&self.info(), outcome, &cause);
        self.promise.failed(outcome, cause);
    }

    fn info(&self) -> BatchInfo<'_> {
        BatchInfo {
            topic: self.promise.topic(),
            partition: self.promise.partition(),
            records: self.record_count,
            bytes: self.bytes.len(),
        }
    }
}

#[cfg(test)]
impl Batching {
    /// Batches that are sent at once, and whose records have taken nothing from the buffer.
    pub(crate) fn at_once(buffer: Arc<Semaphore>) -> Self {
        Self {
            topic: Arc::from("numbers"),
            batch_bytes: BATCH_BYTES_MAX,
            linger: Duration::ZERO,
            buffer,
            metrics: Arc::new(crate::metrics::Silent),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn open(capacity: usize) -> OpenBatch {
        let promise = Promise::new(&Arc::from("numbers"), 0);
        OpenBatch::new(promise, &Batching::at_once(Arc::new(Semaphore::new(0))), capacity)
    }

    fn records() -> Vec<v1::Record> {
        let header = |name: &str, value: &'static [u8]| v1::Header {
            name: name.to_owned(),
            value: Bytes::from_static(value),
        };
        vec![
            v1::Record::default(),
            v1::Record {
                key: Some(Bytes::new()),
                value: Bytes::from_static(b"value"),
                headers: vec![],
                timestamp_ms: -1,
            },
            v1::Record {
                key: Some(Bytes::from_static(b"key")),
                value: vec![7; 300].into(),
                headers: vec![header("trace", b"\x00\xff"), header("", b"")],
                timestamp_ms: 1_800_000_000_000,
            },
        ]
    }

    #[test]
    fn a_batch_built_record_by_record_equals_the_encoded_message() {
        let mut batch = open(0);
        for record in records() {
            drop(batch.push(&record, size_in_batch(&record)));
        }
        let batch = batch.seal();
        let message = v1::RecordBatch {
            records: records(),
            compressed_records: Bytes::new(),
        };
        assert_eq!(batch.bytes, message.encode_to_vec());
        assert_eq!(batch.record_count, 3);
    }

    #[test]
    fn the_largest_record_fits_into_a_batch_alone() {
        let mut record = v1::Record {
            value: vec![0; RECORD_BYTES_MAX].into(),
            ..Default::default()
        };
        let over = record.encoded_len() - RECORD_BYTES_MAX;
        assert!(
            check_limits(&record)
                .unwrap_err()
                .to_string()
                .contains("over the limit")
        );
        record.value.truncate(RECORD_BYTES_MAX - over);
        check_limits(&record).unwrap();
        assert!(size_in_batch(&record) <= BATCH_BYTES_MAX);
    }

    #[test]
    fn limits_are_named() {
        let long_key = v1::Record {
            key: Some(vec![0; RECORD_KEY_BYTES_MAX + 1].into()),
            ..Default::default()
        };
        assert!(check_limits(&long_key).unwrap_err().to_string().contains("record.key"));
        let many_headers = v1::Record {
            headers: vec![v1::Header::default(); RECORD_HEADERS_MAX + 1],
            ..Default::default()
        };
        assert!(check_limits(&many_headers).unwrap_err().to_string().contains("headers"));
    }

    #[test]
    fn the_buffer_gets_its_bytes_back_with_the_batch() {
        let buffer = Arc::new(Semaphore::new(1_000));
        let mut batch = OpenBatch::new(Promise::new(&Arc::from("t"), 0), &Batching::at_once(buffer.clone()), 0);
        let record = v1::Record {
            value: Bytes::from_static(b"abc"),
            ..Default::default()
        };
        let size = size_in_batch(&record);
        buffer.try_acquire_many(size as u32).unwrap().forget();
        drop(batch.push(&record, size));
        assert_eq!(buffer.available_permits(), 1_000 - size);
        drop(batch.seal());
        assert_eq!(buffer.available_permits(), 1_000);
    }
}
