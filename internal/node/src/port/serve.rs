//! The accept loop, and what happens to one connection until it is handed over.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::complaints::{Complaint, PortCounters};
use super::overhead::{Budgets, Watch};
use super::places::Places;
use super::shares::{Share, Shares, source_of};
use super::{
    CONNECTION_IN_FLIGHT_BYTES_MAX, Connection, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, Peer,
    PortOptions, ServerStream, plain,
};
use crate::identity::Identity;
use crate::quotas::{ConnectionShare, Quotas};
use crate::tls::{ALPN_GRPC, ALPN_PEER, Credentials, Side, Trust, explain};

/// How long to leave the listener alone after the system refused a connection for want of something (descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The first byte of every TLS connection: a handshake record.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

struct Server {
    options: PortOptions,
    counters: Arc<PortCounters>,
    places: Places,
    budgets: Budgets,
}

pub(super) async fn run(
    listener: TcpListener,
    options: PortOptions,
    counters: Arc<PortCounters>,
    shutdown: impl Future<Output = ()>,
) {
    let server = Arc::new(Server {
        options,
        counters,
        places: Places::default(),
        budgets: Budgets::default(),
    });
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let sources = Shares::new(HANDSHAKES_PER_ADDRESS_MAX);
    let mut tasks = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return, // dropping the tasks ends unfinished handshakes
            accepted = accept(&listener, &handshakes) => match accepted {
                Ok((tcp, remote, permit)) => match sources.take(source_of(remote.ip())) {
                    Some(place) => drop(tasks.spawn(handle(server.clone(), tcp, remote, (permit, place)))),
                    None => server.turn_away(remote),
                },
                Err(error) => pause_after(error).await,
            },
        }
        while tasks.try_join_next().is_some() {}
    }
}

async fn accept(
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = handshakes.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (tcp, remote) = listener.accept().await?;
    Ok((tcp, remote, permit))
}

/// Errors of a single connection are passed over; want of descriptors or memory needs time to go away.
async fn pause_after(error: io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    ) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections at the moment");
    sleep(ACCEPT_PAUSE).await;
}

async fn handle(server: Arc<Server>, tcp: TcpStream, remote: SocketAddr, place: (OwnedSemaphorePermit, Share<IpAddr>)) {
    server.counters.count_accepted();
    match timeout(HANDSHAKE_TIMEOUT, server.handshake(tcp, remote)).await {
        Ok(Some((stream, peer, trust))) => server.hand_over(stream, peer, trust).await,
        Ok(None) => {}
        Err(_) => server
            .counters
            .complain(Complaint::TimedOut, remote, "the handshake took too long"),
    }
    drop(place);
}

impl Server {
    /// Closes a connection that has no place to shake hands.
    fn turn_away(&self, remote: SocketAddr) {
        self.counters.count_accepted();
        let why = format!("{HANDSHAKES_PER_ADDRESS_MAX} handshakes with its address are going on already");
        self.refuse(Complaint::Crowded, remote, None, why);
    }

    /// Complains of a connection that was refused for what it is, and tells the audit. `who`: as far as it has proven that.
    fn refuse(&self, complaint: Complaint, remote: SocketAddr, who: Option<&Identity>, why: String) {
        self.counters.complain(complaint, remote, &why);
        let who = who.map(ToString::to_string);
        self.options.audit.unauthenticated(remote, who, "connect", why);
    }

    async fn handshake(&self, mut tcp: TcpStream, remote: SocketAddr) -> Option<(ServerStream, Arc<Peer>, Trust)> {
        let _ = tcp.set_nodelay(true);
        let mut first = [0];
        match tcp.peek(&mut first).await {
            Ok(1) if first[0] == TLS_HANDSHAKE => {}
            Ok(1) => {
                self.counters.complain(
                    Complaint::NotTls,
                    remote,
                    format!("not TLS: first byte {:#04x}", first[0]),
                );
                if first[0].is_ascii_uppercase() {
                    plain::answer(&mut tcp, plain::SPEAKS_TLS).await;
                }
                return None;
            }
            _ => return None, // closed without a word: a probe
        }
        let credentials = &self.options.credentials;
        let generation = credentials.generation();
        let acceptor = TlsAcceptor::from(credentials.server_config());
        match acceptor
            .accept(tcp)
            .await
            .and_then(|stream| with_peer((credentials, &self.options.quotas), stream, remote))
        {
            Ok((stream, peer)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let trust = credentials.hold(generation, chain, Side::Theirs, remote);
                Some((stream, peer, trust))
            }
            Err(error) => {
                self.refuse(Complaint::Failed, remote, None, explain(&error));
                None
            }
        }
    }

    async fn hand_over(&self, stream: ServerStream, peer: Arc<Peer>, trust: Trust) {
        let protocol = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        match protocol.as_deref() {
            Some(ALPN_GRPC) => self.hand_to(&self.options.grpc, stream, peer, trust, true),
            Some(ALPN_PEER) => self.hand_to_link(stream, peer, trust).await,
            _ => self.hand_to(&self.options.http, stream, peer, trust, false),
        }
    }

    /// Never waits: a server that is busy, or not up yet, must not hold up the handshakes of other nodes.
    fn hand_to(
        &self,
        server: &mpsc::Sender<io::Result<Connection>>,
        stream: ServerStream,
        peer: Arc<Peer>,
        trust: Trust,
        has_frames: bool,
    ) {
        let (remote_addr, identity) = (peer.remote_addr, peer.identity.clone());
        let crowd = match has_frames {
            true => &self.counters.grpc,
            false => &self.counters.http,
        };
        let place = match self.places.take(&peer, crowd) {
            Ok(place) => place,
            Err(why) => return self.refuse(Complaint::Refused, remote_addr, Some(&peer.identity), why),
        };
        let watch = has_frames.then(|| self.watch(&peer));
        let connection = Connection::new(stream, peer, trust, watch, place);
        if server.try_send(Ok(connection)).is_err() {
            let why = "its server takes no connections at present".to_owned();
            self.refuse(Complaint::Refused, remote_addr, Some(&identity), why);
        }
    }

    fn watch(&self, peer: &Peer) -> Watch {
        let budget = self.budgets.of(peer);
        Watch::new(budget, self.counters.clone(), peer.remote_addr)
    }

    /// The link keeps the connection for its whole life, in a task of its own.
    async fn hand_to_link(&self, stream: ServerStream, peer: Arc<Peer>, trust: Trust) {
        if peer.identity.node_name().is_none() {
            let why = format!("{} is not a node", peer.identity);
            self.refuse(Complaint::Refused, peer.remote_addr, Some(&peer.identity), why.clone());
            return crate::link::refuse(stream, &why).await;
        }
        let link = self.options.link.clone();
        tokio::spawn(async move { link.accept(stream, peer, trust).await });
    }
}

fn with_peer(
    (credentials, quotas): (&Credentials, &Quotas),
    stream: ServerStream,
    remote_addr: SocketAddr,
) -> io::Result<(ServerStream, Arc<Peer>)> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates
        .first()
        .ok_or_else(|| io::Error::other("no certificate was presented"))?;
    let identity = credentials.identity_of(certificate).map_err(io::Error::other)?;
    let peer = Peer {
        share: ConnectionShare::new(quotas.payers(&identity)),
        identity,
        remote_addr,
        in_flight: Arc::new(Semaphore::new(CONNECTION_IN_FLIGHT_BYTES_MAX)),
    };
    Ok((stream, Arc::new(peer)))
}
