//! Telling senders what became of their records.
//!
//! All records of a batch share one cell. A delivery is a pointer to it and an index, so a record costs no channel and
//! no allocation of its own. Whoever holds the batch holds the [`Promise`]; dropping it unfulfilled resolves the
//! deliveries too, with an unknown outcome, so no delivery waits for ever.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::error::{Error, Outcome, ProduceError};

/// Where a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: u64,
    pub(crate) append_time_ms: u64,
    pub(crate) duplicate: bool,
}

#[derive(Debug)]
struct Cell {
    topic: Arc<str>,
    partition: u32,
    result: OnceLock<Result<Appended, ProduceError>>,
    waiters: Mutex<Vec<Waker>>,
}

impl Cell {
    fn waiters(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fulfil(&self, result: Result<Appended, ProduceError>) {
        let waiters = {
            let mut waiters = self.waiters();
            // Only the first result counts; only the promise's holder calls this.
            let _ = self.result.set(result);
            std::mem::take(&mut *waiters)
        };
        waiters.into_iter().for_each(Waker::wake);
    }
}

/// The duty to tell the senders of a batch what became of it.
#[derive(Debug)]
pub(crate) struct Promise(Arc<Cell>);

impl Promise {
    pub(crate) fn new(topic: &Arc<str>, partition: u32) -> Self {
        Self(Arc::new(Cell {
            topic: topic.clone(),
            partition,
            result: OnceLock::new(),
            waiters: Mutex::default(),
        }))
    }

    /// The delivery of the record at `index` in the batch.
    pub(crate) fn delivery(&self, index: u32) -> Delivery {
        Delivery {
            cell: self.0.clone(),
            index,
            waiter: None,
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.0.topic
    }

    pub(crate) fn partition(&self) -> u32 {
        self.0.partition
    }

    pub(crate) fn appended(self, appended: Appended) {
        self.0.fulfil(Ok(appended));
    }

    pub(crate) fn failed(self, outcome: Outcome, cause: Error) {
        self.fail(outcome, cause);
    }

    fn fail(&self, outcome: Outcome, cause: Error) {
        let error = ProduceError::new(&self.0.topic, Some(self.0.partition), outcome, cause);
        self.0.fulfil(Err(error));
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.0.result.get().is_none() {
            self.fail(Outcome::Unknown, Error::Closed);
        }
    }
}

/// Resolves when the record is on the disks of a majority, or when the producer has given up on it.
///
/// May be dropped without effect on the record.
#[derive(Debug)]
#[must_use = "what became of the record is known only through the delivery"]
pub struct Delivery {
    cell: Arc<Cell>,
    index: u32,
    /// Our place among the cell's waiters, once we have one.
    waiter: Option<usize>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// The partition.
    pub partition: u32,
    /// The record's place in it.
    pub offset: u64,
    /// When the leader appended it, milliseconds since 1970-01-01 UTC.
    pub append_time_ms: u64,
    /// Whether a retry found the batch already there.
    pub duplicate: bool,
}

impl Delivery {
    /// The partition that was chosen.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.cell.partition
    }

    /// Whether both records are in the same batch: then they get their answers at the same moment.
    #[must_use]
    pub fn is_with(&self, other: &Delivery) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }

    /// Another delivery of the same record.
    pub(crate) fn again(&self) -> Self {
        Self {
            cell: self.cell.clone(),
            index: self.index,
            waiter: None,
        }
    }

    /// The answer, if it is there already.
    #[must_use]
    pub fn now(&self) -> Option<Result<Delivered, ProduceError>> {
        let result = self.cell.result.get()?;
        Some(result.clone().map(|appended| Delivered {
            partition: self.cell.partition,
            offset: appended.base_offset + u64::from(self.index),
            append_time_ms: appended.append_time_ms,
            duplicate: appended.duplicate,
        }))
    }
}

impl Future for Delivery {
    type Output = Result<Delivered, ProduceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(result) = self.now() {
            return Poll::Ready(result);
        }
        let cell = self.cell.clone();
        let mut waiters = cell.waiters();
        // The result may have come while we waited for the lock; afterwards nobody would wake us.
        if let Some(result) = self.now() {
            return Poll::Ready(result);
        }
        match self.waiter {
            Some(place) => waiters[place].clone_from(context.waker()),
            None => {
                self.waiter = Some(waiters.len());
                waiters.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn promise() -> Promise {
        Promise::new(&Arc::from("numbers"), 3)
    }

    #[tokio::test]
    async fn every_record_of_a_batch_learns_its_own_offset() {
        let promise = promise();
        let deliveries: Vec<Delivery> = (0..3).map(|index| promise.delivery(index)).collect();
        assert!(deliveries[0].is_with(&deliveries[2]));
        assert!(!deliveries[0].is_with(&self::promise().delivery(0)));
        let waiting = tokio::spawn(futures::future::join_all(deliveries));
        tokio::task::yield_now().await;
        promise.appended(Appended {
            base_offset: 10,
            append_time_ms: 1,
            duplicate: false,
        });
        let offsets: Vec<u64> = waiting
            .await
            .unwrap()
            .into_iter()
            .map(|result| result.unwrap().offset)
            .collect();
        assert_eq!(offsets, [10, 11, 12]);
    }

    #[tokio::test]
    async fn a_dropped_promise_says_unknown_instead_of_nothing() {
        let delivery = promise().delivery(0);
        let error = delivery.await.unwrap_err();
        assert_eq!(error.outcome(), Outcome::Unknown);
        assert_eq!(error.partition(), Some(3));
    }

    #[test]
    fn polling_again_does_not_pile_up_wakers() {
        let promise = promise();
        let mut delivery = promise.delivery(0);
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(Pin::new(&mut delivery).poll(&mut context).is_pending());
        }
        assert_eq!(promise.0.waiters().len(), 1);
    }
}
