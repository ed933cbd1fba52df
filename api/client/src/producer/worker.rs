//! The task that takes the batches of one partition to its leader.
//!
//! One loop: settle what is decided, give new batches their sequence, send what ought to be on its way, then wait for
//! whatever comes first: an answer, a new batch, news of a leader, a timer. What the answers mean for order and
//! count is decided in [`flights`](super::flights); here it is only decided whom to ask, and when.
//!
//! After a refusal that sends us elsewhere, the stream *drains* for a moment before it is left: the answers to the
//! batches behind are on their way, and each spares a doubt.

use std::sync::Arc;
use std::time::Duration;

use highwater_proto::v1::produce_stream_response::Result as Response;
use highwater_proto::v1::{ErrorDetail, ProduceRequest, ProduceStreamResponse};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::Code;

use super::delivery::Appended;
use super::flights::{Answer, Flights};
use super::lane::Lane;
use super::stream::{Broken, ProduceStream};
use crate::backoff::Backoff;
use crate::calls::{Caller, connection_error};
use crate::compression::Compression;
use crate::error::{ConnectionProblem, Error, Outcome, Reason, Refusal};
use crate::picker::Purpose;
use crate::picture::TopicRef;

/// How long the answers still to come are waited for before a stream is left.
const DRAIN_TIME: Duration = Duration::from_millis(50);
/// With so little of its time left, or a tenth of it if that is less, a batch is not sent for the first time any more: it
/// would hardly be answered in time, and surely not applied is better to know than nothing.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// What the workers of a producer share.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) caller: Arc<Caller>,
    pub(crate) topic: TopicRef,
    /// The topic's name in requests.
    pub(crate) wire_name: String,
    pub(crate) deadline: Duration,
    pub(crate) compression: Compression,
    /// How long a node may be silent while batches wait for its answers.
    pub(crate) answer_timeout: Duration,
}

/// The stream in use, and until when it may still answer if we are about to leave it.
struct Open {
    stream: ProduceStream,
    leave_at: Option<Instant>,
    /// When it answered last, or was given something to answer after a pause.
    heard_at: Instant,
}

pub(crate) struct Worker {
    route: Arc<Route>,
    lane: Arc<Lane>,
    flights: Flights,
    open: Option<Open>,
    changes: watch::Receiver<u64>,
    /// The highest term that a stream was opened for.
    term: u64,
    backoff: Backoff,
    /// Not before this a new stream is opened.
    retry_at: Instant,
    /// The node that failed last.
    avoid: Vec<String>,
    last_error: Option<Error>,
    /// The node that acknowledged last.
    acknowledged_by: Option<String>,
}

enum Event {
    Answer(Result<ProduceStreamResponse, Broken>),
    Picture,
    Batch,
    Timer,
}

impl Worker {
    pub(crate) fn new(route: Arc<Route>, lane: Arc<Lane>) -> Self {
        Self {
            changes: route.caller.resolver.changes(),
            route,
            lane,
            flights: Flights::new(),
            open: None,
            term: 0,
            backoff: Backoff::new(),
            retry_at: Instant::now(),
            avoid: Vec::new(),
            last_error: None,
            acknowledged_by: None,
        }
    }

    /// Runs until the lane is closed and everything is answered.
    pub(crate) async fn run(mut self) {
        loop {
            let now = Instant::now();
            self.expire(now);
            self.flights.settle();
            self.leave_if_time(now);
            self.leave_if_silent(now);
            self.fill(now);
            self.transmit(now);
            self.lane.set_in_flight(self.flights.len());
            if self.flights.is_empty() && self.lane.is_finished() {
                return;
            }
            match self.next_event(now).await {
                Event::Answer(Ok(response)) => self.on_response(response),
                Event::Answer(Err(broken)) => self.on_broken(broken),
                Event::Picture => self.on_picture(),
                Event::Batch | Event::Timer => {}
            }
        }
    }

    async fn next_event(&mut self, now: Instant) -> Event {
        let timer = self.next_timer(now);
        let stream = self.open.as_mut().map(|open| &mut open.stream);
        tokio::select! {
            biased;
            answer = async {
                match stream {
                    Some(stream) => stream.next().await,
                    None => std::future::pending().await,
                }
            } => Event::Answer(answer),
            () = self.lane.wake.notified() => Event::Batch,
            changed = self.changes.changed() => match changed {
                Ok(()) => Event::Picture,
                // The resolver is gone for good; timers still bring the end.
                Err(_) => std::future::pending().await,
            },
            () = sleep_until(timer.unwrap_or(now)), if timer.is_some() => Event::Timer,
        }
    }

    /// When something is to be done although nothing happens.
    fn next_timer(&self, now: Instant) -> Option<Instant> {
        let oldest = self.flights.oldest().or_else(|| self.lane.oldest());
        let expiry = oldest.map(|born| born + self.route.deadline);
        let due = self.takes_more(now).then(|| self.lane.next_due(now)).flatten();
        let leave = self.open.as_ref().and_then(|open| open.leave_at);
        let silence = self.silence_ends();
        let retry = (self.open.is_none() && self.flights.has_departures()).then_some(self.retry_at);
        [expiry, due, leave, silence, retry].into_iter().flatten().min()
    }

    /// Gives up what is too old, on its way or not.
    fn expire(&mut self, now: Instant) {
        let deadline = self.route.deadline;
        let oldest = self.flights.oldest().or_else(|| self.lane.oldest());
        if oldest.is_none_or(|born| born + deadline > now) {
            return;
        }
        let error = Error::Deadline {
            action: format!("append to {}/{}", self.route.topic.name, self.lane.partition()),
            after: deadline,
            last: self.last_error.clone().map(Box::new),
        };
        if self.flights.expire(now, deadline, &error) {
            // A stream that left a batch unanswered for so long is not to be trusted with the next.
            self.disconnect(false);
        }
        self.flights.settle();
        if !self.flights.is_empty() {
            return; // Older than everything that still waits.
        }
        let Some(limit) = now.checked_sub(deadline) else { return };
        while let Some(batch) = self.lane.take_born_by(limit) {
            batch.failed(Outcome::NotApplied, error.clone());
        }
    }

    /// Compresses one batch at most, so that others on this thread have their turn; the timer brings the next one at once.
    fn fill(&mut self, now: Instant) {
        while self.takes_more(now) {
            let Some(batch) = self.lane.take_due(now) else { return };
            self.flights.push(batch.compressed(self.route.compression));
            if self.route.compression != Compression::None {
                return;
            }
        }
    }

    /// Whether the next batch of the lane may get a sequence, and is worth it.
    fn takes_more(&self, now: Instant) -> bool {
        let deadline = self.route.deadline;
        let last_moment = LAST_MOMENT.min(deadline / 10);
        let too_late = |born: Instant| born + deadline <= now + last_moment;
        self.flights.has_room() && !self.lane.oldest().is_some_and(too_late)
    }

    /// Sends what ought to be on its way, opening a stream if there is none and it is time.
    fn transmit(&mut self, now: Instant) {
        if !self.flights.has_departures() {
            return;
        }
        if self.open.is_none() && now >= self.retry_at {
            self.connect();
        }
        let was_waiting = self.flights.awaits_answers();
        let Some(open) = self.open.as_mut().filter(|open| open.leave_at.is_none()) else {
            return;
        };
        if !was_waiting {
            open.heard_at = now;
        }
        let producer_id = self.flights.producer_id.clone();
        while let Some(flight) = self.flights.take_off() {
            let request = ProduceRequest {
                topic: self.route.wire_name.clone(),
                topic_id: Some(self.route.topic.topic_id),
                partition: self.lane.partition(),
                producer_id: producer_id.clone(),
                sequence: flight.sequence,
                record_count: flight.batch.record_count,
                compression: flight.batch.compression.wire() as i32,
                crc32c: Some(flight.crc32c),
                expected_offset: flight.batch.expected_offset,
                batch: flight.batch.bytes.clone(),
                request_id: flight.request_id.unwrap_or_default(),
                traceparent: flight.batch.trace.map_or_else(String::new, |parent| parent.to_string()),
            };
            if !open.stream.send(request) {
                // The stream is ending; its last answers or its error come next, and then all is sent anew.
                return;
            }
            flight.batch.departs(flight.attempts);
        }
    }

    fn connect(&mut self) {
        let (topic, partition) = (&self.route.topic, self.lane.partition());
        self.term = self.term.max(self.leader_term());
        let caller = &self.route.caller;
        let opened = caller
            .pick(Purpose::Write { topic, partition }, &self.avoid)
            .and_then(|target| ProduceStream::open(&caller.connections, target));
        match opened {
            Ok(stream) => {
                self.open = Some(Open {
                    stream,
                    leave_at: None,
                    heard_at: Instant::now(),
                });
            }
            Err(error) => {
                self.last_error = Some(error);
                self.retry_later(Duration::ZERO);
            }
        }
    }

    fn leader_term(&self) -> u64 {
        let picture = self.route.caller.resolver.picture();
        let leader = picture.leader(&self.route.topic, self.lane.partition());
        leader.map_or(0, |leader| leader.term)
    }

    fn on_response(&mut self, response: ProduceStreamResponse) {
        if let Some(open) = &mut self.open {
            open.heard_at = Instant::now();
        }
        let answer = match response.result {
            Some(Response::Appended(appended)) => {
                self.backoff.reset();
                self.avoid.clear();
                self.note_leader();
                self.lane.note_taken(appended.quota_delay_ms > 0);
                Answer::Appended(Appended {
                    base_offset: appended.base_offset,
                    append_time_ms: appended.append_time_ms,
                    duplicate: appended.duplicate,
                })
            }
            Some(Response::Error(detail)) => self.on_refusal(detail),
            None => Answer::Later { maybe_applied: true },
        };
        if self.flights.answer(response.request_id, answer) {
            self.begin_to_leave();
        }
    }

    /// Tells if another node acknowledges than before.
    fn note_leader(&mut self) {
        let Some(node) = self.open.as_ref().map(|open| &open.stream.node) else {
            return;
        };
        if self.acknowledged_by.as_ref() == Some(node) {
            return;
        }
        if let Some(before) = self.acknowledged_by.replace(node.clone()) {
            let metrics = &self.route.caller.metrics;
            metrics.leader_changed(self.lane.topic(), self.lane.partition(), &before, node);
        }
    }

    /// What a refusal means for its batch; also notes whom to ask next, and when.
    fn on_refusal(&mut self, detail: ErrorDetail) -> Answer {
        let node = self
            .open
            .as_ref()
            .map_or_else(String::new, |open| open.stream.node.clone());
        let refusal = Refusal::from_detail(&node, Code::Ok, detail);
        let (reason, outcome, retry_after) = (refusal.reason, refusal.outcome, refusal.retry_after);
        let (topic, partition) = (&self.route.topic, self.lane.partition());
        let retryable = refusal.is_retryable() || self.route.caller.is_lagging(topic, partition, reason);
        let error = Error::refused(refusal);
        tracing::debug!(partition, %error, "a batch was refused");

        let news = self
            .route
            .caller
            .learn_leader(Purpose::Write { topic, partition }, &error);
        self.last_error = Some(error.clone());
        let maybe_applied = outcome != Outcome::NotApplied;
        if reason == Reason::QuotaExceeded {
            self.lane.note_taken(true);
        }
        match reason {
            Reason::SequenceGap | Reason::UnknownProducer => Answer::OutOfSequence(error),
            Reason::OffsetMismatch => Answer::Declined(error),
            _ if !retryable => Answer::Refused { maybe_applied, error },
            _ => {
                let is_first = self.open.as_ref().is_some_and(|open| open.leave_at.is_none());
                if news {
                    self.retry_now();
                } else if is_first {
                    // It leads as before although a quota is used up; another would only refuse.
                    self.avoid = match reason {
                        Reason::QuotaExceeded => Vec::new(),
                        _ => vec![node],
                    };
                    self.retry_later(retry_after.unwrap_or_default());
                }
                Answer::Later { maybe_applied }
            }
        }
    }

    fn on_broken(&mut self, broken: Broken) {
        tracing::debug!(partition = self.lane.partition(), error = %broken.error, "the produce stream ended");
        if let Error::Refused(refusal) = &broken.error
            && broken.never_sent
            && !refusal.is_retryable()
        {
            // The stream itself is refused, and so would be each batch.
            self.flights.refuse_waiting(&broken.error);
        }
        let leaving = self.open.as_ref().is_some_and(|open| open.leave_at.is_some());
        if !leaving && self.flights.awaits_answers() {
            self.avoid = self.open.iter().map(|open| open.stream.node.clone()).collect();
            self.retry_later(Duration::ZERO);
        }
        self.last_error = Some(broken.error);
        self.disconnect(broken.never_sent);
    }

    /// A leader of a higher term is worth an attempt at once, and a stream to an older one will bring nothing more.
    fn on_picture(&mut self) {
        let picture = self.route.caller.resolver.picture();
        let leader = picture.leader(&self.route.topic, self.lane.partition());
        let Some(leader) = leader.filter(|leader| leader.term > self.term) else {
            return;
        };
        self.term = leader.term;
        if self.open.as_ref().is_none_or(|open| open.stream.node != leader.node) {
            self.retry_now();
            self.begin_to_leave();
        }
    }

    fn begin_to_leave(&mut self) {
        if let Some(open) = &mut self.open {
            open.leave_at.get_or_insert(Instant::now() + DRAIN_TIME);
        }
    }

    /// When the node has been silent for too long.
    fn silence_ends(&self) -> Option<Instant> {
        let open = self.open.as_ref().filter(|_| self.flights.awaits_answers())?;
        Some(open.heard_at + self.route.answer_timeout)
    }

    /// Gives up a stream whose node is silent. Its batches are sent again, perhaps to another leader.
    fn leave_if_silent(&mut self, now: Instant) {
        if self.silence_ends().is_none_or(|end| end > now) {
            return;
        }
        if let Some(open) = self.open.take() {
            tracing::debug!(
                partition = self.lane.partition(),
                node = open.stream.node,
                "no answer, sending again"
            );
            let problem = ConnectionProblem::Timeout(self.route.answer_timeout);
            self.last_error = Some(connection_error(&open.stream.node, problem));
            self.avoid = vec![open.stream.node];
        }
        self.disconnect(false);
        self.retry_later(Duration::ZERO);
    }

    /// Leaves a draining stream once it has answered everything or had its time.
    fn leave_if_time(&mut self, now: Instant) {
        let Some(leave_at) = self.open.as_ref().and_then(|open| open.leave_at) else {
            return;
        };
        if leave_at <= now || !self.flights.awaits_answers() {
            self.disconnect(false);
        }
    }

    fn disconnect(&mut self, never_sent: bool) {
        self.open = None;
        self.flights.disconnected(never_sent);
    }

    /// Something has changed: what failed before says nothing of the next attempts.
    fn retry_now(&mut self) {
        self.avoid.clear();
        self.backoff.reset();
        self.retry_at = Instant::now();
    }

    fn retry_later(&mut self, at_least: Duration) {
        self.retry_at = Instant::now() + self.backoff.pause().max(at_least);
    }
}

impl Drop for Worker {
    /// Normally the lane is empty here. If the runtime ends first, nobody shall wait for ever.
    fn drop(&mut self) {
        self.lane.abandon();
    }
}
