//! Proposing batches: one by one, and on a stream with many in flight.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use highwater_partition::log::{Decision, PrincipalDigest, Verdict};
use highwater_partition::{Answer, NotApplied};
use highwater_proto::limits::{NAME_BYTES_MAX, STREAM_IN_FLIGHT_BYTES_MAX};
use highwater_proto::v1::{ProduceRequest, ProduceResponse, ProduceStreamResponse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

use super::deadline::DEADLINE_DEFAULT;
use super::lanes::{Delivery, Lane};
use super::{Context, Wanted};
use crate::access::{Action, Principal};
use crate::batch;
use crate::replicas::Opened;
use crate::status::Problem;

/// What a request costs at least of a stream's bytes in flight: it bounds the number of small ones.
const REQUEST_BYTES_LEAST: usize = 1024;
/// How many partitions a stream may have open at once.
const LANES_MAX: usize = 4096;
/// The longest way to write a topic, `tenant/topic`, bytes.
const TOPIC_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1;
/// How often a stream looks for requests that have waited too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// How long a request on a stream waits for its answer.
const PATIENCE: Duration = DEADLINE_DEFAULT;

/// One batch; answered by `deadline` in any case, and proposed by `begin_by` or not at all.
pub(crate) async fn produce(
    context: &Arc<Context>,
    principal: &Principal,
    request: &ProduceRequest,
    begin_by: Instant,
    deadline: Instant,
) -> Result<ProduceResponse, Problem> {
    let (opened, digest) = context
        .open(principal, Action::Produce, &wanted(request), deadline)
        .await?;
    let batch = batch::check(request, digest)?;
    let what = opened.what.clone();
    if Instant::now() > begin_by {
        let why = format!("no time is left in which {what} could answer");
        return Err(Problem::Overloaded(why));
    }
    let (answer, answered) = oneshot::channel();
    let deliver = move |result| {
        // The caller may have given up.
        let _ = answer.send(result);
    };
    propose(context, &opened, batch, deliver);
    match timeout_at(deadline, answered).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Problem::Unknown(format!("{what} gave no answer"))),
        Err(_) => Err(Problem::Unknown(format!(
            "no majority of the replicas of {what} answered in time"
        ))),
    }
}

fn wanted(request: &ProduceRequest) -> Wanted<'_> {
    Wanted {
        topic: &request.topic,
        topic_id: request.topic_id,
        partition: request.partition,
    }
}

/// Proposes a checked batch, if the node has room for it; `deliver` is called once, usually from the Raft task.
fn propose(
    context: &Arc<Context>,
    opened: &Opened,
    batch: highwater_partition::log::Batch,
    deliver: impl FnOnce(Result<ProduceResponse, Problem>) + Send + 'static,
) {
    let held = opened.partition().in_flight_bytes();
    let Some(share) = context.in_flight.take(batch.payload.len(), held) else {
        let why = format!("node {} has too much in flight", context.node);
        return deliver(Err(Problem::Overloaded(why)));
    };
    let (context, opened_there) = (context.clone(), opened.clone());
    let answer = move |answer| {
        drop(share);
        deliver(interpret(&context, &opened_there, answer));
    };
    opened.partition().propose(batch, Box::new(answer));
}

fn interpret(context: &Context, opened: &Opened, answer: Answer) -> Result<ProduceResponse, Problem> {
    let what = || opened.what.to_string();
    match answer {
        Answer::Decided(decision) => decided(opened, &decision),
        Answer::NotApplied(NotApplied::NotLeader {
            leader: Some(leader),
            term,
        }) => {
            let hint = context.leaders.hint_at(&leader.node, term);
            Err(Problem::NotLeader { what: what(), hint })
        }
        Answer::NotApplied(NotApplied::NotLeader { leader: None, .. }) => Err(Problem::NoQuorum { what: what() }),
        Answer::NotApplied(NotApplied::Overloaded) => {
            Err(Problem::Overloaded(format!("{} has too much in flight", opened.what)))
        }
        Answer::NotApplied(NotApplied::DiskFull) => Err(Problem::Overloaded(format!(
            "the disk of the leader of {} is nearly full",
            what()
        ))),
        Answer::NotApplied(NotApplied::Invalid(why)) => Err(Problem::Invalid { field: "batch", why }),
        Answer::NotApplied(NotApplied::Stopped) => Err(opened.gone()),
        Answer::Unknown(why) => Err(Problem::Unknown(why)),
    }
}

fn decided(opened: &Opened, decision: &Decision) -> Result<ProduceResponse, Problem> {
    let duplicate = match decision.verdict {
        Verdict::Accepted => false,
        Verdict::Duplicate => true,
        _ => return Err(Problem::from_decision(decision)),
    };
    if !duplicate {
        opened.hosted.count_appended(u64::from(decision.record_count));
    }
    Ok(ProduceResponse {
        base_offset: decision.base_offset,
        append_time_ms: decision.append_time_ms,
        duplicate,
    })
}

// -------------------------------------------------------------------------------------------------------- the stream

/// Runs a stream of batches: reads requests as long as there is room in flight, and answers into the returned stream. Its
/// last item says why no more is read, if that is the caller's fault.
pub(super) fn run_stream(
    context: Arc<Context>,
    principal: Principal,
    incoming: Streaming<ProduceRequest>,
) -> impl Stream<Item = Result<ProduceStreamResponse, Status>> + Send {
    let (out, answers) = mpsc::unbounded_channel();
    let (refused, refusal) = oneshot::channel();
    let stream = ProduceStream {
        context,
        principal,
        in_flight: Arc::new(Semaphore::new(STREAM_IN_FLIGHT_BYTES_MAX)),
        lanes: HashMap::new(),
        out,
    };
    tokio::spawn(Box::pin(stream.run(incoming, refused)));
    // Taking an answer out gives back its share of the bytes in flight.
    let answers = UnboundedReceiverStream::new(answers).map(|(answer, _share)| Ok(answer));
    let refusal = futures::stream::once(refusal).filter_map(async |refusal| refusal.ok().map(|why| Err(why.into())));
    answers.chain(refusal)
}

struct ProduceStream {
    context: Arc<Context>,
    principal: Principal,
    /// Bytes; a share is given back when its answer has been taken by the connection.
    in_flight: Arc<Semaphore>,
    lanes: HashMap<LaneKey, OpenLane>,
    out: mpsc::UnboundedSender<Delivery>,
}

type LaneKey = (String, Option<u64>, u32);

/// A partition as this stream uses it, opened anew when the catalog has changed.
struct OpenLane {
    lane: Arc<Lane>,
    opened: Option<(Opened, PrincipalDigest, u64)>,
}

/// What a stream does next.
enum Next {
    Sweep,
    Request(ProduceRequest),
    Room(OwnedSemaphorePermit),
    HalfClosed,
    Refused(Problem),
    End,
}

impl ProduceStream {
    async fn run(mut self, mut incoming: Streaming<ProduceRequest>, refused: oneshot::Sender<Problem>) {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pending: Option<ProduceRequest> = None;
        loop {
            let next = tokio::select! {
                biased;
                () = self.context.stopping.cancelled() => Next::End,
                () = self.out.closed() => Next::End,
                _ = sweep.tick() => Next::Sweep,
                room = self.room_for(pending.as_ref()), if pending.is_some() => room,
                request = incoming.message(), if pending.is_none() => received(request),
            };
            match next {
                Next::End => return,
                Next::HalfClosed => return self.finish(sweep).await,
                Next::Refused(problem) => {
                    // Told once what came before has been answered. A caller who has gone needs no answer.
                    let _ = refused.send(problem);
                    return self.finish(sweep).await;
                }
                Next::Sweep => self.sweep(),
                Next::Request(request) => pending = Some(request),
                Next::Room(share) => {
                    if let Some(request) = pending.take() {
                        self.take(request, share).await;
                    }
                }
            }
        }
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

    async fn room_for(&self, request: Option<&ProduceRequest>) -> Next {
        let bytes = request.map_or(0, |request| request.batch.len());
        let cost = bytes.clamp(REQUEST_BYTES_LEAST, STREAM_IN_FLIGHT_BYTES_MAX) as u32;
        match self.in_flight.clone().acquire_many_owned(cost).await {
            Ok(share) => Next::Room(share),
            Err(_) => Next::End,
        }
    }

    async fn take(&mut self, request: ProduceRequest, share: OwnedSemaphorePermit) {
        let key = lane_key(&request);
        self.make_room_for_lane(&key);
        let out = &self.out;
        let open = self.lanes.entry(key).or_insert_with(|| OpenLane {
            lane: Lane::new(out.clone()),
            opened: None,
        });
        let lane = open.lane.clone();
        let ticket = lane.enter(request.request_id, share);
        match checked(&self.context, &self.principal, open, &request).await {
            Ok((opened, batch)) => propose(&self.context, &opened, batch, move |answer| lane.answer(ticket, answer)),
            Err(problem) => lane.answer(ticket, Err(problem)),
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

/// A name that is too long to be one is refused whatever it is: such requests share a lane, so that nobody can fill our
/// memory with the names of lanes.
fn lane_key(request: &ProduceRequest) -> LaneKey {
    let is_possible = request.topic.len() <= TOPIC_BYTES_MAX;
    let topic = if is_possible { request.topic.as_str() } else { "" };
    (topic.to_owned(), request.topic_id, request.partition)
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
    context: &Arc<Context>,
    principal: &Principal,
    open: &mut OpenLane,
    request: &ProduceRequest,
) -> Result<(Opened, highwater_partition::log::Batch), Problem> {
    context.currency.check()?;
    let revision = context.host.now().revision;
    let is_stale = |(opened, _, at): &(Opened, PrincipalDigest, u64)| *at != revision || opened.hosted.has_ended();
    if open.opened.as_ref().is_none_or(is_stale) {
        let deadline = Instant::now() + PATIENCE;
        let (opened, digest) = context
            .open(principal, Action::Produce, &wanted(request), deadline)
            .await?;
        open.opened = Some((opened, digest, revision));
    }
    let Some((opened, digest, _)) = &open.opened else {
        return Err(Problem::Internal(
            "a partition that is neither open nor refused".to_owned(),
        ));
    };
    let batch = batch::check(request, *digest)?;
    Ok((opened.clone(), batch))
}

#[cfg(test)]
mod tests {
    use super::*;

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
