//! The consumer: committed records of one or all partitions of a topic, in the order of each partition.
//!
//! ```text
//! replica ─► Consume stream ─► fetcher (one task per partition): check ─► prefetch, bounded in bytes ─► Consumer
//! ```
//!
//! Reading prefers a follower, follows the tail without polling, and moves to another replica when the one in use fails,
//! from exactly the next offset. When the application stops reading, the prefetch fills up, then the windows of the
//! streams, and then the nodes stop sending.
//!
//! For a group it begins where the group left off, and commits when it is told to. Deliberately absent: sharing partitions out
//! among the members of a group; whoever builds the consumer says which it reads.

pub(crate) mod decode;
mod fetcher;
mod prefetch;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt, stream};
use highwater_proto::v1::{self, list_offsets_request};
use tokio::sync::{Semaphore, mpsc};
use tonic::Code;

use self::fetcher::{Fetcher, ReadRoute};
use self::prefetch::{Fetched, Item, Shared};
use crate::calls::Caller;
use crate::deadline::Deadline;
use crate::error::{Error, Reason, Refusal};
use crate::groups::Claim;
use crate::picture::TopicRef;
use crate::record::ConsumedRecord;

/// The prefetch unless the user says otherwise, bytes.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;
/// The largest prefetch, bytes.
const PREFETCH_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// How many batches may wait in the prefetch, however small they are.
const PREFETCH_BATCHES_MAX: usize = 256;
/// How long no replica may serve a partition before that is an error, unless the user says otherwise.
const DEADLINE: Duration = Duration::from_secs(120);
/// How many partitions are asked for their offsets at a time.
const LOOK_UPS_AT_ONCE: usize = 16;

const _: () = assert!(PREFETCH_BYTES_MAX <= Semaphore::MAX_PERMITS);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first record that can be read.
    Beginning,
    /// Behind the last committed record: only what comes.
    End,
    /// This offset. If it is beyond the end, the stream waits for it.
    Offset(u64),
    /// The first record appended at or after this time, milliseconds since 1970-01-01 UTC.
    Time(u64),
}

/// How fresh the first answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the replica knows to be committed.
    Committed,
    /// Everything below this offset (read your own writes).
    MinOffset(u64),
    /// Everything committed before the call.
    Linearizable,
}

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
        let shared = Arc::new(Shared::new(spans.len()));
        let (sender, items) = mpsc::channel(PREFETCH_BATCHES_MAX);
        for (place, span) in spans.iter().enumerate() {
            let fetcher = Fetcher {
                route: route.clone(),
                shared: shared.clone(),
                place,
                partition: span.partition,
                next: span.position,
                stop: span.stop,
                freshness: self.freshness,
                items: sender.clone(),
            };
            tokio::spawn(fetcher.run());
        }
        Ok(Consumer {
            route,
            look_up_deadline: self.look_up_deadline,
            shared,
            spans,
            claims,
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
            use list_offsets_request::Position as Wanted;
            let find = |wanted| self.caller.list_offset(topic, partition, wanted, deadline);
            let committed = claims.get(place).and_then(|claim| claim.offset);
            let position = match (committed, self.position) {
                (Some(offset), _) | (None, Position::Offset(offset)) => offset,
                (None, Position::Beginning) => find(Wanted::Earliest(true)).await?,
                (None, Position::End) => find(Wanted::Latest(true)).await?,
                (None, Position::Time(time_ms)) => find(Wanted::TimestampMs(time_ms)).await?,
            };
            let stop = match self.stop_at_end {
                true => Some(find(Wanted::Latest(true)).await?),
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

/// What is still to be handed out of a partition.
#[derive(Debug)]
struct Span {
    partition: u32,
    /// The offset of the next record to be handed out.
    position: u64,
    /// Where to stop, exclusive.
    stop: Option<u64>,
}

/// A stream of records: of one partition in order, or of several partitions, each in order.
///
/// A partition's part ends after an error that cannot pass (offset out of range, topic gone, permission, deadline), and
/// with `stop_at_end` at its end; the stream ends when all its partitions have. After [`Error::CorruptBatch`] and
/// [`Error::UnsupportedCompression`] reading goes on behind the offsets that the error names.
#[derive(Debug)]
pub struct Consumer {
    route: Arc<ReadRoute>,
    look_up_deadline: Duration,
    shared: Arc<Shared>,
    spans: Vec<Span>,
    /// For a group: one for each span, in the same order; else none.
    claims: Vec<Claim>,
    items: mpsc::Receiver<Item>,
    current: Option<Fetched>,
}

impl Consumer {
    /// The next record; `None` at the end. Cancel safe.
    pub async fn next_record(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        self.next().await
    }

    /// The partitions that are read.
    pub fn partitions(&self) -> Vec<u32> {
        self.spans.iter().map(|span| span.partition).collect()
    }

    fn place(&self, partition: u32) -> Option<usize> {
        self.spans.iter().position(|span| span.partition == partition)
    }

    /// The offset of the next record to come from a partition; `None` if that is not read here.
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.place(partition).map(|place| self.spans[place].position)
    }

    /// With `stop_at_end`: where a partition's part ends, exclusive.
    pub fn stop_offset(&self, partition: u32) -> Option<u64> {
        self.place(partition).and_then(|place| self.spans[place].stop)
    }

    /// The name of the node that serves a partition at the moment, once it has answered.
    pub fn served_by(&self, partition: u32) -> Option<String> {
        self.place(partition).and_then(|place| self.shared.served_by(place))
    }

    /// The highest high watermark that serving nodes have told, exclusive.
    pub fn high_watermark(&self, partition: u32) -> Option<u64> {
        self.place(partition)
            .and_then(|place| self.shared.high_watermark(place))
    }

    /// The end of a partition (exclusive), confirmed by its leader now.
    ///
    /// # Errors
    /// [`Error::Deadline`], and reasons as in the contract.
    pub async fn end_offset(&self, partition: u32) -> Result<u64, Error> {
        let latest = list_offsets_request::Position::Latest(true);
        let deadline = Deadline::after(self.look_up_deadline);
        let caller = &self.route.caller;
        caller.list_offset(&self.route.topic, partition, latest, deadline).await
    }

    /// Commits for the group that all records handed out so far are done: whoever claims a partition next begins behind them. Returns
    /// when that is on the disks of a majority. What has not moved since the last commit is not committed again.
    ///
    /// Cancel safe: it may then have been committed in part, and may be called again.
    ///
    /// # Errors
    /// Reason `STALE_CLAIM`: another member has claimed a partition, and this consumer's word counts no more there; the other
    /// partitions have been committed. [`Error::InvalidArgument`] without a group; [`Error::Deadline`].
    pub async fn commit(&mut self) -> Result<(), Error> {
        if self.claims.is_empty() {
            return Err(Error::invalid("group", "the consumer was built without one"));
        }
        let deadline = Deadline::after(self.look_up_deadline);
        let (caller, topic) = (&self.route.caller, &self.route.topic);
        let commits = self.claims.iter_mut().zip(&self.spans);
        let commits = commits.map(|(claim, span)| claim.commit(caller, topic, span.position, deadline));
        let results: Vec<Result<(), Error>> = stream::iter(commits).buffer_unordered(LOOK_UPS_AT_ONCE).collect().await;
        results.into_iter().collect()
    }

    /// The next offset to consume as the group has committed it; `None` if it has not, or without a group.
    pub fn committed(&self, partition: u32) -> Option<u64> {
        let place = self.place(partition)?;
        self.claims.get(place).and_then(|claim| claim.offset)
    }

    /// The next record of the batch at hand.
    fn next_of_current(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        let current = self.current.as_mut()?;
        let Some(record) = current.next_record() else {
            self.current = None;
            return None;
        };
        let next = current.offset;
        self.spans[current.place].position = next;
        Some(record.map_err(|problem| Error::CorruptBatch {
            topic: self.route.display_name.clone(),
            partition: current.partition,
            offsets: next - 1..next,
            problem,
        }))
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(record) = self.next_of_current() {
                return Poll::Ready(Some(record));
            }
            match ready!(self.items.poll_recv(context)) {
                None => return Poll::Ready(None),
                Some(Item::Batch(fetched)) => self.current = Some(fetched),
                Some(Item::Failed {
                    place,
                    resume_at,
                    error,
                }) => {
                    self.spans[place].position = resume_at;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}
