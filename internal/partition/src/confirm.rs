//! Where the log begins and ends, as only a leader can tell.
//!
//! Each replica knows its own watermark, and may be behind. The leader's is at least as far as anybody's, once a majority has shown that it
//! still leads and all is applied that was committed until then (a read index; Raft dissertation, section 6.4). A follower asks the leader
//! over the peer link, for one edge of the log at a time: what is asked for is the kind of the call.

use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{LinearizerOption, ReadPolicy};

use crate::codec::calls::{self, Confirmation};
use crate::codec::kind;
use crate::error::{CommandError, Error};
use crate::network;
use crate::partition::{Inner, Partition};
use crate::progress::Watermark;
use crate::status::Role;

/// How long a follower waits for the leader's answer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// An edge of what can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    /// The log start.
    Start,
    /// The high watermark.
    End,
}

impl Edge {
    fn of(self, watermark: Watermark) -> u64 {
        match self {
            Edge::Start => watermark.log_start,
            Edge::End => watermark.high_watermark,
        }
    }

    fn kind(self) -> u8 {
        match self {
            Edge::Start => kind::CONFIRM_START,
            Edge::End => kind::CONFIRM_END,
        }
    }
}

impl Partition {
    /// The leader's confirmed high watermark: at least everything that was committed anywhere when this was called. A
    /// follower asks the leader over the peer link.
    ///
    /// # Errors
    /// [`CommandError::NotLeader`] if no leader is known, [`CommandError::Unknown`] if it cannot be reached or has no quorum.
    pub async fn confirmed_high_watermark(&self) -> Result<u64, CommandError> {
        self.confirmed(Edge::End).await
    }

    /// The leader's confirmed log start: no earlier than any that was told when this was called. A follower asks the leader over
    /// the peer link; one of an earlier version does not know the question, and confirms nothing.
    ///
    /// # Errors
    /// As those of [`Partition::confirmed_high_watermark`].
    pub async fn confirmed_log_start(&self) -> Result<u64, CommandError> {
        self.confirmed(Edge::Start).await
    }

    async fn confirmed(&self, edge: Edge) -> Result<u64, CommandError> {
        let inner = &self.inner;
        if inner.stopped() {
            return Err(CommandError::Stopped);
        }
        let status = self.status();
        if status.role == Role::Leader {
            let watermark = inner.confirmed_here(ReadPolicy::ReadIndex).await?;
            return Ok(edge.of(watermark));
        }
        let (term, Some(leader)) = (status.term, status.leader) else {
            return Err(CommandError::NotLeader {
                leader: None,
                term: status.term,
            });
        };
        let (peers, replica) = (inner.peers.as_ref(), leader.replica_id.0);
        let ask = network::confirm(
            peers,
            inner.group_id,
            (replica, &leader.node),
            edge.kind(),
            CONFIRM_TIMEOUT,
        );
        match ask.await {
            Ok(Confirmation::Offset(offset)) => Ok(offset),
            Ok(Confirmation::NotLeader { term }) => Err(CommandError::NotLeader { leader: None, term }),
            Ok(Confirmation::Unconfirmed) => Err(CommandError::Unknown("the leader has no quorum".to_owned())),
            Err(err) => Err(CommandError::Unknown(format!("in term {term}: {err}"))),
        }
    }

    /// Answers a member that asks.
    pub(crate) async fn confirm(&self, from: &str, body: Bytes, edge: Edge) -> Result<Vec<Bytes>, Error> {
        self.inner.server.check_confirm(from, body)?;
        let confirmation = match self.inner.confirmed_here(ReadPolicy::ReadIndex).await {
            Ok(watermark) => Confirmation::Offset(edge.of(watermark)),
            Err(CommandError::NotLeader { term, .. }) => Confirmation::NotLeader { term },
            Err(_) => Confirmation::Unconfirmed,
        };
        Ok(vec![calls::encode_confirmation(&confirmation)])
    }
}

impl Inner {
    /// The watermark after a majority has shown that this replica still leads, and all is applied that was committed until then.
    pub(crate) async fn confirmed_here(&self, how: impl Into<LinearizerOption>) -> Result<Watermark, CommandError> {
        let linearizer = match self.raft.get_read_linearizer(how).await {
            Ok(linearizer) => linearizer,
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                return Err(self.forwarded(&forward));
            }
            Err(err) => return Err(CommandError::Unknown(err.to_string())),
        };
        let ready = linearizer.await_ready(&self.raft).await;
        ready.map_err(|err| CommandError::Unknown(err.to_string()))?;
        Ok(self.progress.watermark())
    }
}
