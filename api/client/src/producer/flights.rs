//! The batches of one partition that have a sequence and no final answer yet. Pure state: no network, no clock.
//!
//! # How order and at-most-once are kept
//!
//! Batches carry the producer's id and dense sequences 0, 1, 2, …; the partition appends a sequence only behind the one
//! before, and answers a repeated one as it did the first time. So after any failure all unanswered batches are sent
//! again, in order, with the same sequences and bytes, and neither order nor count can suffer.
//!
//! A batch with a condition that does not hold is *declined* by the log, which keeps its sequence: the next one follows on.
//!
//! A batch that is given up (deadline, refusal) leaves a **hole**: the partition may never see its sequence, and would
//! refuse everything behind it. While there is a hole no new batch gets a sequence. The batches behind it are resolved
//! first, and each is one of these:
//!
//! * *doubtful*: some attempt ended without an answer, so it may be in the log. It is sent again under its old sequence,
//!   and the partition tells: appended, or out of sequence. Out of sequence is no proof for an attempt that still wanders
//!   through the network, so the batch then fails with an unknown outcome rather than be stored twice.
//! * *clean*: every attempt was answered *not applied*, or there was none. It keeps waiting.
//!
//! When only clean ones are left, the producer takes a new random id for this partition, gives them sequences from 0 in
//! their order, and goes on. The same happens when the partition has forgotten a producer that was silent for long.
//!
//! Invariants: the queue is in the order of sending and holds at most [`PRODUCER_BATCHES_IN_FLIGHT_MAX`]; results leave
//! it only from the front, so deliveries of a partition resolve in order; a flight with a result is never sent.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use highwater_proto::limits::PRODUCER_BATCHES_IN_FLIGHT_MAX;
use tokio::time::Instant;

use super::batch::Batch;
use super::delivery::Appended;
use crate::error::{Error, Outcome};

/// What an answer says about a batch.
#[derive(Debug)]
pub(crate) enum Answer {
    Appended(Appended),
    /// Not now or not there; the same batch may succeed later.
    Later {
        maybe_applied: bool,
    },
    /// The partition expects another sequence, or does not know the producer. This attempt was not applied.
    OutOfSequence(Error),
    /// The log has decided against it, and remembers that under the batch's sequence: the next one follows on.
    Declined(Error),
    /// Never, whatever is tried.
    Refused {
        maybe_applied: bool,
        error: Error,
    },
}

#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) batch: Batch,
    pub(crate) crc32c: u32,
    pub(crate) sequence: u64,
    /// Identifies the attempt that waits for an answer on the present connection.
    pub(crate) request_id: Option<u64>,
    /// How often it was sent.
    pub(crate) attempts: u32,
    doubtful: bool,
    /// Its sequence is used, although it is not in the log.
    declined: bool,
    result: Option<Result<Appended, (Outcome, Error)>>,
}

impl Flight {
    fn is_waiting(&self) -> bool {
        self.request_id.is_some()
    }

    /// Certainly not in the log, and in no way to it.
    fn is_clean(&self) -> bool {
        !self.is_waiting() && !self.doubtful
    }

    /// Whether it ought to be on its way and is not. Behind a hole only the doubtful are sent.
    fn is_departure(&self, hole: bool) -> bool {
        self.result.is_none() && !self.is_waiting() && (!hole || self.doubtful)
    }

    fn fail(&mut self, error: Error) {
        let outcome = match self.doubtful {
            true => Outcome::Unknown,
            false => Outcome::NotApplied,
        };
        self.result = Some(Err((outcome, error)));
    }

    fn resolve(self) {
        match self.result {
            Some(Ok(appended)) => self.batch.appended(appended),
            Some(Err((outcome, error))) => self.batch.failed(outcome, error),
            // Only flights with a result are resolved; otherwise the promise itself says unknown.
            None => {}
        }
    }
}

#[derive(Debug)]
pub(crate) struct Flights {
    pub(crate) producer_id: Bytes,
    next_sequence: u64,
    next_request_id: u64,
    queue: VecDeque<Flight>,
    hole: bool,
}

impl Flights {
    pub(crate) fn new() -> Self {
        Self {
            producer_id: random_id(),
            next_sequence: 0,
            next_request_id: 1,
            queue: VecDeque::with_capacity(PRODUCER_BATCHES_IN_FLIGHT_MAX),
            hole: false,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether another batch may get a sequence.
    pub(crate) fn has_room(&self) -> bool {
        !self.hole && self.queue.len() < PRODUCER_BATCHES_IN_FLIGHT_MAX
    }

    /// Gives a batch the next sequence.
    pub(crate) fn push(&mut self, batch: Batch) {
        assert!(
            self.has_room(),
            "{} batches in flight, hole: {}",
            self.queue.len(),
            self.hole
        );
        let flight = Flight {
            crc32c: crc_fast::crc32_iscsi(&batch.bytes),
            batch,
            sequence: self.next_sequence,
            request_id: None,
            attempts: 0,
            doubtful: false,
            declined: false,
            result: None,
        };
        self.next_sequence += 1;
        self.queue.push_back(flight);
    }

    /// The next batch that ought to be on its way and is not, with a new request id. The caller sends it.
    pub(crate) fn take_off(&mut self) -> Option<&Flight> {
        let hole = self.hole;
        let flight = self.queue.iter_mut().find(|flight| flight.is_departure(hole))?;
        flight.request_id = Some(self.next_request_id);
        flight.attempts += 1;
        self.next_request_id += 1;
        Some(flight)
    }

    /// Whether [`take_off`](Self::take_off) has something.
    pub(crate) fn has_departures(&self) -> bool {
        self.queue.iter().any(|flight| flight.is_departure(self.hole))
    }

    /// Whether an answer is expected on the present connection.
    pub(crate) fn awaits_answers(&self) -> bool {
        self.queue.iter().any(Flight::is_waiting)
    }

    /// Takes in an answer; says whether the connection ought to be made anew, to send again from the front.
    pub(crate) fn answer(&mut self, request_id: u64, answer: Answer) -> bool {
        let Some(place) = self
            .queue
            .iter()
            .position(|flight| flight.request_id == Some(request_id))
        else {
            return false; // Given up in the meantime.
        };
        // Behind a hole the clean ones stay out of the log, so they explain no gap.
        let hole = self.hole;
        let decided = |flight: &Flight| flight.result.is_some() || (hole && flight.is_clean());
        let is_first = self.queue.iter().take(place).all(decided);
        let flight = &mut self.queue[place];
        flight.request_id = None;
        match answer {
            Answer::Appended(appended) => {
                flight.result = Some(Ok(appended));
                false
            }
            Answer::Later { maybe_applied } => {
                flight.doubtful |= maybe_applied;
                true
            }
            // A consequence of what became of the batches before it; sent again behind them.
            Answer::OutOfSequence(_) if !is_first => true,
            Answer::OutOfSequence(error) => {
                self.hole = true;
                if flight.doubtful {
                    flight.fail(error);
                }
                false
            }
            // Also of earlier attempts this is what became of them: each would have been decided alike.
            Answer::Declined(error) => {
                flight.declined = true;
                flight.result = Some(Err((Outcome::NotApplied, error)));
                false
            }
            Answer::Refused { maybe_applied, error } => {
                flight.doubtful |= maybe_applied;
                flight.fail(error);
                false
            }
        }
    }

    /// The connection is gone; nothing more is heard of what was sent on it. `never_sent`: it never came about.
    pub(crate) fn disconnected(&mut self, never_sent: bool) {
        for flight in self.queue.iter_mut().filter(|flight| flight.is_waiting()) {
            flight.request_id = None;
            flight.doubtful |= !never_sent;
        }
    }

    /// The node refused to take batches at all, so those sent on this connection were not looked at.
    pub(crate) fn refuse_waiting(&mut self, error: &Error) {
        for flight in self.queue.iter_mut().filter(|flight| flight.is_waiting()) {
            flight.request_id = None;
            flight.fail(error.clone());
        }
    }

    /// When the oldest batch was born.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|flight| flight.batch.born)
    }

    /// Gives up batches born before `now - deadline`; says whether one of them was still waiting for an answer.
    pub(crate) fn expire(&mut self, now: Instant, deadline: Duration, error: &Error) -> bool {
        let mut was_waiting = false;
        for flight in &mut self.queue {
            if flight.batch.born + deadline > now {
                break;
            }
            if flight.result.is_some() {
                continue;
            }
            was_waiting |= flight.is_waiting();
            flight.doubtful |= flight.request_id.take().is_some();
            flight.fail(error.clone());
        }
        was_waiting
    }

    /// Resolves what is decided, from the front, and closes a hole when only clean batches are left behind it.
    pub(crate) fn settle(&mut self) {
        while self.queue.front().is_some_and(|front| front.result.is_some()) {
            if let Some(front) = self.queue.pop_front() {
                self.hole |= matches!(front.result, Some(Err(_))) && !front.declined;
                front.resolve();
            }
        }
        let is_settled = |flight: &Flight| flight.result.is_some() || flight.is_clean();
        if self.hole && self.queue.iter().all(is_settled) {
            self.renew();
        }
    }

    /// Starts again as a new producer.
    fn renew(&mut self) {
        self.producer_id = random_id();
        self.next_sequence = 0;
        self.hole = false;
        for flight in self.queue.iter_mut().filter(|flight| flight.result.is_none()) {
            assert!(
                flight.is_clean(),
                "sequence {} may be in the log already",
                flight.sequence
            );
            flight.sequence = self.next_sequence;
            self.next_sequence += 1;
        }
    }
}

fn random_id() -> Bytes {
    Bytes::copy_from_slice(&rand::random::<[u8; 16]>())
}

#[cfg(test)]
mod tests;
