//! Connections of clients, with limits: how many there may be, how long a client may take to say what it wants, and how many requests may be
//! in work.
//!
//! A client that says nothing, or says it letter by letter, has its place for [`HEAD_TIMEOUT`] and no longer. One that comes when all
//! places are taken is hung up on, so that it can go elsewhere at once.
//!
//! Deliberately absent: limits for each address, and on the time for a body and for reading an answer. Whoever fills all places with those
//! keeps others out until [`CONNECTIONS_MAX`] of them are gone; against that an ingress or a proxy stands in front.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

use crate::serving::Stop;

/// The most connections at one port. Fewer than the files that a process may usually have open, 1,024.
pub const CONNECTIONS_MAX: usize = 512;
/// How long a client may take until its request's head is there: since it has connected, and with HTTP/1 since its request before that.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest head of HTTP/1, and what is held ready at most, besides what is being written, for who does not read: by connection of HTTP/1,
/// by stream of HTTP/2. Bytes.
pub const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// The most streams of one connection of HTTP/2.
pub const STREAMS_MAX: u32 = 256;
/// The most requests at one port that are in work; more wait, unread. A stream that has begun does not count.
pub const REQUESTS_MAX: usize = 4_096;
/// After what silence a client of HTTP/2 is asked whether it is there, and how long it may take to answer: one that is gone would hold its
/// streams for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long to wait when no connection can be taken, for want of files or memory.
const PAUSE: Duration = Duration::from_secs(1);
/// How often at most it is told that connections are refused.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1 or HTTP/2, as they begin.
    Http,
    /// HTTP/2, which gRPC is.
    Http2,
}

/// The limits of one port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connections: usize,
    pub(crate) head_timeout: Duration,
    pub(crate) requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS_MAX,
            head_timeout: HEAD_TIMEOUT,
            requests: REQUESTS_MAX,
        }
    }
}

/// What all connections of a port share.
#[derive(Debug, Clone)]
struct Port {
    routes: Router,
    protocol: Protocol,
    limits: Limits,
    requests: Arc<Semaphore>,
    stop: Stop,
}

/// Serves whoever connects until `stop`; then takes nobody new, and returns when the last one has been answered. To be dropped, which cuts
/// those that are left, if that takes too long.
pub(crate) async fn serve(listener: TcpListener, routes: Router, protocol: Protocol, limits: Limits, stop: Stop) {
    let port = Port {
        routes,
        protocol,
        limits,
        requests: Arc::new(Semaphore::new(limits.requests)),
        stop: stop.clone(),
    };
    let mut connections = JoinSet::new();
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = stop.wait() => break,
            // Before another one comes, so that its place is free.
            Some(_) = connections.join_next() => {}
            stream = accept(&listener) => {
                if connections.len() < limits.connections {
                    connections.spawn(port.clone().answer(stream));
                } else if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(connections = limits.connections, "connections are refused: there are as many as there may be");
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection. Cancel safe.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            // It was gone before it was taken.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken at the moment");
                sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Port {
    /// Answers all requests of a connection.
    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let has_asked = Arc::new(AtomicBool::new(false));
        let answering = {
            let (has_asked, routes, requests) = (has_asked.clone(), self.routes.clone(), self.requests.clone());
            service_fn(move |request| {
                has_asked.store(true, Ordering::Relaxed);
                answer_one(routes.clone(), requests.clone(), request)
            })
        };
        let builder = self.builder();
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), answering));
        tokio::select! {
            biased;
            ended = &mut serving => return tell_ended(ended),
            () = silent(&has_asked, self.limits.head_timeout) => {
                return tracing::debug!("a client has asked nothing in time");
            }
            () = self.stop.wait() => serving.as_mut().graceful_shutdown(),
        }
        tell_ended(serving.await);
    }

    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head_timeout)
            .max_buf_size(BUFFER_BYTES_MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(BUFFER_BYTES_MAX);
        match self.protocol {
            Protocol::Http => builder,
            Protocol::Http2 => builder.http2_only(),
        }
    }
}

async fn answer_one(
    routes: Router,
    requests: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    // An error means that the semaphore is closed, which nobody does.
    let _place = requests.acquire().await;
    routes.oneshot(request).await
}

/// Resolves if nothing has been asked within that time. The time between requests is HTTP/1's own matter, and HTTP/2's to keep alive.
async fn silent(has_asked: &AtomicBool, within: Duration) {
    sleep(within).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn tell_ended(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended");
    }
}

#[cfg(test)]
mod tests;
