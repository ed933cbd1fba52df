//! The trace of one call, or of one request over HTTP.

use std::sync::Arc;

use highwater_proto::trace::TraceParent;
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
    id: u64,
}

/// What the trace of a request over HTTP says about it.
pub(crate) struct RequestFacts {
    pub(crate) method: &'static str,
    /// What kind of path it is, if there is anything there.
    pub(crate) route: Option<&'static str>,
    /// Who sent it.
    pub(crate) client: String,
    pub(crate) status: http::StatusCode,
    /// Why it was refused, if it was.
    pub(crate) refused: Option<&'static str>,
}

impl CallTrace {
    pub(super) fn begin(tracer: Arc<Tracer>, origin: Origin) -> CallTrace {
        CallTrace {
            tracer,
            anchor: Anchor::at(Instant::now()),
            origin,
            id: new_id(),
        }
    }

    /// What is done for the call is a part of it.
    pub(crate) fn as_parent(&self) -> TraceParent {
        TraceParent {
            trace_id: self.origin.trace_id,
            span_id: self.id,
            sampled: true,
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
        let status = match code {
            Code::Ok => Status::Ok,
            _ => Status::error(code.description()),
        };
        self.end(method.to_owned(), attributes, status);
    }

    /// The same of a request over HTTP.
    pub(crate) fn answered_over_http(self, facts: RequestFacts) {
        let mut attributes = vec![
            KeyValue::new("http.request.method", facts.method),
            KeyValue::new("http.response.status_code", i64::from(facts.status.as_u16())),
            KeyValue::new("highwater.client", facts.client),
        ];
        attributes.extend(facts.route.map(|route| KeyValue::new("http.route", route)));
        attributes.extend(facts.refused.map(|reason| KeyValue::new("error.type", reason)));
        // What the client has done wrong is no error of the server, says OpenTelemetry.
        let status = match facts.status.is_server_error() {
            true => Status::error(facts.status.canonical_reason().unwrap_or_default()),
            false => Status::Unset,
        };
        let name = match facts.route {
            Some(route) => format!("{} {route}", facts.method),
            None => facts.method.to_owned(),
        };
        self.end(name, attributes, status);
    }

    fn end(self, name: String, attributes: Vec<KeyValue>, status: Status) {
        let span = Span {
            trace_id: self.origin.trace_id,
            id: self.id,
            parent: self.origin.parent_span,
            parent_is_remote: true,
            kind: SpanKind::Server,
            name: name.into(),
            began: self.anchor.instant(),
            ended: Instant::now(),
            attributes,
            status,
        };
        self.tracer.send(span.data(&self.anchor));
    }
}
