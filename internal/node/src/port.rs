//! The one port: TCP, then TLS with proof of identity from both sides, then what the client asked for by ALPN.
//!
//! ```text
//!   accept ─► first byte? ─► TLS handshake ─► identity ─┬─ h2 ───────────────► Incoming (gRPC server)
//!                  │ not TLS: 400 or close              ├─ highwater-peer/1 ─► Link, nodes only
//!                  ▼                                    └─ http/1.1 or none ─► Incoming (JSON gateway)
//! ```
//!
//! Invariants: whoever gets past this file has a certificate of our authorities with an identity of our cluster, read
//! once per connection. Nothing that a stranger sends can stop the accept loop or hold more than a bounded share:
//! handshakes run beside the loop, limited in time and in number, also per address, and connections are limited in number,
//! also per address and per identity. A connection whose certificate is no longer good ends as if it were broken off, and a client that
//! makes us read much beyond its calls is read slowly (`overhead.rs`).

mod complaints;
mod connection;
mod crowd;
mod frames;
mod overhead;
mod places;
mod plain;
mod serve;
mod shares;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::audit::Audit;
use crate::identity::Identity;
use crate::link::Link;
use crate::quotas::{ConnectionShare, Quotas};
use crate::tls::Credentials;

pub use complaints::PortCounters;
pub use connection::Connection;
pub(crate) use crowd::{Crowd, Ticket};
pub(crate) use serve::TLS_HANDSHAKE;
pub(crate) use shares::{Share, Shares, source_of};

/// The server's side of a TLS connection.
pub type ServerStream = tokio_rustls::server::TlsStream<TcpStream>;
/// Connections handed over: of gRPC, for `Server::serve_with_incoming`, or of the gateway.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// Connections that wait for their server to take them, for each of the two; further ones are closed.
const INCOMING_MAX: usize = 128;
/// Connections of clients open at the same time, gRPC and HTTP; further ones are closed after the handshake.
pub const CONNECTIONS_MAX: usize = 8192;
/// Of these, at most so many from one address (or one /64 network).
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = CONNECTIONS_MAX / 2;
/// And at most so many of one identity.
pub const CONNECTIONS_PER_IDENTITY_MAX: usize = CONNECTIONS_MAX / 16;
/// Bytes of batches that may wait for their answer on one connection; it is read no further then.
pub const CONNECTION_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Handshakes going on at the same time; further connections wait in the backlog.
pub const HANDSHAKES_MAX: usize = 256;
/// Of these, at most so many with one address (or one /64 network): further connections from there are closed, so that one
/// machine cannot keep all others out. Clients behind one address try again and get in as handshakes end.
pub const HANDSHAKES_PER_ADDRESS_MAX: usize = HANDSHAKES_MAX / 4;
/// How long a connection may take until its handshake is done.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that the operating system keeps for us until we accept them.
const BACKLOG: u32 = 1024;

/// Who is at the other end of a connection; found in the extensions of every gRPC request as `Arc<Peer>`.
#[derive(Debug)]
pub struct Peer {
    /// The identity in the verified certificate.
    pub identity: Identity,
    /// Where the connection comes from; only for logs.
    pub remote_addr: SocketAddr,
    /// Whether it is one of the connections that its client may have.
    pub(crate) share: ConnectionShare,
    /// Bytes of batches that may wait for their answer on it.
    pub(crate) in_flight: Arc<Semaphore>,
}

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Another process, or this one, listens there.
    #[error("{address} is in use by another process; stop it or choose another address")]
    InUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The operating system refuses.
    #[error("cannot listen on {address}: {source}")]
    Refused {
        /// The address asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A bound port; served by [`Port::run`].
#[derive(Debug)]
pub struct Port {
    listener: TcpListener,
    local_addr: SocketAddr,
    counters: Arc<PortCounters>,
}

/// What the port hands connections to.
#[derive(Debug)]
pub struct PortOptions {
    /// Our certificates, and whom to trust.
    pub credentials: Arc<Credentials>,
    /// Takes the connections of other nodes.
    pub link: Link,
    /// Who may have how many connections.
    pub(crate) quotas: Arc<Quotas>,
    /// Takes gRPC connections; from [`connections`].
    pub grpc: mpsc::Sender<io::Result<Connection>>,
    /// Takes HTTP connections; the same.
    pub http: mpsc::Sender<io::Result<Connection>>,
    /// Is told who was refused.
    pub(crate) audit: Audit,
}

/// The way of connections from the port to a server, bounded.
pub fn connections() -> (mpsc::Sender<io::Result<Connection>>, Incoming) {
    let (sender, receiver) = mpsc::channel(INCOMING_MAX);
    (sender, ReceiverStream::new(receiver))
}

impl Port {
    /// Takes the address. Port 0 takes any free port, see [`Port::local_addr`].
    pub async fn bind(address: SocketAddr) -> Result<Port, PortError> {
        let listener = listen(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => PortError::InUse { address },
            _ => PortError::Refused { address, source },
        })?;
        let local_addr = listener
            .local_addr()
            .map_err(|source| PortError::Refused { address, source })?;
        Ok(Port {
            listener,
            local_addr,
            counters: Arc::default(),
        })
    }

    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// What has happened at the port so far.
    pub fn counters(&self) -> Arc<PortCounters> {
        self.counters.clone()
    }

    /// Serves until `shutdown` is ready, then stops accepting and drops unfinished handshakes. Connections handed over
    /// before are not touched: ending them is for the servers and for [`Link::shutdown`].
    pub async fn run(self, options: PortOptions, shutdown: impl Future<Output = ()>) {
        serve::run(self.listener, options, self.counters, shutdown).await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?; // a restarted node takes its port back at once
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
