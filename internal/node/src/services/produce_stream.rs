//! A stream of batches, many of which are in flight at once.
//!
//! Requests are read as long as there is room for them, and answered in the order of their lane, which is a partition as the stream uses it.
//! A request is weighed when it is read: the quota says when it may go on, or that it is refused. What waits, waits in the connection's own
//! buffers, so a caller that is faster than it may be is slowed down by flow control, and takes no memory.
//!
//! A stream ends when its caller may no longer produce to a topic that it has sent to on it: what is in flight has a moment to be answered,
//! and nothing more is read.
//!
//! Invariants: what a request takes of the stream's and of the connection's bytes in flight is given back when its answer has been taken; one
//! request at most has been read and not been taken yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use highwater_catalog::Limit;
use highwater_partition::log::{Batch, PrincipalDigest};
use highwater_proto::limits::{PRODUCER_BATCHES_IN_FLIGHT_MAX, STREAM_IN_FLIGHT_BYTES_MAX};
use highwater_proto::v1::{ProduceRequest, ProduceResponse, ProduceStreamResponse};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout, timeout_at};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::Instrument;

use super::Context;
use super::deadline::DEADLINE_DEFAULT;
use super::lanes::{Delivery, Lane, Share};
use super::metering::give_back_if_led_elsewhere;
use super::produce::{possible_topic, propose, wanted};
use super::revocation::Grounds;
use super::way::Way;
use crate::access::{Action, Principal, Resource};
use crate::batch;
use crate::quotas::{Account, DELAY_MAX, OverQuota, Payers};
use crate::replicas::Opened;
use crate::status::Problem;

/// What a request costs at least of a stream's bytes in flight: it bounds the number of small ones.
const REQUEST_BYTES_LEAST: usize = 1024;
/// How many partitions a stream may have open at once.
const LANES_MAX: usize = 4096;
/// So many refusals for want of quota, one after the other, are told at once: what was sent before the first of them came to be known.
const REFUSED_AT_ONCE_MAX: usize = 8 * PRODUCER_BATCHES_IN_FLIGHT_MAX;
/// How often a stream looks for requests that have waited too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// How long a request on a stream waits for its answer.
const PATIENCE: Duration = DEADLINE_DEFAULT;
/// How long a request waits for room on its connection, which other streams may have used up.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(5);
/// How long a stream that is cut waits for the answers to what it has proposed, and for its caller to take them.
const CUT_GRACE: Duration = Duration::from_millis(300);

/// Runs a stream of batches: reads requests as long as there is room in flight, and answers into the returned stream. Its
/// last item says why no more is read, if that is the caller's fault, or it may no longer do what the stream is for.
pub(super) fn run_stream(
    context: Arc<Context>,
    caller: Caller,
    incoming: Streaming<ProduceRequest>,
) -> impl Stream<Item = Result<ProduceStreamResponse, Status>> + Send {
    let (out, answers) = mpsc::unbounded_channel();
    let (refused, refusal) = oneshot::channel();
    // Nothing is needed to open one: it stands on what is sent on it.
    let grounds = Grounds::new(context.clone(), caller.principal.clone(), Vec::new());
    let cut = CancellationToken::new();
    let stream = ProduceStream {
        context,
        caller,
        cut: cut.clone(),
        in_flight: Arc::new(Semaphore::new(STREAM_IN_FLIGHT_BYTES_MAX)),
        lanes: HashMap::new(),
        refused_in_a_row: 0,
        out,
    };
    tokio::spawn(Box::pin(stream.run(incoming, grounds, refused)).in_current_span());
    // Taking an answer out gives back its share of the bytes in flight.
    let answers = UnboundedReceiverStream::new(answers).map(|(answer, _share)| Ok(answer));
    let answers = answers.take_until(cut.cancelled_owned());
    let refusal = futures::stream::once(refusal).filter_map(async |refusal| refusal.ok().map(|why| Err(why.into())));
    answers.chain(refusal)
}

/// Who sends a stream of batches, and on which connection.
pub(super) struct Caller {
    pub(super) principal: Principal,
    pub(super) payers: Payers,
    /// Bytes that may wait for their answer on the connection, on all its streams together.
    pub(super) in_flight: Arc<Semaphore>,
}

struct ProduceStream {
    context: Arc<Context>,
    caller: Caller,
    /// Bytes; a share is given back when its answer has been taken by the connection.
    in_flight: Arc<Semaphore>,
    lanes: HashMap<LaneKey, OpenLane>,
    /// Ends the answers, also if some are still to come: whoever is to give them may have no quorum.
    cut: CancellationToken,
    /// Batches that a quota had no room for, since the last one that it had room for.
    refused_in_a_row: usize,
    out: mpsc::UnboundedSender<Delivery>,
}

type LaneKey = (String, Option<u64>, u32);

/// A partition as this stream uses it, opened anew when the catalog has changed.
struct OpenLane {
    lane: Arc<Lane>,
    opened: Option<OpenPartition>,
}

impl Drop for OpenLane {
    /// Batches without a quorum are held for as long as there is none, and must not hold the connection's room with them.
    fn drop(&mut self) {
        self.lane.abandon();
    }
}

struct OpenPartition {
    opened: Opened,
    digest: PrincipalDigest,
    /// Whose topic it is.
    tenant: Arc<Account>,
    /// Of the catalog, when it was opened.
    revision: u64,
}

/// A request that has been read and waits until it is its turn.
struct Pending {
    request: ProduceRequest,
    arrived: Instant,
    /// The quota's delay ends then; None: there is none.
    not_before: Option<Instant>,
    /// How long the one after it would be held back, as things stand now.
    next_delay: Duration,
    /// It will be refused.
    over: Option<OverQuota>,
    /// Until when it waits for room on the connection.
    room_by: Instant,
}

/// What a stream does next.
enum Next {
    Sweep,
    Request(ProduceRequest),
    Room(Share),
    HalfClosed,
    Refused(Problem),
    Lost(Problem),
    End,
}

impl ProduceStream {
    async fn run(
        mut self,
        mut incoming: Streaming<ProduceRequest>,
        mut grounds: Grounds,
        refused: oneshot::Sender<Problem>,
    ) {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending: Option<Pending> = None;
        loop {
            let next = tokio::select! {
                biased;
                () = self.context.stopping.cancelled() => Next::End,
                () = self.out.closed() => Next::End,
                problem = grounds.lost() => Next::Lost(problem),
                _ = sweep.tick() => Next::Sweep,
                room = self.room_for(pending.as_ref()), if pending.is_some() => room,
                request = incoming.message(), if pending.is_none() => received(request),
            };
            match next {
                Next::End => return,
                Next::HalfClosed => return self.finish(sweep).await,
                // Told once what came before has been answered. A caller who has gone needs no answer.
                Next::Refused(problem) => {
                    let _ = refused.send(problem);
                    return self.finish(sweep).await;
                }
                Next::Lost(problem) => {
                    let _ = refused.send(problem);
                    return self.cut(sweep).await;
                }
                Next::Sweep => self.sweep(),
                Next::Request(request) => pending = Some(self.weigh(request)),
                Next::Room(share) => {
                    if let Some(pending) = pending.take() {
                        self.take(pending, share, &mut grounds).await;
                    }
                }
            }
        }
    }

    /// The caller may not go on: whoever does not take its answers, or gets none, is not waited for.
    async fn cut(self, sweep: tokio::time::Interval) {
        let cut = self.cut.clone();
        // What is left unanswered then is not known to the caller, as if its connection had ended.
        let _ = timeout(CUT_GRACE, self.finish(sweep)).await;
        cut.cancel();
    }

    /// The caller sends nothing more: waits until all its answers have been taken.
    async fn finish(mut self, mut sweep: tokio::time::Interval) {
        loop {
            let everything = self.in_flight.acquire_many(STREAM_IN_FLIGHT_BYTES_MAX as u32);
            tokio::select! {
                biased;
                () = self.context.stopping.cancelled() => return,
                () = self.out.closed() => return,
                _ = everything => return,
                _ = sweep.tick() => {}
            }
            self.sweep();
        }
    }

    /// Whether the quota has room for a request, and when. A caller that goes on although it is refused is slowed down like one that is not.
    fn weigh(&mut self, request: ProduceRequest) -> Pending {
        let now = Instant::now();
        let (wait, over) = match self.caller.payers.take_batch(request.batch.len(), now) {
            Ok(wait) => {
                self.refused_in_a_row = 0;
                (wait, None)
            }
            Err(over) => {
                self.refused_in_a_row = self.refused_in_a_row.saturating_add(1);
                let goes_on = self.refused_in_a_row > REFUSED_AT_ONCE_MAX;
                (if goes_on { DELAY_MAX } else { Duration::ZERO }, Some(over))
            }
        };
        Pending {
            request,
            arrived: now,
            not_before: (!wait.is_zero()).then(|| now + wait),
            next_delay: self.caller.payers.batch_delay(now),
            over,
            room_by: now + wait + CONNECTION_PATIENCE,
        }
    }

    async fn room_for(&self, pending: Option<&Pending>) -> Next {
        let Some(pending) = pending else { return Next::End };
        if let Some(not_before) = pending.not_before {
            sleep_until(not_before).await;
        }
        let bytes = pending.request.batch.len();
        let cost = bytes.clamp(REQUEST_BYTES_LEAST, STREAM_IN_FLIGHT_BYTES_MAX) as u32;
        let room = room(&self.in_flight, &self.caller.in_flight, cost, pending.room_by).await;
        room.map_or(Next::End, Next::Room)
    }

    async fn take(&mut self, pending: Pending, share: Share, grounds: &mut Grounds) {
        let Pending {
            request,
            over,
            arrived,
            next_delay,
            ..
        } = pending;
        let way = Way::begin(&self.context, &self.caller.principal, &request, arrived);
        let key = lane_key(&request);
        self.make_room_for_lane(&key);
        let (out, refused) = (&self.out, &self.context.refused);
        let open = self.lanes.entry(key).or_insert_with(|| OpenLane {
            lane: Lane::new(out.clone(), refused.clone()),
            opened: None,
        });
        let (lane, payers, bytes) = (open.lane.clone(), self.caller.payers.clone(), request.batch.len());
        let has_room = share.has_room();
        let ticket = lane.enter(request.request_id, share);
        if let Some(over) = over {
            return lane.answer(ticket, way.refused(over.into()));
        }
        if !has_room {
            payers.give_back(Limit::ProduceBytesPerSecond, bytes as u64);
            let why = "the batches in flight on the other streams of this connection leave no room".to_owned();
            return lane.answer(ticket, way.refused(Problem::Overloaded(why)));
        }
        let checked = checked((&self.context, &self.caller.principal), open, &request, grounds).await;
        let stages = checked.is_ok().then(|| way.admitted()).flatten();
        let answer = move |answer| {
            way.answered(&answer);
            give_back_if_led_elsewhere(&payers, bytes, &answer);
            lane.answer(
                ticket,
                answer.map(|appended| ProduceResponse {
                    quota_delay_ms: whole_ms(next_delay),
                    ..appended
                }),
            );
        };
        match checked {
            Ok((opened, batch)) => propose(&self.context, &opened, (batch, stages), &self.caller.payers, answer),
            Err(problem) => answer(Err(problem)),
        }
    }

    /// Forgets idle lanes when there are too many. All of them in use is possible only with as many requests in flight.
    fn make_room_for_lane(&mut self, key: &LaneKey) {
        if self.lanes.len() >= LANES_MAX && !self.lanes.contains_key(key) {
            self.lanes.retain(|_, open| !open.lane.is_empty());
        }
    }

    fn sweep(&mut self) {
        for open in self.lanes.values() {
            open.lane.expire(PATIENCE);
        }
    }
}

/// Room for a request of `cost` bytes; without that of the connection if there is none by `room_by`.
async fn room(stream: &Arc<Semaphore>, connection: &Arc<Semaphore>, cost: u32, room_by: Instant) -> Option<Share> {
    // In this order everywhere, and what is held is given back by answers alone: nobody waits for anybody in a circle.
    let of_stream = stream.clone().acquire_many_owned(cost).await.ok()?;
    match timeout_at(room_by, connection.clone().acquire_many_owned(cost)).await {
        Ok(of_connection) => Some(Share::new(of_stream, Some(of_connection.ok()?))),
        Err(_) => Some(Share::new(of_stream, None)),
    }
}

/// Milliseconds, rounded up.
fn whole_ms(time: Duration) -> u32 {
    u32::try_from(time.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX)
}

/// A name that is too long to be one is refused whatever it is: such requests share a lane, so that nobody can fill our
/// memory with the names of lanes.
fn lane_key(request: &ProduceRequest) -> LaneKey {
    (possible_topic(request).to_owned(), request.topic_id, request.partition)
}

fn received(message: Result<Option<ProduceRequest>, Status>) -> Next {
    match message {
        Ok(Some(request)) => Next::Request(request),
        Ok(None) => Next::HalfClosed,
        // Otherwise the connection is gone; nobody reads an answer.
        Err(status) => Problem::from_library(&status).map_or(Next::End, Next::Refused),
    }
}

/// Opens the lane's partition, unless it is open and neither the catalog nor the replica has changed since, and checks the
/// batch. While nobody can tell whether the catalog has changed, the batch is refused.
async fn checked(
    (context, principal): (&Arc<Context>, &Principal),
    open: &mut OpenLane,
    request: &ProduceRequest,
    grounds: &mut Grounds,
) -> Result<(Opened, Batch), Problem> {
    context.currency.check()?;
    let revision = context.host.now().revision;
    let is_stale = |open: &OpenPartition| open.revision != revision || open.opened.hosted.has_ended();
    if open.opened.as_ref().is_none_or(is_stale) {
        let deadline = Instant::now() + PATIENCE;
        let (opened, digest) = context
            .open(principal, Action::Produce, &wanted(request), deadline)
            .await?;
        if open.opened.is_none() {
            let topic = context.topic_name(principal, &request.topic)?;
            grounds.also(Action::Produce, Resource::Topic(topic));
        }
        open.opened = Some(OpenPartition {
            tenant: context.quotas.tenant(&opened.tenant),
            opened,
            digest,
            revision,
        });
    }
    let Some(OpenPartition {
        opened, digest, tenant, ..
    }) = &open.opened
    else {
        return Err(Problem::Internal(
            "a partition that is neither open nor refused".to_owned(),
        ));
    };
    let batch = batch::check(request, *digest)?;
    tenant.check_room()?;
    Ok((opened.clone(), batch))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_proto::limits::{BATCH_BYTES_MAX, NAME_BYTES_MAX};

    use super::*;
    use crate::port::CONNECTION_IN_FLIGHT_BYTES_MAX;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_room_refuses_after_a_while_and_has_room_again_when_a_stream_without_quorum_ends() {
        let (connection, by) = (Arc::new(Semaphore::new(10)), || Instant::now() + CONNECTION_PATIENCE);
        let stuck = Arc::new(Semaphore::new(10));
        let open = OpenLane {
            lane: Lane::new(mpsc::unbounded_channel().0, Arc::default()),
            opened: None,
        };
        // Whoever is to answer holds the lane, as long as there is no quorum.
        let answering = open.lane.clone();
        let ticket = answering.enter(1, room(&stuck, &connection, 10, by()).await.unwrap());

        let healthy = Arc::new(Semaphore::new(10));
        assert!(!room(&healthy, &connection, 1, by()).await.unwrap().has_room());
        drop(open);
        assert!(room(&healthy, &connection, 1, by()).await.unwrap().has_room());
        answering.answer(ticket, Err(Problem::ProducerConflict));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_has_16_mib_unanswered_and_the_streams_of_a_connection_64_together() {
        let connection = Arc::new(Semaphore::new(CONNECTION_IN_FLIGHT_BYTES_MAX));
        let stream = || Arc::new(Semaphore::new(STREAM_IN_FLIGHT_BYTES_MAX));
        let room = async |stream: &Arc<Semaphore>, bytes: usize| {
            let by = Instant::now() + CONNECTION_PATIENCE;
            room(stream, &connection, bytes as u32, by).await.unwrap()
        };
        let mut held = Vec::new();
        for _ in 0..4 {
            let full = stream();
            for _ in 0..16 {
                let share = room(&full, BATCH_BYTES_MAX).await;
                assert!(share.has_room());
                held.push(share);
            }
            let more = timeout(Duration::from_secs(3_600), room(&full, 1)).await;
            assert!(more.is_err(), "it is read although nothing was answered");
        }
        let fifth = stream();
        assert!(!room(&fifth, 1).await.has_room());
        held.pop();
        assert!(room(&fifth, 1).await.has_room());
    }

    #[test]
    fn names_that_are_too_long_to_be_topics_take_no_room() {
        let key = |topic: String| {
            let request = ProduceRequest {
                topic,
                ..Default::default()
            };
            lane_key(&request).0
        };
        let longest = format!("{}/{}", "t".repeat(NAME_BYTES_MAX), "o".repeat(NAME_BYTES_MAX));
        assert_eq!(key(longest.clone()), longest);
        assert_eq!(key("x".repeat(4 * 1024 * 1024)), "");
    }
}
