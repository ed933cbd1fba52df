//! The trace of one batch.

use std::sync::Arc;

use highwater_partition::{Stage, StageDone, Trace};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};
use tokio::time::Instant;

use super::Tracer;
use super::sampling::Origin;
use super::span::{Anchor, Span, new_id};

/// One batch on its way. Its stages are told as they are over, some of them after its answer.
pub(crate) struct BatchTrace {
    core: Arc<Core>,
    parent_span: u64,
}

/// What all spans of the batch have in common.
struct Core {
    tracer: Arc<Tracer>,
    anchor: Anchor,
    trace_id: u128,
    /// The span of the whole way, and the one of the commit: parents before they are told themselves.
    whole: u64,
    commit: u64,
}

/// How much of what went wrong is told, characters.
const WHY_CHARACTERS_MAX: usize = 512;

/// What a batch's trace says about it.
pub(crate) struct BatchFacts {
    /// `tenant/topic` as the client wrote it, if that can be a name: spans wait in memory, and nobody may fill that with names.
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) record_count: u32,
    pub(crate) bytes: usize,
    /// Who sent it.
    pub(crate) client: String,
}

impl BatchTrace {
    pub(super) fn begin(tracer: Arc<Tracer>, origin: Origin, arrived: Instant) -> BatchTrace {
        let core = Core {
            tracer,
            anchor: Anchor::at(arrived),
            trace_id: origin.trace_id,
            whole: new_id(),
            commit: new_id(),
        };
        BatchTrace {
            core: Arc::new(core),
            parent_span: origin.parent_span,
        }
    }

    /// It may be proposed now.
    pub(crate) fn admitted(&self) {
        let core = &self.core;
        let (began, ended) = (core.anchor.instant(), Instant::now());
        core.tell(core.part(new_id(), core.whole, "access", began, ended));
    }

    /// What is to be told of its stages.
    pub(crate) fn stages(&self) -> Trace {
        let core = self.core.clone();
        Trace::new(move |done| core.stage(done))
    }

    /// Its answer is given back: where it is, or why it is nowhere.
    pub(crate) fn answered(self, facts: BatchFacts, outcome: Result<u64, String>) {
        let core = &self.core;
        let mut attributes = vec![
            KeyValue::new("messaging.system", "highwater"),
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.destination.name", facts.topic.clone()),
            KeyValue::new("messaging.destination.partition.id", facts.partition.to_string()),
            KeyValue::new("messaging.batch.message_count", i64::from(facts.record_count)),
            KeyValue::new("highwater.batch.bytes", facts.bytes as i64),
            KeyValue::new("highwater.client", facts.client),
        ];
        let status = match outcome {
            Ok(base_offset) => {
                attributes.push(KeyValue::new("highwater.base_offset", base_offset as i64));
                Status::Ok
            }
            Err(why) => Status::error(why.chars().take(WHY_CHARACTERS_MAX).collect::<String>()),
        };
        let began = core.anchor.instant();
        core.tell(Span {
            parent_is_remote: self.parent_span != 0,
            kind: SpanKind::Server,
            name: format!("produce {}", facts.topic).into(),
            attributes,
            status,
            ..core.part(core.whole, self.parent_span, "", began, Instant::now())
        });
    }
}

impl Core {
    fn stage(&self, done: StageDone<'_>) {
        let (name, id, parent) = match done.stage {
            Stage::Queue => ("propose", new_id(), self.commit),
            Stage::Sync => ("sync", new_id(), self.commit),
            Stage::Replicate => ("replicate", new_id(), self.commit),
            Stage::Commit => ("commit", self.commit, self.whole),
        };
        let mut span = self.part(id, parent, name, done.began, done.ended);
        if let Some(follower) = done.follower {
            span.attributes
                .push(KeyValue::new("highwater.follower", follower.to_owned()));
        }
        self.tell(span);
    }

    fn part(&self, id: u64, parent: u64, name: &'static str, began: Instant, ended: Instant) -> Span {
        Span {
            trace_id: self.trace_id,
            id,
            parent,
            parent_is_remote: false,
            kind: SpanKind::Internal,
            name: name.into(),
            began,
            ended,
            attributes: Vec::new(),
            status: Status::Unset,
        }
    }

    fn tell(&self, span: Span) {
        self.tracer.send(span.data(&self.anchor));
    }
}
