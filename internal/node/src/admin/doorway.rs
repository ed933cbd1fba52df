//! How connections to the admin listener come in: few at a time, not for ever, and with TLS where the address is not a loopback one.
//!
//! Elsewhere than on loopback the first byte decides. A TLS handshake must prove an identity of the cluster; anything else is taken for
//! plain HTTP of somebody unknown. Handshakes go on beside each other, so a slow one holds up nobody.
//!
//! Elsewhere anybody may come, and a kubelet that gets no answer ends the node. So whoever has proven nothing has little time, few connections
//! from one address, and never all that there are: a connection beyond that is closed at once and does not wait in front of others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::caller::{Caller, Lease, Who};
use crate::access::Principal;
use crate::port::{Crowd, ServerStream, Share, Shares, TLS_HANDSHAKE, Ticket, source_of};
use crate::tls::{ALPN_HTTP, Credentials, Side, Trust, explain};

/// Connections at the same time. On loopback further ones wait.
pub(super) const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last, unless an answer goes on for longer.
pub(super) const CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Of them, those of which it is not known who comes, or a stranger.
pub(super) const UNPROVEN_MAX: usize = 48;
/// The same from one address.
pub(super) const UNPROVEN_PER_ADDRESS_MAX: usize = 8;
/// How long a stranger's connection may last: one question, one answer.
pub(super) const STRANGER_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take until it is known who comes.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait after a connection could not be taken.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener that takes so many connections at a time.
pub(crate) struct Doorway {
    door: Door,
    entering: JoinSet<Option<(Guest, SocketAddr)>>,
    guests: Arc<Crowd>,
}

struct Door {
    listener: TcpListener,
    /// None: it is on loopback.
    credentials: Option<Arc<Credentials>>,
    room: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    sources: Shares<IpAddr>,
}

/// What a connection takes up.
struct Place {
    _room: OwnedSemaphorePermit,
    /// As long as nothing is proven.
    unproven: Option<(OwnedSemaphorePermit, Share<IpAddr>)>,
}

impl Doorway {
    /// `guests`: those who are let in.
    pub(super) fn new(listener: TcpListener, credentials: Option<Arc<Credentials>>, guests: Arc<Crowd>) -> Doorway {
        Doorway {
            door: Door {
                listener,
                credentials,
                room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
                unproven: Arc::new(Semaphore::new(UNPROVEN_MAX)),
                sources: Shares::new(UNPROVEN_PER_ADDRESS_MAX),
            },
            entering: JoinSet::new(),
            guests,
        }
    }
}

impl Door {
    /// The next connection, if there is a place for it.
    async fn take(&self) -> io::Result<(TcpStream, SocketAddr, Option<Place>)> {
        if self.credentials.is_none() {
            let room = self.room.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, remote) = self.listener.accept().await?;
            let place = Place {
                _room: room,
                unproven: None,
            };
            return Ok((stream, remote, Some(place)));
        }
        let (stream, remote) = self.listener.accept().await?;
        Ok((stream, remote, self.place_for(remote)))
    }

    fn place_for(&self, remote: SocketAddr) -> Option<Place> {
        let share = self.sources.take(source_of(remote.ip()))?;
        let unproven = self.unproven.clone().try_acquire_owned().ok()?;
        Some(Place {
            _room: self.room.clone().try_acquire_owned().ok()?,
            unproven: Some((unproven, share)),
        })
    }
}

impl Listener for Doorway {
    type Io = Guest;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Guest, SocketAddr) {
        loop {
            tokio::select! {
                Some(entered) = self.entering.join_next() => if let Ok(Some((mut guest, remote))) = entered {
                    guest.ticket = Some(self.guests.enter());
                    return (guest, remote);
                },
                taken = self.door.take() => match taken {
                    Ok((stream, remote, Some(place))) => {
                        self.entering.spawn(enter(self.door.credentials.clone(), stream, remote, place));
                    }
                    Ok((_, remote, None)) => tracing::debug!(%remote, "too many connections to the admin listener that have proven nothing"),
                    Err(error) => {
                        tracing::debug!(%error, "a connection to the admin listener was not taken");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.door.listener.local_addr()
    }
}

async fn enter(
    credentials: Option<Arc<Credentials>>,
    stream: TcpStream,
    remote: SocketAddr,
    mut place: Place,
) -> Option<(Guest, SocketAddr)> {
    let Some(credentials) = credentials else {
        return Some((Guest::new(Stream::Plain(stream), Who::Local, place), remote));
    };
    let known = timeout(HANDSHAKE_TIMEOUT, prove(&credentials, stream, remote)).await;
    match known {
        Ok(Ok((stream, who))) => {
            if who != Who::Stranger {
                place.unproven = None;
            }
            Some((Guest::new(stream, who, place), remote))
        }
        Ok(Err(error)) => {
            tracing::debug!(%remote, why = explain(&error), "a connection to the admin listener was refused");
            None
        }
        Err(_) => None,
    }
}

/// Finds out who comes.
async fn prove(credentials: &Arc<Credentials>, stream: TcpStream, remote: SocketAddr) -> io::Result<(Stream, Who)> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != TLS_HANDSHAKE {
        return Ok((Stream::Plain(stream), Who::Stranger));
    }
    let generation = credentials.generation();
    let mut config = ServerConfig::clone(&credentials.server_config());
    config.alpn_protocols = vec![ALPN_HTTP.to_vec()];
    let stream = TlsAcceptor::from(Arc::new(config)).accept(stream).await?;
    let chain = stream.get_ref().1.peer_certificates();
    let certificate = chain
        .and_then(<[_]>::first)
        .ok_or_else(|| io::Error::other("no certificate was presented"))?;
    let identity = credentials.identity_of(certificate).map_err(io::Error::other)?;
    let trust = credentials.hold(generation, chain, Side::Theirs, remote);
    let who = Who::Proven(Principal::calling(&identity, remote));
    Ok((Stream::Tls(Box::new(stream), trust), who))
}

enum Stream {
    Plain(TcpStream),
    /// Ends as soon as the certificate is not trusted any more.
    Tls(Box<ServerStream>, Trust),
}

/// A connection that ends in time.
pub(crate) struct Guest {
    stream: Stream,
    caller: Caller,
    lease: Lease,
    end: Pin<Box<Sleep>>,
    /// Ready when its certificate is not good any more.
    cut: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// From the moment on when it is let in.
    ticket: Option<Ticket>,
    _place: Place,
}

impl Guest {
    fn new(stream: Stream, who: Who, place: Place) -> Guest {
        let time = match who {
            Who::Stranger => STRANGER_TIME_MAX,
            Who::Local | Who::Proven(_) => CONNECTION_TIME_MAX,
        };
        let lease = Lease::until(Instant::now() + time);
        let cut = match &stream {
            Stream::Plain(_) => None,
            Stream::Tls(_, trust) => Some(Box::pin(trust.lost().clone().cancelled_owned())),
        };
        Guest {
            cut,
            stream,
            caller: Caller::new(who, lease.clone()),
            end: Box::pin(sleep_until(lease.end())),
            lease,
            ticket: None,
            _place: place,
        }
    }

    pub(super) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Ready when its time is over, or its certificate is not good any more.
    fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if let Some(cut) = &mut self.cut
            && cut.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
        }
        loop {
            ready!(self.end.as_mut().poll(context));
            let end = self.lease.end();
            if end <= Instant::now() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            self.end.as_mut().reset(end);
        }
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream, _) => Pin::new(stream).poll_read(context, buffer),
        };
        match read {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => self.poll_over(context).map(Err),
        }
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream, _) => Pin::new(stream).poll_write(context, bytes),
        };
        match written {
            Poll::Ready(written) => Poll::Ready(written),
            Poll::Pending => self.poll_over(context).map(Err),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream, _) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
