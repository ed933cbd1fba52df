//! What the link's tasks share: who we are, whom we dial, and which connections are up.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_partition::log::ClusterId;
use highwater_partition::{Lane, PeerError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::connection::{CallError, Connection, Role, lock};
use super::dialler::{Attempt, Dialler, Target};
use super::frame::{Frame, FrameType};
use super::handlers::Handlers;
use super::limits::NODES_MAX;
use super::{Directory, Hello, LinkHandler, LinkOptions, hexadecimal};
use crate::tls::{Credentials, Trust};

/// What the link's tasks share.
pub(super) struct Inner {
    pub(super) credentials: Arc<Credentials>,
    pub(super) incarnation: [u8; 16],
    pub(super) boot: u64,
    cluster_id: OnceLock<ClusterId>,
    pub(super) directory: Arc<dyn Directory>,
    pub(super) handler: Arc<dyn LinkHandler>,
    /// By node name: the control lane's and the bulk lane's.
    by_node: Mutex<HashMap<String, [Arc<Dialler>; 2]>>,
    /// By address as it was given; control lane.
    by_address: Mutex<HashMap<String, Arc<Dialler>>>,
    connections: Mutex<Connections>,
    /// Counts up whenever a connection begins or ends.
    pub(super) changes: watch::Sender<u64>,
    pub(super) closed: CancellationToken,
    /// What peers have asked for.
    pub(super) handlers: Handlers,
}

/// All connections that are up, of both roles.
#[derive(Default)]
struct Connections {
    last_serial: u64,
    by_serial: HashMap<u64, Arc<Connection>>,
}

impl Inner {
    pub(super) fn new(options: LinkOptions) -> Inner {
        let LinkOptions {
            credentials,
            incarnation,
            boot,
            cluster_id,
            directory,
            handler,
        } = options;
        Inner {
            credentials,
            incarnation,
            boot,
            cluster_id: cluster_id.map_or_else(OnceLock::new, OnceLock::from),
            directory,
            handler,
            by_node: Mutex::default(),
            by_address: Mutex::default(),
            connections: Mutex::default(),
            changes: watch::Sender::new(0),
            closed: CancellationToken::new(),
            handlers: Handlers::default(),
        }
    }

    /// Settles our cluster id; the one in force is answered.
    pub(super) fn settle_cluster_id(&self, cluster_id: ClusterId) -> ClusterId {
        *self.cluster_id.get_or_init(|| cluster_id)
    }

    pub(super) fn cluster_id(&self) -> Option<ClusterId> {
        self.cluster_id.get().copied()
    }

    pub(super) fn own_hello(&self, lane: Lane) -> Hello {
        Hello {
            node: self.credentials.node_name().to_owned(),
            cluster_id: self.cluster_id(),
            incarnation: self.incarnation,
            boot: self.boot,
            lane,
            bundles: true,
        }
    }

    pub(super) fn dialler(&self, node: &str, lane: Lane) -> Result<Arc<Dialler>, PeerError> {
        let lane_index = usize::from(lane == Lane::Bulk);
        let mut by_node = lock(&self.by_node);
        if let Some(diallers) = by_node.get(node) {
            return Ok(diallers[lane_index].clone());
        }
        if by_node.len() >= NODES_MAX {
            by_node.retain(|_, diallers| diallers.iter().any(|dialler| dialler.is_in_use()));
        }
        if by_node.len() >= NODES_MAX {
            return Err(too_many(node));
        }
        let target = Target::Node(node.to_owned());
        let diallers = [Lane::Control, Lane::Bulk].map(|lane| Dialler::new(target.clone(), lane));
        let dialler = diallers[lane_index].clone();
        by_node.insert(node.to_owned(), diallers);
        Ok(dialler)
    }

    pub(super) fn dialler_to_address(&self, address: &str) -> Result<Arc<Dialler>, PeerError> {
        let mut by_address = lock(&self.by_address);
        if let Some(dialler) = by_address.get(address) {
            return Ok(dialler.clone());
        }
        if by_address.len() >= NODES_MAX {
            by_address.retain(|_, dialler| dialler.is_in_use());
        }
        if by_address.len() >= NODES_MAX {
            return Err(too_many(address));
        }
        let dialler = Dialler::new(Target::Address(address.to_owned()), Lane::Control);
        by_address.insert(address.to_owned(), dialler.clone());
        Ok(dialler)
    }

    /// Ends the pauses of the diallers to `node`.
    pub(super) fn peer_seen(&self, node: &str) {
        if let Some(diallers) = lock(&self.by_node).get(node) {
            diallers.iter().for_each(|dialler| dialler.end_pause());
        }
    }

    /// The dialler's connection, dialling until `deadline` if need be.
    pub(super) async fn connection(
        self: &Arc<Self>,
        dialler: &Arc<Dialler>,
        node: &str,
        deadline: Instant,
    ) -> Result<Arc<Connection>, PeerError> {
        let unreachable = |why| PeerError::Unreachable {
            node: node.to_owned(),
            why,
        };
        match timeout_at(deadline, dialler.connection(self)).await {
            Ok(connection) => connection.map_err(unreachable),
            Err(_) => Err(unreachable("dialling takes too long".to_owned())),
        }
    }

    pub(super) async fn call(
        self: &Arc<Self>,
        dialler: &Arc<Dialler>,
        node: &str,
        to: (u64, u8),
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Bytes, PeerError> {
        let deadline = Instant::now() + timeout;
        let connection = self.connection(dialler, node, deadline).await?;
        call_on(&connection, to, body, deadline).await
    }

    pub(super) fn send_gossip(self: &Arc<Self>, dialler: &Arc<Dialler>, message: Bytes) {
        let frame = Frame::plain(FrameType::Gossip, vec![message]);
        match dialler.attempt(self) {
            Attempt::Up(connection) => drop(connection.try_send(frame)),
            Attempt::Dialling { dial, begun: true } => {
                tokio::spawn(async move { dial.await.map(|connection| connection.try_send(frame)) });
            }
            Attempt::Dialling { begun: false, .. } | Attempt::Pausing(_) => {}
        }
    }

    /// Starts the tasks of a connection after the hello. `said` is what we said in it.
    pub(super) fn start<S>(
        self: &Arc<Self>,
        role: Role,
        hello: Hello,
        said: &Hello,
        stream: S,
        trust: Option<Trust>,
    ) -> Arc<Connection>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (connection, serving) = self.clone().register(role, hello, said, stream, trust);
        tokio::spawn(serving);
        connection
    }

    /// The same, to the end of the connection.
    pub(super) async fn serve<S>(
        self: &Arc<Self>,
        role: Role,
        hello: Hello,
        said: &Hello,
        stream: S,
        trust: Option<Trust>,
    ) where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.clone().register(role, hello, said, stream, trust).1.await;
    }

    fn register<S>(
        self: Arc<Self>,
        role: Role,
        hello: Hello,
        said: &Hello,
        stream: S,
        trust: Option<Trust>,
    ) -> (Arc<Connection>, BoxFuture<'static, ()>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (connection, queues) = Connection::new(role, hello, self.closed.child_token());
        let serial = lock(&self.connections).add(connection.clone());
        self.changes.send_modify(|count| *count += 1);
        if said.cluster_id != self.cluster_id() {
            self.tell_cluster_id(&connection); // it became known while we said hello
        }
        let registered = Registered {
            inner: self,
            connection: connection.clone(),
            serial,
        };
        let serving = Box::pin(async move {
            let served = &registered.connection;
            tracing::debug!(node = served.peer(), ?role, lane = ?served.lane(), "connected");
            let why = tokio::select! {
                biased;
                why = served.run(stream, queues, &registered.inner) => why,
                never = end_untrusted(served, trust) => match never {},
            };
            tracing::debug!(node = served.peer(), ?role, lane = ?served.lane(), why, "disconnected");
        });
        (connection, serving)
    }

    pub(super) fn all_connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.connections).by_serial.values().cloned().collect()
    }

    pub(super) fn open_connections(&self) -> usize {
        lock(&self.connections).by_serial.len()
    }

    /// Whether any connection with `node` is up.
    pub(super) fn is_connected(&self, node: &str) -> bool {
        let connections = lock(&self.connections);
        let is_up = |connection: &Arc<Connection>| connection.peer() == node && !connection.is_closed();
        connections.by_serial.values().any(is_up)
    }

    /// The nodes that a connection is up with, each with its latest process start.
    pub(super) fn connected(&self) -> BTreeMap<String, u64> {
        let mut nodes = BTreeMap::new();
        let connections = lock(&self.connections);
        for connection in connections
            .by_serial
            .values()
            .filter(|connection| !connection.is_closed())
        {
            let boot = nodes.entry(connection.peer().to_owned()).or_insert(0);
            *boot = connection.peer_boot().max(*boot);
        }
        nodes
    }

    /// Connections that `node` has dialled.
    pub(super) fn accepted_from(&self, node: &str) -> usize {
        let connections = lock(&self.connections);
        let accepted = |connection: &&Arc<Connection>| connection.role == Role::Acceptor && connection.peer() == node;
        connections.by_serial.values().filter(accepted).count()
    }

    pub(super) fn tell_cluster_id(&self, connection: &Connection) {
        let hello = self.own_hello(connection.lane());
        match (connection.peer_cluster_id(), hello.cluster_id) {
            (Some(theirs), Some(ours)) if theirs != ours => {
                connection.refuse(other_cluster(connection.peer(), theirs, &hello.node, ours))
            }
            _ => connection.send_urgent(Frame::hello(&hello)),
        }
    }
}

/// A connection in the list of those that are up. However its task ends, even by a panic of a handler, the connection
/// is closed then, so that nobody waits on it in vain, and leaves the list.
struct Registered {
    inner: Arc<Inner>,
    connection: Arc<Connection>,
    serial: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connection.close("its task ended unexpectedly".to_owned());
        lock(&self.inner.connections).by_serial.remove(&self.serial);
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

/// Ends the connection when its certificate is no longer good; never returns.
async fn end_untrusted(connection: &Connection, trust: Option<Trust>) -> Infallible {
    if let Some(trust) = trust {
        trust.lost().cancelled().await;
        connection.refuse("the certificate of the other side is no longer good".to_owned());
    }
    std::future::pending().await
}

impl Connections {
    fn add(&mut self, connection: Arc<Connection>) -> u64 {
        self.last_serial += 1;
        self.by_serial.insert(self.last_serial, connection);
        self.last_serial
    }
}

/// A call on a connection that is up, in the terms of [`Peers`].
pub(super) async fn call_on(
    connection: &Connection,
    (group, kind): (u64, u8),
    body: Vec<Bytes>,
    deadline: Instant,
) -> Result<Bytes, PeerError> {
    answered(connection, connection.call(group, kind, body), deadline).await
}

/// The outcome of a call, in the terms of [`Peers`], no later than at the deadline.
pub(super) async fn answered(
    connection: &Connection,
    call: impl Future<Output = Result<Bytes, CallError>>,
    deadline: Instant,
) -> Result<Bytes, PeerError> {
    let node = || connection.peer().to_owned();
    match timeout_at(deadline, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(CallError::NotSent(why))) => Err(PeerError::Unreachable { node: node(), why }),
        Ok(Err(CallError::NoAnswer(why))) => Err(PeerError::NoAnswer { node: node(), why }),
        Ok(Err(CallError::Refused(refusal))) => Err(PeerError::Refused {
            node: node(),
            why: refusal.why().to_owned(),
            begun: refusal.begun(),
        }),
        Err(_) => Err(PeerError::NoAnswer {
            node: node(),
            why: "the time for an answer is over".to_owned(),
        }),
    }
}

fn too_many(node: &str) -> PeerError {
    PeerError::Unreachable {
        node: node.to_owned(),
        why: format!("more than {NODES_MAX} nodes are dialled"),
    }
}

pub(super) fn other_cluster(node: &str, its_id: ClusterId, own: &str, own_id: ClusterId) -> String {
    let (its_id, own_id) = (hexadecimal(&its_id.0), hexadecimal(&own_id.0));
    format!("the clusters differ: node {node} belongs to {its_id}, node {own} to {own_id}")
}
