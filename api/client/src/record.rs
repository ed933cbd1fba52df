//! Records as users make them and as they come back.

use bytes::Bytes;
use highwater_proto::trace::{TRACEPARENT, TraceParent};

pub use highwater_proto::v1::Header;

use crate::trace;

/// A record to be sent.
///
/// Cloning is cheap: keys and values are shared [`Bytes`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Chooses the partition, and is kept with the record. May be absent.
    pub key: Option<Bytes>,
    /// What the record says. May be empty.
    pub value: Bytes,
    /// Names and values beside the value, in order.
    pub headers: Vec<Header>,
    /// Milliseconds since 1970-01-01 UTC; absent: the time of the call to `send`.
    pub timestamp_ms: Option<i64>,
    /// The partition, if it is not to be chosen by the key.
    pub partition: Option<u32>,
}

impl Record {
    /// A record without key.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self {
            value: value.into(),
            ..Self::default()
        }
    }

    /// A record whose key chooses the partition.
    pub fn keyed(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self {
            key: Some(key.into()),
            value: value.into(),
            ..Self::default()
        }
    }

    /// The same record for this partition, whatever its key.
    #[must_use]
    pub fn with_partition(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The same record with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push(Header {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// The same record as a part of a trace: its header `traceparent`.
    #[must_use]
    pub fn with_trace(self, parent: &TraceParent) -> Self {
        self.with_header(TRACEPARENT, parent.to_string())
    }

    /// The trace that the record is part of, if its header `traceparent` says so.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        trace::parent_of(&self.headers)
    }

    /// The same record with its own time, milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn with_timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }
}

/// A record that was read.
///
/// Key, value and header values are slices of the response that brought them: whoever keeps a few records for long
/// should copy them (`Bytes::copy_from_slice`), for one slice keeps the whole response in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumedRecord {
    /// The partition it was read from.
    pub partition: u32,
    /// Its place in the partition.
    pub offset: u64,
    /// The key, if it has one.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Bytes,
    /// Names and values beside the value, in order.
    pub headers: Vec<Header>,
    /// Set by the producer, milliseconds since 1970-01-01 UTC.
    pub timestamp_ms: i64,
    /// When the leader appended it, milliseconds since 1970-01-01 UTC; never falls within a partition.
    pub append_time_ms: u64,
}

impl ConsumedRecord {
    /// The trace that the record is part of, if its header `traceparent` says so.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        trace::parent_of(&self.headers)
    }

    /// The same as the context that a span about this record is to be the child of; an empty one if it is part of no trace.
    #[cfg(feature = "opentelemetry")]
    #[must_use]
    pub fn trace_context(&self) -> opentelemetry::Context {
        trace::context_of(&self.headers)
    }
}
