//! The trace of one call.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanKind, Status};
use tokio::time::Instant;
use tonic::Code;

use super::Tracer;
use super::sampling::Origin;
use super::span::{Anchor, Span, new_id};

/// A call that goes on.
pub(crate) struct CallTrace {
    tracer: Arc<Tracer>,
    anchor: Anchor,
    origin: Origin,
}

impl CallTrace {
    pub(super) fn begin(tracer: Arc<Tracer>, origin: Origin) -> CallTrace {
        CallTrace {
            tracer,
            anchor: Anchor::at(Instant::now()),
            origin,
        }
    }

    /// It has its answer; or a stream has been opened, or refused.
    pub(crate) fn answered(self, method: &str, client: Option<String>, code: Code) {
        let mut attributes = vec![
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))),
        ];
        attributes.extend(client.map(|client| KeyValue::new("highwater.client", client)));
        let span = Span {
            trace_id: self.origin.trace_id,
            id: new_id(),
            parent: self.origin.parent_span,
            parent_is_remote: true,
            kind: SpanKind::Server,
            name: method.to_owned().into(),
            began: self.anchor.instant(),
            ended: Instant::now(),
            attributes,
            status: match code {
                Code::Ok => Status::Ok,
                _ => Status::error(code.description()),
            },
        };
        self.tracer.send(span.data(&self.anchor));
    }
}
