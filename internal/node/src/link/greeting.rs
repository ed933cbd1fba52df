//! The beginning of a connection, on both sides: TLS, identity, hello, and the reasons to go no further.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use highwater_partition::Lane;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::Hello;
use super::connection::{Connection, Role};
use super::dialler::Target;
use super::frame::{Frame, FrameType, decode_hello, read_frame};
use super::inner::{Inner, other_cluster};
use super::limits::{ACCEPTED_PER_NODE_MAX, CONNECT_TIMEOUT, DIAL_TIMEOUT, HELLO_BYTES_MAX, REASON_BYTES_MAX};
use super::reader::text;
use crate::identity::Identity;
use crate::port::{Peer, ServerStream};
use crate::tls::{ALPN_PEER, Expected, Side, Trust, explain};

type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Addresses of one host name that are tried.
const ADDRESSES_TRIED_MAX: usize = 4;

/// Dials, greets, and starts the connection's tasks.
pub(super) async fn dial(inner: &Arc<Inner>, target: &Target, lane: Lane) -> Result<Arc<Connection>, String> {
    let dialling = async {
        let (mut stream, trust) = connect(inner, target).await?;
        let node = node_of(&stream)?;
        let said = inner.own_hello(lane);
        let hello = greet(inner, &mut stream, &said, &node).await?;
        Ok(inner.start(Role::Dialler, hello, &said, stream, Some(trust)))
    };
    timeout(DIAL_TIMEOUT, dialling)
        .await
        .unwrap_or_else(|_| Err(format!("no hello within {DIAL_TIMEOUT:?}")))
}

/// Serves a connection that a node has dialled, to its end.
pub(super) async fn accept(inner: &Arc<Inner>, mut stream: ServerStream, peer: &Peer, trust: Trust) {
    let Some(node) = peer.identity.node_name() else { return };
    let greeted = timeout(DIAL_TIMEOUT, answer_greeting(inner, &mut stream, node, peer)).await;
    match greeted {
        Ok(Ok((said, hello))) => inner.serve(Role::Acceptor, hello, &said, stream, Some(trust)).await,
        Ok(Err(why)) => {
            tracing::warn!(node, remote = %peer.remote_addr, why, "a node was turned away");
            refuse(stream, &why).await;
        }
        Err(_) => tracing::debug!(node, remote = %peer.remote_addr, "a node said no hello"),
    }
}

/// Says why there will be no connection, and closes.
pub(crate) async fn refuse(mut stream: ServerStream, why: &str) {
    let refusal = async {
        write_frame(&mut stream, &Frame::reason(FrameType::Refuse, 0, why)).await?;
        stream.shutdown().await.map_err(|error| explain(&error))
    };
    let _ = timeout(DIAL_TIMEOUT, refusal).await; // if it cannot be told, it is not
}

async fn connect(inner: &Inner, target: &Target) -> Result<(ClientStream, Trust), String> {
    let (address, expected) = match target {
        Target::Node(node) => {
            let address = inner.directory.address(node).ok_or("its address is not known")?;
            (address, Expected::Node(node.clone()))
        }
        Target::Address(address) => (address.clone(), Expected::AnyNode),
    };
    let resolved = lookup_host(&address)
        .await
        .map_err(|error| format!("{address} cannot be resolved: {error}"))?;
    let mut why = format!("{address} has no address");
    for resolved in resolved.take(ADDRESSES_TRIED_MAX) {
        match connect_to(inner, resolved, &expected).await {
            Ok(connected) => return Ok(connected),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

async fn connect_to(inner: &Inner, address: SocketAddr, expected: &Expected) -> Result<(ClientStream, Trust), String> {
    let generation = inner.credentials.generation();
    let config = inner
        .credentials
        .peer_config(expected)
        .map_err(|error| error.to_string())?;
    let tcp = match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(|error| explain(&error))?,
        Err(_) => return Err(format!("no connection within {CONNECT_TIMEOUT:?}")),
    };
    tcp.set_nodelay(true).map_err(|error| explain(&error))?;
    // The name is not used: the verifier looks at the identity.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|error| explain(&error))?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN_PEER) {
        return Err("it does not speak the peer protocol".to_owned());
    }
    let (side, chain) = (Side::Ours(expected.clone()), stream.get_ref().1.peer_certificates());
    let trust = inner.credentials.hold(generation, chain, side, address);
    Ok((stream, trust))
}

fn node_of(stream: &ClientStream) -> Result<String, String> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificate = certificates.first().ok_or("it has no certificate")?;
    let identity = Identity::from_certificate(certificate).map_err(|error| error.to_string())?;
    identity
        .node_name()
        .map(str::to_owned)
        .ok_or_else(|| format!("{identity} is not a node"))
}

/// The dialler's side of the hello.
async fn greet<S>(inner: &Inner, stream: &mut S, said: &Hello, node: &str) -> Result<Hello, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    write_frame(stream, &Frame::hello(said)).await?;
    let hello = read_hello(stream).await?;
    if let Err(why) = inner.admit(node, &hello) {
        let _ = write_frame(stream, &Frame::reason(FrameType::Refuse, 0, &why)).await;
        return Err(why);
    }
    Ok(Hello {
        lane: said.lane,
        ..hello
    })
}

/// The acceptor's side: what we said, and what the node said.
async fn answer_greeting<S>(inner: &Inner, stream: &mut S, node: &str, peer: &Peer) -> Result<(Hello, Hello), String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let hello = read_hello(stream).await?;
    let admitted = inner.admit(node, &hello);
    admitted.inspect_err(|why| inner.handler.turned_away(peer, why))?;
    inner.peer_seen(node); // who dials us can be dialled
    if inner.accepted_from(node) >= ACCEPTED_PER_NODE_MAX {
        return Err(format!(
            "node {node} has {ACCEPTED_PER_NODE_MAX} connections open to this one already"
        ));
    }
    let said = inner.own_hello(hello.lane);
    write_frame(stream, &Frame::hello(&said)).await?;
    Ok((said, hello))
}

async fn read_hello(stream: &mut (impl AsyncRead + Unpin)) -> Result<Hello, String> {
    let bytes_max = HELLO_BYTES_MAX.max(REASON_BYTES_MAX);
    let (header, body) = read_frame(stream, bytes_max, || ())
        .await
        .map_err(|error| error.to_string())?;
    match header.frame_type {
        FrameType::Hello => decode_hello(header, body),
        FrameType::Refuse => Err(format!("it refused the connection: {}", text(&body))),
        other => Err(format!("it began with a frame {other:?} instead of a hello")),
    }
}

async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), String> {
    let mut bytes = BytesMut::new();
    frame.encode_header(&mut bytes);
    frame.body.iter().for_each(|part| bytes.extend_from_slice(part));
    stream.write_all(&bytes).await.map_err(|error| explain(&error))?;
    stream.flush().await.map_err(|error| explain(&error))
}

impl Inner {
    /// Whether to talk to `node`, as its certificate calls it, after what it says about itself.
    pub(super) fn admit(&self, node: &str, hello: &Hello) -> Result<(), String> {
        if hello.node != node {
            return Err(format!(
                "the hello is of node {:?}, the certificate of node {node:?}",
                hello.node
            ));
        }
        let ourselves = (hello.incarnation, hello.boot) == (self.incarnation, self.boot);
        if node == self.credentials.node_name() && !ourselves {
            return Err(format!("two processes use the node name {node:?}"));
        }
        if let (Some(theirs), Some(ours)) = (hello.cluster_id, self.cluster_id())
            && theirs != ours
        {
            return Err(other_cluster(node, theirs, self.credentials.node_name(), ours));
        }
        self.handler.hello(node, hello)
    }
}
