//! Settings of a consumer, and how it begins.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use highwater_proto::v1;
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use super::fetcher::ReadRoute;
use super::part::Part;
use super::{Consumer, Freshness, LOOK_UPS_AT_ONCE, Position};
use crate::calls::Caller;
use crate::deadline::Deadline;
use crate::error::{Error, Reason, Refusal};
use crate::groups::Claim;
use crate::picture::TopicRef;

/// The prefetch unless the user says otherwise, bytes.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;
/// The largest prefetch, bytes.
const PREFETCH_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How many batches may wait in the prefetch, however small they are.
const PREFETCH_BATCHES_MAX: usize = 256;
/// How long no replica may serve a partition before that is an error, unless the user says otherwise.
const DEADLINE: Duration = Duration::from_secs(120);
const _: () = assert!(PREFETCH_BYTES_MAX <= Semaphore::MAX_PERMITS);

/// Settings of a [`Consumer`].
#[derive(Debug)]
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
    group: Option<Membership>,
}

/// As whom to consume for a group.
#[derive(Debug, Clone)]
struct Membership {
    group: String,
    member: String,
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
        }
    }

    /// Consume for a group: begin where it left off on each partition (and only where it never committed, where
    /// [`from`](Self::from) says), and be able to [`commit`](Consumer::commit). `build` claims the partitions for `member`,
    /// from whoever had them.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>, member: impl Into<String>) -> Self {
        self.group = Some(Membership {
            group: group.into(),
            member: member.into(),
        });
        self
    }

    /// Where to begin. Default: the beginning.
    #[must_use]
    pub fn from(mut self, position: Position) -> Self {
        self.position = position;
        self
    }

    /// How many bytes of batches may be read ahead, over all partitions. Default 8 MiB. A larger batch counts as that.
    /// Beside them each partition holds one response and the window of its stream.
    #[must_use]
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How fresh the first answer must be. Default: committed.
    #[must_use]
    pub fn freshness(mut self, freshness: Freshness) -> Self {
        self.freshness = freshness;
        self
    }

    /// How long a partition may be served by no replica before the stream fails with [`Error::Deadline`]. Waiting at the
    /// end of a partition for new records is not limited. Default 2 minutes.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// End the stream at the ends of the partitions, as their leaders confirm them when `build` is called.
    #[must_use]
    pub fn stop_at_end(mut self) -> Self {
        self.stop_at_end = true;
        self
    }

    /// Looks the topic up, finds the first offsets and begins to read ahead.
    ///
    /// # Errors
    /// Reasons `TOPIC_NOT_FOUND`, `PARTITION_NOT_FOUND`; [`Error::InvalidArgument`]; [`Error::Deadline`].
    pub async fn build(self) -> Result<Consumer, Error> {
        if !(1..=PREFETCH_BYTES_MAX).contains(&self.prefetch_bytes) {
            let problem = format!("{}; from 1 to {PREFETCH_BYTES_MAX}", self.prefetch_bytes);
            return Err(Error::invalid("prefetch_bytes", problem));
        }
        if self.deadline.is_zero() {
            return Err(Error::invalid("deadline", "must be more than 0"));
        }
        let deadline = Deadline::after(self.look_up_deadline);
        let topic = self.caller.look_up(&self.topic, deadline).await?;
        let partitions = self.choose_partitions(&topic)?;
        let topic = TopicRef::from(&topic);
        let claims = self.claim(&topic, &partitions, deadline).await?;
        let spans = self.find_spans(&topic, &partitions, &claims, deadline).await?;

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
        let parts = spans.into_iter().enumerate().map(|(place, span)| {
            let mut part = Part::new(place, span.partition, span.position, span.stop);
            part.read(&route, &sender, self.freshness);
            part
        });
        Ok(Consumer {
            parts: parts.collect(),
            claims,
            look_up_deadline: self.look_up_deadline,
            route,
            sender,
            items,
            current: None,
        })
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

    /// Takes the partitions for the group, if it is for one.
    async fn claim(&self, topic: &TopicRef, partitions: &[u32], deadline: Deadline) -> Result<Vec<Claim>, Error> {
        let Some(Membership { group, member }) = &self.group else {
            return Ok(Vec::new());
        };
        let claim = |partition: u32| Claim::take(&self.caller, topic, partition, (group, member), deadline);
        stream::iter(partitions.to_vec())
            .map(claim)
            .buffered(LOOK_UPS_AT_ONCE)
            .try_collect()
            .await
    }

    /// Where each partition begins and, if wanted, ends.
    async fn find_spans(
        &self,
        topic: &TopicRef,
        partitions: &[u32],
        claims: &[Claim],
        deadline: Deadline,
    ) -> Result<Vec<Span>, Error> {
        let span = |(place, partition): (usize, u32)| async move {
            let committed = claims.get(place).and_then(|claim| claim.offset);
            let begin = committed.map_or(self.position, Position::Offset);
            let position = begin.find(&self.caller, topic, partition, deadline).await?;
            let stop = match self.stop_at_end {
                true => Some(Position::End.find(&self.caller, topic, partition, deadline).await?),
                false => None,
            };
            Ok(Span {
                partition,
                position,
                stop,
            })
        };
        let places: Vec<(usize, u32)> = partitions.iter().copied().enumerate().collect();
        stream::iter(places)
            .map(span)
            .buffered(LOOK_UPS_AT_ONCE)
            .try_collect()
            .await
    }
}

/// Where a partition's reading begins.
#[derive(Debug)]
struct Span {
    partition: u32,
    position: u64,
    /// Where to stop, exclusive.
    stop: Option<u64>,
}
