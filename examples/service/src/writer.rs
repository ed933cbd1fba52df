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
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::view::{Behind, State, View};

/// How long a decision may take, with all that it has to be made again.
const DEADLINE: Duration = Duration::from_secs(20);

/// Why nothing was appended, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum Declined<R: fmt::Display + fmt::Debug> {
    /// The decision was that nothing is to be appended.
    #[error("{0}")]
    Refused(R),
    /// The append failed; its outcome says whether it may have happened.
    #[error(transparent)]
    Failed(#[from] ProduceError),
    /// The view does not follow its topic. Nothing was appended by this decision, unless that is what the view has not seen yet.
    #[error(transparent)]
    Behind(#[from] Behind),
}

/// Appends decisions to the topic of a view.
#[derive(Debug)]
pub struct Writer<S> {
    view: View<S>,
    producer: Producer,
    turns: Vec<Mutex<()>>,
}

impl<S: State> Writer<S> {
    /// A writer to the topic of the view.
    ///
    /// # Errors
    /// As those of [`ProducerBuilder::build`](highwater::ProducerBuilder::build).
    pub async fn open(client: &Client, topic: &str, view: View<S>) -> Result<Self, Error> {
        Ok(Self {
            turns: (0..view.partitions()).map(|_| Mutex::default()).collect(),
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
            Some(turn) => Some(turn.lock().await),
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
                    self.view.reach(partition, offset + length, left()).await?;
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
