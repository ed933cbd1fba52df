//! What bounds the audit: texts, the queue, batches, and how many records strangers can cause.
//!
//! Whoever is refused can try again as often as he likes. So each source of refusals has a bucket of tokens: a few records at once, and
//! then one now and then; and all of a kind together have one, since there are many addresses and names to come from. What is not
//! recorded is counted (`queue`).
//!
//! Who may do something to his own tenant can do that again and again, too. So acts of clients that are no operators have buckets, one for
//! each tenant, that only a program empties, and a part of the queue. Whatever they do hides nothing that operators do. One tenant alone
//! cannot use up the bucket of all; while the audit cannot be written, it can fill the tenants' part of the queue.
//!
//! Deliberately absent: a limit for acts of operators. Only the queue bounds these.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use super::event::EVENT_BYTES;

/// The longest name of who did something, bytes as JSON.
pub(super) const WHO_BYTES_MAX: usize = 1024;
/// The longest name of what was done.
pub(super) const WHAT_BYTES_MAX: usize = 128;
/// The longest description of what it was done to: as long as a policy change of a thousand ordinary lines.
pub(super) const TARGET_BYTES_MAX: usize = 64 * 1024;
/// The same of what somebody has tried who may not do it.
pub(super) const OUTSIDERS_TARGET_BYTES_MAX: usize = 2 * 1024;
/// The longest reason.
pub(super) const WHY_BYTES_MAX: usize = 2 * 1024;

/// Events that wait to be written.
pub(super) const QUEUE_EVENTS_MAX: usize = 4096;
/// The bytes that these may have.
pub(super) const QUEUE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How far events that strangers cause may fill both: one in so many. The rest is for acts.
pub(super) const STRANGERS_SHARE: usize = 4;
/// How far acts of clients may that are no operators. The rest is for operators.
pub(super) const TENANTS_SHARE: usize = 2;

/// Records of one batch.
pub(super) const BATCH_RECORDS_MAX: usize = 256;
/// The bytes of events after which a batch takes no more.
pub(super) const BATCH_BYTES_MAX: usize = 256 * 1024;
/// Of one event.
const LARGEST_EVENT: usize = EVENT_BYTES + WHO_BYTES_MAX + WHAT_BYTES_MAX + TARGET_BYTES_MAX + WHY_BYTES_MAX;
// What is taken for a batch fits into one, with the first record of a start; a batch that is refused would be tried again for ever.
const _: () = assert!(BATCH_BYTES_MAX + 2 * LARGEST_EVENT <= highwater_proto::limits::BATCH_BYTES_MAX);

/// Records of what is refused, by each client and each address.
pub(super) const REFUSALS: Paces = Paces {
    each: Pace {
        burst: 20,
        interval: Duration::from_secs(10),
    },
    all: Pace {
        burst: 200,
        interval: Duration::from_secs(1),
    },
};
/// Records of what clients do that may do it and are no operators, by each tenant.
pub(super) const TENANTS_ACTS: Paces = Paces {
    each: Pace {
        burst: 1000,
        interval: Duration::from_millis(100),
    },
    all: Pace {
        burst: 4000,
        interval: Duration::from_millis(20),
    },
};
/// Sources that are told apart; beyond that, new ones share a bucket.
const SOURCES_MAX: usize = 4096;

/// How many at once, and how long until one more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) burst: u32,
    pub(super) interval: Duration,
}

/// How many records sources of one kind cause.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paces {
    /// Of each source.
    pub(super) each: Pace,
    /// Of all together.
    pub(super) all: Pace,
}

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    /// Since when the next token grows.
    since: Instant,
}

impl Bucket {
    fn full(pace: Pace, now: Instant) -> Bucket {
        Bucket {
            tokens: pace.burst,
            since: now,
        }
    }

    fn fill(&mut self, pace: Pace, now: Instant) {
        let grown = now.saturating_duration_since(self.since).as_nanos() / pace.interval.as_nanos();
        let missing = pace.burst - self.tokens;
        match u32::try_from(grown) {
            Ok(grown) if grown < missing => {
                self.tokens += grown;
                self.since += pace.interval * grown;
            }
            _ => *self = Bucket::full(pace, now),
        }
    }

    fn take(&mut self) -> bool {
        let has_one = self.tokens > 0;
        self.tokens -= u32::from(has_one);
        has_one
    }
}

/// The buckets of all sources of one kind.
///
/// Invariant: at most `SOURCES_MAX` sources; one that is full again need not be remembered.
#[derive(Debug)]
pub(super) struct Buckets<K> {
    sources: HashMap<K, Bucket>,
    /// Of sources that found no place.
    others: Option<Bucket>,
    all: Option<Bucket>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Buckets<K> {
        Buckets {
            sources: HashMap::new(),
            others: None,
            all: None,
        }
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Whether `source` may cause one more record now; always asked with the same paces.
    pub(super) fn take(&mut self, source: K, paces: &Paces, now: Instant) -> bool {
        // The own bucket first, so that one who is refused a record here takes nothing from the others.
        if !self.bucket(source, paces.each, now).take() {
            return false;
        }
        let all = self.all.get_or_insert_with(|| Bucket::full(paces.all, now));
        all.fill(paces.all, now);
        all.take()
    }

    fn bucket(&mut self, source: K, pace: Pace, now: Instant) -> &mut Bucket {
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            self.sources.retain(|_, bucket| {
                bucket.fill(pace, now);
                bucket.tokens < pace.burst
            });
        }
        let bucket = match self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            true => self.others.get_or_insert_with(|| Bucket::full(pace, now)),
            false => self.sources.entry(source).or_insert_with(|| Bucket::full(pace, now)),
        };
        bucket.fill(pace, now);
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Pace = REFUSALS.each;
    const ALL: Pace = REFUSALS.all;

    fn taken(buckets: &mut Buckets<usize>, source: usize, attempts: u32, now: Instant) -> u32 {
        (0..attempts)
            .map(|_| u32::from(buckets.take(source, &REFUSALS, now)))
            .sum()
    }

    #[test]
    fn a_source_has_a_burst_and_then_one_record_at_each_interval() {
        let mut buckets = Buckets::default();
        let begin = Instant::now();
        assert_eq!(taken(&mut buckets, 1, 1000, begin), SOURCE.burst);
        assert_eq!(taken(&mut buckets, 1, 1000, begin + SOURCE.interval / 2), 0);
        let later = begin + SOURCE.interval * 3;
        assert_eq!(taken(&mut buckets, 1, 1000, later), 3);
        assert_eq!(
            taken(&mut buckets, 1, 1000, later + SOURCE.interval * 10_000),
            SOURCE.burst,
            "never more than a burst"
        );
    }

    #[test]
    fn what_one_source_uses_up_others_still_have() {
        let mut buckets = Buckets::default();
        let now = Instant::now();
        taken(&mut buckets, 1, 1000, now);
        assert_eq!(taken(&mut buckets, 2, 1000, now), SOURCE.burst);
    }

    #[test]
    fn all_sources_together_have_a_limit_and_take_bounded_room() {
        let mut buckets = Buckets::default();
        let now = Instant::now();
        let sources = 3 * SOURCES_MAX;
        let recorded: u32 = (0..sources).map(|source| taken(&mut buckets, source, 1, now)).sum();
        assert_eq!(recorded, ALL.burst);
        assert!(buckets.sources.len() <= SOURCES_MAX);
        let later = now + SOURCE.interval * SOURCE.burst;
        assert!(
            buckets.take(sources, &REFUSALS, later),
            "who comes later finds room again"
        );
        assert_eq!(buckets.sources.len(), 1, "those that are full again are forgotten");
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut buckets = Buckets::default();
        let now = Instant::now() + SOURCE.interval;
        assert!(buckets.take(1, &REFUSALS, now));
        assert!(buckets.take(1, &REFUSALS, now - SOURCE.interval));
    }
}
