//! How a proposal is answered, exactly once.
//!
//! A producer is answered at commit, on the Raft core's own task: the watermark is published first, then the verdict
//! that the log keeps for that term and index goes out. Only two things mean *not applied*: our own refusal before
//! the proposal reaches openraft, and openraft's `ForwardToLeader`, which it gives before it appends. Everything else
//! (an entry discarded when another leader took over, a dropped responder, a dead core) means *unknown*: the entry
//! may be, or become, part of the log, and the producer finds out by sending the same sequence again.
//!
//! openraft does not promise to complete a responder: when the core dies it just drops it. So dropping an unanswered
//! one answers *unknown*.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_log::{Decision, EntryId, Log, ReplicaId, mutant};
use openraft::errors::{ClientWriteError, ForwardToLeader};

use crate::progress::Progress;
use crate::stages::{Stage, Stopwatch};
use crate::types::{LogId, Member, TypeConfig, entry_id};

/// Most bytes of proposals of one group that wait for their answer.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most proposals of one group that wait for their answer: as many as the log keeps decisions for, so that each finds its
/// own even if all are committed in one step. Well below openraft's own queue, so that is never full.
pub(crate) const IN_FLIGHT_PROPOSALS_MAX: usize = highwater_log::DECISIONS_KEPT;

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

/// Why a proposal is certainly not in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotApplied {
    /// Another replica leads, if known.
    NotLeader {
        /// Whom to ask instead.
        leader: Option<Member>,
        /// The term this replica is in.
        term: u64,
    },
    /// Too many bytes in flight here; try again.
    Overloaded,
    /// The disk of this node is nearly full; try again later, it may have room then.
    DiskFull,
    /// The batch breaks a limit or its checksum is wrong; the reason. Trying again does not help.
    Invalid(String),
    /// The group is stopped.
    Stopped,
}

/// The proposals of one group that wait for their answer.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    proposals: AtomicUsize,
}

/// One proposal's share of what is in flight; given back when dropped.
#[derive(Debug)]
pub(crate) struct InFlightShare {
    in_flight: Arc<InFlight>,
    bytes: usize,
}

impl InFlight {
    /// Takes a share, or None if that would exceed a limit.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Option<InFlightShare> {
        let before_bytes = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let before_proposals = self.proposals.fetch_add(1, Ordering::AcqRel);
        let share = InFlightShare {
            in_flight: self.clone(),
            bytes,
        };
        let fits = before_bytes + bytes <= IN_FLIGHT_BYTES_MAX && before_proposals < IN_FLIGHT_PROPOSALS_MAX;
        fits.then_some(share)
    }

    /// Bytes that wait now.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }
}

impl Drop for InFlightShare {
    fn drop(&mut self) {
        self.in_flight.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.in_flight.proposals.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Someone who waits for the outcome `T` of a write.
pub(crate) trait Waiting<T>: Send {
    /// The entry is committed.
    fn committed(&mut self, log_id: LogId);
    /// The write is applied, or refused.
    fn completed(self: Box<Self>, result: T);
}

/// What openraft holds for a write of ours.
pub(crate) struct Responder<T>(Box<dyn Waiting<T>>);

impl<T> openraft::raft::responder::Responder<TypeConfig, T> for Responder<T>
where
    T: Send + 'static,
{
    fn on_commit(&mut self, log_id: LogId) {
        self.0.committed(log_id);
    }

    fn on_complete(self, result: T) {
        self.0.completed(result);
    }
}

pub(crate) type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// Answers one batch.
pub(crate) struct BatchAnswer {
    /// None: it is answered.
    pub(crate) answer: Option<Box<dyn FnOnce(Answer) + Send>>,
    pub(crate) log: Log,
    pub(crate) progress: Arc<Progress>,
    /// The term this replica was in when the batch was proposed.
    pub(crate) term: u64,
    pub(crate) share: Option<InFlightShare>,
    /// Began with the proposal.
    pub(crate) stopwatch: Stopwatch,
}

impl BatchAnswer {
    pub(crate) fn responder(self) -> Responder<WriteResult> {
        Responder(Box::new(self))
    }

    fn give(&mut self, answer: Answer) {
        self.share = None;
        if let Some(give) = self.answer.take() {
            give(answer);
        }
    }

    fn decided(&self, id: EntryId) -> Answer {
        if let Err(err) = self.progress.commit(id.index) {
            return Answer::Unknown(format!("the commit of entry {} failed: {err}", id.index));
        }
        match self.log.decision(id) {
            Some(decision) => Answer::Decided(decision),
            None => Answer::Unknown(format!("the decision about entry {} is forgotten", id.index)),
        }
    }
}

impl Waiting<WriteResult> for BatchAnswer {
    fn committed(&mut self, log_id: LogId) {
        self.stopwatch.done(Stage::Commit);
        let answer = self.decided(entry_id(&log_id));
        self.give(answer);
    }

    fn completed(mut self: Box<Self>, result: WriteResult) {
        if self.answer.is_none() {
            return;
        }
        let answer = match result {
            Ok(response) => self.decided(entry_id(&response.log_id)),
            Err(ClientWriteError::ForwardToLeader(forward)) => Answer::NotApplied(NotApplied::NotLeader {
                leader: leader_hint(&forward),
                term: self.term,
            }),
            Err(ClientWriteError::LogEntryDiscarded(forward))
                if mutant!("LogEntryDiscarded reported as not applied") =>
            {
                Answer::NotApplied(NotApplied::NotLeader {
                    leader: leader_hint(&forward),
                    term: self.term,
                })
            }
            Err(other) => Answer::Unknown(other.to_string()),
        };
        self.give(answer);
    }
}

impl Drop for BatchAnswer {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.give(Answer::Unknown("the group stopped before it answered".to_owned()));
        }
    }
}

/// The leader that openraft names, if it names one.
pub(crate) fn leader_hint(forward: &ForwardToLeader<TypeConfig>) -> Option<Member> {
    let replica_id = ReplicaId(forward.leader_id?);
    let node = forward.leader_node.as_ref()?.0.clone();
    Some(Member { replica_id, node })
}
