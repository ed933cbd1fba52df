//! Which call something in the log is about: a span around each, with its method, who calls, and whatever id came with it.
//!
//! The span (target `call`) has level info, so that a warning from within a call says whose it was; that each call begins is told at level debug. With
//! `call=off` in the filter there is neither, and nothing is looked at or allocated for them. A client's id is written down only if it
//! is one by its form, so nobody writes our log at will.
//!
//! Deliberately absent: what is sent. Neither records nor private keys ever stand in the log.

use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use futures::FutureExt;
use futures::future::Inspect;
use highwater_proto::trace::TRACEPARENT;
use http::{HeaderMap, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{BoxError, Layer, Service};
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span};

use crate::identity::Identity;
use crate::port::Peer;
use crate::traces::Traces;

/// The longest name of a method, or path, that is written down, bytes.
const METHOD_BYTES_MAX: usize = 256;
/// The longest id of a request that is written down, bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Where a client tells its own id of the request.
const REQUEST_ID: &str = "x-request-id";
/// Calls of this service are not traced as calls: each batch is.
const LOG_SERVICE: &str = "LogService/";
/// How our own methods begin, which is not repeated in each line.
const OWN_METHODS: &str = "/highwater.v1.";

/// Puts [`WithSpan`] around the services.
#[derive(Clone)]
pub(super) struct Calls(pub(super) Traces);

/// Services whose calls have spans.
#[derive(Clone)]
pub(super) struct WithSpan<S> {
    inner: S,
    traces: Traces,
}

/// What is to be done when a call has its answer; nothing, mostly.
type Answered = Box<dyn FnOnce(&Result<Response<Body>, BoxError>) + Send>;

impl<S> Layer<S> for Calls {
    type Service = WithSpan<S>;

    fn layer(&self, inner: S) -> WithSpan<S> {
        WithSpan {
            inner,
            traces: self.0.clone(),
        }
    }
}

impl<S> Service<Request<Body>> for WithSpan<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Inspect<Instrumented<S::Future>, Answered>;

    fn poll_ready(&mut self, context: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = path.strip_prefix(OWN_METHODS).unwrap_or(path);
        let peer = request.extensions().get::<Arc<Peer>>();
        let span = span(method, peer.map(Arc::as_ref), request.headers());
        let answered = answered(&self.traces, method, peer.map(Arc::as_ref), request.headers());
        // What is decided before there is a future belongs to the call as well.
        let call = span.in_scope(|| self.inner.call(request)).instrument(span);
        call.inspect(answered)
    }
}

/// Tells the call's trace that it is answered, if it has one.
fn answered(traces: &Traces, method: &str, peer: Option<&Peer>, headers: &HeaderMap) -> Answered {
    let parent = headers.get(TRACEPARENT).filter(|_| !method.starts_with(LOG_SERVICE));
    let Some(trace) = traces.call(parent.map(HeaderValue::as_bytes)) else {
        return Box::new(|_| ()); // which takes no memory
    };
    let client = peer.map(|peer| peer.identity.to_string());
    let method = written(method).to_owned();
    Box::new(move |answer| trace.answered(&method, client, code(answer)))
}

/// What an answer says of itself at its beginning; a stream that fails later has begun well.
fn code(answer: &Result<Response<Body>, BoxError>) -> Code {
    match answer {
        Ok(answer) => Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code()),
        // It was not let in.
        Err(error) => error.downcast_ref::<Status>().map_or(Code::Unavailable, Status::code),
    }
}

fn written(method: &str) -> &str {
    method.get(..METHOD_BYTES_MAX).unwrap_or(method)
}

/// The span of a call, which has begun.
pub(crate) fn span(method: &str, peer: Option<&Peer>, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        target: "call",
        "call",
        method = written(method),
        tenant = peer.and_then(|peer| tenant(&peer.identity)),
        client = peer.map(|peer| name(&peer.identity)),
        remote = peer.map(|peer| tracing::field::display(peer.remote_addr)),
        request = headers.get(REQUEST_ID).and_then(|id| request_id(id.as_bytes())),
        trace = headers.get(TRACEPARENT).and_then(|parent| trace_id(parent.as_bytes())),
    );
    span.in_scope(|| tracing::debug!(target: "call", "begins"));
    span
}

fn tenant(identity: &Identity) -> Option<&str> {
    match identity {
        Identity::Client { tenant, .. } => Some(tenant),
        Identity::Node { .. } => None,
    }
}

fn name(identity: &Identity) -> &str {
    match identity {
        Identity::Client { name, .. } | Identity::Node { name, .. } => name,
    }
}

/// A client's id, if it is short and visible.
fn request_id(id: &[u8]) -> Option<&str> {
    let is_one = !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX && id.iter().all(u8::is_ascii_graphic);
    is_one.then(|| str::from_utf8(id).ok()).flatten()
}

/// The trace of `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, whatever comes behind that in later versions.
fn trace_id(parent: &[u8]) -> Option<&str> {
    let mut parts = parent.split(|byte| *byte == b'-').skip(1);
    let trace = parts.next().filter(|trace| trace.len() == 32)?;
    let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_one = trace.iter().all(is_hex) && trace.iter().any(|byte| *byte != b'0');
    is_one.then(|| str::from_utf8(trace).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_down_only_if_it_is_one() {
        assert_eq!(request_id(b"order-7/2"), Some("order-7/2"));
        for id in [
            &b""[..],
            b"two words",
            b"new\nline",
            "größe".as_bytes(),
            &[b'a'; REQUEST_ID_BYTES_MAX + 1],
        ] {
            assert_eq!(request_id(id), None, "{id:?}");
        }
    }

    #[test]
    fn the_trace_is_found_in_its_header() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        for parent in [
            format!("00-{trace}-00f067aa0ba902b7-01"),
            format!("cc-{trace}-00f067aa0ba902b7-01-more"),
        ] {
            assert_eq!(trace_id(parent.as_bytes()), Some(trace));
        }
        let zeros = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for parent in [
            "",
            "00",
            "00-4bf9-00f0-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            &zeros,
        ] {
            assert_eq!(trace_id(parent.as_bytes()), None, "{parent}");
        }
    }
}
