//! Settings of a consumer, and how it begins.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_proto::limits::{GROUP_RELEASE_MS, GROUP_SESSION_MS};
use highwater_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout_at;
use tonic::Code;

use super::fetcher::ReadRoute;
use super::grouped::Grouped;
use super::part::Part;
use super::{Consumer, Freshness, LOOK_UPS_AT_ONCE, Position};
use crate::calls::Caller;
use crate::claim::Member;
use crate::deadline::Deadline;
use crate::error::{Error, Reason, Refusal};
use crate::membership::{Begin, Membership, Route};
use crate::picture::TopicRef;

/// The prefetch unless the user says otherwise, bytes.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;
/// The largest prefetch, bytes.
const PREFETCH_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How many batches may wait in the prefetch, however small they are.
const PREFETCH_BATCHES_MAX: usize = 256;
/// How long no replica may serve a partition before that is an error, unless the user says otherwise.
const DEADLINE: Duration = Duration::from_secs(120);
/// After what silence a member's partitions are given to others, unless the user says otherwise.
const SESSION: Duration = Duration::from_secs(10);
/// How long an application may work on a record, unless the user says otherwise.
const PROCESSING_DEADLINE: Duration = Duration::from_secs(300);
/// The shortest interval between automatic commits.
const AUTO_COMMIT_LEAST: Duration = Duration::from_millis(10);
const _: () = assert!(PREFETCH_BYTES_MAX <= Semaphore::MAX_PERMITS);

/// Settings of a [`Consumer`].
#[derive(Debug)]
#[must_use = "nothing is read before `build`"]
pub struct ConsumerBuilder {
    caller: Arc<Caller>,
    topic: String,
    /// One partition, or all.
    partition: Option<u32>,
    look_up_deadline: Duration,
    position: Position,
    prefetch_bytes: usize,
    freshness: Freshness,
    deadline: Duration,
    stop_at_end: bool,
    group: Option<Member>,
    session: Duration,
    processing_deadline: Duration,
    auto_commit: Option<Duration>,
    is_static: bool,
}

impl ConsumerBuilder {
    pub(crate) fn new(caller: Arc<Caller>, topic: String, partition: Option<u32>, look_up_deadline: Duration) -> Self {
        Self {
            caller,
            topic,
            partition,
            look_up_deadline,
            position: Position::Beginning,
            prefetch_bytes: PREFETCH_BYTES,
            freshness: Freshness::Committed,
            deadline: DEADLINE,
            stop_at_end: false,
            group: None,
            session: SESSION,
            processing_deadline: PROCESSING_DEADLINE,
            auto_commit: None,
            is_static: false,
        }
    }

    /// Consume for a group: begin where it left off on each partition (and only where it never committed, where
    /// [`from`](Self::from) says), and be able to [`commit`](Consumer::commit).
    ///
    /// A consumer of a whole topic joins the group as `member`, a name that nobody else uses at the same time, and shares the
    /// partitions with the other members: it has some of them, none if there are more members than partitions, and not
    /// always the same. A consumer of one partition claims that for `member`, from whoever had it, and joins nothing.
    pub fn group(mut self, group: impl Into<String>, member: impl Into<String>) -> Self {
        self.group = Some(Member {
            group: group.into(),
            member: member.into(),
        });
        self
    }

    /// For a member of a group: commit by itself, every so often, when a partition is given up and at the end. Asking for a record
    /// then says that all before it are done. Default: [`commit`](Consumer::commit) by hand.
    pub fn auto_commit(mut self, interval: Duration) -> Self {
        self.auto_commit = Some(interval);
        self
    }

    /// For a member of a group: after what silence of its process its partitions are given to others, 1 s to 5 min. Default 10 s.
    pub fn session(mut self, session: Duration) -> Self {
        self.session = session;
        self
    }

    /// For a member of a group: how long the application may take before it asks for the next record, 1 s to 1 h. Then its partitions are
    /// given to others, until it asks. Default 5 min.
    pub fn processing_deadline(mut self, deadline: Duration) -> Self {
        self.processing_deadline = deadline;
        self
    }

    /// For a member of a group: keep the partitions for a session when the consumer ends, for a process that is only restarted and
    /// joins again under the same name. Default: they are given to others at once.
    pub fn static_member(mut self) -> Self {
        self.is_static = true;
        self
    }

    /// Where to begin. Default: the beginning.
    pub fn from(mut self, position: Position) -> Self {
        self.position = position;
        self
    }

    /// How many bytes of batches may be read ahead, over all partitions. Default 8 MiB. A larger batch counts as that.
    /// Beside them each partition holds one response and the window of its stream.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How fresh the first answer must be. Default: committed.
    pub fn freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// How long a partition may be served by no replica before the stream fails with [`Error::Deadline`]. Waiting at the
    /// end of a partition for new records is not limited. Default 2 minutes.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// End the stream at the ends of the partitions, as their leaders confirm them when `build` is called.
    pub fn stop_at_end(mut self) -> Self {
        self.stop_at_end = true;
        self
    }

    /// Looks the topic up, joins the group if it is for one, finds the first offsets and begins to read ahead.
    ///
    /// Cancel safe, but for a group: partitions may then have been claimed, and a member that joined leaves again.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`; [`Error::InvalidArgument`]; [`Error::Deadline`].
    pub async fn build(self) -> Result<Consumer, Error> {
        self.check()?;
        let deadline = Deadline::after(self.look_up_deadline);
        let topic = self.caller.look_up(&self.topic, deadline).await?;
        let partitions = self.choose_partitions(&topic)?;
        let topic = TopicRef::from(&topic);
        let grouped = match (&self.group, self.partition) {
            (Some(member), None) => Some(self.join(&topic, member.clone(), deadline).await?),
            _ => None,
        };
        let parts = match &grouped {
            Some(_) => Vec::new(), // they come with the membership's changes
            None => self.find_parts(&topic, &partitions, deadline).await?,
        };
        let route = Arc::new(ReadRoute {
            wire_name: self.caller.wire_name(&topic),
            topic,
            display_name: self.topic,
            caller: self.caller,
            deadline: self.deadline,
            prefetch: Arc::new(Semaphore::new(self.prefetch_bytes)),
            prefetch_bytes: self.prefetch_bytes,
        });
        let (sender, items) = mpsc::channel(PREFETCH_BATCHES_MAX);
        let mut consumer = Consumer {
            parts,
            look_up_deadline: self.look_up_deadline,
            route,
            sender,
            items,
            current: None,
            handed_out: None,
            grouped,
        };
        for part in &mut consumer.parts {
            part.read(&consumer.route, &consumer.sender, self.freshness);
        }
        Ok(consumer)
    }

    fn check(&self) -> Result<(), Error> {
        if !(1..=PREFETCH_BYTES_MAX).contains(&self.prefetch_bytes) {
            let problem = format!("{}; from 1 to {PREFETCH_BYTES_MAX}", self.prefetch_bytes);
            return Err(Error::invalid("prefetch_bytes", problem));
        }
        if self.deadline.is_zero() {
            return Err(Error::invalid("deadline", "must be more than 0"));
        }
        check_duration("session", self.session, GROUP_SESSION_MS)?;
        check_duration("processing_deadline", self.processing_deadline, GROUP_RELEASE_MS)?;
        match self.auto_commit {
            Some(interval) if interval < AUTO_COMMIT_LEAST => Err(Error::invalid(
                "auto_commit",
                format!(
                    "{} ms; at least {}",
                    interval.as_millis(),
                    AUTO_COMMIT_LEAST.as_millis()
                ),
            )),
            Some(_) if self.group.is_none() || self.partition.is_some() => Err(Error::invalid(
                "auto_commit",
                "it is for members that share a topic; commit by hand",
            )),
            _ => Ok(()),
        }
    }

    async fn join(&self, topic: &TopicRef, member: Member, deadline: Deadline) -> Result<Grouped, Error> {
        let action = format!("join group {} on {}", member.group, self.topic);
        let mut membership = Membership::begin(Route {
            caller: self.caller.clone(),
            topic: topic.clone(),
            member,
            session: self.session,
            processing_deadline: self.processing_deadline,
            auto_commit: self.auto_commit,
            is_static: self.is_static,
            position: self.position,
            stop_at_end: self.stop_at_end,
            call_deadline: self.look_up_deadline,
        });
        match timeout_at(deadline.at, membership.joined()).await {
            Ok(joined) => joined?,
            Err(_) => {
                return Err(Error::Deadline {
                    action,
                    after: deadline.after,
                    last: None,
                });
            }
        }
        Ok(Grouped::new(membership, self.stop_at_end, self.freshness))
    }

    fn choose_partitions(&self, topic: &v1::Topic) -> Result<Vec<u32>, Error> {
        let all: Vec<u32> = topic.partitions.iter().map(|partition| partition.partition).collect();
        let Some(wanted) = self.partition else {
            return Ok(all);
        };
        if all.contains(&wanted) {
            return Ok(vec![wanted]);
        }
        let detail = v1::ErrorDetail {
            reason: Reason::PartitionNotFound as i32,
            message: format!("there is no partition {wanted}; it has {}, numbered from 0", all.len()),
            ..Default::default()
        };
        Err(Error::refused(Refusal::from_detail(
            &self.topic,
            Code::NotFound,
            detail,
        )))
    }

    /// Where each partition begins and, if wanted, ends; claimed if it is for a group.
    async fn find_parts(&self, topic: &TopicRef, partitions: &[u32], deadline: Deadline) -> Result<Vec<Part>, Error> {
        let find = |(place, partition): (usize, u32)| async move {
            let Some(member) = &self.group else {
                let position = self.position.find(&self.caller, topic, partition, deadline).await?;
                let stop = match self.stop_at_end {
                    true => Some(Position::End.find(&self.caller, topic, partition, deadline).await?),
                    false => None,
                };
                return Ok(Part::new(place, partition, position, stop));
            };
            let begin = Begin {
                caller: &self.caller,
                topic,
                member,
                position: self.position,
                stop_at_end: self.stop_at_end,
                deadline,
            };
            let mut part = Part::new(place, partition, 0, None);
            part.take_over(begin.claim(partition).await?);
            Ok(part)
        };
        let places: Vec<(usize, u32)> = partitions.iter().copied().enumerate().collect();
        stream::iter(places)
            .map(find)
            .buffered(LOOK_UPS_AT_ONCE)
            .try_collect()
            .await
    }
}

/// `(least, most)` in milliseconds, inclusive.
fn check_duration(field: &'static str, value: Duration, (least, most): (u32, u32)) -> Result<(), Error> {
    let (least, most) = (u64::from(least), u64::from(most));
    match (Duration::from_millis(least)..=Duration::from_millis(most)).contains(&value) {
        true => Ok(()),
        false => Err(Error::invalid(
            field,
            format!("{} ms; from {least} to {most} ms", value.as_millis()),
        )),
    }
}
