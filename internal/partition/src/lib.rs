//! One Raft group over one log (stub of the public surface; to be replaced file by file).
#![allow(missing_docs, unused, clippy::todo)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
pub use highwater_log as log; // the node passes ids, batches and disks through; it never touches a Log itself
use highwater_log::{Batch, ClusterId, Decision, GroupId, Log, ReplicaId};

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    pub replica_id: ReplicaId,
    /// The node's stable name; its address is the peer link's business.
    pub node: String,
}

/// The group's timers, one cluster setting (DESIGN section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}
impl Default for Timers {
    fn default() -> Self {
        Timers {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 400,
        }
    }
}

/// Derived state of a control group, fed with committed commands in order (the catalog).
pub trait Machine: Send + Sync + 'static {
    /// Applies one committed command and answers it. Deterministic. Called off the Raft core.
    fn apply(&self, index: u64, command: Bytes) -> Bytes;
    /// The state as of the last applied index.
    fn checkpoint(&self) -> Bytes;
    /// Replaces the state.
    fn restore(&self, checkpoint: &[u8]) -> Result<(), String>;
}

/// Heartbeats and votes apart from bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Control,
    Bulk,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// Could not be reached at all.
    #[error("{node} cannot be reached: {why}")]
    Unreachable { node: String, why: String },
    /// Sent, no answer in time, or the connection broke.
    #[error("{node} did not answer: {why}")]
    NoAnswer { node: String, why: String },
    /// It answered with a refusal.
    #[error("{node} refused: {why}")]
    Refused { node: String, why: String },
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
    /// Opens an ordered stream to the group's replica on `node`.
    fn open_stream(
        &self,
        node: &str,
        group: GroupId,
        lane: Lane,
        kind: u8,
    ) -> BoxFuture<'static, Result<PeerStream, PeerError>>;
}

pub struct GroupOptions {
    pub group_id: GroupId,
    pub replica_id: ReplicaId,
    pub log: Log,
    pub machine: Option<Arc<dyn Machine>>,
    pub peers: Arc<dyn Peers>,
    pub timers: Timers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// Inclusive.
    pub log_start: u64,
    /// Exclusive.
    pub high_watermark: u64,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Committed; the verdict says whether it was accepted.
    Decided(Decision),
    /// Certainly not in the log.
    NotApplied(NotApplied),
    /// May be or become part of the log.
    Unknown(String),
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotApplied {
    /// Another replica leads, if known.
    NotLeader { leader: Option<Member>, term: u64 },
    /// Too many bytes in flight here; try again.
    Overloaded,
    /// The group is stopped.
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub term: u64,
    pub leader: Option<Member>,
    pub voters: Vec<Member>,
    pub learners: Vec<Member>,
    pub log_end: u64,
    pub watermark: Watermark,
    pub committed_index: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is below the log start {log_start}")]
    BelowStart {
        offset: u64,
        log_start: u64,
        high_watermark: u64,
    },
    #[error("stopped")]
    Stopped,
    #[error("reading failed: {0}")]
    Failed(String),
}

/// A committed batch as stored.
#[derive(Debug, Clone)]
pub struct StoredBatch {
    pub base_offset: u64,
    pub record_count: u32,
    pub compression: u8,
    pub payload_crc: u32,
    pub append_time_ms: u64,
    pub payload: Bytes,
}

/// One replica of one group; cheap to clone.
#[derive(Clone)]
pub struct Partition {}
impl Partition {
    pub async fn start(options: GroupOptions) -> Result<Partition, Error> {
        todo!()
    }
    /// Makes the group's first membership. Once, on one pristine replica; a second call on a group with history is Ok(false).
    pub async fn initialize(&self, members: Vec<Member>) -> Result<bool, Error> {
        todo!()
    }
    /// Proposes a batch. Never blocks; `answer` is called exactly once, from the Raft task, and must be quick.
    pub fn propose(&self, batch: Batch, answer: Box<dyn FnOnce(Answer) + Send>) {
        todo!()
    }
    /// Proposes a machine command; answered after it was applied here.
    pub async fn command(&self, command: Bytes) -> Result<Bytes, CommandError> {
        todo!()
    }
    pub fn watermark(&self) -> tokio::sync::watch::Receiver<Watermark> {
        todo!()
    }
    /// Committed batches from `offset` on; empty at or above the high watermark.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        todo!()
    }
    pub async fn offset_at(&self, time_ms: u64) -> Result<u64, ReadError> {
        todo!()
    }
    /// The leader's confirmed high watermark (read index); on a follower it asks the leader over the peer link.
    pub async fn confirmed_high_watermark(&self) -> Result<u64, CommandError> {
        todo!()
    }
    pub fn status(&self) -> Status {
        todo!()
    }
    /// Changes whenever role, leader, term or membership change.
    pub fn status_changes(&self) -> tokio::sync::watch::Receiver<Status> {
        todo!()
    }
    pub async fn add_learner(&self, member: Member) -> Result<(), CommandError> {
        todo!()
    }
    pub async fn change_voters(&self, voters: Vec<ReplicaId>) -> Result<(), CommandError> {
        todo!()
    }
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), CommandError> {
        todo!()
    }
    /// A request from a peer's `Peers::call`. `from` is the authenticated node name.
    pub async fn handle_call(&self, from: &str, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
        todo!()
    }
    /// A stream from a peer's `Peers::open_stream`; runs until either side ends.
    pub async fn handle_stream(&self, from: &str, kind: u8, stream: PeerStream) -> Result<(), Error> {
        todo!()
    }
    /// Ends when the Raft core has ended; with the reason if it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        todo!()
    }
    pub async fn shutdown(&self) -> Result<(), Error> {
        todo!()
    }
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum CommandError {
    #[error("not the leader")]
    NotLeader { leader: Option<Member>, term: u64 },
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    #[error("stopped")]
    Stopped,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Log(#[from] highwater_log::Error),
    #[error("{0}")]
    Raft(String),
    #[error("{0}")]
    BadMessage(String),
}
