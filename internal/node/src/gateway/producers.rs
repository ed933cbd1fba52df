//! Producers for requests that bring none.
//!
//! A partition remembers a bounded number of producers, and none is forgotten while it may still retry. A producer of
//! its own for each request would soon use that up, so they are lent: a request has one for itself, and what is left of
//! it goes to the next request of the same caller for the same partition.
//!
//! A partition may have forgotten those that are kept here: its topic was deleted and made again, or it went on from a
//! shorter log. Then none of them is of use any more, and the batch is appended with a new one.
//!
//! Invariants:
//! * A sequence is used for one batch only. A producer comes back only if it is known which sequence is next; otherwise
//!   it is forgotten.
//! * Only one that its partition has answered is kept, so nothing is kept for topics that do not exist.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
    /// Each with the count at which it came back, the last one behind.
    by_purpose: HashMap<Arc<Purpose>, VecDeque<(u64, Producer)>>,
    /// Whose they are, the oldest first.
    by_age: BTreeMap<u64, Arc<Purpose>>,
    /// How many have come back so far.
    count: u64,
}

impl Producers {
    /// Has `append` done with a producer that nobody else uses meanwhile; once more with a new one if the partition does
    /// not know the first. Its sequence was for this batch only, so the batch is certainly not there then.
    pub(super) async fn with<T, F>(&self, purpose: Purpose, append: impl Fn(Producer) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let lent = self.lock().lend(&purpose).unwrap_or_else(fresh);
        let answer = append(lent).await;
        if !is_forgotten(&answer) {
            self.take_back(purpose, lent, &answer);
            return answer;
        }
        self.lock().forget(&purpose);
        let lent = fresh();
        let answer = append(lent).await;
        self.take_back(purpose, lent, &answer);
        answer
    }

    fn take_back<T>(&self, purpose: Purpose, lent: Producer, answer: &Result<T, Problem>) {
        if let Some(producer) = next(lent, answer).filter(is_known) {
            self.lock().keep(purpose, producer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    /// The last one that came back, for its partition surely remembers it.
    fn lend(&mut self, purpose: &Purpose) -> Option<Producer> {
        let producers = self.by_purpose.get_mut(purpose)?;
        let (age, lent) = producers.pop_back()?;
        if producers.is_empty() {
            self.by_purpose.remove(purpose);
        }
        self.by_age.remove(&age);
        Some(lent)
    }

    fn keep(&mut self, purpose: Purpose, producer: Producer) {
        if self.by_age.len() >= PRODUCERS_MAX {
            self.forget_oldest();
        }
        self.count += 1;
        let purpose = Arc::new(purpose);
        self.by_age.insert(self.count, purpose.clone());
        let producers = self.by_purpose.entry(purpose).or_default();
        producers.push_back((self.count, producer));
    }

    /// Most likely it is of a topic or a caller that is gone.
    fn forget_oldest(&mut self) {
        let Some((_, purpose)) = self.by_age.pop_first() else {
            return;
        };
        let Some(producers) = self.by_purpose.get_mut(&purpose) else {
            return;
        };
        producers.pop_front();
        if producers.is_empty() {
            self.by_purpose.remove(&purpose);
        }
    }

    fn forget(&mut self, purpose: &Purpose) {
        for (age, _) in self.by_purpose.remove(purpose).into_iter().flatten() {
            self.by_age.remove(&age);
        }
    }
}

fn fresh() -> Producer {
    Producer {
        id: Id::random(),
        sequence: 0,
    }
}

/// Whether the partition has another picture of the lent producer than we have.
fn is_forgotten<T>(answer: &Result<T, Problem>) -> bool {
    matches!(
        answer,
        Err(Problem::UnknownProducer | Problem::SequenceGap { .. } | Problem::ProducerConflict)
    )
}

/// Whether a partition has ever answered it.
fn is_known(producer: &Producer) -> bool {
    producer.sequence > 0
}

/// The producer with the sequence that is next; None if that is not known.
fn next<T>(used: Producer, answer: &Result<T, Problem>) -> Option<Producer> {
    match answer {
        // A refused condition is remembered like a success.
        Ok(_) | Err(Problem::OffsetMismatch { .. }) => Some(Producer {
            sequence: used.sequence + 1,
            ..used
        }),
        _ if is_forgotten(answer) => None,
        Err(problem) => problem.is_not_applied().then_some(used),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::ready;

    use super::*;

    fn purpose(partition: u32) -> Purpose {
        Purpose {
            principal: "anna".to_owned(),
            topic: "orders".to_owned(),
            partition,
        }
    }

    /// An append that succeeds; the producer that it had.
    async fn appended(producers: &Producers, purpose: Purpose) -> Producer {
        producers.with(purpose, |producer| ready(Ok(producer))).await.unwrap()
    }

    /// Leaves as many idle producers as that.
    async fn leave_idle(producers: &Producers, count: usize) {
        match count {
            0 => {}
            _ => {
                let nested = |producer| async move {
                    Box::pin(leave_idle(producers, count - 1)).await;
                    Ok(producer)
                };
                producers.with(purpose(0), nested).await.unwrap();
            }
        }
    }

    fn idle(producers: &Producers) -> (usize, usize) {
        let idle = producers.lock();
        let by_purpose = idle.by_purpose.values().map(VecDeque::len).sum();
        assert_eq!(idle.by_age.len(), by_purpose);
        (by_purpose, idle.by_purpose.len())
    }

    #[tokio::test]
    async fn a_producer_is_lent_to_one_at_a_time_and_goes_on_where_it_was() {
        let producers = Producers::default();
        let all = &producers;
        let both = |outer: Producer| async move {
            let inner = appended(all, purpose(0)).await;
            assert_ne!(outer.id, inner.id);
            Ok((outer, inner))
        };
        let (outer, _) = producers.with(purpose(0), both).await.unwrap();
        assert_ne!(
            appended(&producers, purpose(1)).await.id,
            outer.id,
            "of another partition"
        );
        let again = appended(&producers, purpose(0)).await;
        assert_eq!((again.id, again.sequence), (outer.id, 1), "the last one that came back");
    }

    #[test]
    fn only_a_known_outcome_brings_it_back_and_a_refused_condition_uses_up_its_sequence() {
        let used = fresh();
        let after = |problem: Problem| next::<()>(used, &Err(problem)).map(|producer| producer.sequence);
        assert_eq!(after(Problem::OffsetMismatch { log_end: 3 }), Some(1));
        assert_eq!(after(Problem::Overloaded(String::new())), Some(0));
        assert_eq!(after(Problem::Unknown(String::new())), None);
        assert_eq!(after(Problem::UnknownProducer), None);
        assert_eq!(after(Problem::SequenceGap { expected: 1 }), None);
        assert_eq!(after(Problem::ProducerConflict), None);
        assert_eq!(after(Problem::Internal(String::new())), None);
    }

    #[tokio::test]
    async fn what_a_partition_has_forgotten_is_appended_with_a_new_producer_and_the_others_are_dropped() {
        for problem in [
            Problem::UnknownProducer,
            Problem::SequenceGap { expected: 3 },
            Problem::ProducerConflict,
        ] {
            let producers = Producers::default();
            leave_idle(&producers, 3).await;
            assert_eq!(idle(&producers), (3, 1));
            appended(&producers, purpose(1)).await;
            // A partition that knows nobody, as after its topic was made again.
            let append = |producer: Producer| {
                ready(match producer.sequence {
                    0 => Ok(producer),
                    _ => Err(problem.clone()),
                })
            };
            let used = producers.with(purpose(0), append).await.unwrap();
            assert_eq!(idle(&producers), (2, 2), "the new one, and that of the other partition");
            assert_eq!(appended(&producers, purpose(0)).await.id, used.id);
        }
    }

    #[tokio::test]
    async fn what_may_have_been_applied_is_not_appended_again() {
        for problem in [
            Problem::Unknown(String::new()),
            Problem::Internal(String::new()),
            Problem::Overloaded(String::new()),
        ] {
            let producers = Producers::default();
            appended(&producers, purpose(0)).await;
            let tries = std::cell::Cell::new(0);
            let append = |_| {
                tries.set(tries.get() + 1);
                ready(Err::<(), Problem>(problem.clone()))
            };
            assert_eq!(producers.with(purpose(0), append).await, Err(problem.clone()));
            assert_eq!(tries.get(), 1);
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_for_topics_that_do_not_exist() {
        let producers = Producers::default();
        let topic = String::new;
        let refused = |_| ready(Err::<(), Problem>(Problem::TopicNotFound { topic: topic() }));
        producers.with(purpose(0), refused).await.unwrap_err();
        assert_eq!(idle(&producers), (0, 0));
    }

    #[tokio::test]
    async fn they_do_not_pile_up_and_the_oldest_makes_room() {
        let producers = Producers::default();
        for partition in 0..PRODUCERS_MAX as u32 + 1 {
            appended(&producers, purpose(partition)).await;
        }
        assert_eq!(idle(&producers), (PRODUCERS_MAX, PRODUCERS_MAX));
        assert_eq!(appended(&producers, purpose(1)).await.sequence, 1);
        assert_eq!(appended(&producers, purpose(0)).await.sequence, 0, "it was the oldest");
    }
}
