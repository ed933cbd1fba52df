//! The consumer: committed records of one or all partitions of a topic, in the order of each partition.
//!
//! ```text
//! replica ─► Consume stream ─► fetcher (one task per partition): check ─► prefetch, bounded in bytes ─► Consumer
//! ```
//!
//! Reading prefers a follower, follows the tail without polling, and moves to another replica when the one in use fails,
//! from exactly the next offset; and back to a better one when there is one again (`returning`). When the application stops reading, the prefetch fills up, then the windows of the
//! streams, and then the nodes stop sending.
//!
//! Each partition can be paused, resumed and moved to another offset at any time (`part`).
//!
//! For a group it begins where the group left off. A member of a group that shares a topic reads the partitions that it is given
//! for the time being (`grouped`).
//!
//! Deliberately absent: who gives them (`membership`).

mod batch;
mod builder;
pub(crate) mod decode;
mod fetcher;
mod grouped;
mod part;
mod prefetch;
mod returning;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Stream, StreamExt};
use highwater_proto::v1::list_offsets_request::Position as Wanted;
use tokio::sync::mpsc;

pub use self::batch::ConsumedBatch;
pub use self::builder::ConsumerBuilder;
use self::fetcher::ReadRoute;
use self::grouped::Grouped;
use self::part::Part;
use self::prefetch::{Fetched, Item};
use crate::calls::Caller;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::picture::TopicRef;
use crate::record::ConsumedRecord;

/// How many partitions are asked for their offsets at a time.
const LOOK_UPS_AT_ONCE: usize = 16;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum Freshness {
    /// Whatever the replica knows to be committed.
    Committed,
    /// Everything below this offset (read your own writes).
    MinOffset(u64),
    /// Everything committed before the call.
    Linearizable,
}

impl Position {
    /// The offset that it means in a partition now.
    pub(crate) async fn find(
        self,
        caller: &Caller,
        topic: &TopicRef,
        partition: u32,
        deadline: Deadline,
    ) -> Result<u64, Error> {
        let wanted = match self {
            Position::Offset(offset) => return Ok(offset),
            Position::Beginning => Wanted::Earliest(true),
            Position::End => Wanted::Latest(true),
            Position::Time(time_ms) => Wanted::TimestampMs(time_ms),
        };
        caller.list_offset(topic, partition, wanted, deadline).await
    }
}

/// A stream of records: of one partition in order, or of several partitions, each in order.
///
/// A partition's part ends after an error that cannot pass (offset out of range, topic gone, permission, deadline), and
/// with `stop_at_end` at its end; the stream ends when all its partitions have. After [`Error::CorruptBatch`] and
/// [`Error::UnsupportedCompression`] reading goes on behind the offsets that the error names.
///
/// A paused partition has not ended: a stream of which all that is left is paused waits. So does a member of a group while it has no
/// partitions.
#[derive(Debug)]
#[must_use = "a consumer hands out nothing unless it is asked"]
pub struct Consumer {
    route: Arc<ReadRoute>,
    look_up_deadline: Duration,
    parts: Vec<Part>,
    /// For readers that begin later.
    sender: mpsc::Sender<Item>,
    items: mpsc::Receiver<Item>,
    current: Option<Fetched>,
    /// The place of the partition that was last handed something out of.
    handed_out: Option<usize>,
    /// For a member that shares a topic with others.
    grouped: Option<Grouped>,
}

impl Consumer {
    /// The next record; `None` at the end. Cancel safe.
    pub async fn next_record(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        self.next().await
    }

    /// The records that come next and came together: faster than one by one, above all if they are small. `None` at the end. Cancel
    /// safe.
    ///
    /// All of them count as handed out at once: [`position`](Self::position) is behind the last one, and a [`commit`](Self::commit)
    /// before the next batch is about all of them. A member's processing deadline is for a whole batch.
    pub async fn next_batch(&mut self) -> Option<Result<ConsumedBatch, Error>> {
        poll_fn(|context| self.poll_asked(context, Self::take_current)).await
    }

    /// The partitions that are read; of a member of a group those that it has at the moment, as of the last time that it was asked for
    /// a record.
    #[must_use]
    pub fn partitions(&self) -> Vec<u32> {
        let here = self.parts.iter().filter(|part| part.is_here());
        here.map(|part| part.partition).collect()
    }

    fn place(&self, partition: u32) -> Option<usize> {
        let mut parts = self.parts.iter();
        parts.position(|part| part.partition == partition && part.is_here())
    }

    fn part(&self, partition: u32) -> Option<&Part> {
        self.place(partition).map(|place| &self.parts[place])
    }

    /// The place of a partition that a caller names.
    fn known_place(&self, partition: u32) -> Result<usize, Error> {
        let unknown = || Error::invalid("partition", format!("{partition} is not read by this consumer"));
        self.place(partition).ok_or_else(unknown)
    }

    /// The offset of the next record to come from a partition; `None` if that is not read here.
    #[must_use]
    pub fn position(&self, partition: u32) -> Option<u64> {
        self.part(partition).map(|part| part.position)
    }

    /// With `stop_at_end`: where a partition's part ends, exclusive.
    #[must_use]
    pub fn stop_offset(&self, partition: u32) -> Option<u64> {
        self.part(partition).and_then(|part| part.stop)
    }

    /// The name of the node that serves a partition at the moment, once it has answered.
    #[must_use]
    pub fn served_by(&self, partition: u32) -> Option<String> {
        self.part(partition).and_then(|part| part.news.served_by())
    }

    /// The highest high watermark that serving nodes have told, exclusive.
    #[must_use]
    pub fn high_watermark(&self, partition: u32) -> Option<u64> {
        self.part(partition).and_then(|part| part.news.high_watermark())
    }

    /// How many records of a partition wait to be handed out, as far as its serving nodes have told; `None` before the first
    /// answer. [`end_offset`](Self::end_offset) asks the leader.
    #[must_use]
    pub fn lag(&self, partition: u32) -> Option<u64> {
        let part = self.part(partition)?;
        Some(part.news.high_watermark()?.saturating_sub(part.position))
    }

    /// The end of a partition (exclusive), confirmed by its leader now. Cancel safe.
    ///
    /// # Errors
    /// [`Error::Deadline`], and reasons as in the contract.
    pub async fn end_offset(&self, partition: u32) -> Result<u64, Error> {
        let deadline = Deadline::after(self.look_up_deadline);
        let (caller, topic) = (&self.route.caller, &self.route.topic);
        Position::End.find(caller, topic, partition, deadline).await
    }

    /// Goes on at another place of a partition, also of one that has ended; what was read ahead of it is dropped. A paused
    /// partition stays paused. With `stop_at_end` the end stays where it is.
    ///
    /// Cancel safe: either nothing has changed, or all has.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a partition that is not read here; [`Error::Deadline`]. Nothing has changed then.
    pub async fn seek(&mut self, partition: u32, to: Position) -> Result<(), Error> {
        let place = self.known_place(partition)?;
        let deadline = Deadline::after(self.look_up_deadline);
        let (caller, topic) = (&self.route.caller, &self.route.topic);
        let offset = to.find(caller, topic, partition, deadline).await?;
        self.forget_current(place);
        let part = &mut self.parts[place];
        part.position = offset;
        if !part.is_paused() {
            part.read(&self.route, &self.sender, Freshness::Committed);
        }
        Ok(())
    }

    /// Hands out no more of a partition until [`resume`](Self::resume). What was read ahead is dropped, and read again then.
    /// One that has ended stays so.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a partition that is not read here.
    pub fn pause(&mut self, partition: u32) -> Result<(), Error> {
        let place = self.known_place(partition)?;
        self.forget_current(place);
        self.parts[place].pause();
        Ok(())
    }

    /// Goes on with a paused partition where it was.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a partition that is not read here.
    pub fn resume(&mut self, partition: u32) -> Result<(), Error> {
        let place = self.known_place(partition)?;
        let part = &mut self.parts[place];
        if part.is_paused() {
            part.read(&self.route, &self.sender, Freshness::Committed);
        }
        Ok(())
    }

    /// The partitions that are paused.
    #[must_use]
    pub fn paused(&self) -> Vec<u32> {
        let paused = self.parts.iter().filter(|part| part.is_here() && part.is_paused());
        paused.map(|part| part.partition).collect()
    }

    fn forget_current(&mut self, place: usize) {
        if self.current.as_ref().is_some_and(|current| current.place == place) {
            self.current = None;
        }
    }

    /// The next record of the batch at hand.
    fn next_of_current(&mut self) -> Option<Result<ConsumedRecord, Error>> {
        let current = self.current.as_mut()?;
        let Some(record) = current.next_record() else {
            self.current = None;
            return None;
        };
        self.parts[current.place].position = current.offset;
        self.handed_out = Some(current.place);
        Some(record.map_err(|problem| current.corrupt(&self.route.display_name, problem)))
    }

    /// All that is left of the batch at hand.
    fn take_current(&mut self) -> Option<Result<ConsumedBatch, Error>> {
        let current = self.current.take().filter(|current| !current.wanted().is_empty())?;
        self.parts[current.place].position = current.end;
        self.handed_out = Some(current.place);
        Some(Ok(ConsumedBatch::new(current, self.route.display_name.clone())))
    }
}

impl Consumer {
    /// Takes what a reader has handed over, unless its epoch is over; an error is to be told.
    fn take_in(&mut self, item: Item) -> Option<Error> {
        let (place, epoch) = item.origin();
        let part = &mut self.parts[place];
        if part.epoch != epoch {
            return None;
        }
        match item {
            Item::Batch(fetched) => self.current = Some(fetched),
            Item::Ended { .. } => part.end(),
            Item::Failed { resume_at, error, .. } => {
                part.position = resume_at;
                self.handed_out = Some(place);
                return Some(error);
            }
        }
        None
    }
}

impl Consumer {
    /// What `take` finds in the batch at hand, as soon as it finds something.
    fn poll_asked<T>(
        &mut self,
        context: &mut Context<'_>,
        take: fn(&mut Self) -> Option<Result<T, Error>>,
    ) -> Poll<Option<Result<T, Error>>> {
        self.note_asked();
        let polled = self.poll_taken(context, take);
        if polled.is_pending() {
            self.note_waiting();
        }
        polled
    }

    fn poll_taken<T>(
        &mut self,
        context: &mut Context<'_>,
        take: fn(&mut Self) -> Option<Result<T, Error>>,
    ) -> Poll<Option<Result<T, Error>>> {
        loop {
            if self.has_changes()
                && let Some(error) = self.take_in_changes(context)
            {
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(taken) = take(self) {
                return Poll::Ready(Some(taken));
            }
            if self.has_ended() {
                return Poll::Ready(None);
            }
            // Never the end: this consumer has a sender of its own.
            match self.items.poll_recv(context) {
                Poll::Ready(Some(item)) => {
                    if let Some(error) = self.take_in(item) {
                        return Poll::Ready(Some(Err(error)));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return self.wait_for_changes(context),
            }
        }
    }

    fn has_ended(&self) -> bool {
        match &self.grouped {
            Some(grouped) if !grouped.may_end() => false,
            _ => self.parts.iter().all(|part| part.has_ended() || !part.is_here()),
        }
    }
}

impl Stream for Consumer {
    type Item = Result<ConsumedRecord, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_asked(context, Self::next_of_current)
    }
}
