//! The errors of this crate. Each answers its caller's question: was it applied, may I retry, whom do I ask?

use highwater_log::Grade;

use crate::types::Member;

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The records were trimmed. Reading can go on at `log_start`.
    #[error("offset {offset} is below the log start {log_start}")]
    BelowStart {
        /// What was asked for.
        offset: u64,
        /// First offset still here, inclusive.
        log_start: u64,
        /// First offset not yet committed.
        high_watermark: u64,
    },
    /// The record is damaged on this replica's disk and waits for a refill; another replica may serve it.
    #[error("offset {offset} is damaged here: entries {first_index} to {} wait for a refill", end_index - 1)]
    Damaged {
        /// What was asked for.
        offset: u64,
        /// First index of the damaged range.
        first_index: u64,
        /// Index behind it.
        end_index: u64,
        /// Every other member was asked for the range and none has it: nobody can serve the record now.
        everywhere: bool,
    },
    /// This replica has been stopped; another one may serve the read.
    #[error("the replica is stopped")]
    Stopped,
    /// The log could not be read here; another replica may serve the read.
    #[error("reading failed: {0}")]
    Failed(String),
}

/// Why a command or a change of the group was not done, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Certainly not applied: another replica leads, if known.
    #[error("not the leader")]
    NotLeader {
        /// Whom to ask instead.
        leader: Option<Member>,
        /// The term this replica is in.
        term: u64,
    },
    /// Certainly not applied: the disk of this node is nearly full. It may have room later.
    #[error("the disk is nearly full")]
    DiskFull,
    /// Certainly not applied, for the given reason.
    #[error("refused: {0}")]
    Refused(String),
    /// May have been, or may still be, applied.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Certainly not applied: the replica is stopped.
    #[error("the replica is stopped")]
    Stopped,
}

/// What can go wrong with a replica or with a message from a peer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The log failed; fatal for this replica.
    #[error("log: {0}")]
    Log(#[from] highwater_log::Error),
    /// The Raft core failed or has stopped; fatal for this replica.
    #[error("raft: {0}")]
    Raft(String),
    /// The disk of this node is nearly full: it takes no entries, but everything else. The sender may try again later.
    #[error("the disk is nearly full, no entries are taken")]
    DiskFull,
    /// This replica has lost promises that it made: its id must not be used any more. It is to be replaced under a new id,
    /// its data kept until then.
    #[error("{0}")]
    Dead(String),
    /// A message that is malformed, not for this replica, or from someone who may not send it. The sender is at
    /// fault; this replica is unharmed.
    #[error("bad message: {0}")]
    BadMessage(String),
}

impl Error {
    /// Whether this replica's id is dead: it must be replaced, and never started again.
    pub fn is_dead(&self) -> bool {
        match self {
            Error::Dead(_) => true,
            Error::Log(error) => error.grade() == Grade::Dead,
            Error::Raft(_) | Error::BadMessage(_) | Error::DiskFull => false,
        }
    }
}

impl From<Error> for std::io::Error {
    fn from(err: Error) -> Self {
        std::io::Error::other(err)
    }
}
