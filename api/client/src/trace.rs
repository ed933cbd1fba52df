//! Traces that go through the log: W3C Trace Context in the headers of records.
//!
//! A record's header `traceparent` says which trace it is part of. The node that takes the record goes on with that trace ("operator's guide,
//! traces"), and so can whoever consumes it. The library only carries it; it makes no spans of its own.
//!
//! With the feature `opentelemetry`, [`Producer::send`](crate::Producer::send) gives records the context that is current where it is called,
//! if that is sampled, and [`ConsumedRecord::trace_context`](crate::ConsumedRecord::trace_context) gives it back. Calls about topics, groups and
//! the like tell the node the context that is current where they are awaited. Without, programs use
//! [`Record::with_trace`](crate::Record::with_trace) and [`ConsumedRecord::trace`](crate::ConsumedRecord::trace).

#[cfg(feature = "opentelemetry")]
mod context;

use highwater_proto::trace::TRACEPARENT;
pub use highwater_proto::trace::TraceParent;
use highwater_proto::v1::{Header, Record};

#[cfg(feature = "opentelemetry")]
pub(crate) use self::context::{add_current, context_of, tell_current};

/// The trace that headers speak of; the first of them counts.
pub(crate) fn parent_of(headers: &[Header]) -> Option<TraceParent> {
    let parent = headers.iter().find(|header| header.name == TRACEPARENT)?;
    TraceParent::parse(&parent.value)
}

/// The same if the trace is recorded.
pub(crate) fn sampled_parent_of(record: &Record) -> Option<TraceParent> {
    parent_of(&record.headers).filter(|parent| parent.sampled)
}
