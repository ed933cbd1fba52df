//! What openraft is told about our types, and how its names map to the log's.
//!
//! Both number entries from 0. openraft calls an entry's name a log id, the log calls it an entry id; with standard
//! leader ids both are a term and an index.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use highwater_log::{Body, Entry, EntryId, Frame, Kind, ReplicaId, Verdict};
use openraft::entry::{RaftEntry, RaftPayload};
use openraft::vote::leader_id_std;
use openraft::{AnyError, RaftTypeConfig};

use crate::codec::membership as membership_codec;
use crate::error::Error;
use crate::machine::GroupMachine;
use crate::responder::Responder;
use crate::runtime::Runtime;
use crate::stages::Stopwatch;

/// The types of a group.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Proposal;
    type R = Applied;
    type NodeId = u64;
    type Node = NodeName;
    type Term = u64;
    type LeaderId = leader_id_std::LeaderId<u64, u64>;
    type Vote = openraft::Vote<Self::LeaderId>;
    type Payload = LogPayload;
    type Entry = LogEntry;
    type Responder<T>
        = Responder<T>
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = Runtime;
    type ErrorSource = AnyError;
}

/// What applying an entry came to, for whoever proposed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Nothing that is not known otherwise.
    Nothing,
    /// What the machine answered to a command.
    Reply(Bytes),
    /// What was decided about a claim, an offset commit or a group to forget.
    Decided(Verdict),
}

pub(crate) type Raft = openraft::Raft<TypeConfig, GroupMachine>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type CommittedLeaderId = leader_id_std::CommittedLeaderId<u64>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<leader_id_std::LeaderId<u64, u64>>;
pub(crate) type Membership = openraft::Membership<u64, NodeName>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, u64, NodeName>;
pub(crate) type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResult = openraft::raft::StreamAppendResult<TypeConfig>;
pub(crate) type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
pub(crate) type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
pub(crate) type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
pub(crate) type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
pub(crate) type RpcError = openraft::errors::RPCError<TypeConfig>;

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// The replica's Raft id; never reused.
    pub replica_id: ReplicaId,
    /// The node's stable name; its address is the peer link's business.
    pub node: String,
}

/// What the membership keeps about a replica: the stable name of its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct NodeName(pub(crate) String);

/// What a leader is asked to put into the log.
#[derive(Debug)]
pub(crate) struct Proposal {
    pub(crate) body: Body,
    /// Began when it was made.
    pub(crate) stopwatch: Stopwatch,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(body_name(&self.body))
    }
}

/// What an entry holds. A leader appends the first three; the others come from the log or from a leader.
#[derive(Debug)]
pub(crate) enum LogPayload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// Proposed here.
    Proposed(Proposal),
    /// A change of the membership, proposed here.
    Membership(Membership),
    /// An entry as stored.
    Stored(Frame),
    /// A stored change of the membership, already decoded.
    StoredMembership(Membership, Frame),
    /// A stored entry of which only the id was of interest.
    Elided,
}

impl fmt::Display for LogPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogPayload::Blank => f.write_str("blank"),
            LogPayload::Proposed(proposal) => write!(f, "proposed {proposal}"),
            LogPayload::Membership(membership) => write!(f, "membership {membership}"),
            LogPayload::Stored(frame) => write!(f, "stored {:?}", frame.header.kind),
            LogPayload::StoredMembership(membership, _) => write!(f, "stored membership {membership}"),
            LogPayload::Elided => f.write_str("elided"),
        }
    }
}

impl RaftPayload for LogPayload {
    type D = Proposal;
    type NodeId = u64;
    type Node = NodeName;

    fn blank() -> Self {
        LogPayload::Blank
    }

    fn with_normal(self, data: Proposal) -> Self {
        LogPayload::Proposed(data)
    }

    fn with_membership(self, membership: Membership) -> Self {
        LogPayload::Membership(membership)
    }

    fn get_membership(&self) -> Option<Membership> {
        match self {
            LogPayload::Membership(membership) | LogPayload::StoredMembership(membership, _) => {
                Some(membership.clone())
            }
            _ => None,
        }
    }
}

/// One entry as openraft sees it.
#[derive(Debug)]
pub(crate) struct LogEntry {
    leader_id: CommittedLeaderId,
    index: u64,
    pub(crate) payload: LogPayload,
}

impl fmt::Display for LogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "T{}.{} {}", self.leader_id.term, self.index, self.payload)
    }
}

impl RaftEntry for LogEntry {
    type CommittedLeaderId = CommittedLeaderId;
    type Payload = LogPayload;

    fn new(log_id: LogId, payload: LogPayload) -> Self {
        LogEntry {
            leader_id: *log_id.committed_leader_id(),
            index: log_id.index(),
            payload,
        }
    }

    fn log_id_parts(&self) -> (&CommittedLeaderId, u64) {
        (&self.leader_id, self.index)
    }

    fn set_log_id(&mut self, new: LogId) {
        self.leader_id = *new.committed_leader_id();
        self.index = new.index();
    }

    fn get_membership(&self) -> Option<Membership> {
        self.payload.get_membership()
    }
}

impl LogEntry {
    /// An entry whole, as replication needs it. A membership that cannot be decoded is an error.
    pub(crate) fn stored(frame: Frame) -> Result<LogEntry, Error> {
        let log_id = log_id(frame.id());
        let payload = match frame.header.kind {
            Kind::Membership => LogPayload::StoredMembership(frame_membership(&frame)?, frame),
            _ => LogPayload::Stored(frame),
        };
        Ok(LogEntry::new(log_id, payload))
    }

    /// An entry as applying it needs it: of batches and blanks only the id, everything else whole.
    pub(crate) fn to_apply(frame: Frame) -> Result<LogEntry, Error> {
        match frame.header.kind {
            Kind::Blank | Kind::Batch => Ok(LogEntry::new(log_id(frame.id()), LogPayload::Elided)),
            _ => LogEntry::stored(frame),
        }
    }

    /// What it takes in the log, if it comes from there whole.
    pub(crate) fn stored_bytes(&self) -> usize {
        match &self.payload {
            LogPayload::Stored(frame) | LogPayload::StoredMembership(_, frame) => frame.len_bytes(),
            _ => 0,
        }
    }

    /// The form the log appends. An elided entry is none: it has lost its content.
    pub(crate) fn into_log(self) -> Result<Entry, Error> {
        let id = entry_id(&LogId::new(self.leader_id, self.index));
        let body = match self.payload {
            LogPayload::Stored(frame) | LogPayload::StoredMembership(_, frame) => {
                return Ok(Entry::Replicated(frame));
            }
            LogPayload::Blank => Body::Blank,
            LogPayload::Proposed(proposal) => proposal.body,
            LogPayload::Membership(membership) => Body::Membership(membership_codec::encode(&membership)?),
            LogPayload::Elided => {
                return Err(Error::BadMessage(format!("entry {} has lost its content", id.index)));
            }
        };
        Ok(Entry::Proposed { id, body })
    }
}

/// The log's name of an entry.
pub(crate) fn entry_id(log_id: &LogId) -> EntryId {
    EntryId {
        term: log_id.committed_leader_id().term,
        index: log_id.index(),
    }
}

/// openraft's name of an entry.
pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term), id.index)
}

fn frame_membership(frame: &Frame) -> Result<Membership, Error> {
    match frame.body() {
        Ok(Body::Membership(bytes)) => membership_codec::decode(bytes),
        Ok(other) => Err(Error::BadMessage(format!(
            "entry {} says it is a membership but holds a {}",
            frame.header.id.index,
            body_name(&other)
        ))),
        Err(err) => Err(Error::BadMessage(format!("entry {}: {err}", frame.header.id.index))),
    }
}

/// The member that `membership` knows under `replica_id`.
pub(crate) fn member(membership: &Membership, replica_id: u64) -> Option<Member> {
    membership.get_node(&replica_id).map(|name| Member {
        replica_id: ReplicaId(replica_id),
        node: name.0.clone(),
    })
}

/// openraft's form of a list of members.
pub(crate) fn nodes(members: &[Member]) -> BTreeMap<u64, NodeName> {
    members
        .iter()
        .map(|member| (member.replica_id.0, NodeName(member.node.clone())))
        .collect()
}

/// openraft's form of a set of voters.
pub(crate) fn voter_set(voters: &[ReplicaId]) -> BTreeSet<u64> {
    voters.iter().map(|id| id.0).collect()
}

fn body_name(body: &Body) -> &'static str {
    match body {
        Body::Blank => "blank",
        Body::Batch(_) => "batch",
        Body::Membership(_) => "membership",
        Body::Command(_) => "command",
        Body::Trim { .. } => "trim",
        Body::Claim { .. } => "claim",
        Body::CommitOffset { .. } => "offset commit",
        Body::ForgetGroup { .. } => "forgotten group",
    }
}

/// Bytes a proposal keeps in memory until it is answered.
pub(crate) fn body_bytes(body: &Body) -> usize {
    /// What one proposal costs beside its payload: its header, its detail and its place in the queues.
    const OVERHEAD_BYTES: usize = 256;
    let content = match body {
        Body::Batch(batch) => batch.payload.len(),
        Body::Membership(bytes) | Body::Command(bytes) => bytes.len(),
        Body::Claim { group, member } => group.len() + member.len(),
        Body::CommitOffset { group, .. } | Body::ForgetGroup { group, .. } => group.len(),
        Body::Blank | Body::Trim { .. } => 0,
    };
    OVERHEAD_BYTES + content
}
