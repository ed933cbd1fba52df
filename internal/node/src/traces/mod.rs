//! Traces: which way single batches and calls took, told to a collector as OpenTelemetry has it (OTLP).
//!
//! ```text
//! produce orders        from when the batch was read from its connection until its answer is given back to it
//! ├ access              until it is proposed: the quota's delay, access, checks
//! └ commit              from the proposal until a majority has it
//!   ├ propose           until the Raft core gives it to the log
//!   ├ sync              until the leader's disk has it
//!   └ replicate         from when it is sent to a follower until that says that it is on its disk; one for each
//! ```
//!
//! The parent of `produce` is whatever the client says (`traceparent`), so a trace goes on from the program that produced a record, and, by
//! the record's header, to those that consume it. Other calls are one span each, and only if the client says so; so are requests over HTTP, of which
//! `produce` is a part.
//!
//! Nothing is noted for a batch that is not traced, and nothing waits for a collector: spans go into a queue of [`QUEUED_MAX`], and what
//! finds no room there is dropped and counted. How many traces there are is bounded ([`sampling`]): a client that wants everything traced
//! must not cost the others anything.
//!
//! This is the only room that knows OpenTelemetry. Deliberately absent: traces of what nodes do among themselves, metrics and logs by OTLP.

mod batch;
mod call;
mod export;
mod sampling;
mod span;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_proto::trace::TraceParent;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub(crate) use self::batch::{BatchFacts, BatchTrace};
pub(crate) use self::call::{CallTrace, RequestFacts};
use self::sampling::Sampler;
use crate::config::{Config, TracesConfig};
use crate::error::StartError;
use crate::metrics::Families;

/// Most spans that wait for the collector.
const QUEUED_MAX: usize = 4096;
/// How long a node that stops waits for the last of them to be sent.
const FINISH_PATIENCE: Duration = Duration::from_secs(2);

/// Begins traces; cheap to clone. Without a collector it begins none.
#[derive(Clone)]
pub(crate) struct Traces(Option<Arc<Tracer>>);

struct Tracer {
    sampler: Sampler,
    spans: mpsc::Sender<SpanData>,
    counts: Arc<Counts>,
    /// Nothing more comes: what waits is to be sent.
    closing: CancellationToken,
    /// It is sent.
    closed: CancellationToken,
}

/// What became of spans.
#[derive(Default)]
struct Counts {
    exported: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Traces {
    /// As configured; what sends the spans runs behind it.
    pub(crate) fn start(config: &Config) -> Result<Traces, StartError> {
        if config.traces.endpoint.is_empty() {
            return Ok(Traces(None));
        }
        let (spans, queue) = mpsc::channel(QUEUED_MAX);
        let tracer = Tracer {
            sampler: Sampler::new(&config.traces),
            spans,
            counts: Arc::default(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
        };
        let export = export::start(config, queue, tracer.counts.clone(), tracer.closing.clone())?;
        let closed = tracer.closed.clone();
        tokio::spawn(async move {
            let _closed = closed.drop_guard();
            export.await;
        });
        Ok(Traces(Some(Arc::new(tracer))))
    }

    /// Sends what waits, if the collector takes it soon.
    pub(crate) async fn finish(&self) {
        if let Some(tracer) = &self.0 {
            tracer.closing.cancel();
            // What the collector does not take by then is lost with it.
            let _ = timeout(FINISH_PATIENCE, tracer.closed.cancelled()).await;
        }
    }

    /// Samples differently from now on.
    pub(crate) fn retune(&self, config: &TracesConfig) {
        if let Some(tracer) = &self.0 {
            tracer.sampler.retune(config);
        }
    }

    /// The trace of a batch that was read at `arrived`, if it has one: its client's, or one that begins here.
    pub(crate) fn batch(&self, parent: &str, arrived: Instant) -> Option<BatchTrace> {
        let tracer = self.0.as_ref()?;
        let parent = tracer.sampler.batch(TraceParent::parse(parent.as_bytes()))?;
        Some(BatchTrace::begin(tracer.clone(), parent, arrived))
    }

    /// The trace of a call that has just come, if its client has one.
    pub(crate) fn call(&self, parent: Option<&[u8]>) -> Option<CallTrace> {
        let tracer = self.0.as_ref()?;
        let parent = tracer.sampler.call(TraceParent::parse(parent?))?;
        Some(CallTrace::begin(tracer.clone(), parent))
    }

    pub(crate) fn tell(&self, families: &mut Families) {
        let none = Counts::default();
        let counts = self.0.as_ref().map_or(&none, |tracer| &tracer.counts);
        let mut told = families.begin(
            "highwater_trace_spans_total",
            "Spans, by what became of them: exported, failed (the collector did not take them) or dropped (too many waited).",
        );
        for (result, count) in [
            ("exported", &counts.exported),
            ("failed", &counts.failed),
            ("dropped", &counts.dropped),
        ] {
            told.value(&[("result", result)], count.load(Ordering::Relaxed) as f64);
        }
    }
}

impl Tracer {
    fn send(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
