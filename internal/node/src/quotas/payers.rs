//! Whoever makes a call pays for it: the client, and its tenant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_catalog::Limit;
use tokio::time::{Instant, sleep_until};

use super::account::{Account, HELD_RETRY_AFTER, Held, Hold};
use super::meter::{DELAY_MAX, STREAM_DELAY_MAX};

/// How soon whoever waits until something is paid for looks again: the node's share of a quota may be another by then.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Something is refused because of a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverQuota {
    /// Whose quota it is.
    pub(crate) who: String,
    pub(crate) limit: Limit,
    /// The quota.
    pub(crate) most: u64,
    /// When it is worth another try; None: not before somebody changes something.
    pub(crate) retry_after: Option<Duration>,
}

/// The accounts that pay for a caller, its tenant's first; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payers(Arc<[Arc<Account>]>);

/// A call that goes on; it counts until this is dropped.
#[derive(Debug)]
pub(crate) struct StreamShare {
    _held: Vec<Hold>,
}

/// A connection; it counts from the moment on when there is room for it, until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct ConnectionShare {
    payers: Payers,
    held: Mutex<Option<Vec<Hold>>>,
}

impl Payers {
    pub(super) fn new(accounts: impl Iterator<Item = Arc<Account>>) -> Payers {
        Payers(accounts.collect())
    }

    /// Takes so much of a rate from each account, or nothing; the answer is how long to wait before doing what was paid for. A wait
    /// beyond `begin_by` is of no use.
    pub(crate) fn take(&self, limit: Limit, cost: u64, begin_by: Instant, now: Instant) -> Result<Duration, OverQuota> {
        let patience = DELAY_MAX.min(begin_by.saturating_duration_since(now));
        self.take_within(limit, cost, patience, now)
    }

    fn take_within(&self, limit: Limit, cost: u64, patience: Duration, now: Instant) -> Result<Duration, OverQuota> {
        let mut wait = Duration::ZERO;
        for (at, account) in self.0.iter().enumerate() {
            match account.meter(limit).take(cost, patience, now) {
                Ok(its) => wait = wait.max(its),
                Err(retry_after) => {
                    give_back(&self.0[..at], limit, cost);
                    return Err(account.over(limit, retry_after));
                }
            }
        }
        Ok(wait)
    }

    /// A request on a stream, and the bytes of the batch that it brings.
    pub(crate) fn take_batch(&self, bytes: usize, now: Instant) -> Result<Duration, OverQuota> {
        let of_request = self.take_within(Limit::RequestsPerSecond, 1, STREAM_DELAY_MAX, now)?;
        match self.take_within(Limit::ProduceBytesPerSecond, bytes as u64, STREAM_DELAY_MAX, now) {
            Ok(of_bytes) => Ok(of_request.max(of_bytes)),
            Err(refused) => {
                self.give_back(Limit::RequestsPerSecond, 1);
                Err(refused)
            }
        }
    }

    /// How long a batch would have to wait now.
    pub(crate) fn batch_delay(&self, now: Instant) -> Duration {
        let of_request = self.charge(Limit::RequestsPerSecond, 0, now);
        of_request.max(self.charge(Limit::ProduceBytesPerSecond, 0, now))
    }

    /// Puts back what was taken and not used.
    pub(crate) fn give_back(&self, limit: Limit, cost: u64) {
        give_back(&self.0, limit, cost);
    }

    /// Pays for what was given out; the answer is how long to wait before giving more.
    pub(crate) fn charge(&self, limit: Limit, cost: u64, now: Instant) -> Duration {
        let waits = self.0.iter().map(|account| account.meter(limit).charge(cost, now));
        waits.max().unwrap_or_default()
    }

    /// Waits until `not_before`, or until as much as is owed now would be paid for if that is earlier. Cancel safe.
    pub(crate) async fn until_paid(&self, limit: Limit, mut not_before: Instant) {
        loop {
            let now = Instant::now();
            not_before = not_before.min(now + self.charge(limit, 0, now));
            if not_before <= now {
                return;
            }
            sleep_until(not_before.min(now + LOOK_INTERVAL)).await;
        }
    }

    /// One more call that goes on.
    pub(crate) fn stream(&self) -> Result<StreamShare, OverQuota> {
        let held = self.hold(Limit::Streams, |account| &account.streams)?;
        Ok(StreamShare { _held: held })
    }

    fn hold(&self, limit: Limit, of: fn(&Account) -> &Held) -> Result<Vec<Hold>, OverQuota> {
        let held = self.0.iter().map(|account| {
            let held = account.hold(of);
            held.ok_or_else(|| account.over(limit, HELD_RETRY_AFTER))
        });
        held.collect()
    }

    /// The account of the caller's tenant; None for a node, which pays nothing.
    pub(crate) fn tenant(&self) -> Option<&Arc<Account>> {
        self.0.first()
    }
}

impl ConnectionShare {
    pub(crate) fn new(payers: Payers) -> ConnectionShare {
        let share = ConnectionShare {
            payers,
            held: Mutex::default(),
        };
        // If there is no room yet, each call looks again.
        let _ = share.count();
        share
    }

    /// Whether the connection is one of those that its client may have.
    pub(crate) fn count(&self) -> Result<(), OverQuota> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Some(self.payers.hold(Limit::Connections, |account| &account.connections)?);
        }
        Ok(())
    }

    pub(crate) fn payers(&self) -> &Payers {
        &self.payers
    }
}

fn give_back(accounts: &[Arc<Account>], limit: Limit, cost: u64) {
    accounts.iter().for_each(|paid| paid.meter(limit).give_back(cost));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_catalog::Quota;

    use super::*;
    use crate::quotas::account::Elsewhere;

    const LIMIT: Limit = Limit::ConsumeBytesPerSecond;

    fn limited(rate: Option<u64>, account: &Account, elsewhere: f64) {
        let quota: Quota = rate.map(|rate| (LIMIT, rate)).into_iter().collect();
        let mut others = Elsewhere::default();
        others.rates.consume = elsewhere;
        account.limit(&quota, &others, 0.5, 0.5, Instant::now());
    }

    fn payers() -> (Payers, Arc<Account>) {
        let account = Account::of_tenant("shop");
        (Payers::new(std::iter::once(account.clone())), account)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_charged_by_a_small_share_is_paid_sooner_once_the_share_is_larger_or_the_quota_gone() {
        for (rate, at_most) in [(Some(100_000), 13), (None, 3)] {
            let (payers, account) = payers();
            limited(Some(100_000), &account, 1e9);
            let begin = Instant::now();
            let wait = payers.charge(LIMIT, 1_000_000, begin);
            assert!(wait > Duration::from_secs(300), "{wait:?}");
            let waiting = payers.until_paid(LIMIT, begin + wait);
            let changing = async {
                tokio::time::sleep(Duration::from_secs(2)).await;
                limited(rate, &account, 0.0);
            };
            tokio::join!(waiting, changing);
            assert!(begin.elapsed() <= Duration::from_secs(at_most), "{:?}", begin.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_waited_as_long_as_was_said_goes_on_although_others_owe() {
        let (payers, account) = payers();
        limited(Some(1_000), &account, 0.0);
        let begin = Instant::now();
        let wait = payers.charge(LIMIT, 3_000, begin);
        payers.charge(LIMIT, 1_000_000, begin);
        payers.until_paid(LIMIT, begin + wait).await;
        assert!(
            begin.elapsed() <= wait + Duration::from_millis(2),
            "{:?}",
            begin.elapsed()
        );
    }

    #[test]
    fn who_has_less_time_than_the_wait_is_refused_and_told_the_time_and_counted() {
        let (payers, account) = payers();
        limited(Some(1_000), &account, 0.0);
        let now = Instant::now();
        payers.charge(LIMIT, 1_475, now); // of 975
        let begin_by = now + Duration::from_millis(200);
        let over = payers.take(LIMIT, 1, begin_by, now).unwrap_err();
        let after = over.retry_after.unwrap();
        assert!(
            after > Duration::from_millis(200) && after < Duration::from_millis(400),
            "{after:?}"
        );
        assert_eq!(account.refused.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(payers.take(LIMIT, 1, begin_by + after, now + after).is_ok());
    }
}
