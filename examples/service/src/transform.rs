//! From one topic to another, exactly once.
//!
//! Workers share the partitions of the source as a consumer group. What follows from a record of source partition `p` is appended to
//! partition `p` of the destination, with the source's offset in a header, and only at the offset that the worker has seen as the end
//! ([`Producer::append_at`]). So each worker knows from the destination itself up to where the source has been handled, and:
//!
//! * a worker that dies between appending and committing its offset leaves no double: its successor sees the header, and skips;
//! * a worker that is thought dead and goes on anyway finds the destination longer than it believed, appends nothing, looks, and skips;
//! * no record is left out, for a group's offset is committed behind a record only after what follows from it is on a majority's disks.
//!
//! What a step decides may depend on the destination: a [`State`] of it, which is up to date whenever the step is asked, and stands still
//! while the step decides. A step that depends on nothing may take its time: [`Transform::run_each`].
//!
//! Invariant: nobody else writes to the destination, and its partitions are as many as those of the source.

use std::collections::HashMap;
use std::time::Duration;

use futures::FutureExt;
use highwater::{Client, ConsumedRecord, Consumer, Error, Outcome, ProduceError, Producer, Reason, Record};
use tokio::time::{sleep, timeout};

use crate::serving::DRAIN;
use crate::view::{Behind, Start, State, View};

/// The header that says which record of the source a record follows from: the offset in decimal digits.
pub const SOURCE: &str = "source-offset";

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
}

/// A worker that has joined its group.
#[derive(Debug)]
pub struct Transform<S> {
    client: Client,
    route: Route,
    consumer: Consumer,
    producer: Producer,
    view: View<Handled<S>>,
}

/// The state of the destination, and up to where the source has been handled.
#[derive(Debug)]
struct Handled<S> {
    state: S,
    /// By partition, the last offset of the source that something has followed from.
    sources: HashMap<u32, u64>,
}

impl<S> Handled<S> {
    /// Whether nothing has followed from this record of the source yet.
    fn is_new(&self, record: &ConsumedRecord) -> bool {
        let source = self.sources.get(&record.partition);
        source.is_none_or(|source| *source < record.offset)
    }
}

impl<S: State> State for Handled<S> {
    /// A state that keeps itself has the record before already; but only that record says up to where the source has been handled.
    fn position(&self, partition: u32) -> u64 {
        self.state.position(partition).saturating_sub(1)
    }

    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        if let Some(source) = records.iter().rev().find_map(source_of) {
            self.sources.insert(partition, source);
        }
        let position = self.state.position(partition);
        let known = records.partition_point(|record| record.offset < position);
        if known < records.len() {
            self.state.apply(partition, &records[known..]);
        }
    }
}

/// For steps that need no state.
#[derive(Debug, Default, Clone, Copy)]
pub struct Stateless;

impl State for Stateless {
    fn apply(&mut self, _partition: u32, _records: &[ConsumedRecord]) {}
}

/// The offset of the source that a record of the destination follows from.
#[must_use]
pub fn source_of(record: &ConsumedRecord) -> Option<u64> {
    let header = record.headers.iter().find(|header| header.name == SOURCE)?;
    std::str::from_utf8(&header.value).ok()?.parse().ok()
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
        let handled = Handled {
            state,
            sources: HashMap::new(),
        };
        let of_source = client.topics().get(&route.source).await?.partitions.len();
        let view = View::open(client, &route.destination, start, handled).await?;
        if of_source != view.partitions() as usize {
            return Err(Failed::Partitions {
                of_source,
                of_destination: view.partitions(),
                source_topic: route.source,
                destination: route.destination,
            });
        }
        view.caught_up().await;
        Ok(Self {
            consumer: join(client, &route).await?,
            producer: client.producer(&route.destination).build().await?,
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
                next = self.consumer.next_record() => next,
            };
            match next {
                Some(Ok(record)) => return Ok(Some(record)),
                Some(Err(error @ Error::CorruptBatch { .. })) => tracing::error!(%error, "not handled"),
                Some(Err(error)) if error.is_retryable() => {
                    tracing::warn!(source = self.route.source, %error, "the topic cannot be read at the moment");
                    tokio::select! {
                        () = &mut stop => return Ok(None),
                        joined = join_again(&self.client, &self.route) => self.consumer = joined?,
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
                let is_new = handled.is_new(record);
                is_new.then(|| step(&handled.state, record))
            });
            let Some(follows) = follows else {
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
        let source = offset.to_string();
        let follows = follows
            .into_iter()
            .map(|record| record.with_header(SOURCE, source.clone()));
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

async fn join(client: &Client, route: &Route) -> Result<Consumer, Error> {
    let consumer = client.consume_topic(&route.source).group(&route.group, &route.member);
    consumer.session(SESSION).auto_commit(COMMIT_INTERVAL).build().await
}

async fn join_again(client: &Client, route: &Route) -> Result<Consumer, Error> {
    loop {
        sleep(PAUSE).await;
        match join(client, route).await {
            Err(error) if error.is_retryable() => {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A state that keeps itself, and has been kept at an offset.
    struct Kept(u64);

    impl State for Kept {
        fn position(&self, _partition: u32) -> u64 {
            self.0
        }

        fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
            assert_eq!(records.first().map(|record| record.offset), Some(self.0));
            self.0 += records.len() as u64;
        }
    }

    fn record(offset: u64, source: Option<u64>) -> ConsumedRecord {
        let headers = source.map(|source| highwater::Header {
            name: SOURCE.to_owned(),
            value: source.to_string().into(),
        });
        ConsumedRecord {
            partition: 0,
            offset,
            key: None,
            value: "".into(),
            headers: headers.into_iter().collect(),
            timestamp_ms: 0,
            append_time_ms: 0,
        }
    }

    #[test]
    fn a_state_that_keeps_itself_is_told_nothing_twice_and_yet_what_has_been_handled_is_known() {
        let mut handled = Handled {
            state: Kept(5),
            sources: HashMap::new(),
        };
        let first = handled.position(0);
        assert_eq!(first, 4);
        handled.apply(0, &[record(first, Some(7))]);
        assert_eq!(handled.state.0, 5);
        assert!(!handled.is_new(&record(7, None)));
        assert!(handled.is_new(&record(8, None)));
        handled.apply(0, &[record(5, Some(8)), record(6, Some(8))]);
        assert_eq!(handled.state.0, 7);
        assert!(!handled.is_new(&record(8, None)));
    }
}
