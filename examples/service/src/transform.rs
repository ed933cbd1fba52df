//! From one topic to another, exactly once.
//!
//! Workers share the partitions of the source as a consumer group. What follows from a record of source partition `p` is appended to
//! partition `p` of the destination, with the source's offset in a header, and only at the offset that the worker has seen as the end
//! ([`Producer::append_at`]). So each worker knows from the destination itself up to where the source has been handled, and:
//!
//! * a worker that dies between appending and committing its offset leaves no double: its successor sees the header, and skips;
//! * a worker that is thought dead and goes on anyway finds the destination longer than it believed, appends nothing, looks, and skips;
//! * a source that was deleted and made again is refused, for its offsets say nothing about what has been handled: each record says also
//!   of which topic its source is, by id;
//! * no record is left out, for a group's offset is committed behind a record only after what follows from it is on a majority's disks.
//!
//! What a step decides may depend on the destination: a [`State`] of it, which is up to date whenever the step is asked, and stands still
//! while the step decides. A step that depends on nothing may take its time: [`Transform::run_each`].
//!
//! Invariant: nobody else writes to the destination, and its partitions are as many as those of the source.

use std::time::Duration;

use futures::FutureExt;
use highwater::{Client, ConsumedRecord, Consumer, Error, Outcome, ProduceError, Producer, Reason, Record};
use tokio::time::{sleep, timeout};

use crate::handled::Handled;
pub use crate::handled::{SOURCE, SOURCE_TOPIC, source_of};
use crate::serving::DRAIN;
use crate::view::{Behind, Lost, OpenError, Start, State, View};

/// How long a worker waits for its own records to come back to it.
const COME_BACK: Duration = Duration::from_secs(20);
/// How long to wait before what failed is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a group's offsets are committed. More often makes less to be looked at again after a death, and is no safer.
const COMMIT_INTERVAL: Duration = Duration::from_millis(200);
/// After what silence of a worker others take over.
const SESSION: Duration = Duration::from_secs(3);

/// From where to where, and as whom.
#[derive(Debug, Clone)]
pub struct Route {
    /// The topic whose records are handled.
    pub source: String,
    /// The topic that what follows from them is appended to.
    pub destination: String,
    /// The group that shares the work.
    pub group: String,
    /// The name of this worker; nobody else in the group has it at the same time.
    pub member: String,
}

/// Why a transformation has ended.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The cluster refuses it for good.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// The destination cannot be followed.
    #[error(transparent)]
    View(#[from] OpenError),
    /// The destination is no more.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The source is another topic than the one that was handled so far, so its offsets say nothing about what has been handled.
    #[error(
        "{destination} has what followed from another topic {source_topic}, with the id {before}; now that has the id {now}: delete both, \
         or neither"
    )]
    OtherSource {
        /// The source.
        source_topic: String,
        /// The destination.
        destination: String,
        /// Which topic it was.
        before: u64,
        /// Which topic it is.
        now: u64,
    },
    /// The two topics do not fit together.
    #[error(
        "topic {source_topic} has {of_source} partitions, and {destination} has {of_destination}: they must have as many"
    )]
    Partitions {
        /// The source.
        source_topic: String,
        /// How many it has.
        of_source: usize,
        /// The destination.
        destination: String,
        /// How many it has.
        of_destination: u32,
    },
    /// The state of the destination says so: see [`State::failure`].
    #[error("nothing can be decided any more: {0}")]
    State(String),
}

/// A worker that has joined its group.
#[derive(Debug)]
pub struct Transform<S> {
    client: Client,
    route: Route,
    source_topic_id: u64,
    consumer: Consumer,
    producer: Producer,
    view: View<Handled<S>>,
}

/// For steps that need no state.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stateless;

impl State for Stateless {
    fn apply(&mut self, _partition: u32, _records: &[ConsumedRecord]) {}
}

impl Transform<Stateless> {
    /// A worker whose steps depend on nothing but the record.
    ///
    /// # Errors
    /// As those of [`Transform::open`].
    pub async fn stateless(client: &Client, route: Route) -> Result<Self, Failed> {
        Self::begin(client, route, Start::LastRecord, Stateless).await
    }

    /// As [`run`](Self::run), for steps that take their time: nothing stands still while one is awaited, and its work belongs on a thread
    /// of its own (`tokio::task::spawn_blocking`). A record is asked about once, unless the worker ends before that is done.
    ///
    /// # Errors
    /// As those of [`run`](Self::run).
    pub async fn run_each(
        mut self,
        mut step: impl AsyncFnMut(&ConsumedRecord) -> Vec<Record>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failed> {
        let stop = stop.shared();
        while let Some(record) = self.next(stop.clone()).await? {
            let handling = self.handle_alone(&record, &mut step);
            tokio::select! {
                handled = handling => handled?,
                () = too_long(stop.clone()) => return Ok(()),
            }
        }
        self.leave().await;
        Ok(())
    }

    async fn handle_alone(
        &self,
        record: &ConsumedRecord,
        step: &mut impl AsyncFnMut(&ConsumedRecord) -> Vec<Record>,
    ) -> Result<(), Failed> {
        let mut follows = None;
        loop {
            let (end, is_new) = self.view.read_at(record.partition, |handled| handled.is_new(record));
            if !is_new {
                return Ok(());
            }
            let records = match &follows {
                Some(records) => Vec::clone(records),
                None => follows.insert(step(record).await).clone(),
            };
            if self.settle(record, end, records).await? {
                return Ok(());
            }
        }
    }
}

/// Resolves when a record that is still being handled is to be left to others.
async fn too_long(stop: impl Future<Output = ()>) {
    stop.await;
    sleep(DRAIN).await;
}

impl<S: State> Transform<S> {
    /// A worker whose steps depend on a state of the destination. Joins the group when all that is there has become part of it.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn open(client: &Client, route: Route, state: S) -> Result<Self, Failed> {
        Self::begin(client, route, Start::State, state).await
    }

    async fn begin(client: &Client, route: Route, start: Start, state: S) -> Result<Self, Failed> {
        let handled = Handled::new(state);
        let source = client.topics().get(&route.source).await?;
        let view = View::open(client, &route.destination, start, handled).await?;
        if source.partitions.len() != view.partitions() as usize {
            return Err(Failed::Partitions {
                of_source: source.partitions.len(),
                of_destination: view.partitions(),
                source_topic: route.source,
                destination: route.destination,
            });
        }
        tokio::select! {
            () = view.caught_up() => {}
            why = view.lost() => return Err(why.into()),
        }
        let before = view.read(|handled| handled.other_source(source.topic_id));
        if let Some(before) = before {
            return Err(other_source(&route, before, source.topic_id));
        }
        Ok(Self {
            consumer: join(client, &route, source.topic_id).await?,
            producer: client.producer(&route.destination).build().await?,
            source_topic_id: source.topic_id,
            client: client.clone(),
            view,
            route,
        })
    }

    /// Handles records until `stop` resolves; then leaves the group, so that others take over at once.
    ///
    /// `step` may be asked about a record several times; what the last call gives is appended, all or none. It gives at least one record
    /// whenever it matters that a record is not handled again: from nothing, nothing can be seen in the destination. It is quick, for the
    /// state stands still meanwhile.
    ///
    /// # Errors
    /// What cannot pass: topic gone, permission withdrawn, what follows is too large. All else is tried again.
    pub async fn run(
        mut self,
        mut step: impl FnMut(&S, &ConsumedRecord) -> Vec<Record>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Failed> {
        let stop = stop.shared();
        while let Some(record) = self.next(stop.clone()).await? {
            let handling = self.handle(&record, &mut step);
            tokio::select! {
                handled = handling => handled?,
                // The record counts as not done, since the consumer is dropped and not closed.
                () = too_long(stop.clone()) => return Ok(()),
            }
        }
        // What was handed out last is done, for the loop above ends between two records.
        self.leave().await;
        Ok(())
    }

    /// Commits and leaves the group. If that fails, others take over a session later, and see in the destination what has been handled.
    async fn leave(self) {
        match timeout(DRAIN, self.consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the group's offsets are not committed"),
            Err(_) => tracing::warn!("the group could not be left in time"),
        }
    }

    /// The next record; none once `stop` has resolved.
    async fn next(&mut self, stop: impl Future<Output = ()>) -> Result<Option<ConsumedRecord>, Failed> {
        let mut stop = std::pin::pin!(stop);
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => return Ok(None),
                why = self.view.lost() => return Err(why.into()),
                next = self.consumer.next_record() => next,
            };
            match next {
                Some(Ok(record)) => return Ok(Some(record)),
                // Nobody can read them, ever.
                Some(Err(error @ (Error::CorruptBatch { .. } | Error::UnsupportedCompression { .. }))) => {
                    tracing::error!(%error, "not handled");
                }
                Some(Err(error)) if error.is_retryable() => {
                    tracing::warn!(source = self.route.source, %error, "the topic cannot be read at the moment");
                    tokio::select! {
                        () = &mut stop => return Ok(None),
                        joined = join_again(&self.client, &self.route, self.source_topic_id) => self.consumer = joined?,
                    }
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(None),
            }
        }
    }

    /// Returns when what follows from the record is in the destination, by whomever.
    async fn handle(
        &self,
        record: &ConsumedRecord,
        step: &mut impl FnMut(&S, &ConsumedRecord) -> Vec<Record>,
    ) -> Result<(), Failed> {
        loop {
            let (end, follows) = self.view.read_at(record.partition, |handled| {
                if let Some(why) = handled.state.failure() {
                    return Err(Failed::State(why));
                }
                let is_new = handled.is_new(record);
                Ok(is_new.then(|| step(&handled.state, record)))
            });
            let Some(follows) = follows? else {
                return Ok(());
            };
            if self.settle(record, end, follows).await? {
                return Ok(());
            }
        }
    }

    /// Appends what follows from the record. False if it is to be looked again.
    async fn settle(&self, record: &ConsumedRecord, end: u64, follows: Vec<Record>) -> Result<bool, Failed> {
        if follows.is_empty() {
            return Ok(true);
        }
        let (partition, offset) = (record.partition, record.offset);
        let (source, topic_id) = (offset.to_string(), self.source_topic_id.to_string());
        let with_source = |record: Record| {
            record
                .with_header(SOURCE, source.clone())
                .with_header(SOURCE_TOPIC, topic_id.clone())
        };
        let follows = follows.into_iter().map(with_source);
        let problem = match self.append(partition, end, follows.collect()).await {
            Ok(()) => return Ok(true),
            Err(problem) => problem,
        };
        if let Again::Append(error) = &problem {
            if error.reason() == Some(Reason::OffsetMismatch) {
                tracing::debug!(partition, offset, "somebody else was faster; looking again");
                return Ok(false);
            }
            if error.outcome() == Outcome::NotApplied && !error.is_retryable() {
                return Err(error.cause().clone().into());
            }
        }
        tracing::warn!(source = self.route.source, partition, offset, %problem, "not handled yet");
        sleep(PAUSE).await;
        Ok(false)
    }

    /// Appends at that offset, and waits until the view has that. An error says only that it is to be looked again.
    async fn append(&self, partition: u32, end: u64, records: Vec<Record>) -> Result<(), Again> {
        let length = records.len() as u64;
        match self.producer.append_at(partition, end, records).await {
            Ok(delivered) => Ok(self.view.reach(partition, delivered.offset + length, COME_BACK).await?),
            Err(error) => {
                if error.reason() == Some(Reason::OffsetMismatch) {
                    let now = error.log_end().unwrap_or(end + 1).max(end + 1);
                    self.view.reach(partition, now, COME_BACK).await?;
                }
                Err(error.into())
            }
        }
    }
}

fn other_source(route: &Route, before: u64, now: u64) -> Failed {
    Failed::OtherSource {
        source_topic: route.source.clone(),
        destination: route.destination.clone(),
        before,
        now,
    }
}

async fn join(client: &Client, route: &Route, topic_id: u64) -> Result<Consumer, Failed> {
    let consumer = client.consume_topic(&route.source).group(&route.group, &route.member);
    let consumer = consumer.session(SESSION).auto_commit(COMMIT_INTERVAL).build().await?;
    // Looked up last: the consumer is of this topic, or of an older one.
    match client.topics().get(&route.source).await?.topic_id {
        now if now == topic_id => Ok(consumer),
        now => Err(other_source(route, topic_id, now)),
    }
}

async fn join_again(client: &Client, route: &Route, topic_id: u64) -> Result<Consumer, Failed> {
    loop {
        sleep(PAUSE).await;
        match join(client, route, topic_id).await {
            Err(Failed::Cluster(error)) if error.is_retryable() => {
                tracing::warn!(source = route.source, %error, "the group cannot be joined at the moment");
            }
            joined => return joined,
        }
    }
}

/// Why a record is looked at again.
#[derive(Debug, thiserror::Error)]
enum Again {
    #[error(transparent)]
    Append(#[from] ProduceError),
    #[error(transparent)]
    Behind(#[from] Behind),
}
