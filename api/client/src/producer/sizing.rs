//! How large the batches of a lane may get at the moment.
//!
//! Large batches save work for whoever sends as much as the cluster can take. A producer that a quota holds back gains nothing by them, and
//! each one keeps nodes that others use too busy for a moment. So batches begin small, and may be twice as large whenever one was full and
//! was taken. As soon as a node says that it holds back what comes next they are small again, and from then on as large as it takes to
//! send some hundred of them a second: fewer and larger ones would be felt by others, more and smaller ones would cost more than they are worth.

use std::time::Duration;

use tokio::time::Instant;

/// What batches begin with, and come back to.
pub(crate) const SMALL_BATCH_BYTES: usize = 32 * 1024;
/// The smallest that a quota makes them.
const LEAST_BATCH_BYTES: usize = 8 * 1024;
/// How long batches that are held back are counted before their size is changed.
const PACE_WINDOW: Duration = Duration::from_millis(500);
/// With fewer batches a second they get smaller, with more they get larger; each by half or twice, so that they settle in between.
const BATCHES_PER_SECOND: std::ops::RangeInclusive<f64> = 80.0..=200.0;

/// Invariant: `now` is at most `most`, and at least the smaller of that and [`LEAST_BATCH_BYTES`].
#[derive(Debug)]
pub(crate) struct Sizing {
    most: usize,
    now: usize,
    /// A batch was closed because it was full, since the last change.
    was_full: bool,
    /// While a quota holds batches back.
    pace: Option<Pace>,
}

/// How many batches were taken since when.
#[derive(Debug)]
struct Pace {
    since: Instant,
    batches: u32,
}

impl Sizing {
    /// Batches of at most `most` bytes, small ones at first.
    pub(crate) fn new(most: usize) -> Sizing {
        Sizing {
            most,
            now: most.min(SMALL_BATCH_BYTES),
            was_full: false,
            pace: None,
        }
    }

    /// How many bytes a batch may have now.
    pub(crate) fn limit(&self) -> usize {
        self.now
    }

    /// A batch was closed because it was full.
    pub(crate) fn filled(&mut self) {
        self.was_full = true;
    }

    /// A batch was taken at `now`, and what comes next is held back, or is not.
    pub(crate) fn taken(&mut self, held_back: bool, now: Instant) {
        if !held_back {
            self.pace = None;
            if self.was_full {
                self.resize(self.now.saturating_mul(2));
            }
            self.was_full = false;
            return;
        }
        let Some(pace) = &mut self.pace else {
            self.pace = Some(Pace { since: now, batches: 0 });
            self.resize(self.now.min(SMALL_BATCH_BYTES));
            return;
        };
        pace.batches += 1;
        let time = now.duration_since(pace.since);
        if time < PACE_WINDOW {
            return;
        }
        let per_second = f64::from(pace.batches) / time.as_secs_f64();
        *pace = Pace { since: now, batches: 0 };
        if per_second < *BATCHES_PER_SECOND.start() {
            self.resize(self.now / 2);
        } else if per_second > *BATCHES_PER_SECOND.end() {
            self.resize(self.now.saturating_mul(2));
        }
    }

    fn resize(&mut self, bytes: usize) {
        self.now = bytes.max(LEAST_BATCH_BYTES).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 5 * SMALL_BATCH_BYTES;

    #[test]
    fn batches_grow_while_they_are_full_and_taken_at_once_and_shrink_when_held_back() {
        let mut sizing = Sizing::new(MOST);
        let now = Instant::now();
        let mut limits = Vec::new();
        for (is_full, held_back) in [
            (true, false),
            (false, false),
            (true, false),
            (true, false),
            (true, true),
        ] {
            limits.push(sizing.limit() / SMALL_BATCH_BYTES);
            if is_full {
                sizing.filled();
            }
            sizing.taken(held_back, now);
        }
        limits.push(sizing.limit() / SMALL_BATCH_BYTES);
        assert_eq!(limits, [1, 2, 2, 4, 5, 1]);
    }

    /// What batches become that a quota of so many bytes a second holds back, for ten seconds.
    fn held_back_at(bytes_per_second: usize) -> usize {
        let mut sizing = Sizing::new(32 * SMALL_BATCH_BYTES);
        let begin = Instant::now();
        let mut time = Duration::ZERO;
        while time < Duration::from_secs(10) {
            time += Duration::from_secs_f64(sizing.limit() as f64 / bytes_per_second as f64);
            sizing.filled();
            sizing.taken(true, begin + time);
        }
        sizing.limit() / 1024
    }

    #[test]
    fn a_quota_makes_them_as_large_as_a_hundred_a_second_have_to_be() {
        assert_eq!(held_back_at(10_000), 8, "not smaller than that");
        assert_eq!(held_back_at(1_000_000), 8);
        assert_eq!(held_back_at(3_000_000), 32);
        assert_eq!(held_back_at(30_000_000), 256);
        assert_eq!(held_back_at(1_000_000_000), 1024, "not larger than what was asked for");
    }

    #[test]
    fn what_is_smaller_than_small_stays_so() {
        let mut sizing = Sizing::new(20);
        assert_eq!(sizing.limit(), 20);
        sizing.filled();
        for held_back in [false, true] {
            sizing.taken(held_back, Instant::now());
            assert_eq!(sizing.limit(), 20);
        }
    }
}
