//! A state that is what the records of a topic make of it.
//!
//! [`View::open`] reads all partitions from where the state already is, and then follows them. The state and its positions are behind one
//! lock, so whoever reads the state knows exactly which records it is made of: that is what a [`Writer`](crate::Writer) builds upon, and
//! what lets a caller wait for its own writes ([`View::reach`]).
//!
//! Invariants: a state is given each record once, and those of a partition in order; positions never go back.
//!
//! Deliberately absent: partitions that are added later. A state that is split by key stays right only while keys stay where they are.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use highwater::{Client, ConsumedRecord, Consumer, Error, Position};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long to wait before a topic that could not be read is read again.
const PAUSE: Duration = Duration::from_millis(500);

/// What is folded. Implementations decide what a record that they cannot understand means; the usual answer is a warning, for it will be
/// there for ever.
pub trait State: Send + Sync + 'static {
    /// The next offset of this partition that is not part of the state yet: not 0 only for a state that keeps itself.
    fn position(&self, _partition: u32) -> u64 {
        0
    }

    /// Takes in the next records of a partition, at least one.
    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]);
}

/// Where a view begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Where the state is: see [`State::position`].
    State,
    /// At the last record of each partition, for those who only want to know what that was.
    LastRecord,
}

/// The view is not there yet, and it has been waited for long enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("partition {partition} has been read up to offset {position} (exclusive); {wanted} is wanted")]
pub struct Behind {
    /// The partition.
    pub partition: u32,
    /// The next offset to come.
    pub position: u64,
    /// What was waited for, exclusive.
    pub wanted: u64,
}

#[derive(Debug)]
struct Folded<S> {
    state: S,
    /// By partition, the next offset that is not part of the state.
    positions: Vec<u64>,
}

/// A state that follows its topic. Clones are of the same state; it stops to follow when the last one is dropped.
#[derive(Debug)]
pub struct View<S> {
    folded: Arc<RwLock<Folded<S>>>,
    /// Told when positions have changed.
    changes: watch::Receiver<()>,
    /// Where the partitions ended when the view was opened, exclusive.
    ends: Arc<[u64]>,
    following: Arc<Following>,
}

#[derive(Debug)]
struct Following(JoinHandle<()>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<S> Clone for View<S> {
    fn clone(&self) -> Self {
        Self {
            folded: self.folded.clone(),
            changes: self.changes.clone(),
            ends: self.ends.clone(),
            following: self.following.clone(),
        }
    }
}

impl<S: State> View<S> {
    /// Begins to follow a topic. Returns before the state is up to date: [`caught_up`](Self::caught_up) waits for that.
    ///
    /// # Errors
    /// As those of [`ConsumerBuilder::build`](highwater::ConsumerBuilder::build) and [`Consumer::end_offset`].
    pub async fn open(client: &Client, topic: &str, start: Start, state: S) -> Result<Self, Error> {
        let consumer = client.consume_topic(topic).build().await?;
        let mut ends = Vec::new();
        for partition in consumer.partitions() {
            ends.push(consumer.end_offset(partition).await?);
        }
        let begin = |(partition, end): (u32, &u64)| match start {
            Start::State => state.position(partition),
            Start::LastRecord => end.saturating_sub(1),
        };
        let positions = (0..).zip(&ends).map(begin).collect();
        let folded = Arc::new(RwLock::new(Folded { state, positions }));
        let (told, changes) = watch::channel(());
        let follower = Follower {
            client: client.clone(),
            topic: topic.to_owned(),
            folded: folded.clone(),
            told,
        };
        Ok(Self {
            folded,
            changes,
            ends: ends.into(),
            following: Arc::new(Following(tokio::spawn(follower.run(consumer)))),
        })
    }

    /// How many partitions the topic has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.ends.len() as u32
    }

    /// Looks at the state. The view stands still meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&S) -> R) -> R {
        look(&self.folded.read().unwrap_or_else(PoisonError::into_inner).state)
    }

    /// Looks at the state, with the next offset of a partition that is not part of it.
    pub fn read_at<R>(&self, partition: u32, look: impl FnOnce(&S) -> R) -> (u64, R) {
        let folded = self.folded.read().unwrap_or_else(PoisonError::into_inner);
        (position(&folded.positions, partition), look(&folded.state))
    }

    /// The next offset of a partition that is not part of the state; 0 if there is no such partition.
    #[must_use]
    pub fn position(&self, partition: u32) -> u64 {
        let folded = self.folded.read().unwrap_or_else(PoisonError::into_inner);
        position(&folded.positions, partition)
    }

    /// Told whenever the state has changed.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// Waits until everything below `offset` is part of the state. Cancel safe.
    ///
    /// # Errors
    /// [`Behind`] if that does not happen within the time given.
    pub async fn reach(&self, partition: u32, offset: u64, within: Duration) -> Result<(), Behind> {
        let mut changes = self.changes.clone();
        let reached = changes.wait_for(|()| self.position(partition) >= offset);
        match timeout(within, reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Behind {
                partition,
                position: self.position(partition),
                wanted: offset,
            }),
        }
    }

    /// Waits until everything that was there when the view was opened is part of the state. Cancel safe.
    pub async fn caught_up(&self) {
        let is_there = || {
            (0..)
                .zip(self.ends.iter())
                .all(|(partition, end)| self.position(partition) >= *end)
        };
        // The follower ends only with the last view.
        let _ = self.changes.clone().wait_for(|()| is_there()).await;
    }
}

fn position(positions: &[u64], partition: u32) -> u64 {
    positions.get(partition as usize).copied().unwrap_or(0)
}

/// Reads the topic, whatever happens to the cluster, as long as there is a view.
struct Follower<S> {
    client: Client,
    topic: String,
    folded: Arc<RwLock<Folded<S>>>,
    told: watch::Sender<()>,
}

impl<S: State> Follower<S> {
    async fn run(self, mut consumer: Consumer) {
        loop {
            if let Err(error) = self.follow(&mut consumer).await {
                tracing::warn!(topic = self.topic, %error, "the topic cannot be read at the moment");
            }
            consumer = self.again().await;
        }
    }

    async fn again(&self) -> Consumer {
        loop {
            sleep(PAUSE).await;
            match self.client.consume_topic(&self.topic).build().await {
                Ok(consumer) => return consumer,
                Err(error) => tracing::warn!(topic = self.topic, %error, "the topic cannot be read at the moment"),
            }
        }
    }

    /// Reads from where the state is until that fails.
    async fn follow(&self, consumer: &mut Consumer) -> Result<(), Error> {
        let positions = self
            .folded
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .positions
            .clone();
        for (partition, position) in (0..).zip(positions) {
            consumer.seek(partition, Position::Offset(position)).await?;
        }
        while let Some(batch) = consumer.next_batch().await {
            match batch {
                Ok(batch) => {
                    let (partition, end) = (batch.partition, batch.offsets().end);
                    let records: Vec<ConsumedRecord> = batch.filter_map(readable).collect();
                    self.take_in(partition, end, &records);
                }
                // Reading goes on behind what is told as lost.
                Err(
                    ref error @ (Error::CorruptBatch {
                        partition, ref offsets, ..
                    }
                    | Error::UnsupportedCompression {
                        partition, ref offsets, ..
                    }),
                ) => {
                    tell_lost(error);
                    self.take_in(partition, offsets.end, &[]);
                }
                Err(Error::OffsetOutOfRange { partition, range, .. }) => {
                    tracing::error!(
                        topic = self.topic,
                        partition,
                        first = range.log_start,
                        "records are missing: they have been trimmed"
                    );
                    self.take_in(partition, range.log_start, &[]);
                    consumer.seek(partition, Position::Offset(range.log_start)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_in(&self, partition: u32, end: u64, records: &[ConsumedRecord]) {
        let mut folded = self.folded.write().unwrap_or_else(PoisonError::into_inner);
        if !records.is_empty() {
            folded.state.apply(partition, records);
        }
        if let Some(position) = folded.positions.get_mut(partition as usize) {
            *position = end.max(*position);
        }
        drop(folded);
        self.told.send_replace(());
    }
}

fn readable(record: Result<ConsumedRecord, Error>) -> Option<ConsumedRecord> {
    record.inspect_err(tell_lost).ok()
}

fn tell_lost(error: &Error) {
    tracing::error!(%error, "records that cannot be read are not part of the state");
}
