//! When a replica last heard from its leader, and how far that leader was.
//!
//! Readers depend on it: a follower that hears nothing, or that does not keep up, serves records as they were, and looks
//! like one that serves a quiet partition. Whoever reads from it must be able to tell the two apart.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, LinearizerOption, ServerState};
use tokio::time::Instant;

use crate::config::Timers;
use crate::error::CommandError;
use crate::partition::Partition;
use crate::status::Role;
use crate::types::AppendRequest;

/// What a replica knows of its leader's presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// When its leader was last heard; now, if it leads itself.
    pub heard_at: Instant,
    /// For how long a follower of a sound group may hear nothing, an ordinary failover included.
    pub silence_max: Duration,
    /// Exclusive end of the entries that are committed as the leader has told; an index, not an offset.
    pub leader_committed_end: u64,
    /// Exclusive end of the entries that are known as committed here.
    pub committed_end: u64,
}

impl Contact {
    /// Whether nothing was heard for longer than in a sound group.
    pub fn is_lost(&self) -> bool {
        self.heard_at.elapsed() > self.silence_max
    }
}

/// Listens to the leader.
#[derive(Debug)]
pub(crate) struct Ear {
    began: Instant,
    /// When it was last heard, milliseconds after `began`.
    heard_ms: AtomicU64,
    leader_committed_end: AtomicU64,
    silence_max: Duration,
}

impl Ear {
    pub(crate) fn new(timers: &Timers) -> Ear {
        Ear {
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
            leader_committed_end: AtomicU64::new(0),
            silence_max: silence_max(timers),
        }
    }

    /// Notes that a leader was heard.
    pub(crate) fn note(&self, request: &AppendRequest) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.fetch_max(now_ms, Ordering::Relaxed);
        let end = request.leader_commit.map_or(0, |id| id.index + 1);
        self.leader_committed_end.fetch_max(end, Ordering::Relaxed);
    }
}

/// The leader's lease and the longest election, after which another leader is there, and half as much again for its votes.
fn silence_max(timers: &Timers) -> Duration {
    Duration::from_millis(timers.election_max_ms.saturating_mul(5) / 2)
}

impl Partition {
    /// What this replica knows of its leader's presence now.
    pub fn contact(&self) -> Contact {
        let ear = &self.inner.ear;
        let committed_end = self.inner.progress.committed_end();
        let leads = self.inner.changes.borrow().role == Role::Leader;
        let heard_at = match leads {
            true => Instant::now(),
            false => ear.began + Duration::from_millis(ear.heard_ms.load(Ordering::Relaxed)),
        };
        Contact {
            heard_at,
            silence_max: ear.silence_max,
            leader_committed_end: ear.leader_committed_end.load(Ordering::Relaxed).max(committed_end),
            committed_end,
        }
    }
}

impl Partition {
    /// Since when this replica leads; None if it does not, or not for long enough to have noticed.
    pub fn leads_since(&self) -> Option<Instant> {
        self.inner.observer.leadership.since()
    }

    /// Returns once this replica has applied everything that was committed anywhere before the call, as the leader; an error if it
    /// does not lead, or no majority has acknowledged that within its lease.
    ///
    /// Unlike [`Partition::confirmed_high_watermark`] it sends nothing: it takes the last heartbeats, or waits for those that are due.
    /// Nobody else can be elected before the lease is over, if the clocks of the members run about equally fast. So many may ask often.
    pub async fn confirmed_by_lease(&self) -> Result<(), CommandError> {
        if self.inner.stopped() {
            return Err(CommandError::Stopped);
        }
        let lease = LinearizerOption::new(None, false);
        self.inner.confirmed_here(lease).await.map(drop)
    }

    /// Whether this replica leads a group of which it has not heard a majority for longer than in a sound one. It does not step
    /// down for that: it just commits nothing.
    pub fn leads_in_vain(&self) -> bool {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let is_alone = metrics.membership_config.membership().voter_ids().count() <= 1;
        if metrics.state != ServerState::Leader || is_alone {
            return false;
        }
        let acked = metrics.last_quorum_acked.map(|acked| acked.into_inner());
        acked.is_none_or(|acked| acked.elapsed() > self.inner.ear.silence_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_failover_is_shorter_than_the_longest_silence() {
        for (heartbeat_ms, election_min_ms, election_max_ms) in
            [(100, 300, 400), (500, 1_500, 2_000), (1_000, 3_000, 4_000)]
        {
            let timers = Timers {
                heartbeat_ms,
                election_min_ms,
                election_max_ms,
            };
            let failover = Duration::from_millis(2 * election_max_ms + heartbeat_ms);
            assert!(silence_max(&timers) >= failover, "{timers:?}");
        }
    }
}
