//! HTTP/1.1 over the connections that the port hands over: heads, bodies, time limits, and an orderly end.
//!
//! What is not HTTP, or has too long a head, is refused by the HTTP library itself, with a status and no body.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::header::EXPECT;
use ::http::uri::PathAndQuery;
use ::http::{HeaderValue, Method, Request, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use highwater_proto::trace::{TRACEPARENT, TraceParent};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming as Incomplete};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::server::Connected;
use tracing::Instrument;

use super::answer::Answer;
use super::buffers::Share;
use super::limits::{
    ANSWER_BYTES_PER_S_LEAST, APPEND_TIME_MAX, BODY_BYTES_MAX, BODY_TIMEOUT, CONNECTION_BUFFER_BYTES_MAX,
    DISCARDED_BYTES_MAX, FETCH_TIME_MAX, HEAD_BYTES_MAX, HEAD_TIMEOUT, HEADERS_MAX, STALL_TIMEOUT,
};
use super::patient::{Patience, Patient};
use super::{Call, Gateway, Hop, origin, routes};
use crate::access::Principal;
use crate::port::{Connection, Incoming, Peer};
use crate::quotas::StreamShare;
use crate::services::{pay_for_call, span_of_call};
use crate::status::{Problem, name_of};
use crate::traces::RequestFacts;

/// How slow callers may be in taking their answers.
const PATIENCE: Patience = Patience {
    stall: STALL_TIMEOUT,
    bytes_per_s_least: ANSWER_BYTES_PER_S_LEAST,
};

impl Gateway {
    /// Serves until the node stops, then answers what is in flight and returns.
    pub(crate) async fn serve(self: Arc<Self>, mut incoming: Incoming) {
        let stopping = self.context.stopping.clone();
        let mut connections = JoinSet::new();
        loop {
            let next = tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                next = incoming.next() => next,
            };
            match next {
                Some(Ok(connection)) => drop(connections.spawn(self.clone().serve_connection(connection))),
                Some(Err(error)) => tracing::debug!(%error, "a connection was not handed over"),
                None => break,
            }
            while connections.try_join_next().is_some() {}
        }
        while connections.join_next().await.is_some() {}
    }

    async fn serve_connection(self: Arc<Self>, connection: Connection) {
        let (peer, stopping) = (connection.connect_info(), self.context.stopping.clone());
        let is_used = AtomicBool::new(false);
        let service = service_fn(|request| {
            is_used.store(true, Ordering::Relaxed);
            let span = span_of_call(request.uri().path(), Some(&peer), request.headers());
            respond(self.clone(), peer.clone(), request).instrument(span)
        });
        let stream = TokioIo::new(Patient::new(connection, PATIENCE));
        let old = sleep(self.context.connection_age.draw());
        let mut serving = pin!(protocol().serve_connection(stream, service));
        let ended = tokio::select! {
            biased; // an answer that is given because the node stops says that the connection ends, too
            () = stopping.cancelled() => {
                serving.as_mut().graceful_shutdown();
                if !is_used.load(Ordering::Relaxed) {
                    return; // it would wait for a first request
                }
                serving.await
            }
            ended = serving.as_mut() => ended,
            () = old => {
                serving.as_mut().graceful_shutdown();
                serving.await // a request has limits of its own
            }
        };
        if let Err(error) = ended {
            tracing::debug!(remote = %peer.remote_addr, %error, "an HTTP connection ended");
        }
    }

    async fn receive(
        &self,
        peer: &Peer,
        request: Request<Incomplete>,
        trace: Option<TraceParent>,
    ) -> Result<Received, Problem> {
        let stream = pay_for_call(peer, Instant::now() + time_max(request.method())).await?;
        let (head, body) = request.into_parts();
        let principal = Principal::of(peer);
        let (body, share) = match head.method {
            Method::POST => {
                origin::check(&head.headers, head.uri.authority())?;
                let waits = head.headers.contains_key(EXPECT);
                self.read_body(&principal, body, waits).await?
            }
            _ => (Bytes::new(), None),
        };
        let target = head.uri.into_parts().path_and_query;
        Ok(Received {
            call: Call {
                principal,
                // From here on: how long the body took is the caller's affair, and has a limit of its own.
                deadline: Instant::now() + time_max(&head.method),
                method: head.method,
                target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
                body,
                hop: Hop::FromClient,
                trace,
            },
            _share: share,
            _stream: stream,
        })
    }

    /// The whole body, with its share of the memory.
    async fn read_body(
        &self,
        principal: &Principal,
        mut body: Incomplete,
        waits: bool,
    ) -> Result<(Bytes, Option<Share>), Problem> {
        let reading = timeout(BODY_TIMEOUT, self.collect(principal, &mut body));
        let late = || Problem::Unreadable(format!("its body did not come within {} s", BODY_TIMEOUT.as_secs()));
        let read = reading.await.unwrap_or_else(|_| Err(late()));
        if matches!(read, Err(Problem::TooLarge { .. })) && !waits {
            // Whoever waits to be asked for the body has not sent it.
            let _ = timeout(BODY_TIMEOUT, discard(&mut body)).await;
        }
        read
    }

    async fn collect(&self, principal: &Principal, body: &mut Incomplete) -> Result<(Bytes, Option<Share>), Problem> {
        check_size(body.size_hint().lower())?;
        let mut collected = BytesMut::new();
        let mut held: Option<Share> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Problem::Unreadable(format!("its body ended early: {error}")))?;
            // Trailers say nothing here.
            let Ok(data) = frame.into_data() else { continue };
            check_size((collected.len() + data.len()) as u64)?;
            // Piece by piece, so that a slow body takes no more than it has sent.
            let share = self.buffers.take(principal, data.len())?;
            match &mut held {
                Some(held) => held.merge(share),
                None => held = Some(share),
            }
            collected.extend_from_slice(&data);
        }
        Ok((collected.freeze(), held))
    }
}

/// A request with its shares of the memory and of the calls that its client may have.
struct Received {
    call: Call,
    _share: Option<Share>,
    _stream: StreamShare,
}

fn protocol() -> http1::Builder {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_buf_size(CONNECTION_BUFFER_BYTES_MAX);
    protocol
}

async fn respond(
    gateway: Arc<Gateway>,
    peer: Arc<Peer>,
    request: Request<Incomplete>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let said = request.headers().get(TRACEPARENT).map(HeaderValue::as_bytes);
    let trace = gateway.context.traces.call(said);
    // Without a span here, whatever is traced elsewhere is a part of the client's.
    let parent = match &trace {
        Some(trace) => Some(trace.as_parent()),
        None => said.and_then(TraceParent::parse),
    };
    let asked = trace.map(|trace| (trace, verb(request.method()), routes::template(request.uri().path())));
    let answer = match gateway.receive(&peer, request, parent).await {
        Ok(received) => gateway.answer(&received.call).await,
        Err(problem) => Answer::from(problem),
    };
    if let Some(reason) = answer.reason {
        gateway.context.refused.count(reason);
    }
    if let Some((trace, method, route)) = asked {
        trace.answered_over_http(RequestFacts {
            method,
            route,
            client: peer.identity.to_string(),
            status: answer.status,
            refused: answer.reason.map(name_of),
        });
    }
    Ok(answer.into_response())
}

/// The name of a method in traces, which nobody may fill with names of his own.
fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        _ => "HTTP",
    }
}

/// How long a request may take.
pub(super) fn time_max(method: &Method) -> Duration {
    match *method {
        Method::POST => APPEND_TIME_MAX,
        _ => FETCH_TIME_MAX,
    }
}

fn check_size(found: u64) -> Result<(), Problem> {
    let limit = BODY_BYTES_MAX as u64;
    if found <= limit {
        return Ok(());
    }
    Err(Problem::TooLarge {
        field: "body",
        found,
        limit,
    })
}

async fn discard(body: &mut Incomplete) {
    let mut discarded = 0;
    while let Some(Ok(frame)) = body.frame().await {
        discarded += frame.data_ref().map_or(0, Bytes::len);
        if discarded > DISCARDED_BYTES_MAX {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A connection that is served as ours are, and always answered.
    fn served() -> DuplexStream {
        let (client, server) = duplex(1024 * 1024);
        let service =
            service_fn(async |_: Request<Incomplete>| Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())));
        tokio::spawn(async move { protocol().serve_connection(TokioIo::new(server), service).await });
        client
    }

    /// What comes until the connection is closed, and how long that takes.
    async fn rest(client: &mut DuplexStream) -> (String, Duration) {
        let (begin, mut rest) = (Instant::now(), String::new());
        timeout(3 * HEAD_TIMEOUT, client.read_to_string(&mut rest))
            .await
            .unwrap()
            .unwrap();
        (rest, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_slow_with_a_head_or_idle_is_cut_off() {
        for begin in ["", "GET / HTTP/1.1\r\nhost: ", "GET / HTTP/1.1\r\nhost: x\r\n\r\n"] {
            let mut client = served();
            client.write_all(begin.as_bytes()).await.unwrap();
            let (answer, took) = rest(&mut client).await;
            assert_eq!(
                answer.starts_with("HTTP/1.1 200 "),
                begin.ends_with("\r\n\r\n"),
                "{begin:?}: {answer}"
            );
            assert!(took >= HEAD_TIMEOUT && took < 2 * HEAD_TIMEOUT, "{begin:?}: {took:?}");
        }
        let mut dripping = served();
        let dripped = async {
            for _ in 0..2 * HEAD_TIMEOUT.as_secs() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                dripping.write_all(b"G").await?;
            }
            Ok::<_, std::io::Error>(())
        };
        assert!(dripped.await.is_err(), "a head that comes byte by byte");
    }

    #[tokio::test(start_paused = true)]
    async fn heads_over_their_limits_are_refused() {
        let header = |length: usize| format!("x: {}\r\n", "y".repeat(length));
        let request = |headers: String| format!("GET / HTTP/1.1\r\n{headers}\r\n");
        for (head, status) in [
            (request(header(HEAD_BYTES_MAX)), "431"),
            (request(header(1).repeat(HEADERS_MAX + 1)), "431"),
            (
                format!("GET /{} HTTP/1.1\r\n\r\n", "z".repeat(4 * CONNECTION_BUFFER_BYTES_MAX)),
                "4",
            ),
            ("\0\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
        ] {
            let mut client = served();
            client.write_all(head.as_bytes()).await.unwrap();
            let (answer, _) = rest(&mut client).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{}: {answer}",
                &head[..20]
            );
        }
        let mut client = served();
        client
            .write_all(request(header(1).repeat(HEADERS_MAX)).as_bytes())
            .await
            .unwrap();
        assert!(rest(&mut client).await.0.starts_with("HTTP/1.1 200"));
    }
}
