//! The admin listener: plain HTTP for whatever looks after the process, on loopback unless configured otherwise.
//!
//! | path | answers |
//! |---|---|
//! | `/livez` | 200 as long as the process works: whoever gets no answer may end it |
//! | `/readyz` | 200 if the node is ready, else 503; the body says why in words, and what else is to be known, a line each |
//! | `/metrics` | all figures, for Prometheus ([`crate::metrics`]); only on a loopback address |
//!
//! Nobody proves who he is here, so from elsewhere there is nothing else to learn. Connections are few, and each lasts for a while at most:
//! one that says nothing cannot keep others out.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Sleep, sleep};

use crate::error::StartError;
use crate::readiness::NotReady;

/// Connections at the same time; further ones wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long to wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listener, bound and not served yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

type Readiness = watch::Receiver<Option<NotReady>>;
type Notices = watch::Receiver<Vec<String>>;
/// What the pages tell.
pub(crate) struct Told {
    pub(crate) not_ready: Readiness,
    pub(crate) notices: Notices,
    /// The figures for Prometheus; it takes milliseconds when there are many partitions.
    pub(crate) metrics: Box<dyn Fn() -> String + Send + Sync>,
}

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

impl Admin {
    /// Takes the port that `listen` (`host:port`) names; None if it is empty.
    pub(crate) async fn bind(listen: &str) -> Result<Option<Admin>, StartError> {
        if listen.is_empty() {
            return Ok(None);
        }
        let refused = |why: String| StartError::AdminPort {
            address: listen.to_owned(),
            why,
        };
        let bound = async {
            let mut addresses = lookup_host(listen).await?;
            let address = addresses.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Admin { listener, address })
        };
        let bound: io::Result<Admin> = bound.await;
        bound.map(Some).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => refused("it is in use by another process".to_owned()),
            _ => refused(error.to_string()),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is cut off.
    pub(crate) async fn run(self, told: Told) {
        let mut pages = Router::new()
            .route("/livez", get(live))
            .route("/readyz", get(ready_or_why));
        if self.address.ip().is_loopback() {
            pages = pages.route("/metrics", get(metrics));
        }
        let pages = pages.with_state(Arc::new(told));
        let listener = Bounded {
            listener: self.listener,
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        };
        // It goes on for ever: a connection that cannot be taken is not its end.
        let _ = axum::serve(listener, pages).await;
    }
}

async fn live() -> Answer {
    answer(StatusCode::OK, "live".to_owned())
}

async fn metrics(State(told): State<Arc<Told>>) -> Result<([(HeaderName, &'static str); 1], String), StatusCode> {
    let text = spawn_blocking(move || (told.metrics)()).await;
    let text = text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text))
}

async fn ready_or_why(State(told): State<Arc<Told>>) -> Answer {
    let (status, mut text) = match &*told.not_ready.borrow() {
        None => (StatusCode::OK, "ready".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}")),
    };
    for notice in told.notices.borrow().iter() {
        text.push_str("\nnotice: ");
        text.push_str(notice);
    }
    answer(status, text)
}

fn answer(status: StatusCode, text: String) -> Answer {
    (status, [(CACHE_CONTROL, "no-store")], format!("{text}\n"))
}

/// A listener that takes so many connections at a time.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Bound;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Bound, SocketAddr) {
        // The semaphore is never closed.
        let permit = self.room.clone().acquire_owned().await.ok();
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    let end = Box::pin(sleep(CONNECTION_TIME_MAX));
                    return (
                        Bound {
                            stream,
                            end,
                            _permit: permit,
                        },
                        peer,
                    );
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection to the admin listener was not taken");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time.
struct Bound {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Bound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            return Poll::Ready(read);
        }
        ready!(self.end.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Bound {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(context, bytes) {
            return Poll::Ready(written);
        }
        ready!(self.end.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn told(not_ready: &watch::Sender<Option<NotReady>>, notices: &watch::Sender<Vec<String>>) -> Told {
        Told {
            not_ready: not_ready.subscribe(),
            notices: notices.subscribe(),
            metrics: Box::new(|| "highwater_some 7\n".to_owned()),
        }
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        let reading = stream.read_to_string(&mut response);
        timeout(PATIENCE, reading).await.unwrap().unwrap();
        response
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_is_alive_and_says_why() {
        let readiness = watch::Sender::new(Some(NotReady::Opening(2)));
        let notices = watch::Sender::new(Vec::new());
        let admin = Admin::bind("127.0.0.1:0").await.unwrap().unwrap();
        let address = admin.address();
        let serving = tokio::spawn(admin.run(told(&readiness, &notices)));
        let not_ready = get(address, "/readyz").await;
        assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
        assert!(not_ready.contains("not ready: 2 of its replicas"), "{not_ready}");
        let live = get(address, "/livez").await;
        assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("live\n"), "{live}");
        readiness.send_replace(None);
        let ready = get(address, "/readyz").await;
        assert!(
            ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("ready\n"),
            "{ready}"
        );
        notices.send_replace(vec!["it rains".to_owned()]);
        let ready = get(address, "/readyz").await;
        assert!(ready.ends_with("ready\nnotice: it rains\n"), "{ready}");
        let metrics = get(address, "/metrics").await;
        assert!(
            metrics.starts_with("HTTP/1.1 200 ") && metrics.ends_with("\r\nhighwater_some 7\n"),
            "{metrics}"
        );
        let other = get(address, "/").await;
        assert!(other.starts_with("HTTP/1.1 404 "), "{other}");
        serving.abort();
    }

    #[tokio::test]
    async fn an_admin_port_in_use_is_named_and_an_empty_one_is_none() {
        let taken = Admin::bind("127.0.0.1:0").await.unwrap().unwrap();
        let address = taken.address().to_string();
        let refused = Admin::bind(&address).await.unwrap_err();
        assert!(refused.to_string().contains(&address), "{refused}");
        assert!(Admin::bind("").await.unwrap().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn connections_that_say_nothing_do_not_keep_others_out() {
        let (readiness, notices) = (watch::Sender::new(None), watch::Sender::new(Vec::new()));
        let admin = Admin::bind("127.0.0.1:0").await.unwrap().unwrap();
        let address = admin.address();
        let serving = tokio::spawn(admin.run(told(&readiness, &notices)));
        let mut silent = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        let mut response = String::new();
        let reading = stream.read_to_string(&mut response);
        timeout(2 * CONNECTION_TIME_MAX, reading).await.unwrap().unwrap();
        assert!(response.contains("live"), "{response}");
        serving.abort();
    }
}
