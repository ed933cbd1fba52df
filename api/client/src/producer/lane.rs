//! What waits to be sent to one partition: filled by senders, emptied by the partition's worker.
//!
//! Senders encode under the lane's lock, which is held for the copy of one record at a time. The worker is woken when a
//! batch begins (its linger runs) and when one is complete, not for each record.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_proto::v1;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::batch::{Batch, Batching, OpenBatch, size_in_batch};
use super::delivery::{Delivery, Promise};
use super::sizing::Sizing;

/// The first buffer of a batch, before the lane knows how large its batches get.
const FIRST_CAPACITY: usize = 4 * 1024;

#[derive(Debug)]
pub(crate) struct Lane {
    partition: u32,
    batching: Batching,
    queue: Mutex<Queue>,
    /// Batches with the worker.
    in_flight: AtomicUsize,
    pub(crate) wake: Notify,
}

#[derive(Debug)]
struct Queue {
    open: Option<OpenBatch>,
    sealed: VecDeque<Batch>,
    /// Resolves with the newest batch. Batches resolve in order, so all are resolved then.
    newest: Option<Delivery>,
    /// How large the last batch was: the best guess for the next one.
    capacity: usize,
    sizing: Sizing,
    closed: bool,
}

impl Queue {
    fn seal(&mut self) {
        let Some(open) = self.open.take() else { return };
        self.capacity = open.bytes_len().next_power_of_two().max(FIRST_CAPACITY);
        self.sealed.push_back(open.seal());
    }
}

impl Lane {
    pub(crate) fn new(partition: u32, batching: Batching) -> Self {
        Self {
            partition,
            queue: Mutex::new(Queue {
                sizing: Sizing::new(batching.batch_bytes),
                open: None,
                sealed: VecDeque::new(),
                newest: None,
                capacity: FIRST_CAPACITY,
                closed: false,
            }),
            batching,
            in_flight: AtomicUsize::new(0),
            wake: Notify::new(),
        }
    }

    /// As the program named it.
    pub(crate) fn topic(&self) -> &str {
        &self.batching.topic
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a record whose `size` has been taken from the buffer. `None` if the lane is closed.
    pub(crate) fn append(&self, record: &v1::Record, size: usize) -> Option<Delivery> {
        let mut queue = self.lock();
        if queue.closed {
            return None;
        }
        let batch_bytes = queue.sizing.limit();
        let mut wake = false;
        if queue.open.as_ref().is_some_and(|open| !open.fits(size, batch_bytes)) {
            queue.sizing.filled();
            queue.seal();
            wake = true;
        }
        if queue.open.is_none() {
            let open = self.begin(queue.capacity.max(size));
            queue.newest = Some(open.end());
            queue.open = Some(open);
            wake = true;
        }
        let open = queue.open.as_mut()?;
        let delivery = open.push(record, size);
        if open.bytes_len() >= batch_bytes {
            queue.sizing.filled();
            queue.seal();
            wake = true;
        }
        drop(queue);
        if wake {
            self.wake.notify_one();
        }
        Some(delivery)
    }

    /// Adds a batch of its own, which is appended only at `offset`; behind everything added before. The records' `size` has been
    /// taken from the buffer. `None` if the lane is closed.
    pub(crate) fn append_at(&self, records: &[v1::Record], size: usize, offset: u64) -> Option<Delivery> {
        let mut queue = self.lock();
        if queue.closed {
            return None;
        }
        queue.seal();
        let mut batch = self.begin(size);
        batch.expect(offset);
        for record in records {
            drop(batch.push(record, size_in_batch(record)));
        }
        let first = batch.end();
        queue.newest = Some(batch.end());
        queue.sealed.push_back(batch.seal());
        drop(queue);
        self.wake.notify_one();
        Some(first)
    }

    fn begin(&self, capacity: usize) -> OpenBatch {
        let promise = Promise::new(&self.batching.topic, self.partition);
        let capacity = capacity.min(self.batching.batch_bytes + FIRST_CAPACITY);
        OpenBatch::new(promise, &self.batching, capacity)
    }

    /// Whether a record of that size would go into a batch already begun.
    pub(crate) fn has_begun(&self, size: usize) -> bool {
        let queue = self.lock();
        let open = queue.open.as_ref();
        open.is_some_and(|open| open.fits(size, queue.sizing.limit()))
    }

    /// A batch was taken, and a quota holds back what comes next, or does not.
    pub(crate) fn note_taken(&self, held_back: bool) {
        self.lock().sizing.taken(held_back);
    }

    /// How many batches wait or are in flight.
    pub(crate) fn backlog(&self) -> usize {
        self.lock().sealed.len() + self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn set_in_flight(&self, count: usize) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    /// Lets the present batch go at once; the delivery resolves when everything sent before is resolved.
    pub(crate) fn flush(&self) -> Option<Delivery> {
        let mut queue = self.lock();
        queue.seal();
        let newest = queue.newest.as_ref().map(Delivery::again);
        drop(queue);
        self.wake.notify_one();
        newest
    }

    /// No more records. What is there will still be sent.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.seal();
        queue.closed = true;
        drop(queue);
        self.wake.notify_one();
    }

    /// Takes nothing more and drops what is there, which tells the senders.
    pub(crate) fn abandon(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        let dropped = (queue.open.take(), std::mem::take(&mut queue.sealed));
        drop(queue);
        drop(dropped);
    }

    /// The next batch that is complete or has lingered long enough.
    pub(crate) fn take_due(&self, now: Instant) -> Option<Batch> {
        let mut queue = self.lock();
        if queue.sealed.is_empty() && queue.open.as_ref().is_some_and(|open| open.due <= now) {
            queue.seal();
        }
        queue.sealed.pop_front()
    }

    /// The oldest batch, if it was born at or before `limit`.
    pub(crate) fn take_born_by(&self, limit: Instant) -> Option<Batch> {
        let mut queue = self.lock();
        if queue.sealed.is_empty() && queue.open.as_ref().is_some_and(|open| open.born <= limit) {
            queue.seal();
        }
        if queue.sealed.front()?.born > limit {
            return None;
        }
        queue.sealed.pop_front()
    }

    /// When the oldest batch was born.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let queue = self.lock();
        let sealed = queue.sealed.front().map(|batch| batch.born);
        sealed.or(queue.open.as_ref().map(|open| open.born))
    }

    /// When the next batch is to be taken: now if one is complete, else when its linger ends.
    pub(crate) fn next_due(&self, now: Instant) -> Option<Instant> {
        let queue = self.lock();
        if !queue.sealed.is_empty() {
            return Some(now);
        }
        queue.open.as_ref().map(|open| open.due)
    }

    /// Whether nothing is there and nothing will come.
    pub(crate) fn is_finished(&self) -> bool {
        let queue = self.lock();
        queue.closed && queue.open.is_none() && queue.sealed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::sync::Semaphore;

    use super::super::batch::size_in_batch;
    use super::*;

    fn lane(batch_bytes: usize, linger: Duration) -> Lane {
        Lane::new(
            0,
            Batching {
                batch_bytes,
                linger,
                ..Batching::at_once(Arc::new(Semaphore::new(0)))
            },
        )
    }

    fn append(lane: &Lane, value: &'static [u8]) -> Option<Delivery> {
        let record = v1::Record {
            value: Bytes::from_static(value),
            ..Default::default()
        };
        lane.append(&record, size_in_batch(&record))
    }

    #[tokio::test]
    async fn a_batch_goes_when_full_or_when_its_linger_ends() {
        let lane = lane(20, Duration::from_secs(1));
        let now = Instant::now();
        for _ in 0..3 {
            drop(append(&lane, b"0123456").unwrap()); // 11 bytes each in the batch
        }
        assert_eq!(lane.take_due(now).unwrap().record_count, 1);
        assert_eq!(lane.take_due(now).unwrap().record_count, 1);
        assert!(lane.take_due(now).is_none(), "the third lingers");
        assert_eq!(lane.take_due(now + Duration::from_secs(2)).unwrap().record_count, 1);
    }

    #[tokio::test]
    async fn a_record_over_the_batch_size_goes_alone() {
        let lane = lane(4, Duration::from_secs(1));
        drop(append(&lane, b"0123456").unwrap());
        assert_eq!(lane.take_due(Instant::now()).unwrap().record_count, 1);
    }

    #[tokio::test]
    async fn a_closed_lane_takes_nothing_and_is_finished_when_empty() {
        let lane = lane(1_000, Duration::from_secs(1));
        drop(append(&lane, b"x").unwrap());
        lane.close();
        assert!(append(&lane, b"y").is_none());
        assert!(!lane.is_finished());
        assert_eq!(lane.take_due(Instant::now()).unwrap().record_count, 1);
        assert!(lane.is_finished());
    }
}
