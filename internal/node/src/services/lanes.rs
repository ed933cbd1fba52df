//! Answers of one ProduceStream, in order for each partition.
//!
//! Batches of a partition are decided in order, but refusals (not the leader, over a limit) come at once and would
//! overtake. So every request takes a slot in its partition's lane; an answer fills its slot, and whatever stands ready
//! at the front leaves. A slot holds the request's share of the bytes that the stream may have in flight, until the
//! answer has been handed to the connection: a caller that does not read its answers stops being read.
//!
//! Invariants: each slot is answered at most once, by the partition or by its expiry, and later answers are dropped; without
//! an answer only if the stream has ended;
//! tickets of a lane are consecutive, and its front slot is the oldest one not sent.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_proto::v1::produce_stream_response::Result as Outcome;
use highwater_proto::v1::{ProduceResponse, ProduceStreamResponse};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use crate::status::{Problem, Refused};

/// An answer on its way to the connection, with its share of the bytes in flight.
pub(super) type Delivery = (ProduceStreamResponse, Share);

/// A request's share of the bytes that its stream, and its connection, may have in flight.
#[derive(Debug)]
pub(super) struct Share {
    _of_stream: OwnedSemaphorePermit,
    /// None of a request that is refused because there is none left.
    of_connection: Option<OwnedSemaphorePermit>,
}

impl Share {
    pub(super) fn new(of_stream: OwnedSemaphorePermit, of_connection: Option<OwnedSemaphorePermit>) -> Share {
        Share {
            _of_stream: of_stream,
            of_connection,
        }
    }

    /// Whether the connection has room for the request.
    pub(super) fn has_room(&self) -> bool {
        self.of_connection.is_some()
    }
}

/// The requests of one stream for one partition that are not answered yet.
pub(super) struct Lane {
    slots: Mutex<Slots>,
    out: mpsc::UnboundedSender<Delivery>, // Bounded by the shares.
    refused: Arc<Refused>,
}

#[derive(Default)]
struct Slots {
    /// The ticket of the front slot.
    first: u64,
    waiting: VecDeque<Slot>,
}

struct Slot {
    request_id: u64,
    since: Instant,
    share: Share,
    answer: Option<Outcome>,
}

impl Lane {
    pub(super) fn new(out: mpsc::UnboundedSender<Delivery>, refused: Arc<Refused>) -> Arc<Lane> {
        Arc::new(Lane {
            slots: Mutex::default(),
            out,
            refused,
        })
    }

    /// Takes a slot behind all others, and its ticket.
    pub(super) fn enter(&self, request_id: u64, share: Share) -> u64 {
        let mut slots = self.lock();
        slots.waiting.push_back(Slot {
            request_id,
            since: Instant::now(),
            share,
            answer: None,
        });
        slots.first + slots.waiting.len() as u64 - 1
    }

    /// Answers the request with this ticket, unless it has been answered.
    pub(super) fn answer(&self, ticket: u64, answer: Result<ProduceResponse, Problem>) {
        let mut slots = self.lock();
        let slot = ticket
            .checked_sub(slots.first)
            .and_then(|place| usize::try_from(place).ok());
        let Some(slot) = slot.and_then(|place| slots.waiting.get_mut(place)) else {
            return;
        };
        if slot.answer.is_none() {
            slot.answer = Some(self.outcome(answer));
        }
        self.send_ready(&mut slots);
    }

    /// Answers whatever has waited for longer than `patience`: its outcome is unknown.
    pub(super) fn expire(&self, patience: Duration) {
        let mut slots = self.lock();
        let late = |slot: &&mut Slot| slot.answer.is_none() && slot.since.elapsed() >= patience;
        for slot in slots.waiting.iter_mut().filter(late) {
            let why = format!("no majority of the replicas answered within {} s", patience.as_secs());
            slot.answer = Some(self.outcome(Err(Problem::Unknown(why))));
        }
        self.send_ready(&mut slots);
    }

    /// Forgets all requests: nobody waits for their answers. Whoever is to answer them may hold the lane for long, and must not hold
    /// their shares.
    pub(super) fn abandon(&self) {
        let mut slots = self.lock();
        slots.first += slots.waiting.len() as u64;
        slots.waiting.clear();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Sends under the lock: two answers that are ready at once must not overtake each other.
    fn send_ready(&self, slots: &mut Slots) {
        while slots.waiting.front().is_some_and(|slot| slot.answer.is_some()) {
            let Some(slot) = slots.waiting.pop_front() else { return };
            slots.first += 1;
            let response = ProduceStreamResponse {
                request_id: slot.request_id,
                result: slot.answer,
            };
            // A caller who has gone needs no answer.
            let _ = self.out.send((response, slot.share));
        }
    }

    fn outcome(&self, answer: Result<ProduceResponse, Problem>) -> Outcome {
        match answer {
            Ok(appended) => Outcome::Appended(appended),
            Err(problem) => {
                let detail = problem.detail();
                self.refused.count(detail.reason());
                Outcome::Error(detail)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::sync::Semaphore;

    use super::*;

    fn lane() -> (Arc<Lane>, mpsc::UnboundedReceiver<Delivery>, Arc<Semaphore>) {
        let (out, answers) = mpsc::unbounded_channel();
        (Lane::new(out, Arc::default()), answers, Arc::new(Semaphore::new(100)))
    }

    fn share(semaphore: &Arc<Semaphore>) -> Share {
        let take = |count| semaphore.clone().try_acquire_many_owned(count).unwrap();
        Share::new(take(6), Some(take(4)))
    }

    fn appended(base_offset: u64) -> Result<ProduceResponse, Problem> {
        Ok(ProduceResponse {
            base_offset,
            ..Default::default()
        })
    }

    #[test]
    fn a_refusal_does_not_overtake_an_earlier_batch() {
        let (lane, mut answers, semaphore) = lane();
        let first = lane.enter(1, share(&semaphore));
        let second = lane.enter(2, share(&semaphore));
        lane.answer(second, Err(Problem::ProducerConflict));
        assert!(answers.try_recv().is_err());
        lane.answer(first, appended(7));
        let ids: Vec<u64> = std::iter::from_fn(|| answers.try_recv().ok())
            .map(|(answer, _)| answer.request_id)
            .collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn the_share_is_given_back_when_the_answer_has_been_taken() {
        let (lane, mut answers, semaphore) = lane();
        let ticket = lane.enter(1, share(&semaphore));
        lane.answer(ticket, appended(0));
        assert_eq!(semaphore.available_permits(), 90);
        drop(answers.try_recv().unwrap());
        assert_eq!(semaphore.available_permits(), 100);
    }

    #[test]
    fn what_waits_too_long_is_unknown_and_its_late_answer_is_dropped() {
        let (lane, mut answers, semaphore) = lane();
        let ticket = lane.enter(1, share(&semaphore));
        lane.expire(Duration::from_secs(60));
        assert!(answers.try_recv().is_err());
        lane.expire(Duration::ZERO);
        let (answer, _) = answers.try_recv().unwrap();
        assert!(matches!(answer.result, Some(Outcome::Error(detail)) if detail.message.contains("not known")));
        let next = lane.enter(2, share(&semaphore));
        lane.answer(ticket, appended(9));
        assert!(answers.try_recv().is_err());
        lane.answer(next, appended(10));
        assert_eq!(answers.try_recv().unwrap().0.request_id, 2);
        assert!(lane.is_empty());
    }
}
