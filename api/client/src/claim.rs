//! A partition that a member of a group has claimed, and what it has committed of it.
//!
//! Clones of the `Arc` commit for the same claim: the application by hand, the membership's task by itself and at the end. They
//! take turns, so that the last offset committed is the last one given. An attempt of which nobody knows whether it was
//! applied leaves the claim *in doubt*, and then nothing is taken for committed already.

use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_proto::limits::MESSAGE_BYTES_MAX;
use highwater_proto::v1;
use highwater_proto::v1::group_service_client::GroupServiceClient;
use tonic::transport::Channel;

use crate::calls::{Caller, timed};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::picker::Purpose;
use crate::picture::TopicRef;

/// The partition whose leader coordinates a topic's groups.
pub(crate) const HOME_PARTITION: u32 = 0;

/// As whom to consume for a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) group: String,
    pub(crate) member: String,
}

/// A partition that a member of a group has claimed.
#[derive(Debug)]
pub(crate) struct Claim {
    group: String,
    pub(crate) partition: u32,
    number: u64,
    committed: Mutex<Committed>,
    turn: tokio::sync::Mutex<()>,
}

/// The next offset to consume, as committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Committed {
    offset: Option<u64>,
    in_doubt: bool,
}

impl Claim {
    /// Takes a partition for a member, from whoever had it.
    pub(crate) async fn take(
        caller: &Caller,
        topic: &TopicRef,
        partition: u32,
        member: &Member,
        deadline: Deadline,
    ) -> Result<Claim, Error> {
        let request = v1::ClaimPartitionRequest {
            topic: caller.wire_name(topic),
            topic_id: Some(topic.topic_id),
            partition,
            group: member.group.clone(),
            member: member.member.clone(),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { group_client(channel).claim_partition(request).await }
        };
        let action = format!("claim {}/{partition} for group {}", topic.name, member.group);
        let purpose = Purpose::Write { topic, partition };
        let answer = caller.call(&action, purpose, deadline, call).await?;
        Ok(Claim {
            group: member.group.clone(),
            partition,
            number: answer.claim,
            committed: Mutex::new(Committed {
                offset: answer.offset,
                in_doubt: false,
            }),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// Tells claims of a partition apart.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The next offset to consume, as last committed for certain.
    pub(crate) fn committed(&self) -> Option<u64> {
        self.lock().offset
    }

    fn lock(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the next offset to consume, unless that was done. A commit whose outcome is unknown is repeated: that changes
    /// nothing.
    pub(crate) async fn commit(
        &self,
        caller: &Caller,
        topic: &TopicRef,
        offset: u64,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let certain = Committed {
            offset: Some(offset),
            in_doubt: false,
        };
        if *self.lock() == certain {
            return Ok(());
        }
        self.lock().in_doubt = true; // also if this is dropped halfway
        let partition = self.partition;
        let request = v1::CommitOffsetRequest {
            topic: caller.wire_name(topic),
            topic_id: Some(topic.topic_id),
            partition,
            group: self.group.clone(),
            claim: self.number,
            offset,
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { group_client(channel).commit_offset(request).await }
        };
        let action = format!(
            "commit offset {offset} of {}/{partition} for group {}",
            topic.name, self.group
        );
        let purpose = Purpose::Write { topic, partition };
        caller.call(&action, purpose, deadline, call).await?;
        *self.lock() = certain;
        Ok(())
    }
}

pub(crate) fn group_client(channel: Channel) -> GroupServiceClient<Channel> {
    GroupServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}
