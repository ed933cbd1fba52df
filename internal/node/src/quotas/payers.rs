//! Whoever makes a call pays for it: the client, and its tenant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_catalog::Limit;
use tokio::time::Instant;

use super::account::{Account, HELD_RETRY_AFTER, Held, Hold};
use super::meter::{DELAY_MAX, STREAM_DELAY_MAX};

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

    /// Takes so much of a rate from each account, or nothing; the answer is how long to wait before doing what was paid for.
    pub(crate) fn take(&self, limit: Limit, cost: u64, now: Instant) -> Result<Duration, OverQuota> {
        self.take_within(limit, cost, DELAY_MAX, now)
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

    /// Puts back what was taken and not used.
    pub(crate) fn give_back(&self, limit: Limit, cost: u64) {
        give_back(&self.0, limit, cost);
    }

    /// Pays for what was given out; the answer is how long to wait before giving more.
    pub(crate) fn charge(&self, limit: Limit, cost: u64, now: Instant) -> Duration {
        let waits = self.0.iter().map(|account| account.meter(limit).charge(cost, now));
        waits.max().unwrap_or_default()
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
