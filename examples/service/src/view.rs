//! A state that is what the records of a topic make of it.
//!
//! [`View::open`] reads all partitions from where the state already is, and then follows them. The state and its positions are behind one
//! lock, so whoever reads the state knows exactly which records it is made of: that is what a [`Writer`](crate::Writer) builds upon, and
//! what lets a caller wait for its own writes ([`View::reach`]).
//!
//! Invariants: a state is given each record once, and those of a partition in order; positions never go back; a state is of one topic. If that is
//! deleted and made again, or records are trimmed away before they were read, the view is [lost](View::lost), and whoever uses it ends.
//! Records that no replica can give any more, since their bytes are damaged on all disks, are told in the log and passed over.
//!
//! Deliberately absent: partitions that are added later. A state that is split by key stays right only while keys stay where they are. And a
//! sign that the state is old because the cluster is away: a service stays ready and answers from what it knows. Who needs to know better
//! names the positions that the answer must be made of, and is refused if they are not reached in time.

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

    /// Why nothing can be decided upon this state any more: it was given something that it could not take in. For ever so.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// Where a view begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Where the state is: see [`State::position`].
    State,
    /// At the last record of each partition, for those who only want to know what that was.
    LastRecord,
}

/// Why a view cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The cluster says so, or cannot be reached.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The state has been kept, and is of another topic of that name, or of one that was put back to an earlier time.
    #[error(
        "what is kept of {topic}/{partition} goes up to offset {position} (exclusive), and the topic ends at {end}: it is of another \
         topic; begin with an empty file"
    )]
    Beyond {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Where the state is.
        position: u64,
        /// Where the topic ends, exclusive.
        end: u64,
    },
}

/// Why a view does not go on any more, ever. Whoever built upon its state ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The state is of a topic that is no more.
    #[error(
        "topic {topic} was deleted and made again: what is known is of the old one; start anew, with an empty file if something is kept"
    )]
    Remade {
        /// The topic.
        topic: String,
    },
    /// The state would lack records.
    #[error(
        "{topic}/{partition}: the records from offset {from} to {to} (exclusive) were trimmed away before they were read; without them \
         the state is wrong"
    )]
    Trimmed {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The first one.
        from: u64,
        /// The first one that is left.
        to: u64,
    },
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
    lost: watch::Receiver<Option<Lost>>,
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
            lost: self.lost.clone(),
            following: self.following.clone(),
        }
    }
}

impl<S: State> View<S> {
    /// Begins to follow a topic. Returns before the state is up to date: [`caught_up`](Self::caught_up) waits for that.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(client: &Client, topic: &str, start: Start, state: S) -> Result<Self, OpenError> {
        // Looked up first: if the topic is made anew in between, this id is the old one's, which is noticed.
        let topic_id = client.topics().get(topic).await?.topic_id;
        let consumer = client.consume_topic(topic).build().await?;
        let mut ends = Vec::new();
        for partition in consumer.partitions() {
            ends.push(consumer.end_offset(partition).await?);
        }
        let positions = begin(topic, start, &state, &ends)?;
        let folded = Arc::new(RwLock::new(Folded { state, positions }));
        let ((told, changes), (losing, lost)) = (watch::channel(()), watch::channel(None));
        let follower = Follower {
            client: client.clone(),
            topic: topic.to_owned(),
            topic_id,
            start,
            folded: folded.clone(),
            told,
        };
        let following = tokio::spawn(async move {
            let why = follower.run(consumer).await;
            tracing::error!(%why, "the state is not followed any more");
            losing.send_replace(Some(why));
        });
        Ok(Self {
            folded,
            changes,
            ends: ends.into(),
            lost,
            following: Arc::new(Following(following)),
        })
    }

    /// Resolves when the state is worth nothing any more. Cancel safe.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.lost.clone();
        loop {
            if let Some(why) = lost.borrow_and_update().clone() {
                return why;
            }
            if lost.changed().await.is_err() {
                // Not lost: the follower has been ended, with all views but this call.
                std::future::pending::<()>().await;
            }
        }
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

    /// Waits until everything that was there when the view was opened is part of the state. For ever if the state is [lost](Self::lost).
    /// Cancel safe.
    pub async fn caught_up(&self) {
        let is_there = || {
            (0..)
                .zip(self.ends.iter())
                .all(|(partition, end)| self.position(partition) >= *end)
        };
        if self.changes.clone().wait_for(|()| is_there()).await.is_err() {
            // It will not be: see `lost`.
            std::future::pending::<()>().await;
        }
    }
}

/// Where to begin, by partition.
fn begin<S: State>(topic: &str, start: Start, state: &S, ends: &[u64]) -> Result<Vec<u64>, OpenError> {
    let begin = |(partition, end): (u32, &u64)| match start {
        Start::LastRecord => Ok(end.saturating_sub(1)),
        Start::State if state.position(partition) > *end => Err(OpenError::Beyond {
            topic: topic.to_owned(),
            partition,
            position: state.position(partition),
            end: *end,
        }),
        Start::State => Ok(state.position(partition)),
    };
    (0..).zip(ends).map(begin).collect()
}

fn position(positions: &[u64], partition: u32) -> u64 {
    positions.get(partition as usize).copied().unwrap_or(0)
}

/// Reads the topic, whatever happens to the cluster, as long as there is a view and it is the same topic.
struct Follower<S> {
    client: Client,
    topic: String,
    topic_id: u64,
    start: Start,
    folded: Arc<RwLock<Folded<S>>>,
    told: watch::Sender<()>,
}

/// Why reading has stopped.
enum Stopped {
    /// It can be tried again.
    Unread(Error),
    Lost(Lost),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Unread(error)
    }
}

impl<S: State> Follower<S> {
    async fn run(self, mut consumer: Consumer) -> Lost {
        loop {
            match self.follow(&mut consumer).await {
                Ok(()) => {}
                Err(Stopped::Unread(error)) => self.warn(&error),
                Err(Stopped::Lost(why)) => return why,
            }
            consumer = match self.again().await {
                Ok(consumer) => consumer,
                Err(why) => return why,
            }
        }
    }

    fn warn(&self, error: &Error) {
        tracing::warn!(topic = self.topic, %error, "the topic cannot be read at the moment");
    }

    async fn again(&self) -> Result<Consumer, Lost> {
        loop {
            sleep(PAUSE).await;
            match self.consume().await {
                Ok(consumer) => return Ok(consumer),
                Err(Stopped::Unread(error)) => self.warn(&error),
                Err(Stopped::Lost(why)) => return Err(why),
            }
        }
    }

    async fn consume(&self) -> Result<Consumer, Stopped> {
        let consumer = self.client.consume_topic(&self.topic).build().await?;
        // Looked up last: the consumer is of this topic, or of an older one.
        match self.client.topics().get(&self.topic).await?.topic_id == self.topic_id {
            true => Ok(consumer),
            false => Err(Stopped::Lost(Lost::Remade {
                topic: self.topic.clone(),
            })),
        }
    }

    /// Reads from where the state is until that fails.
    async fn follow(&self, consumer: &mut Consumer) -> Result<(), Stopped> {
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
                Err(Error::OffsetOutOfRange {
                    partition,
                    offset,
                    range,
                    ..
                }) => self.skip(consumer, partition, offset, range.log_start).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Records have been trimmed away: what was to begin at the last one does not need them, and another state is lost.
    async fn skip(&self, consumer: &mut Consumer, partition: u32, from: u64, to: u64) -> Result<(), Stopped> {
        if self.start == Start::State {
            return Err(Stopped::Lost(Lost::Trimmed {
                topic: self.topic.clone(),
                partition,
                from,
                to,
            }));
        }
        tracing::warn!(
            topic = self.topic,
            partition,
            from,
            to,
            "records have been trimmed away"
        );
        self.take_in(partition, to, &[]);
        Ok(consumer.seek(partition, Position::Offset(to)).await?)
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
