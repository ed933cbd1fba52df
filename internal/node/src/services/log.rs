//! LogService: records in, records out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use highwater_catalog::Limit;
use highwater_partition::{CommandError, Partition, ReadError, StoredBatch, Watermark};
use highwater_proto::limits::CONSUME_BYTES_MAX;
use highwater_proto::trace::TRACEPARENT;
use highwater_proto::v1;
use highwater_proto::v1::freshness::Kind;
use highwater_proto::v1::list_offsets_request::Position;
use highwater_proto::v1::log_service_server::LogService;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::deadline::deadline;
use super::following::{Following, Needs};
use super::metering::{give_back_if_led_elsewhere, pay_for_batch, pay_for_read};
use super::produce_stream::Caller;
use super::revocation::{Grounds, while_allowed};
use super::{Context, Wanted, caller, principal, produce, produce_stream};
use crate::access::{Action, Resource};
use crate::quotas::Payers;
use crate::replicas::Opened;
use crate::status::{Problem, range};

/// How soon to ask again for a confirmed end while nobody can tell it.
const CONFIRM_PAUSE: Duration = Duration::from_millis(50);

/// The data path.
pub(super) struct Log {
    pub(super) context: Arc<Context>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl LogService for Log {
    async fn produce(&self, request: Request<v1::ProduceRequest>) -> Result<Response<v1::ProduceResponse>, Status> {
        let principal = principal(&request)?;
        let deadline = deadline(request.metadata());
        let payers = caller(&request)?.share.payers().clone();
        let parent = request
            .metadata()
            .get(TRACEPARENT)
            .and_then(|parent| parent.to_str().ok());
        let parent = parent.map(str::to_owned);
        let mut request = request.into_inner();
        if request.traceparent.is_empty() {
            request.traceparent = parent.unwrap_or_default();
        }
        let paid = pay_for_batch(&payers, request.batch.len(), deadline);
        let caller = (&principal, &payers);
        let produced = produce::produce(&self.context, caller, &request, paid, (deadline, deadline)).await;
        give_back_if_led_elsewhere(&payers, request.batch.len(), &produced);
        Ok(Response::new(produced?))
    }

    type ProduceStreamStream = Answers<v1::ProduceStreamResponse>;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        let principal = principal(&request)?;
        self.context.own_tenant(&principal)?;
        let peer = caller(&request)?;
        let caller = Caller {
            principal,
            payers: peer.share.payers().clone(),
            in_flight: peer.in_flight.clone(),
        };
        let answers = produce_stream::run_stream(self.context.clone(), caller, request.into_inner());
        Ok(Response::new(Box::pin(answers)))
    }

    type ConsumeStream = Answers<v1::ConsumeResponse>;

    async fn consume(&self, request: Request<v1::ConsumeRequest>) -> Result<Response<Self::ConsumeStream>, Status> {
        let principal = principal(&request)?;
        let deadline = deadline(request.metadata());
        let payers = caller(&request)?.share.payers().clone();
        let wanted = request.into_inner();
        pay_for_read(&payers, deadline).await?;
        let place = Wanted {
            topic: &wanted.topic,
            topic_id: wanted.topic_id,
            partition: wanted.partition,
        };
        let (opened, _) = self.context.open(&principal, Action::Consume, &place, deadline).await?;
        if let Some(kind) = wanted.freshness.as_ref().and_then(|freshness| freshness.kind) {
            wait_until_fresh(&self.context, &opened, kind, deadline).await?;
        }
        let reader = Reader::new(self.context.clone(), opened, payers, &wanted)?;
        let topic = Resource::Topic(self.context.topic_name(&principal, &wanted.topic)?);
        let grounds = Grounds::new(self.context.clone(), principal, vec![(Action::Consume, topic)]);
        let batches = stream::unfold(Some(reader), |reader| async {
            let mut reader = reader?;
            match reader.next().await {
                Ok(response) => Some((Ok(response), Some(reader))),
                Err(problem) => Some((Err(Status::from(problem)), None)),
            }
        });
        Ok(Response::new(Box::pin(while_allowed(Box::pin(batches), grounds))))
    }

    async fn list_offsets(
        &self,
        request: Request<v1::ListOffsetsRequest>,
    ) -> Result<Response<v1::ListOffsetsResponse>, Status> {
        let principal = principal(&request)?;
        let deadline = deadline(request.metadata());
        let request = request.into_inner();
        let place = Wanted {
            topic: &request.topic,
            topic_id: request.topic_id,
            partition: request.partition,
        };
        let (opened, _) = self
            .context
            .open(&principal, Action::Describe, &place, deadline)
            .await?;
        let finding = find_offset(&self.context, &opened, request.position);
        let found = timeout_at(deadline, finding).await;
        let offset = found.unwrap_or_else(|_| {
            Err(Problem::NoQuorum {
                what: opened.what.to_string(),
            })
        })?;
        Ok(Response::new(v1::ListOffsetsResponse { offset }))
    }
}

pub(super) async fn find_offset(
    context: &Context,
    opened: &Opened,
    position: Option<Position>,
) -> Result<u64, Problem> {
    let partition = opened.partition();
    match position {
        Some(Position::Earliest(true)) => confirmed(opened, partition.confirmed_log_start().await),
        Some(Position::Latest(true)) => confirmed_end(opened).await,
        Some(Position::TimestampMs(time_ms)) => {
            let end = confirmed_end(opened).await?;
            wait_for(context, opened, end).await?;
            let found = partition.offset_at(time_ms).await;
            found.map_err(|error| read_problem(opened, error))
        }
        _ => Err(Problem::Invalid {
            field: "position",
            why: "must be one of earliest, latest or timestamp_ms".to_owned(),
        }),
    }
}

async fn confirmed_end(opened: &Opened) -> Result<u64, Problem> {
    confirmed(opened, opened.partition().confirmed_high_watermark().await)
}

fn confirmed(opened: &Opened, offset: Result<u64, CommandError>) -> Result<u64, Problem> {
    offset.map_err(|error| match opened.hosted.is_removed() {
        true => opened.gone(),
        false => Problem::from_query(&opened.what, error),
    })
}

/// Parks the read until this replica is fresh enough; past the deadline it says how far it is. A replica that is cut off or
/// does not keep up says so earlier.
async fn wait_until_fresh(
    context: &Arc<Context>,
    opened: &Opened,
    kind: Kind,
    deadline: Instant,
) -> Result<(), Problem> {
    let mut following = Following::new(context.clone(), opened.clone(), Needs::More);
    tokio::select! {
        biased;
        fresh = become_fresh(context, opened, kind, deadline) => fresh,
        problem = following.lost() => Err(problem),
    }
}

async fn become_fresh(context: &Context, opened: &Opened, kind: Kind, deadline: Instant) -> Result<(), Problem> {
    let wanted = match kind {
        Kind::Linearizable(false) => return Ok(()),
        Kind::MinOffset(offset) => offset,
        Kind::Linearizable(true) => {
            let confirmed = timeout_at(deadline, confirmed_some_time(opened)).await;
            confirmed.unwrap_or_else(|_| {
                Err(Problem::NoQuorum {
                    what: opened.what.to_string(),
                })
            })?
        }
    };
    match timeout_at(deadline, wait_for(context, opened, wanted)).await {
        Ok(waited) => waited,
        Err(_) => Err(Problem::ReplicaBehind {
            wanted,
            range: range(opened.partition().status().watermark),
        }),
    }
}

/// Asks again while there is no leader that could confirm.
async fn confirmed_some_time(opened: &Opened) -> Result<u64, Problem> {
    loop {
        match confirmed_end(opened).await {
            Err(Problem::NoQuorum { .. }) => sleep(CONFIRM_PAUSE).await,
            confirmed => return confirmed,
        }
    }
}

async fn wait_for(context: &Context, opened: &Opened, high_watermark: u64) -> Result<(), Problem> {
    let mut watermark = opened.partition().watermark();
    tokio::select! {
        biased;
        () = context.stopping.cancelled() => Err(opened.gone()),
        () = opened.hosted.ended() => Err(opened.gone()),
        reached = watermark.wait_for(|watermark| watermark.high_watermark >= high_watermark) => {
            reached.map(drop).map_err(|_| opened.gone())
        }
    }
}

/// A log that is being deleted beneath the read is no damage.
fn read_problem(opened: &Opened, error: ReadError) -> Problem {
    match opened.hosted.is_removed() {
        true => opened.gone(),
        false => Problem::from_read(error),
    }
}

/// One Consume stream, or one read. Each step reads what is committed, or waits until more is: the watermark wakes it. It ends when this
/// replica is not worth waiting at.
pub(super) struct Reader {
    context: Arc<Context>,
    opened: Opened,
    watermark: watch::Receiver<Watermark>,
    /// The next offset to send.
    offset: u64,
    bytes_max: usize,
    payers: Payers,
    /// What was sent last is paid for then.
    not_before: Option<Instant>,
    /// Nothing has been sent yet. The first response comes at once, even if empty: it tells who serves and how far.
    is_first: bool,
    following: Following,
}

impl Reader {
    pub(super) fn new(
        context: Arc<Context>,
        opened: Opened,
        payers: Payers,
        wanted: &v1::ConsumeRequest,
    ) -> Result<Reader, Problem> {
        let watermark = opened.partition().watermark();
        let range = range(*watermark.borrow());
        if wanted.offset < range.log_start {
            let offset = wanted.offset;
            return Err(Problem::OutOfRange { offset, range });
        }
        let bytes_max = match wanted.bytes_max as usize {
            0 => CONSUME_BYTES_MAX,
            bytes => bytes.min(CONSUME_BYTES_MAX),
        };
        Ok(Reader {
            following: Following::new(context.clone(), opened.clone(), Needs::Committed),
            context,
            opened,
            watermark,
            offset: wanted.offset,
            bytes_max,
            payers,
            not_before: None,
            is_first: true,
        })
    }

    pub(super) async fn next(&mut self) -> Result<v1::ConsumeResponse, Problem> {
        self.rest().await?;
        loop {
            // Seen before reading, so that what is committed during the read wakes the next wait.
            self.watermark.mark_unchanged();
            let batches = self.read().await?;
            if self.is_first || !batches.is_empty() {
                self.is_first = false;
                return Ok(self.respond(batches));
            }
            let stopping = self.context.stopping.clone();
            tokio::select! {
                biased;
                () = stopping.cancelled() => return Err(self.opened.gone()),
                () = self.opened.hosted.ended() => return Err(self.opened.gone()),
                changed = self.watermark.changed() => changed.map_err(|_| self.opened.gone())?,
                problem = self.following.lost() => return Err(problem),
            }
        }
    }

    /// Waits until what was sent is paid for.
    async fn rest(&mut self) -> Result<(), Problem> {
        let Some(not_before) = self.not_before.take() else {
            return Ok(());
        };
        tokio::select! {
            biased;
            () = self.context.stopping.cancelled() => Err(self.opened.gone()),
            () = self.opened.hosted.ended() => Err(self.opened.gone()),
            () = self.payers.until_paid(Limit::ConsumeBytesPerSecond, not_before) => Ok(()),
            problem = self.following.lost() => Err(problem),
        }
    }

    async fn read(&self) -> Result<Vec<StoredBatch>, Problem> {
        if self.context.stopping.is_cancelled() {
            return Err(self.opened.gone());
        }
        let partition: &Partition = self.opened.partition();
        let read = partition.read(self.offset, self.bytes_max).await;
        read.map_err(|error| read_problem(&self.opened, error))
    }

    fn respond(&mut self, batches: Vec<StoredBatch>) -> v1::ConsumeResponse {
        let watermark = *self.watermark.borrow();
        if let Some(last) = batches.last() {
            self.offset = last.base_offset + u64::from(last.record_count);
        }
        let bytes = batches.iter().map(|batch| batch.payload.len() as u64).sum();
        let now = Instant::now();
        let wait = self.payers.charge(Limit::ConsumeBytesPerSecond, bytes, now);
        self.not_before = (!wait.is_zero()).then(|| now + wait);
        let records = batches.iter().map(|batch| u64::from(batch.record_count)).sum();
        self.opened.hosted.count_served(records);
        v1::ConsumeResponse {
            batches: batches.into_iter().map(stored).collect(),
            high_watermark: watermark.high_watermark,
            log_start: watermark.log_start,
            node: self.context.node.clone(),
        }
    }
}

/// A batch as the wire has it.
pub(crate) fn stored(batch: StoredBatch) -> v1::StoredBatch {
    v1::StoredBatch {
        base_offset: batch.base_offset,
        record_count: batch.record_count,
        compression: i32::from(batch.compression),
        crc32c: batch.payload_crc,
        append_time_ms: batch.append_time_ms,
        batch: batch.payload,
    }
}
