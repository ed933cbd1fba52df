//! Spans as the collector gets them.

use std::borrow::Cow;
use std::sync::LazyLock;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::time::Instant;

/// Who says it.
static SCOPE: LazyLock<InstrumentationScope> = LazyLock::new(|| {
    InstrumentationScope::builder("highwater")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
});

/// When something was, of which only is known how long ago it is.
///
/// All spans of a trace go by one of these, so that they fit together although the clock may be set in between.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    instant: Instant,
    time: SystemTime,
}

impl Anchor {
    pub(super) fn at(instant: Instant) -> Anchor {
        Anchor {
            instant,
            time: SystemTime::now() - instant.elapsed(),
        }
    }

    pub(super) fn instant(&self) -> Instant {
        self.instant
    }

    fn time_of(&self, instant: Instant) -> SystemTime {
        match instant.checked_duration_since(self.instant) {
            Some(after) => self.time + after,
            None => self.time - self.instant.duration_since(instant),
        }
    }
}

/// What a span says.
pub(super) struct Span {
    pub(super) trace_id: u128,
    pub(super) id: u64,
    /// 0: there is none.
    pub(super) parent: u64,
    /// Whether the parent is a client's.
    pub(super) parent_is_remote: bool,
    pub(super) kind: SpanKind,
    pub(super) name: Cow<'static, str>,
    pub(super) began: Instant,
    pub(super) ended: Instant,
    pub(super) attributes: Vec<KeyValue>,
    pub(super) status: Status,
}

impl Span {
    pub(super) fn data(self, anchor: &Anchor) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from(self.trace_id),
                SpanId::from(self.id),
                TraceFlags::SAMPLED,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(self.parent),
            parent_span_is_remote: self.parent_is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time: anchor.time_of(self.began),
            end_time: anchor.time_of(self.ended),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: self.status,
            instrumentation_scope: SCOPE.clone(),
        }
    }
}

/// The id of a new span.
pub(super) fn new_id() -> u64 {
    rand::random_range(1..=u64::MAX)
}
