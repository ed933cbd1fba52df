//! Consumer groups: how far each has come, and who may say so.
//!
//! Each partition keeps the offsets of its groups in its own log. A member claims a partition (`claim`), and commits under that;
//! once somebody else has claimed the partition, its commits are refused with reason `STALE_CLAIM`, whatever it believes. So
//! a group's offset on a partition goes back only if its own member seeks back and commits, or somebody resets it.
//!
//! Deliberately absent: which member reads which partition (`membership`).

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_proto::v1::{self, OffsetRange};

use crate::calls::{Caller, timed};
use crate::claim::{HOME_PARTITION, group_client};
use crate::consumer::Position;
use crate::deadline::Deadline;
use crate::doubt::Doubt;
use crate::error::Error;
use crate::picker::Purpose;
use crate::picture::TopicRef;

/// How many partitions are asked at a time.
const PARTITIONS_AT_ONCE: usize = 16;

/// A consumer group on one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupOffset {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: u32,
    /// The member that claimed the partition last; empty after a reset.
    pub member: String,
    /// The number of that claim.
    pub claim: u64,
    /// The next offset to consume; `None` if none was ever committed.
    pub offset: Option<u64>,
    /// What can be read of the partition.
    pub range: OffsetRange,
    /// When the group last claimed or committed, milliseconds since 1970-01-01 UTC.
    pub used_ms: u64,
}

impl GroupOffset {
    /// How many records wait to be consumed.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let next = self.offset.unwrap_or(0).max(self.range.log_start);
        self.range.high_watermark.saturating_sub(next)
    }
}

/// A member of a consumer group, as the group's coordinator knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Its name.
    pub member: String,
    /// The client that it is, by its certificate.
    pub client: String,
    /// The partitions that it should have, in order.
    pub assigned: Vec<u32>,
    /// Those that it says that it has.
    pub holding: Vec<u32>,
    /// For how long it has not been heard of.
    pub silence: Duration,
}

/// Calls about consumer groups. Those that only ask are cancel safe; of the others some partitions may be done, and it is safe to repeat
/// them.
#[derive(Debug, Clone)]
#[must_use]
pub struct Groups {
    caller: Arc<Caller>,
    deadline: Duration,
}

impl Groups {
    pub(crate) fn new(caller: Arc<Caller>, deadline: Duration) -> Self {
        Self { caller, deadline }
    }

    /// The same calls with another deadline.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// All groups of a topic, by name and partition, as the partitions' leaders know them.
    ///
    /// # Errors
    /// Reason `TOPIC_NOT_FOUND`; [`Error::Deadline`].
    pub async fn list(&self, topic: &str) -> Result<Vec<GroupOffset>, Error> {
        self.list_some(topic, None).await
    }

    /// One group on all partitions that know it, in order; empty if none does.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `INVALID_ARGUMENT`; [`Error::Deadline`].
    pub async fn describe(&self, topic: &str, group: &str) -> Result<Vec<GroupOffset>, Error> {
        self.list_some(topic, Some(group)).await
    }

    /// The members that share the topic at the moment, by name. Just after its leader has changed, some may not have come back to the
    /// new coordinator yet.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `INVALID_ARGUMENT`; [`Error::Deadline`].
    pub async fn members(&self, topic: &str, group: &str) -> Result<Vec<GroupMember>, Error> {
        let deadline = Deadline::after(self.deadline);
        let topic = &TopicRef::from(&self.caller.look_up(topic, deadline).await?);
        let request = v1::DescribeGroupRequest {
            topic: self.caller.wire_name(topic),
            topic_id: Some(topic.topic_id),
            group: group.to_owned(),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { group_client(channel).describe_group(request).await }
        };
        let action = format!("find the members of group {group} on {}", topic.name);
        let purpose = Purpose::Write {
            topic,
            partition: HOME_PARTITION,
        };
        let answer = self.caller.call(&action, purpose, deadline, call).await?;
        Ok(answer.members.into_iter().map(GroupMember::from).collect())
    }

    /// Sets a group's offset on one partition, or on all; answers the new offsets by partition. Members that consume
    /// meanwhile are refused at their next commit, and go on from here when they claim again. An attempt without an answer is made
    /// again, so a member that has claimed in between may be refused once more, and what it has committed is undone.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`, `INVALID_ARGUMENT` (also for an offset beyond the end);
    /// [`Error::Deadline`]. Some partitions may have been reset then; it is safe to repeat.
    pub async fn reset(
        &self,
        topic: &str,
        group: &str,
        partition: Option<u32>,
        to: Position,
    ) -> Result<Vec<(u32, u64)>, Error> {
        let deadline = Deadline::after(self.deadline);
        let found = self.caller.look_up(topic, deadline).await?;
        let partitions = match partition {
            Some(partition) => vec![partition],
            None => partitions_of(&found),
        };
        let topic = &TopicRef::from(&found);
        let reset = |partition: u32| async move {
            let offset = to.find(&self.caller, topic, partition, deadline).await?;
            let request = v1::ResetOffsetRequest {
                topic: self.caller.wire_name(topic),
                topic_id: Some(topic.topic_id),
                partition,
                group: group.to_owned(),
                offset,
            };
            let call = |channel, time_left| {
                let request = timed(request.clone(), time_left);
                async move { group_client(channel).reset_offset(request).await }
            };
            let action = format!("reset group {group} on {}/{partition}", topic.name);
            self.caller
                .call(&action, Purpose::Write { topic, partition }, deadline, call)
                .await?;
            Ok((partition, offset))
        };
        at_once(partitions, reset).await
    }

    /// Forgets a group on all partitions of a topic; whether any knew it. Of a partition where an attempt ended without an answer
    /// that is not known any more, so it counts as one that did.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `INVALID_ARGUMENT`, `STALE_CLAIM` (it is in use); [`Error::Deadline`]. Some partitions may
    /// have forgotten it then; it is safe to repeat.
    pub async fn delete(&self, topic: &str, group: &str) -> Result<bool, Error> {
        let deadline = Deadline::after(self.deadline);
        let found = self.caller.look_up(topic, deadline).await?;
        let topic = &TopicRef::from(&found);
        let delete = |partition: u32| async move {
            let doubt = &Doubt::default();
            let request = v1::DeleteGroupRequest {
                topic: self.caller.wire_name(topic),
                topic_id: Some(topic.topic_id),
                partition,
                group: group.to_owned(),
            };
            let call = |channel, time_left| {
                let request = timed(request.clone(), time_left);
                async move { doubt.note(group_client(channel).delete_group(request).await) }
            };
            let action = format!("delete group {group} on {}/{partition}", topic.name);
            let answer = self
                .caller
                .call(&action, Purpose::Write { topic, partition }, deadline, call)
                .await?;
            Ok(answer.existed || doubt.is_open())
        };
        let existed = at_once(partitions_of(&found), delete).await?;
        Ok(existed.contains(&true))
    }

    async fn list_some(&self, topic: &str, group: Option<&str>) -> Result<Vec<GroupOffset>, Error> {
        let deadline = Deadline::after(self.deadline);
        let found = self.caller.look_up(topic, deadline).await?;
        let topic = &TopicRef::from(&found);
        let list = |partition: u32| async move {
            let request = v1::ListGroupsRequest {
                topic: self.caller.wire_name(topic),
                topic_id: Some(topic.topic_id),
                partition,
                group: group.map(str::to_owned),
                confirmed: true,
            };
            let call = |channel, time_left| {
                let request = timed(request.clone(), time_left);
                async move { group_client(channel).list_groups(request).await }
            };
            let action = format!("list the groups of {}/{partition}", topic.name);
            let purpose = Purpose::Write { topic, partition };
            let answer = self.caller.call(&action, purpose, deadline, call).await?;
            let range = answer.range.unwrap_or_default();
            let groups = answer.groups.into_iter();
            Ok(groups.map(|group| found_offset(group, partition, range)).collect())
        };
        let lists: Vec<Vec<GroupOffset>> = at_once(partitions_of(&found), list).await?;
        let mut all: Vec<GroupOffset> = lists.into_iter().flatten().collect();
        all.sort_by(|one, other| (&one.group, one.partition).cmp(&(&other.group, other.partition)));
        Ok(all)
    }
}

impl From<v1::GroupMember> for GroupMember {
    fn from(member: v1::GroupMember) -> GroupMember {
        GroupMember {
            member: member.member,
            client: member.client,
            assigned: member.assigned,
            holding: member.holding,
            silence: Duration::from_millis(member.silent_ms),
        }
    }
}

/// Asks about several partitions, some at a time; answers come in their order.
async fn at_once<T, F>(partitions: Vec<u32>, ask: impl Fn(u32) -> F) -> Result<Vec<T>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    stream::iter(partitions)
        .map(ask)
        .buffered(PARTITIONS_AT_ONCE)
        .try_collect()
        .await
}

fn partitions_of(topic: &v1::Topic) -> Vec<u32> {
    topic.partitions.iter().map(|partition| partition.partition).collect()
}

fn found_offset(group: v1::Group, partition: u32, range: OffsetRange) -> GroupOffset {
    GroupOffset {
        group: group.group,
        partition,
        member: group.member,
        claim: group.claim,
        offset: group.offset,
        range,
        used_ms: group.used_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_counts_what_can_still_be_read() {
        let mut group = GroupOffset {
            group: "workers".to_owned(),
            partition: 0,
            member: String::new(),
            claim: 1,
            offset: None,
            range: OffsetRange {
                log_start: 10,
                high_watermark: 25,
            },
            used_ms: 0,
        };
        assert_eq!(group.lag(), 15, "nothing is committed: all that is there");
        group.offset = Some(5);
        assert_eq!(group.lag(), 15, "what was trimmed cannot be consumed any more");
        group.offset = Some(25);
        assert_eq!(group.lag(), 0);
        group.offset = Some(30);
        assert_eq!(group.lag(), 0, "the replica that was asked may be behind");
    }
}
