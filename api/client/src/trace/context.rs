//! The context of OpenTelemetry in the headers of records and the metadata of calls.

use bytes::Bytes;
use highwater_proto::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use highwater_proto::trace::{TRACEPARENT, TRACESTATE, TraceParent};
use highwater_proto::v1::{Header, Record};
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use prost::Message;
use tonic::metadata::MetadataMap;

use super::parent_of;

/// How much the headers may take, bytes: W3C asks for 512 for the state alone.
const CONTEXT_BYTES_MAX: usize = 1024;

/// Adds the context that is current here, if it is sampled, the record has none and there is room for it: no record becomes too large by
/// being traced.
pub(crate) fn add_current(record: &mut Record) {
    Context::map_current(|current| {
        let span = current.span();
        let span = span.span_context();
        if span.is_valid() && span.is_sampled() && has_room(record) {
            add(&mut record.headers, span);
        }
    });
}

fn has_room(record: &Record) -> bool {
    record.headers.len() + 2 <= RECORD_HEADERS_MAX
        && record.encoded_len() + CONTEXT_BYTES_MAX <= RECORD_BYTES_MAX
        && !record.headers.iter().any(|header| header.name == TRACEPARENT)
}

fn add(headers: &mut Vec<Header>, span: &SpanContext) {
    headers.push(header(TRACEPARENT, sampled(span).to_string()));
    let state = span.trace_state().header();
    if !state.is_empty() && state.len() <= CONTEXT_BYTES_MAX / 2 {
        headers.push(header(TRACESTATE, state));
    }
}

/// Tells a call the context that is current here, if it is sampled.
pub(crate) fn tell_current(metadata: &mut MetadataMap) {
    Context::map_current(|current| {
        let span = current.span();
        let span = span.span_context();
        if span.is_valid()
            && span.is_sampled()
            && let Ok(parent) = sampled(span).to_string().parse()
        {
            metadata.insert(TRACEPARENT, parent);
        }
    });
}

fn sampled(span: &SpanContext) -> TraceParent {
    TraceParent {
        trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(span.span_id().to_bytes()),
        sampled: true,
    }
}

fn header(name: &str, value: String) -> Header {
    Header {
        name: name.to_owned(),
        value: Bytes::from(value),
    }
}

/// The context that a record came with, as that of a span elsewhere; an empty one if it came with none.
pub(crate) fn context_of(headers: &[Header]) -> Context {
    let Some(parent) = parent_of(headers) else {
        return Context::new();
    };
    let state = headers.iter().find(|header| header.name == TRACESTATE);
    let state = state.and_then(|state| str::from_utf8(&state.value).ok()?.parse::<TraceState>().ok());
    let flags = if parent.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    Context::new().with_remote_span_context(SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        flags,
        true,
        state.unwrap_or_default(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current(sampled: bool) -> Context {
        let flags = if sampled {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        };
        let state = "vendor=abc".parse().unwrap_or_default();
        let span = SpanContext::new(TraceId::from(7), SpanId::from(8), flags, false, state);
        Context::new().with_remote_span_context(span)
    }

    fn sent_in(context: Context, mut record: Record) -> Record {
        let _guard = context.attach();
        add_current(&mut record);
        record
    }

    #[test]
    fn a_record_takes_the_current_context_along_and_gives_it_back() {
        let record = sent_in(current(true), Record::default());
        let back = context_of(&record.headers);
        let back = back.span().span_context().clone();
        assert_eq!((back.trace_id(), back.span_id()), (TraceId::from(7), SpanId::from(8)));
        assert!(back.is_sampled() && back.is_remote());
        assert_eq!(back.trace_state().header(), "vendor=abc");
    }

    #[test]
    fn a_call_is_told_the_current_context_if_that_is_sampled() {
        let told_in = |context: Context| {
            let _guard = context.attach();
            let mut metadata = MetadataMap::new();
            tell_current(&mut metadata);
            let parent = metadata.get(TRACEPARENT)?;
            TraceParent::parse(parent.as_bytes())
        };
        let parent = TraceParent {
            trace_id: 7,
            span_id: 8,
            sampled: true,
        };
        assert_eq!(told_in(current(true)), Some(parent));
        assert_eq!(told_in(current(false)), None);
        assert_eq!(told_in(Context::new()), None);
    }

    #[test]
    fn a_record_that_is_not_traced_or_has_a_trace_or_no_room_stays_as_it_is() {
        let own = |count| Record {
            headers: vec![header(TRACEPARENT, "mine".to_owned()); count],
            ..Record::default()
        };
        let large = Record {
            value: Bytes::from(vec![0; RECORD_BYTES_MAX - CONTEXT_BYTES_MAX]),
            ..Record::default()
        };
        let full = Record {
            headers: vec![header("other", String::new()); RECORD_HEADERS_MAX - 1],
            ..Record::default()
        };
        for record in [own(1), large, full] {
            assert_eq!(sent_in(current(true), record.clone()), record);
        }
        for context in [current(false), Context::new()] {
            assert_eq!(sent_in(context, Record::default()), Record::default());
        }
        assert!(!context_of(&own(1).headers).has_active_span());
    }
}
