//! Where in the log the batches are that somebody follows.
//!
//! Invariant: `places` is in the order of the log, each place once or more, at most [`PLACES_MAX`] of them. Whoever is beyond that, or
//! noted for longer than [`AGE_MAX`], is forgotten: a follower that gets the entry later is catching up, which is no part of a write.
//!
//! As long as nobody follows anything, looking costs one load.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_log::EntryId;
use tokio::time::Instant;

use super::Trace;

/// Most places that one replica remembers.
const PLACES_MAX: usize = 256;
/// How long a place is remembered.
const AGE_MAX: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Traced {
    places: Mutex<VecDeque<Place>>,
    /// How many there are.
    count: AtomicUsize,
}

struct Place {
    id: EntryId,
    trace: Trace,
    noted: Instant,
}

impl Traced {
    /// The batch at `id` is followed. Places from there on are another leader's, if there are any.
    pub(super) fn note(&self, id: EntryId, trace: Trace) {
        let noted = Instant::now();
        let mut places = self.lock();
        while places
            .back()
            .is_some_and(|last| last.id.index >= id.index && last.id != id)
        {
            places.pop_back();
        }
        let is_old = |place: &Place| noted.duration_since(place.noted) > AGE_MAX;
        while places.len() >= PLACES_MAX || places.front().is_some_and(is_old) {
            places.pop_front();
        }
        places.push_back(Place { id, trace, noted });
        self.count.store(places.len(), Ordering::Release);
    }

    /// Who follows any of these entries, which are given in the order of the log.
    pub(super) fn among(&self, ids: impl Iterator<Item = EntryId>) -> Vec<Trace> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let now = Instant::now();
        let places = self.lock();
        let followed = |id: EntryId| {
            let first = places.partition_point(|place| place.id.index < id.index);
            let same = places.range(first..).take_while(move |place| place.id == id);
            same.filter(|place| now.duration_since(place.noted) <= AGE_MAX)
                .map(|place| place.trace.clone())
        };
        ids.flat_map(followed).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ReplicaStages, Stage};
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { term, index }
    }

    fn counting() -> (Trace, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let trace = Trace::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        (trace, count)
    }

    #[tokio::test(start_paused = true)]
    async fn only_who_is_followed_is_found_and_only_at_its_very_place() {
        let traced = Traced::default();
        let among = |ids: &[EntryId]| traced.among(ids.iter().copied()).len();
        assert_eq!(among(&[id(1, 7)]), 0);
        traced.note(id(1, 7), counting().0);
        traced.note(id(1, 9), counting().0);
        assert_eq!(among(&[id(1, 6), id(1, 8)]), 0);
        assert_eq!(among(&[id(1, 7), id(1, 8), id(1, 9)]), 2);
        assert_eq!(among(&[id(2, 7)]), 0, "another leader's entry at the same index");
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_forgotten_when_another_leader_writes_there_and_when_they_are_many_or_old() {
        let traced = Traced::default();
        let among = |ids: &[EntryId]| traced.among(ids.iter().copied()).len();
        traced.note(id(1, 7), counting().0);
        traced.note(id(1, 8), counting().0);
        traced.note(id(2, 8), counting().0);
        assert_eq!(among(&[id(1, 7)]), 1);
        assert_eq!((among(&[id(1, 8)]), among(&[id(2, 8)])), (0, 1));
        for index in 0..PLACES_MAX as u64 {
            traced.note(id(2, 9 + index), counting().0);
        }
        assert_eq!((among(&[id(1, 7)]), among(&[id(2, 8)]), among(&[id(2, 9)])), (0, 0, 1));
        tokio::time::advance(AGE_MAX + Duration::from_millis(1)).await;
        assert_eq!(among(&[id(2, 9)]), 0);
        traced.note(id(2, 1_000), counting().0);
        assert_eq!(traced.lock().len(), 1);
    }

    #[tokio::test]
    async fn whoever_follows_a_batch_is_told_although_nobody_watches_all() {
        let stages = ReplicaStages::default();
        let (trace, told) = counting();
        let stopwatch = stages.begin(vec![trace]);
        stages.note(id(1, 1), &stopwatch);
        stopwatch.done(Stage::Queue);
        stages
            .begin(stages.among([id(1, 1)].into_iter()))
            .done_by(Stage::Replicate, "n2");
        stages
            .begin(stages.among([id(1, 2)].into_iter()))
            .done_by(Stage::Replicate, "n2");
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
