//! The task that reads one partition ahead: one Consume stream after the other, from whichever replica serves it.
//!
//! The next offset wanted is the only state that counts. Every stream starts from it and every batch moves it, so a
//! change of replica leaves no gap and repeats nothing. A batch that begins beyond it is never accepted.
//!
//! A reader that another replica would serve better than the present one moves there (`returning`).
//!
//! A replica that hands its readers over, breaks off or falls silent is set aside for all readers of the client (`aside`).
//!
//! A batch that fails its check is fetched again from other replicas first, for the copy or the way may be at fault. If
//! it stays so, exactly its offsets are reported, and reading goes on behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::limits::CONSUME_BYTES_MAX;
use highwater_proto::v1::{self, Compression, freshness};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Status, Streaming};

use super::Freshness;
use super::decode;
use super::prefetch::{Fetched, Item, News};
use super::returning::Returning;
use crate::backoff::Backoff;
use crate::calls::{Caller, Target, connection_error, log_client, timed};
use crate::connect::{Lease, call_error, has_timed_out};
use crate::error::{ConnectionProblem, Error, Reason};
use crate::metrics::BatchInfo;
use crate::picker::Purpose;
use crate::picture::TopicRef;

/// From how many replicas a corrupt batch is fetched before it is reported.
const CORRUPT_ATTEMPTS_MAX: u32 = 3;
/// How many nodes that failed just now are avoided at most.
const AVOIDED_MAX: usize = 4;
/// A stream that stayed open for so long was a success, even if nothing came. Opening it does not count: a node that hangs
/// takes its time for that, too.
const SUCCESS_AFTER: Duration = Duration::from_secs(1);

/// What the fetchers of a consumer share.
#[derive(Debug)]
pub(crate) struct ReadRoute {
    pub(crate) caller: Arc<Caller>,
    pub(crate) topic: TopicRef,
    /// The topic's name in requests.
    pub(crate) wire_name: String,
    /// The topic's name in errors.
    pub(crate) display_name: String,
    /// How long no replica may serve the partition before that is an error.
    pub(crate) deadline: Duration,
    pub(crate) prefetch: Arc<Semaphore>,
    pub(crate) prefetch_bytes: usize,
}

pub(crate) struct Fetcher {
    pub(crate) route: Arc<ReadRoute>,
    pub(crate) news: Arc<News>,
    /// Place of the partition among those of the consumer.
    pub(crate) place: usize,
    /// Counts the beginnings of reading this partition.
    pub(crate) epoch: u64,
    pub(crate) partition: u32,
    /// The next offset wanted.
    pub(crate) next: u64,
    /// Where to stop, exclusive.
    pub(crate) stop: Option<u64>,
    pub(crate) freshness: Freshness,
    pub(crate) items: mpsc::Sender<Item>,
}

/// Failures since the last success.
struct Trouble {
    backoff: Backoff,
    avoid: Vec<String>,
    since: Option<Instant>,
    /// Since when the present stream is open.
    open_since: Option<Instant>,
    /// The base offset of a corrupt batch and from how many replicas it came.
    corrupt: Option<(u64, u32)>,
}

impl Trouble {
    /// Notes a node that failed. One where a quota is used up serves as well as others.
    fn avoid(&mut self, node: String, error: &Error) {
        if error.reason() == Some(Reason::QuotaExceeded) {
            return;
        }
        if self.avoid.len() == AVOIDED_MAX {
            self.avoid.remove(0);
        }
        self.avoid.push(node);
    }
}

/// A stream from a replica.
pub(super) struct Source {
    pub(super) target: Target,
    stream: Streaming<v1::ConsumeResponse>,
    _lease: Lease,
}

/// What comes of an open stream.
enum Event {
    Response(Result<Option<v1::ConsumeResponse>, Status>),
    /// The other nodes do not hear from the one that serves.
    Dead,
    /// Another one serves better from now on.
    Better(Box<Source>),
}

/// Why a stream is left.
pub(super) enum End {
    /// Another replica may do better.
    Retry(Error),
    /// No replica can.
    Fatal(Error),
    /// The consumer is gone, or everything has been read.
    Done,
}

impl Fetcher {
    /// Reads until the end wanted, an error that cannot pass, or the consumer's end.
    pub(crate) async fn run(mut self) {
        let items = self.items.clone();
        tokio::select! {
            biased;
            () = items.closed() => {}
            () = self.fetch() => {
                let (place, epoch) = (self.place, self.epoch);
                // If the consumer is gone, nobody wants to know.
                let _ = items.send(Item::Ended { place, epoch }).await;
            }
        }
    }

    async fn fetch(&mut self) {
        let mut trouble = Trouble {
            backoff: Backoff::new(),
            avoid: Vec::new(),
            since: None,
            open_since: None,
            corrupt: None,
        };
        while self.stop.is_none_or(|stop| self.next < stop) {
            let (node, end) = self.read_once(&mut trouble).await;
            let open_since = trouble.open_since.take();
            if open_since.is_some_and(|since| since.elapsed() >= SUCCESS_AFTER) {
                trouble.since = None;
            }
            let error = match end {
                // Who served to the end stays known: records may still wait to be handed out.
                End::Done => return,
                End::Fatal(error) => return self.fail(error).await,
                End::Retry(error) => error,
            };
            self.news.set_served_by(None);
            tracing::debug!(partition = self.partition, offset = self.next, node, %error, "reading on elsewhere");
            let since = *trouble.since.get_or_insert_with(Instant::now);
            if since.elapsed() >= self.route.deadline {
                let error = self.deadline_error(error);
                return self.fail(error).await;
            }
            let topic = &self.route.topic;
            self.route.caller.reader_left(topic, self.partition, &node, &error);
            trouble.avoid(node, &error);
            let retry_after = error.retry_after().unwrap_or_default();
            sleep(trouble.backoff.pause().max(retry_after)).await;
        }
    }

    /// Reads from one replica for as long as that goes well.
    async fn read_once(&mut self, trouble: &mut Trouble) -> (String, End) {
        let (topic, partition) = (&self.route.topic, self.partition);
        let target = match self
            .route
            .caller
            .pick_around(Purpose::Read { topic, partition }, &trouble.avoid)
        {
            Ok(target) => target,
            Err(error) => return (String::new(), End::Retry(error)),
        };
        let node = target.node.clone();
        let changes = self.route.caller.resolver.changes();
        let opening = self.opening(target, self.time_left(trouble));
        let mut source = match opening.await {
            Ok(source) => source,
            Err(error) => return (node, self.refused(error)),
        };
        let end = self.read_on(&mut source, changes, trouble).await;
        (source.target.node, end.unwrap_or_else(|end| end))
    }

    async fn read_on(
        &mut self,
        source: &mut Source,
        mut changes: watch::Receiver<u64>,
        trouble: &mut Trouble,
    ) -> Result<End, End> {
        let mut returning = Returning::new();
        trouble.open_since = Some(Instant::now());
        loop {
            let node = &source.target.node;
            let event = tokio::select! {
                biased;
                better = returning.better(self, node) => Event::Better(Box::new(better)),
                response = source.stream.message() => Event::Response(response),
                () = until_dead(&self.route.caller, node, &mut changes) => Event::Dead,
            };
            let broken = |problem: &str| {
                let problem = ConnectionProblem::Broken(problem.to_owned());
                Err(End::Retry(connection_error(node, problem)))
            };
            let response = match event {
                Event::Response(Ok(Some(response))) => response,
                Event::Response(Ok(None)) => return broken("the node ended the stream"),
                Event::Response(Err(status)) => return Err(self.refused(call_error(node, &status))),
                Event::Dead => return broken("the other nodes do not hear from it"),
                Event::Better(better) => {
                    self.move_to(source, *better, trouble);
                    // What was told of that node while its stream was opened counts, too.
                    changes.mark_changed();
                    continue;
                }
            };
            self.take_in(response, node, trouble).await?;
            // What was asked for concerns the first answer only; a stream that broke before it has answered nothing.
            self.freshness = Freshness::Committed;
            if self.stop.is_some_and(|stop| self.next >= stop) {
                return Ok(End::Done);
            }
        }
    }

    /// Reads on from another replica. What its stream has that was taken in meanwhile is passed over.
    fn move_to(&self, source: &mut Source, better: Source, trouble: &mut Trouble) {
        let (from, to) = (&source.target.node, &better.target.node);
        tracing::debug!(
            partition = self.partition,
            offset = self.next,
            from,
            to,
            "reading on from a better node"
        );
        let caller = &self.route.caller;
        let topic = caller.wire_name(&self.route.topic);
        caller.metrics.reader_moved(&topic, self.partition, from, to);
        self.news.set_served_by(Some(to));
        trouble.since = None;
        trouble.open_since = Some(Instant::now());
        *source = better;
    }

    /// How long an opening may take.
    fn time_left(&self, trouble: &Trouble) -> Duration {
        let spent = trouble.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.route.deadline.saturating_sub(spent)
    }

    /// Opens a stream from the next offset wanted, as it is now.
    pub(super) fn opening(
        &self,
        target: Target,
        time_left: Duration,
    ) -> impl Future<Output = Result<Source, Error>> + Send + use<> {
        let kind = match self.freshness {
            Freshness::Committed => None,
            Freshness::MinOffset(offset) => Some(freshness::Kind::MinOffset(offset)),
            Freshness::Linearizable => Some(freshness::Kind::Linearizable(true)),
        };
        let request = v1::ConsumeRequest {
            topic: self.route.wire_name.clone(),
            topic_id: Some(self.route.topic.topic_id),
            partition: self.partition,
            offset: self.next,
            freshness: kind.map(|kind| v1::Freshness { kind: Some(kind) }),
            bytes_max: self.route.prefetch_bytes.min(CONSUME_BYTES_MAX) as u32,
        };
        let lease = self.route.caller.connections.lease(&target.address);
        async move {
            let lease = lease.map_err(|problem| connection_error(&target.node, problem))?;
            let mut client = log_client(lease.connection.channel.clone());
            match timeout(time_left, client.consume(timed(request, time_left))).await {
                Ok(Ok(response)) => Ok(Source {
                    target,
                    stream: response.into_inner(),
                    _lease: lease,
                }),
                Ok(Err(status)) if !has_timed_out(&status) => Err(call_error(&target.node, &status)),
                _ => {
                    let problem = ConnectionProblem::Timeout(time_left);
                    Err(connection_error(&target.node, problem))
                }
            }
        }
    }

    /// What a node's error means for the stream.
    pub(super) fn refused(&self, error: Error) -> End {
        let Error::Refused(refusal) = &error else {
            return End::Retry(error);
        };
        let caller = &self.route.caller;
        let (topic, partition) = (&self.route.topic, self.partition);
        caller.learn_leader(Purpose::Read { topic, partition }, &error);
        match (refusal.reason, refusal.range) {
            (Reason::OffsetOutOfRange, Some(range)) if self.next < range.log_start => {
                End::Fatal(self.out_of_range(range))
            }
            // Beyond the end of a replica that is behind.
            (Reason::OffsetOutOfRange, Some(_)) => End::Retry(error),
            (reason, _) if refusal.is_retryable() || caller.is_lagging(topic, partition, reason) => End::Retry(error),
            _ => End::Fatal(error),
        }
    }

    fn out_of_range(&self, range: v1::OffsetRange) -> Error {
        Error::OffsetOutOfRange {
            topic: self.route.display_name.clone(),
            partition: self.partition,
            offset: self.next,
            range,
        }
    }

    async fn take_in(&mut self, response: v1::ConsumeResponse, node: &str, trouble: &mut Trouble) -> Result<(), End> {
        let served_by = if response.node.is_empty() { node } else { &response.node };
        self.news.set_served_by(Some(served_by));
        self.news.set_high_watermark(response.high_watermark);
        let range = v1::OffsetRange {
            log_start: response.log_start,
            high_watermark: response.high_watermark,
        };
        for batch in response.batches {
            if self.stop.is_some_and(|stop| self.next >= stop) {
                return Ok(());
            }
            self.take_in_batch(batch, range, node, trouble).await?;
        }
        trouble.backoff.reset();
        trouble.avoid.clear();
        trouble.since = None;
        Ok(())
    }

    async fn take_in_batch(
        &mut self,
        batch: v1::StoredBatch,
        range: v1::OffsetRange,
        node: &str,
        trouble: &mut Trouble,
    ) -> Result<(), End> {
        let end = batch.base_offset.saturating_add(u64::from(batch.record_count));
        if end <= self.next {
            return Ok(());
        }
        if batch.base_offset > self.next {
            if range.log_start > self.next {
                return Err(End::Fatal(self.out_of_range(range)));
            }
            let problem = format!("sent offset {} where {} was due", batch.base_offset, self.next);
            return Err(End::Retry(connection_error(node, ConnectionProblem::Broken(problem))));
        }
        let item = match self.records_of(&batch, node, trouble)? {
            Ok(records) => self.fetched(&batch, records, end).await,
            Err(error) => Item::Failed {
                place: self.place,
                epoch: self.epoch,
                resume_at: end,
                error,
            },
        };
        self.next = end;
        trouble.corrupt = None;
        self.items.send(item).await.map_err(|_| End::Done)
    }

    /// Opens a batch: its records, or it is to be fetched elsewhere (outer error), or to be reported (inner error).
    fn records_of(
        &self,
        batch: &v1::StoredBatch,
        node: &str,
        trouble: &mut Trouble,
    ) -> Result<Result<Bytes, Error>, End> {
        let end = batch.base_offset + u64::from(batch.record_count);
        let offsets = self.next..self.stop.map_or(end, |stop| end.min(stop));
        if Compression::try_from(batch.compression).is_err() {
            return Ok(Err(Error::UnsupportedCompression {
                topic: self.route.display_name.clone(),
                partition: self.partition,
                offsets,
                compression: batch.compression,
            }));
        }
        let problem = match decode::open(batch) {
            Ok(records) => return Ok(Ok(records)),
            Err(problem) => problem,
        };
        let error = Error::CorruptBatch {
            topic: self.route.display_name.clone(),
            partition: self.partition,
            offsets,
            problem: format!("{problem} (from {node})"),
        };
        let before = trouble
            .corrupt
            .filter(|(base_offset, _)| *base_offset == batch.base_offset);
        let attempts = before.map_or(1, |(_, attempts)| attempts + 1);
        trouble.corrupt = Some((batch.base_offset, attempts));
        if attempts < CORRUPT_ATTEMPTS_MAX {
            tracing::warn!(partition = self.partition, node, %error, "asking another replica");
            return Err(End::Retry(error));
        }
        Ok(Err(error))
    }

    /// A good batch on its way to the consumer, waiting until there is room for it.
    async fn fetched(&self, batch: &v1::StoredBatch, records: Bytes, end: u64) -> Item {
        let bytes = records.len().clamp(1, self.route.prefetch_bytes) as u32;
        // The semaphore is never closed.
        let permit = self.route.prefetch.clone().acquire_many_owned(bytes).await.ok();
        self.route.caller.metrics.batch_consumed(&BatchInfo {
            topic: &self.route.display_name,
            partition: self.partition,
            records: batch.record_count,
            bytes: batch.batch.len(),
        });
        Item::Batch(Fetched {
            place: self.place,
            epoch: self.epoch,
            partition: self.partition,
            offset: batch.base_offset,
            wanted_from: self.next,
            end: self.stop.map_or(end, |stop| end.min(stop)),
            append_time_ms: batch.append_time_ms,
            rest: records,
            permit,
        })
    }

    fn deadline_error(&self, last: Error) -> Error {
        Error::Deadline {
            action: format!(
                "read {}/{} from offset {}",
                self.route.display_name, self.partition, self.next
            ),
            after: self.route.deadline,
            last: Some(Box::new(last)),
        }
    }

    async fn fail(&self, error: Error) {
        let item = Item::Failed {
            place: self.place,
            epoch: self.epoch,
            resume_at: self.next,
            error,
        };
        // If the consumer is gone, nobody wants to know.
        let _ = self.items.send(item).await;
    }
}

/// Returns when the picture says that a node is dead.
async fn until_dead(caller: &Caller, node: &str, changes: &mut watch::Receiver<u64>) {
    loop {
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        let picture = caller.resolver.picture();
        if picture.node(node).is_some_and(|node| !node.alive) {
            return;
        }
    }
}
