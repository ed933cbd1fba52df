//! What one tenant, or one client, uses on this node, and how much of it may be.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_catalog::{Limit, Quota};
use tokio::time::Instant;

use super::meter::Meter;
use super::payers::OverQuota;
use super::sharing::{Use, share};

/// Stands for "not limited" where a number is kept.
const UNLIMITED: u64 = u64::MAX;
/// How soon somebody should come back who holds as many of something as may be: when one is given back is not known.
pub(super) const HELD_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How soon a tenant whose partitions are full should try again: records have to be let go of first.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Whose account it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Owner {
    pub(super) tenant: String,
    /// None: the tenant itself.
    pub(super) client: Option<String>,
}

/// For messages.
impl fmt::Display for Owner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client {
            Some(client) => write!(out, "client {}/{client}", self.tenant),
            None => write!(out, "tenant {}", self.tenant),
        }
    }
}

/// The use of a tenant or client here.
#[derive(Debug)]
pub(crate) struct Account {
    pub(super) owner: Owner,
    pub(super) produce: Meter,
    pub(super) consume: Meter,
    pub(super) requests: Meter,
    pub(super) connections: Held,
    pub(super) streams: Held,
    /// What counts for it in the whole cluster.
    quota: Mutex<Quota>,
    /// Of batches that wait for their answer on this node.
    in_flight_bytes: AtomicU64,
    /// What was refused because of it.
    pub(super) refused: AtomicU64,
    /// Its partitions hold as many bytes as they may. Only of a tenant.
    pub(super) is_full: AtomicBool,
    pace: Mutex<Pace>,
}

/// What was used per second lately.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) produce: f64,
    pub(super) consume: f64,
    pub(super) requests: f64,
}

/// How rates are measured: from one look to the next.
#[derive(Debug)]
pub(super) struct Pace {
    at: Instant,
    used: [u64; 3],
    pub(super) rates: Rates,
}

/// So many of something at the same time.
#[derive(Debug)]
pub(super) struct Held {
    here: AtomicU64,
    elsewhere: AtomicU64,
    limit: AtomicU64,
}

/// One of something that is held; given back when dropped.
#[derive(Debug)]
pub(super) struct Hold {
    account: Arc<Account>,
    of: fn(&Account) -> &Held,
}

impl Default for Held {
    fn default() -> Self {
        Held {
            here: AtomicU64::new(0),
            elsewhere: AtomicU64::new(0),
            limit: AtomicU64::new(UNLIMITED),
        }
    }
}

impl Held {
    pub(super) fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    fn limit(&self, limit: Option<u64>, elsewhere: u64) {
        self.limit.store(limit.unwrap_or(UNLIMITED), Ordering::Relaxed);
        self.elsewhere.store(elsewhere, Ordering::Relaxed);
    }

    /// One more, if that is within the limit.
    fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        let elsewhere = self.elsewhere.load(Ordering::Relaxed);
        let more = |here: u64| (here.saturating_add(elsewhere) < limit).then_some(here + 1);
        self.here
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        (self.of)(&self.account).here.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What other nodes say of the same tenant or client, together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Elsewhere {
    pub(super) rates: Rates,
    pub(super) connections: u64,
    pub(super) streams: u64,
}

impl Account {
    pub(super) fn new(owner: Owner, now: Instant) -> Account {
        Account {
            owner,
            produce: Meter::default(),
            consume: Meter::default(),
            requests: Meter::default(),
            connections: Held::default(),
            streams: Held::default(),
            quota: Mutex::default(),
            in_flight_bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            pace: Mutex::new(Pace {
                at: now,
                used: [0; 3],
                rates: Rates::default(),
            }),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_tenant(tenant: &str) -> Arc<Account> {
        let owner = Owner {
            tenant: tenant.to_owned(),
            client: None,
        };
        Arc::new(Account::new(owner, Instant::now()))
    }

    /// The meter of a rate; there are no others.
    pub(super) fn meter(&self, limit: Limit) -> &Meter {
        match limit {
            Limit::ProduceBytesPerSecond => &self.produce,
            Limit::ConsumeBytesPerSecond => &self.consume,
            other => {
                debug_assert_eq!(other, Limit::RequestsPerSecond, "it has no meter");
                &self.requests
            }
        }
    }

    /// Holds one more connection or stream; None if there are as many as may be.
    pub(super) fn hold(self: &Arc<Self>, of: fn(&Account) -> &Held) -> Option<Hold> {
        of(self).take().then(|| Hold {
            account: self.clone(),
            of,
        })
    }

    /// What the owner may use in the whole cluster.
    pub(super) fn quota_of(&self, limit: Limit) -> Option<u64> {
        lock(&self.quota).get(&limit).copied()
    }

    pub(super) fn quota(&self) -> Quota {
        lock(&self.quota).clone()
    }

    /// Whether there is any.
    pub(super) fn is_limited(&self) -> bool {
        !lock(&self.quota).is_empty()
    }

    /// Whether the tenant's partitions may take more bytes.
    pub(crate) fn check_room(&self) -> Result<(), OverQuota> {
        if !self.is_full.load(Ordering::Relaxed) {
            return Ok(());
        }
        Err(self.over(Limit::StoredBytes, FULL_RETRY_AFTER))
    }

    /// Something is refused.
    pub(super) fn over(&self, limit: Limit, retry_after: Duration) -> OverQuota {
        self.refused.fetch_add(1, Ordering::Relaxed);
        OverQuota {
            who: self.owner.to_string(),
            limit,
            most: self.quota_of(limit).unwrap_or_default(),
            retry_after: Some(retry_after),
        }
    }

    /// Bytes of batches that wait for their answer on this node.
    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// Notes that a batch waits.
    pub(crate) fn begin_batch(&self, bytes: u64) {
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that it is answered.
    pub(crate) fn end_batch(&self, bytes: u64) {
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes over the limits that count here.
    pub(super) fn limit(&self, quota: &Quota, elsewhere: &Elsewhere, leaders: f64, even: f64, now: Instant) {
        let rates = self.rates();
        let of = |limit: Limit, here: f64, elsewhere: f64, weight: f64| {
            let used = Use {
                here,
                elsewhere,
                weight,
            };
            let rate = quota.get(&limit).map(|quota| share(*quota, used));
            self.meter(limit).limit(rate, now);
        };
        let Elsewhere {
            rates: others,
            connections,
            streams,
        } = *elsewhere;
        of(Limit::ProduceBytesPerSecond, rates.produce, others.produce, leaders);
        of(Limit::ConsumeBytesPerSecond, rates.consume, others.consume, even);
        of(Limit::RequestsPerSecond, rates.requests, others.requests, even);
        self.connections
            .limit(quota.get(&Limit::Connections).copied(), connections);
        self.streams.limit(quota.get(&Limit::Streams).copied(), streams);
        *lock(&self.quota) = quota.clone();
    }

    /// Looks how much was used since the last look; half of what was known before counts, too. Who is in debt pays for what it has taken:
    /// it uses all that it gets here, and the other nodes must not take it for free.
    pub(super) fn measure(&self, now: Instant) {
        let meters = [&self.produce, &self.consume, &self.requests];
        let used = meters.map(Meter::used);
        let paying = meters.map(|meter| meter.paying(now));
        let mut pace = lock(&self.pace);
        let seconds = now.saturating_duration_since(pace.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let before = pace.used;
        let per_second = |at: usize, known: f64| {
            let measured = used[at].saturating_sub(before[at]) as f64 / seconds;
            let mean = 0.5 * measured.max(paying[at]) + 0.5 * known;
            if mean < 1.0 { 0.0 } else { mean }
        };
        pace.rates = Rates {
            produce: per_second(0, pace.rates.produce),
            consume: per_second(1, pace.rates.consume),
            requests: per_second(2, pace.rates.requests),
        };
        pace.used = used;
        pace.at = now;
    }

    pub(super) fn rates(&self) -> Rates {
        lock(&self.pace).rates
    }

    /// Whether nothing was used lately, and everything is paid for.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let meters = [&self.produce, &self.consume, &self.requests];
        self.rates() == Rates::default() && !meters.into_iter().any(|meter| meter.is_in_debt(now))
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn limited(limit: Limit, value: u64, elsewhere: Elsewhere) -> Arc<Account> {
        let account = Account::of_tenant("shop");
        account.limit(&Quota::from([(limit, value)]), &elsewhere, 1.0, 1.0, Instant::now());
        account
    }

    #[test]
    fn no_more_are_held_than_may_be_and_what_is_let_go_can_be_held_again() {
        let account = limited(Limit::Connections, 2, Elsewhere::default());
        let held = [(); 2].map(|()| account.hold(|it| &it.connections).unwrap());
        assert!(account.hold(|it| &it.connections).is_none());
        assert!(account.hold(|it| &it.streams).is_some());
        drop(held);
        assert_eq!(account.connections.here(), 0);
        assert!(account.hold(|it| &it.connections).is_some());
    }

    #[test]
    fn what_is_held_on_other_nodes_counts() {
        let elsewhere = Elsewhere {
            streams: 3,
            ..Elsewhere::default()
        };
        let account = limited(Limit::Streams, 4, elsewhere);
        let _held = account.hold(|it| &it.streams).unwrap();
        assert!(account.hold(|it| &it.streams).is_none());
    }

    #[test]
    fn whoever_pays_a_debt_uses_its_share_for_as_long() {
        let account = Account::of_tenant("shop");
        let mut now = Instant::now();
        let quota = Quota::from([(Limit::ProduceBytesPerSecond, 1_000)]);
        account.limit(&quota, &Elsewhere::default(), 1.0, 1.0, now);
        account.produce.charge(31_000, now);
        let measured = |now: &mut Instant| {
            *now += Duration::from_secs(1);
            account.measure(*now);
            account.rates().produce
        };
        for second in 0..29 {
            assert!(measured(&mut now) >= 500.0, "after {second} s");
        }
        assert!(account.rates().produce >= 990.0);
        for _ in 0..20 {
            measured(&mut now);
        }
        assert_eq!(account.rates().produce, 0.0);
    }

    #[test]
    fn rates_follow_what_is_used_and_end_at_nothing() {
        let account = Account::of_tenant("shop");
        let mut now = Instant::now();
        for _ in 0..10 {
            account.produce.charge(1_000, now);
            now += Duration::from_secs(1);
            account.measure(now);
        }
        let rate = account.rates().produce;
        assert!((990.0..=1_000.0).contains(&rate), "{rate}");
        for _ in 0..20 {
            now += Duration::from_secs(1);
            account.measure(now);
        }
        assert!(account.is_idle(now));
        account.limit(
            &Quota::from([(Limit::ProduceBytesPerSecond, 1)]),
            &Elsewhere::default(),
            1.0,
            1.0,
            now,
        );
        account.produce.charge(1_000, now);
        for _ in 0..20 {
            now += Duration::from_secs(1);
            account.measure(now);
        }
        assert!(!account.is_idle(now), "its debt would be forgotten");
    }
}
