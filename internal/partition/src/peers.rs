//! The way out to other nodes, as this crate wants it; the node's peer link implements it, and so do simulations.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use highwater_log::GroupId;

/// Heartbeats and votes apart from bulk, so that they never wait behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Small and urgent: heartbeats, votes, hand-overs, confirmations.
    Control,
    /// Entries.
    Bulk,
}

/// Why a peer gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Could not be reached at all: nothing was sent.
    #[error("{node} cannot be reached: {why}")]
    Unreachable {
        /// The peer's stable name.
        node: String,
        /// What happened.
        why: String,
    },
    /// Sent, no answer in time, or the connection broke: it may have been received.
    #[error("{node} did not answer: {why}")]
    NoAnswer {
        /// The peer's stable name.
        node: String,
        /// What happened.
        why: String,
    },
    /// It answered with a refusal.
    #[error("{node} refused: {why}")]
    Refused {
        /// The peer's stable name.
        node: String,
        /// Its reason.
        why: String,
        /// Whether it may have begun with it. If not, nothing of it was done.
        begun: bool,
    },
}

/// Both ends of an ordered stream of messages to one replica; dropping it resets the stream.
pub struct PeerStream {
    /// Bounded; each message is a list of parts, written one behind the other.
    pub sender: tokio::sync::mpsc::Sender<Vec<Bytes>>,
    /// Ends when the peer or the connection ends the stream.
    pub receiver: tokio::sync::mpsc::Receiver<Bytes>,
}

/// The only way out to other nodes. Implemented by the node's peer link (and by simulations).
pub trait Peers: Send + Sync + 'static {
    /// One request and its answer. `kind` is the partition's own message number.
    fn call(
        &self,
        node: &str,
        group: GroupId,
        lane: Lane,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>>;

    /// A small request on the control lane, and its answer. It may wait a few milliseconds to travel together with those of
    /// other groups to the same node; nothing else about it is shared with them.
    fn heartbeat(
        &self,
        node: &str,
        group: GroupId,
        kind: u8,
        body: Vec<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'static, Result<Bytes, PeerError>> {
        self.call(node, group, Lane::Control, kind, body, timeout)
    }

    /// Opens an ordered stream to the group's replica on `node`.
    fn open_stream(
        &self,
        node: &str,
        group: GroupId,
        lane: Lane,
        kind: u8,
    ) -> BoxFuture<'static, Result<PeerStream, PeerError>>;
}
