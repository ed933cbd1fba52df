//! Consumer groups of a partition: who may commit, and how far they have come.
//!
//! A group belongs to the member of its last claim. A claim is an entry of this partition's own log, numbered by its index, so it
//! is decided where the offsets are kept: two coordinators at once may cause claims that nobody needed, and never two members
//! whose commits are both taken. What was claimed away shows at the next commit, which is refused.
//!
//! Deliberately absent: who should consume what, and for how long a member may be silent. That is the coordinator's
//! (`highwater_node`), and may be wrong without harm.

use bytes::Bytes;
use highwater_log::{Body, GroupState, Verdict};

use crate::error::CommandError;
use crate::partition::Partition;
use crate::types::Applied;

/// A group that was given to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimed {
    /// The number to commit under.
    pub claim: u64,
    /// The next offset to consume; None if nothing was ever committed.
    pub offset: Option<u64>,
}

/// Why something was not done for a group, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// The group was claimed by somebody else since, was used since, or was never claimed.
    #[error("the group has been claimed by another member since")]
    Stale,
    /// The offset lies beyond the last record.
    #[error("the offset lies beyond the end {log_end}")]
    BeyondEnd {
        /// The end of the log, exclusive, when it was decided or a moment later.
        log_end: u64,
    },
    /// The partition keeps as many groups as it can.
    #[error("the partition has too many consumer groups")]
    TooManyGroups,
    /// It was not decided, or nobody knows how.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Partition {
    /// Gives the group to `member`; from then on only it may commit. Answered with where it is to go on. Waits as long as
    /// there is no quorum: set a deadline around it, as around the others here.
    pub async fn claim(&self, group: Bytes, member: Bytes) -> Result<Claimed, GroupError> {
        let body = Body::Claim {
            group: group.clone(),
            member,
        };
        let claim = self.decide(body).await?;
        // What is committed under this claim is nobody else's business, so it may be read a moment later.
        match self.group(&group) {
            Some(state) if state.claim == claim => Ok(Claimed {
                claim,
                offset: state.offset,
            }),
            _ => Err(GroupError::Stale),
        }
    }

    /// Notes the next offset that the group is to consume.
    pub async fn commit_offset(&self, group: Bytes, claim: u64, offset: u64) -> Result<(), GroupError> {
        self.decide(Body::CommitOffset { group, claim, offset }).await.map(drop)
    }

    /// Lets go of a group, if it is still as it was seen.
    pub async fn forget_group(&self, group: Bytes, seen: &GroupState) -> Result<(), GroupError> {
        let body = Body::ForgetGroup {
            group,
            claim: seen.claim,
            append_time_ms: seen.append_time_ms,
        };
        self.decide(body).await.map(drop)
    }

    /// What is committed of a group, as far as this replica knows.
    pub fn group(&self, group: &[u8]) -> Option<GroupState> {
        self.inner.log.committed(|state| state.groups.get(group).cloned())
    }

    /// All groups, as far as this replica knows, by name.
    pub fn groups(&self) -> Vec<(Bytes, GroupState)> {
        let copy = |(name, group): (&Bytes, &GroupState)| (name.clone(), group.clone());
        self.inner
            .log
            .committed(|state| state.groups.iter().map(copy).collect())
    }

    /// Has an entry decided; answers its index if it was accepted.
    async fn decide(&self, body: Body) -> Result<u64, GroupError> {
        let (index, applied) = self.inner.write(body).await?;
        match applied {
            Applied::Decided(Verdict::Accepted) => Ok(index),
            Applied::Decided(Verdict::StaleClaim) => Err(GroupError::Stale),
            Applied::Decided(Verdict::OutOfRange) => Err(GroupError::BeyondEnd {
                log_end: self.inner.log.committed(|state| state.log_end),
            }),
            Applied::Decided(Verdict::TooManyGroups) => Err(GroupError::TooManyGroups),
            other => Err(CommandError::Unknown(format!("entry {index} was answered with {other:?}")).into()),
        }
    }
}
