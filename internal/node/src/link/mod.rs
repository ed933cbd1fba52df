//! The peer link: how nodes talk to each other.
//!
//! Frames over mutual TLS on the one port (ALPN `highwater-peer/1`), carrying Raft messages, the nodes' own calls and
//! gossip. A node dials each other node at most twice, once per lane: `Control` for heartbeats, votes, small calls and
//! gossip, `Bulk` for everything with payload, so that a heartbeat never waits behind megabytes. Whoever dials asks:
//! calls and streams on a connection are started by the dialler only and answered by the acceptor, so ids need no
//! agreement. Connections are dialled when first needed, and again, with a growing pause, when needed after a failure.
//!
//! ```text
//!   call / open_stream / gossip ──► dialler (one per node and lane) ──► connection ──► outbox ──► writer task ═► TLS
//!   LinkHandler  ◄── calls, streams ◄── connection ◄── reader task ◄═════════════════════════════════════════════ TLS
//! ```
//!
//! Invariants:
//! * The name that a connection is attributed to is the one in the verified certificate; a hello that says otherwise
//!   is refused. A node dialled by name is that very node, wherever its address has led.
//! * A connection whose certificate would not be let in any more, by new authorities or revocation lists, ends.
//! * Two sides that both know their cluster id, and know different ones, do not talk. The id is told in the hello and
//!   again when it becomes known later.
//! * Everything is bounded (see [`limits`]): frames, queues, calls and streams per connection. A call that finds no
//!   room fails at once; a stream that finds no room waits, and only that stream.
//! * The reader of a connection never waits for its writer, so two nodes cannot block each other.
//! * Heartbeats of many groups to the same node share frames (`company`), and nothing but frames.
//! * An answer is given at most once. A call that was certainly not sent fails as `Unreachable`; one that may have been
//!   carried out fails as `NoAnswer`. A refusal says whether the call was begun.
//!
//! Deliberately absent: resending, and order between calls. Both are for those who call.

mod address_book;
mod company;
mod connection;
mod dialler;
mod frame;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod greeting;
mod handlers;
mod inner;
pub mod limits;
mod outbox;
mod reader;
mod refusal;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_partition::log::{ClusterId, GroupId};
use highwater_partition::{Lane, PeerError, PeerStream, Peers};
use tokio::sync::watch;
use tokio::time::Instant;

pub use address_book::AddressBook;
pub(crate) use greeting::refuse;
#[cfg(test)]
use reader::text as text_for_tests;
pub use refusal::Refusal;
pub(crate) use refusal::UNKNOWN_KIND;

use inner::{Inner, answered, call_on};

use crate::port::{Peer, ServerStream};
use crate::tls::{Credentials, Trust};

/// The group number of calls and streams to the node itself rather than to one of its replicas.
pub const NODE_LEVEL: u64 = u64::MAX;

/// Where nodes can be reached at present. Gossip and seeds feed it; it may be wrong, as certificates decide.
pub trait Directory: Send + Sync + 'static {
    /// The address of the node as `host:port`; the host is resolved anew at every dial.
    fn address(&self, node: &str) -> Option<String>;
}

/// What a node says about itself when a connection begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The node's name; equals the one in its certificate.
    pub node: String,
    /// The cluster id that the node has recorded, if any.
    pub cluster_id: Option<ClusterId>,
    /// The life of the node's data directory.
    pub incarnation: [u8; 16],
    /// The process start; grows with every start of the same node.
    pub boot: u64,
    /// What the connection is for.
    pub lane: Lane,
    /// Whether the node understands bundles of calls (see `company`).
    pub bundles: bool,
}

/// Takes what other nodes send. Called from the connections' tasks.
pub trait LinkHandler: Send + Sync + 'static {
    /// One request; the answer's parts are sent one behind the other.
    fn call(&self, from: &str, group: u64, kind: u8, body: Bytes) -> BoxFuture<'static, Result<Vec<Bytes>, Refusal>>;
    /// A stream that was opened by `from`; it lasts until the future ends and both halves of `stream` are dropped.
    fn stream(&self, from: &str, group: u64, kind: u8, stream: PeerStream) -> BoxFuture<'static, ()>;
    /// A gossip message. Must not block.
    fn gossip(&self, from: &str, message: Bytes);
    /// Whether to talk to this node at all; the reason for a refusal is told to it. Called for every connection, and
    /// again whenever the other side has learned its cluster id. Names and cluster ids have been compared before.
    fn hello(&self, from: &str, hello: &Hello) -> Result<(), String>;
    /// A node that has dialled was turned away after its certificate was found good.
    fn turned_away(&self, _peer: &Peer, _why: &str) {}
}

/// What a link is made from.
pub struct LinkOptions {
    /// Who we are: cluster name and node name are those of the certificate.
    pub credentials: Arc<Credentials>,
    /// The life of our data directory.
    pub incarnation: [u8; 16],
    /// This process start.
    pub boot: u64,
    /// Our cluster id, if it is recorded already; otherwise see [`Link::set_cluster_id`].
    pub cluster_id: Option<ClusterId>,
    /// Where other nodes are.
    pub directory: Arc<dyn Directory>,
    /// Who takes what others send.
    pub handler: Arc<dyn LinkHandler>,
}

/// Our end of all connections with other nodes; cheap to clone.
#[derive(Clone)]
pub struct Link {
    inner: Arc<Inner>,
}

impl Link {
    /// A link without connections; they are made when needed, and when others dial.
    pub fn new(options: LinkOptions) -> Link {
        Link {
            inner: Arc::new(Inner::new(options)),
        }
    }

    /// Our cluster id, once known.
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.inner.cluster_id()
    }

    /// Makes our cluster id known, to us and to all connected nodes; those that belong to another cluster are cut off.
    /// Setting the same one again changes nothing; setting another one is refused with the id that is in force.
    pub fn set_cluster_id(&self, cluster_id: ClusterId) -> Result<(), ClusterId> {
        let in_force = self.inner.settle_cluster_id(cluster_id);
        if in_force != cluster_id {
            return Err(in_force);
        }
        for connection in self.inner.all_connections() {
            self.inner.tell_cluster_id(&connection);
        }
        Ok(())
    }

    /// A call to the node itself (not to one of its replicas), on the control lane.
    pub async fn call_node(
        &self,
        node: &str,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let dialler = self.inner.dialler(node, Lane::Control)?;
        self.inner.call(&dialler, node, (NODE_LEVEL, kind), body, timeout).await
    }

    /// The same on the bulk lane, for what may be large. It is sent by `send_by` or not at all, however long dialling takes.
    pub async fn call_node_in_bulk(
        &self,
        node: &str,
        kind: u8,
        body: Vec<Bytes>,
        send_by: Instant,
        deadline: Instant,
    ) -> Result<Bytes, PeerError> {
        let dialler = self.inner.dialler(node, Lane::Bulk)?;
        let connection = self.inner.connection(&dialler, node, send_by.min(deadline)).await?;
        call_on(&connection, (NODE_LEVEL, kind), body, deadline).await
    }

    /// A node-level call to whichever node of our cluster answers at `address` (`host:port`). Gives its name and its
    /// answer. With `expected`, any other node is refused before anything is sent to it.
    pub async fn call_address(
        &self,
        address: &str,
        expected: Option<&str>,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<(String, Bytes), PeerError> {
        let dialler = self.inner.dialler_to_address(address)?;
        let deadline = Instant::now() + timeout;
        let connection = self.inner.connection(&dialler, address, deadline).await?;
        if let Some(expected) = expected.filter(|expected| *expected != connection.peer()) {
            let why = format!("node {} answers at {address}", connection.peer());
            return Err(PeerError::Unreachable {
                node: expected.to_owned(),
                why,
            });
        }
        let node = connection.peer().to_owned();
        let answer = call_on(&connection, (NODE_LEVEL, kind), body, deadline).await?;
        Ok((node, answer))
    }

    /// Sends a gossip message to a node by name. Never waits: without a connection one is begun, and without room the
    /// message is dropped.
    pub fn send_gossip(&self, node: &str, message: Bytes) {
        if let Ok(dialler) = self.inner.dialler(node, Lane::Control) {
            self.inner.send_gossip(&dialler, message);
        }
    }

    /// The same to whichever node of our cluster answers at `to`.
    pub fn send_gossip_to_address(&self, to: SocketAddr, message: Bytes) {
        if let Ok(dialler) = self.inner.dialler_to_address(&to.to_string()) {
            self.inner.send_gossip(&dialler, message);
        }
    }

    /// The node has shown signs of life: the next call dials at once instead of sitting out a pause.
    pub fn peer_seen(&self, node: &str) {
        self.inner.peer_seen(node);
    }

    /// Whether a connection with the node is up at the moment. One with a node that has fallen silent ends within
    /// seconds.
    pub fn is_connected(&self, node: &str) -> bool {
        self.inner.is_connected(node)
    }

    /// The nodes that a connection is up with at the moment, each with its process start.
    pub fn connected(&self) -> BTreeMap<String, u64> {
        self.inner.connected()
    }

    /// How many connections with other nodes are up, those that they have dialled among them.
    pub fn open_connections(&self) -> usize {
        self.inner.open_connections()
    }

    /// Counts up whenever a connection begins or ends.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Serves a connection that another node has dialled; returns when it has ended, which it does when its certificate is
    /// no longer good.
    pub(crate) async fn accept(&self, stream: ServerStream, peer: Arc<Peer>, trust: Trust) {
        greeting::accept(&self.inner, stream, &peer, trust).await;
    }

    /// Closes all connections and makes no more.
    pub fn shutdown(&self) {
        self.inner.closed.cancel();
    }

    /// After [`Link::shutdown`]: waits until whatever peers had asked for before is done. It has no deadline of its own.
    pub async fn quiet(&self) {
        self.inner.handlers.idle().await;
    }
}

impl Peers for Link {
    fn call(
        &self,
        node: &str,
        group: GroupId,
        lane: Lane,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (inner, node) = (self.inner.clone(), node.to_owned());
        Box::pin(async move {
            let dialler = inner.dialler(&node, lane)?;
            inner.call(&dialler, &node, (group.0, kind), body, timeout).await
        })
    }

    fn heartbeat(
        &self,
        node: &str,
        group: GroupId,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        let (inner, node) = (self.inner.clone(), node.to_owned());
        Box::pin(async move {
            let dialler = inner.dialler(&node, Lane::Control)?;
            let deadline = Instant::now() + timeout;
            let connection = inner.connection(&dialler, &node, deadline).await?;
            let call = connection.call_in_company(group.0, kind, body);
            answered(&connection, call, deadline).await
        })
    }

    fn open_stream(
        &self,
        node: &str,
        group: GroupId,
        lane: Lane,
        kind: u8,
    ) -> BoxFuture<'static, Result<PeerStream, PeerError>> {
        let (inner, node) = (self.inner.clone(), node.to_owned());
        Box::pin(async move {
            let unreachable = |why| PeerError::Unreachable {
                node: node.clone(),
                why,
            };
            let connection = inner
                .dialler(&node, lane)?
                .connection(&inner)
                .await
                .map_err(unreachable)?;
            connection.open_stream(group.0, kind).map_err(unreachable)
        })
    }
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for Link {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Link")
            .field("node", &self.inner.credentials.node_name())
            .finish_non_exhaustive()
    }
}
