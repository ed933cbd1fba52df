//! Decisions on a state, appended only if the state has not changed meanwhile.
//!
//! A [`Writer`] looks at its view, decides, and appends what follows from that at exactly the offset up to which the view was read. If
//! somebody else was faster, the log is longer than that, nothing is appended, and the decision is made again on the state that now is. No
//! lock is shared between servers and no server is special; what the rule "one user for each address" needs is that one partition decides
//! about an address.
//!
//! Within a process the decisions about one partition take turns, for they would only refuse each other.

use std::fmt;
use std::time::Duration;

use highwater::{Client, Delivered, Error, ProduceError, Producer, Reason, Record};
use tokio::sync::{Mutex, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use crate::view::{Behind, State, View};

/// How long a decision may wait for its turn, and be made again since others were faster. The append of the last one has as long again.
const DEADLINE: Duration = Duration::from_secs(20);
/// The most decisions about one partition that wait for their turn, or are made.
pub const WAITING_MAX: usize = 1_000;

/// Why nothing was appended, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum Declined<R: fmt::Display + fmt::Debug> {
    /// The decision was that nothing is to be appended.
    #[error("{0}")]
    Refused(R),
    /// The append failed; its outcome says whether it may have happened.
    #[error(transparent)]
    Failed(#[from] ProduceError),
    /// Too many wait for their turn. Nothing was appended.
    #[error("{WAITING_MAX} decisions wait already")]
    Busy,
    /// Its turn did not come in time. Nothing was appended.
    #[error("its turn did not come within {} s", DEADLINE.as_secs())]
    Late,
    /// The view does not follow its topic. Nothing was appended by this decision, unless that is what the view has not seen yet.
    #[error(transparent)]
    Behind(#[from] Behind),
}

/// Appends decisions to the topic of a view.
#[derive(Debug)]
pub struct Writer<S> {
    view: View<S>,
    producer: Producer,
    /// By partition.
    turns: Vec<Turns>,
}

/// Decisions about one partition are made one after the other, and so many wait for that.
#[derive(Debug)]
struct Turns {
    places: Semaphore,
    turn: Mutex<()>,
}

impl Turns {
    fn new() -> Self {
        Self {
            places: Semaphore::new(WAITING_MAX),
            turn: Mutex::default(),
        }
    }

    /// Waits for a turn, which lasts until both are dropped.
    async fn take<R: fmt::Display + fmt::Debug>(
        &self,
        deadline: Instant,
    ) -> Result<(SemaphorePermit<'_>, MutexGuard<'_, ()>), Declined<R>> {
        let place = self.places.try_acquire().map_err(|_| Declined::Busy)?;
        let turn = timeout_at(deadline, self.turn.lock()).await;
        Ok((place, turn.map_err(|_| Declined::Late)?))
    }
}

impl<S: State> Writer<S> {
    /// A writer to the topic of the view.
    ///
    /// # Errors
    /// As those of [`ProducerBuilder::build`](highwater::ProducerBuilder::build).
    pub async fn open(client: &Client, topic: &str, view: View<S>) -> Result<Self, Error> {
        Ok(Self {
            turns: (0..view.partitions()).map(|_| Turns::new()).collect(),
            producer: client.producer(topic).deadline(DEADLINE).build().await?,
            view,
        })
    }

    /// The state that is decided upon.
    #[must_use]
    pub fn view(&self) -> &View<S> {
        &self.view
    }

    /// Decides, and appends the records of the decision to the partition, all or none. When this returns the view has them, and says where
    /// the first of them is.
    ///
    /// `decide` may be called several times; only what the last call gives is appended. If it gives no records, nothing is appended, and
    /// where they would have been is told.
    ///
    /// Not cancel safe: if the future is dropped, the records may still be appended.
    ///
    /// # Errors
    /// [`Declined`].
    pub async fn decide<R: fmt::Display + fmt::Debug>(
        &self,
        partition: u32,
        mut decide: impl FnMut(&S) -> Result<Vec<Record>, R>,
    ) -> Result<u64, Declined<R>> {
        let deadline = Instant::now() + DEADLINE;
        let _turn = match self.turns.get(partition as usize) {
            Some(turns) => Some(turns.take(deadline).await?),
            None => None, // the producer says so
        };
        loop {
            let (end, decision) = self.view.read_at(partition, &mut decide);
            let records = decision.map_err(Declined::Refused)?;
            if records.is_empty() {
                return Ok(end);
            }
            let length = records.len() as u64;
            let left = || deadline.saturating_duration_since(Instant::now());
            match self.producer.append_at(partition, end, records).await {
                Ok(Delivered { offset, .. }) => {
                    // However late it is: it is done.
                    self.view.reach(partition, offset + length, DEADLINE).await?;
                    return Ok(offset);
                }
                Err(error) if error.reason() == Some(Reason::OffsetMismatch) => {
                    let now = error.log_end().unwrap_or(end + 1).max(end + 1);
                    tracing::debug!(
                        partition,
                        expected = end,
                        end = now,
                        "somebody else was faster; deciding again"
                    );
                    self.view.reach(partition, now, left()).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_too_long_or_with_too_many_is_told_so() {
        let turns = Turns::new();
        let soon = || Instant::now() + Duration::from_secs(1);
        let first = turns.take::<&str>(soon()).await.unwrap();
        let late = turns.take::<&str>(soon()).await.unwrap_err();
        assert!(matches!(late, Declined::Late), "{late}");
        drop(first);
        let _first = turns.take::<&str>(soon()).await.unwrap();

        let _others = turns.places.try_acquire_many(WAITING_MAX as u32 - 1).unwrap();
        let busy = turns.take::<&str>(soon()).await.unwrap_err();
        assert!(matches!(busy, Declined::Busy), "{busy}");
    }
}
