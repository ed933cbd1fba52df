//! How much of something is used in a second, and how much may be: a token bucket that goes into debt.
//!
//! A batch may be larger than what a small quota gives in a second, so tokens are not saved up for it: whoever finds the bucket not in
//! debt may take what it needs, and the debt is paid by those that come next. They wait, as long as they say; beyond that they are refused
//! and told when to come back. So one caller after the other is slowed down to the rate, and many at once are not all kept waiting.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest that a call is made to wait; one that would have to wait longer is refused.
pub(crate) const DELAY_MAX: Duration = Duration::from_secs(1);
/// The same of a batch on a stream, which keeps the ones behind it waiting as well. Clients may take a stream that is silent for ten seconds
/// for dead.
pub(crate) const STREAM_DELAY_MAX: Duration = Duration::from_secs(5);
/// How much may be used at once after a time of rest, seconds at the rate.
const BURST_SECONDS: f64 = 1.0;
/// The soonest that somebody who is refused is told to come back, and the latest: the share of this node may be larger by then.
const RETRY_AFTER_LEAST: Duration = Duration::from_millis(10);
const RETRY_AFTER_MOST: Duration = Duration::from_secs(5);
/// Stands for "not limited" where a rate is kept.
const UNLIMITED: u64 = 0;

/// Counts what is used, and holds back what is too much.
///
/// Invariant: what the bucket holds is at most a burst at the present rate; below zero it is a debt.
#[derive(Debug)]
pub(super) struct Meter {
    /// In all, since the account was opened.
    used: AtomicU64,
    /// Per second; [`UNLIMITED`], or at least 1.
    rate: AtomicU64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    holds: f64,
    at: Instant,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            used: AtomicU64::new(0),
            rate: AtomicU64::new(UNLIMITED),
            bucket: Mutex::new(Bucket {
                holds: 0.0,
                at: Instant::now(),
            }),
        }
    }
}

impl Meter {
    /// Sets what may be used per second; None: as much as comes. A meter that was not limited begins with a full bucket.
    pub(super) fn limit(&self, rate: Option<u64>, now: Instant) {
        let rate = rate.map_or(UNLIMITED, |rate| rate.max(1));
        let before = self.rate.swap(rate, Ordering::Relaxed);
        if before == rate || rate == UNLIMITED {
            return;
        }
        let mut bucket = self.lock();
        if before == UNLIMITED {
            bucket.holds = burst(rate);
            bucket.at = now;
        } else {
            bucket.refill(before, now);
            bucket.holds = bucket.holds.min(burst(rate));
        }
    }

    /// What may be used per second.
    #[cfg(test)]
    pub(super) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != UNLIMITED)
    }

    pub(super) fn is_limited(&self) -> bool {
        self.rate.load(Ordering::Relaxed) != UNLIMITED
    }

    /// Takes `cost`; the answer is how long to wait first. If that were longer than `patience`, nothing is taken, and the error says
    /// when to come back.
    pub(super) fn take(&self, cost: u64, patience: Duration, now: Instant) -> Result<Duration, Duration> {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            self.used.fetch_add(cost, Ordering::Relaxed);
            return Ok(Duration::ZERO);
        }
        let mut bucket = self.lock();
        bucket.refill(rate, now);
        let wait = bucket.debt(rate);
        if wait > patience {
            return Err((wait - patience).clamp(RETRY_AFTER_LEAST, RETRY_AFTER_MOST));
        }
        bucket.holds -= cost as f64;
        self.used.fetch_add(cost, Ordering::Relaxed);
        Ok(wait)
    }

    /// Takes `cost` for what has been given already; the answer is how long to wait before giving more.
    pub(super) fn charge(&self, cost: u64, now: Instant) -> Duration {
        self.used.fetch_add(cost, Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            return Duration::ZERO;
        }
        let mut bucket = self.lock();
        bucket.refill(rate, now);
        bucket.holds -= cost as f64;
        bucket.debt(rate)
    }

    /// Puts back what was taken and not used.
    pub(super) fn give_back(&self, cost: u64) {
        self.used.fetch_sub(cost, Ordering::Relaxed);
        if self.is_limited() {
            self.lock().holds += cost as f64;
        }
    }

    /// What is being paid per second for what was taken before; 0 if there is no debt.
    pub(super) fn paying(&self, now: Instant) -> f64 {
        match self.is_in_debt(now) {
            true => self.rate.load(Ordering::Relaxed) as f64,
            false => 0.0,
        }
    }

    /// Whether somebody would have to wait.
    pub(super) fn is_in_debt(&self, now: Instant) -> bool {
        let rate = self.rate.load(Ordering::Relaxed);
        if rate == UNLIMITED {
            return false;
        }
        let mut bucket = self.lock();
        bucket.refill(rate, now);
        bucket.holds < 0.0
    }

    /// What was used in all.
    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn refill(&mut self, rate: u64, now: Instant) {
        let gone_by = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.holds = (self.holds + rate as f64 * gone_by.as_secs_f64()).min(burst(rate));
    }

    /// Until when it holds nothing less than nothing.
    fn debt(&self, rate: u64) -> Duration {
        let seconds = (-self.holds / rate as f64).max(0.0);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

fn burst(rate: u64) -> f64 {
    rate as f64 * BURST_SECONDS
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn meter(rate: u64) -> (Meter, Instant) {
        let (meter, now) = (Meter::default(), Instant::now());
        meter.limit(Some(rate), now);
        (meter, now)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn without_a_limit_everything_passes_and_is_counted() {
        let (meter, now) = (Meter::default(), Instant::now());
        assert_eq!(meter.take(u64::MAX / 4, DELAY_MAX, now), Ok(Duration::ZERO));
        assert_eq!(meter.charge(5, now), Duration::ZERO);
        meter.give_back(3);
        assert_eq!(meter.used(), u64::MAX / 4 + 2);
    }

    #[test]
    fn a_burst_passes_then_callers_wait_and_then_they_are_refused() {
        let (meter, now) = meter(1_000);
        assert_eq!(meter.take(1_000, DELAY_MAX, now), Ok(Duration::ZERO));
        assert_eq!(
            meter.take(600, DELAY_MAX, now),
            Ok(Duration::ZERO),
            "the bucket was not in debt"
        );
        assert_eq!(meter.take(600, DELAY_MAX, now), Ok(millis(600)));
        assert_eq!(
            meter.take(1, DELAY_MAX, now),
            Err(millis(200)),
            "1.2 s would be too long"
        );
        assert_eq!(meter.take(1, DELAY_MAX, now + millis(200)), Ok(millis(1_000)));
        assert_eq!(meter.used(), 2_201, "what is refused is not counted");
        assert_eq!(
            meter.take(1, STREAM_DELAY_MAX, now + millis(200)),
            Ok(millis(1_001)),
            "who has more patience"
        );
    }

    #[test]
    fn over_a_long_time_as_much_passes_as_the_rate_says() {
        let (meter, begin) = meter(1_000);
        let (mut now, mut taken) = (begin, 0);
        while now < begin + Duration::from_secs(100) {
            match meter.take(70, DELAY_MAX, now) {
                Ok(wait) => {
                    taken += 70;
                    now += wait;
                }
                Err(retry_after) => now += retry_after,
            }
        }
        assert!((100_000..=102_500).contains(&taken), "{taken}");
    }

    #[test]
    fn a_batch_larger_than_the_quota_passes_and_is_paid_for_afterwards() {
        let (meter, now) = meter(1_000);
        assert_eq!(meter.take(1_000_000, DELAY_MAX, now), Ok(Duration::ZERO));
        let retry_after = meter.take(1, DELAY_MAX, now).unwrap_err();
        assert_eq!(retry_after, RETRY_AFTER_MOST);
        assert_eq!(
            meter.take(1, DELAY_MAX, now + Duration::from_secs(999)),
            Ok(Duration::ZERO)
        );
    }

    #[test]
    fn what_is_given_out_is_charged_in_any_case_and_delays_what_comes_next() {
        let (meter, now) = meter(1_000);
        assert_eq!(meter.charge(3_000, now), millis(2_000));
        assert_eq!(meter.charge(1_000, now), millis(3_000), "one after the other");
        assert_eq!(meter.take(0, DELAY_MAX, now), Err(millis(2_000)));
    }

    #[test]
    fn rest_is_worth_one_burst_and_no_more() {
        let (meter, now) = meter(1_000);
        let later = now + Duration::from_secs(3_600);
        assert_eq!(meter.take(1_000, DELAY_MAX, later), Ok(Duration::ZERO));
        assert_eq!(meter.take(1, DELAY_MAX, later), Ok(Duration::ZERO));
        assert_eq!(meter.take(1, DELAY_MAX, later), Ok(millis(1)));
    }

    #[test]
    fn a_lower_rate_takes_saved_tokens_and_keeps_debts() {
        let (saved, now) = meter(1_000);
        saved.limit(Some(10), now);
        assert_eq!(saved.charge(20, now), Duration::from_secs(1));
        saved.limit(Some(20), now);
        assert_eq!(saved.charge(0, now), millis(500));
        saved.limit(None, now);
        assert_eq!(saved.take(1_000_000, DELAY_MAX, now), Ok(Duration::ZERO));
    }

    #[test]
    fn a_clock_that_seems_to_go_backwards_gives_nothing() {
        let (meter, now) = meter(1_000);
        let later = now + Duration::from_secs(5);
        assert_eq!(meter.charge(2_000, later), millis(1_000));
        assert_eq!(meter.charge(0, now), millis(1_000));
        assert_eq!(meter.charge(0, later), millis(1_000));
    }
}
