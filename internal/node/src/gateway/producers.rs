//! Producers for requests that bring none.
//!
//! A partition remembers a bounded number of producers, and none is forgotten while it may still retry. A producer of
//! its own for each request would soon use that up, so they are lent: a request has one for itself, and what is left of
//! it goes to the next request of the same caller for the same partition.
//!
//! Invariant: a sequence is used for one batch only. A producer comes back only if it is known which sequence is next;
//! otherwise it is forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::json::Producer;
use super::limits::PRODUCERS_MAX;
use crate::hex::Id;
use crate::status::Problem;

/// Whose producer it is, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    pub(super) principal: String,
    pub(super) topic: String,
    pub(super) partition: u32,
}

/// The producers that nobody uses at the moment.
#[derive(Default)]
pub(super) struct Producers {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    by_purpose: HashMap<Purpose, Vec<Producer>>,
    count: usize,
}

impl Producers {
    /// One that is used by nobody else; the last one that came back, for its partition surely remembers it.
    pub(super) fn lend(&self, purpose: &Purpose) -> Producer {
        let mut idle = self.lock();
        let Some(producers) = idle.by_purpose.get_mut(purpose) else {
            return fresh();
        };
        let lent = producers.pop();
        if producers.is_empty() {
            idle.by_purpose.remove(purpose);
        }
        idle.count -= usize::from(lent.is_some());
        lent.unwrap_or_else(fresh)
    }

    /// Takes one back after its batch was answered.
    pub(super) fn take_back<T>(&self, purpose: Purpose, lent: Producer, answer: &Result<T, Problem>) {
        let Some(producer) = next(lent, answer) else { return };
        let mut idle = self.lock();
        if idle.count >= PRODUCERS_MAX {
            // Most of them are of topics and callers that are gone; the others get new ones.
            *idle = Idle::default();
        }
        idle.by_purpose.entry(purpose).or_default().push(producer);
        idle.count += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fresh() -> Producer {
    Producer {
        id: Id::random(),
        sequence: 0,
    }
}

/// The producer with the sequence that is next; None if that is not known.
fn next<T>(used: Producer, answer: &Result<T, Problem>) -> Option<Producer> {
    match answer {
        // A refused condition is remembered like a success.
        Ok(_) | Err(Problem::OffsetMismatch { .. }) => Some(Producer {
            sequence: used.sequence + 1,
            ..used
        }),
        Err(problem) => problem.is_not_applied().then_some(used),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(partition: u32) -> Purpose {
        Purpose {
            principal: "anna".to_owned(),
            topic: "orders".to_owned(),
            partition,
        }
    }

    #[test]
    fn a_producer_is_lent_to_one_at_a_time_and_goes_on_where_it_was() {
        let producers = Producers::default();
        let (one, other) = (producers.lend(&purpose(0)), producers.lend(&purpose(0)));
        assert_ne!(one.id, other.id);
        producers.take_back(purpose(0), one, &Ok(()));
        assert_ne!(producers.lend(&purpose(1)).id, one.id, "of another partition");
        let again = producers.lend(&purpose(0));
        assert_eq!((again.id, again.sequence), (one.id, 1));
    }

    #[test]
    fn only_a_known_outcome_brings_it_back_and_a_refused_condition_uses_up_its_sequence() {
        let used = fresh();
        let after = |problem: Problem| next::<()>(used, &Err(problem)).map(|producer| producer.sequence);
        assert_eq!(after(Problem::OffsetMismatch { log_end: 3 }), Some(1));
        assert_eq!(after(Problem::Overloaded(String::new())), Some(0));
        assert_eq!(after(Problem::Unknown(String::new())), None);
        assert_eq!(after(Problem::UnknownProducer), None);
        assert_eq!(after(Problem::Internal(String::new())), None);
    }

    #[test]
    fn they_do_not_pile_up() {
        let producers = Producers::default();
        for partition in 0..PRODUCERS_MAX as u32 + 1 {
            producers.take_back(purpose(partition), fresh(), &Ok(()));
        }
        let idle = producers.lock();
        assert_eq!((idle.count, idle.by_purpose.len()), (1, 1));
    }
}
