//! The group's timers, and openraft's configuration made from them.

use openraft::{Config, SnapshotPolicy};

use crate::codec::append::ENTRIES_MAX;
use crate::error::Error;

/// The group's timers, one cluster setting, equal for all replicas.
///
/// A leader's lease is the longest election time, and a follower campaigns a random election time after that, so a
/// failover takes from `election_max_ms + election_min_ms` to twice `election_max_ms`, plus voting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// How often an idle leader is heard of.
    pub heartbeat_ms: u64,
    /// Shortest random election time.
    pub election_min_ms: u64,
    /// Longest random election time, and the leader's lease.
    pub election_max_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Timers {
            heartbeat_ms: 100,
            election_min_ms: 300,
            election_max_ms: 400,
        }
    }
}

impl Timers {
    /// The timers of a step of the cluster's setting: 1 (the default), 2 or 3. Higher steps cost less while nothing happens,
    /// and fail over later.
    pub fn step(step: u32) -> Option<Timers> {
        let (heartbeat_ms, election_min_ms, election_max_ms) = match step {
            1 => (100, 300, 400),
            2 => (500, 1_500, 2_000),
            3 => (1_000, 3_000, 4_000),
            _ => return None,
        };
        Some(Timers {
            heartbeat_ms,
            election_min_ms,
            election_max_ms,
        })
    }
}

/// How long one manifest may take.
const INSTALL_SNAPSHOT_TIMEOUT_MS: u64 = 10_000;

impl Timers {
    /// The configuration, or why these timers do not fit together.
    pub(crate) fn config(&self, group: u64) -> Result<Config, Error> {
        let config = Config {
            cluster_name: format!("group-{group}"),
            heartbeat_interval: self.heartbeat_ms,
            heartbeat_min_interval: Some(self.heartbeat_min_interval_ms()),
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            enable_pre_vote: Some(true),
            // the shortest that is allowed: a lease, and then the longest election
            quorum_loss_probe_interval: Some(self.election_max_ms.saturating_mul(2)),
            enable_leader_restore: Some(false),
            allow_log_reversion: None,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            install_snapshot_timeout: INSTALL_SNAPSHOT_TIMEOUT_MS,
            // readers cap by bytes; this only has to fit one message
            max_payload_entries: u64::from(ENTRIES_MAX),
            ..Config::default()
        };
        config
            .validate()
            .map_err(|err| Error::Raft(format!("the timers {self:?} do not fit: {err}")))
    }

    /// A follower that hears of its leader through appends needs no heartbeats for this long. Heartbeats may then be
    /// this, one interval and one tick (13/64 of an interval, and up to a third late, see `runtime`) apart, which must stay
    /// below the shortest election time.
    fn heartbeat_min_interval_ms(&self) -> u64 {
        let tick_ms = (self.heartbeat_ms * 13 / 48).max(1);
        let room_ms = self.election_min_ms.saturating_sub(self.heartbeat_ms + tick_ms + 1);
        room_ms.min(self.heartbeat_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_of_the_cluster_setting_fit() {
        for timers in [1, 2, 3].map(|step| Timers::step(step).unwrap()) {
            assert!(timers.config(1).is_ok(), "{timers:?}");
            assert_eq!(timers.heartbeat_min_interval_ms(), timers.heartbeat_ms, "{timers:?}");
        }
        assert_eq!(Timers::step(1), Some(Timers::default()));
        assert_eq!((Timers::step(0), Timers::step(4)), (None, None));
    }

    #[test]
    fn timers_that_contradict_each_other_are_refused() {
        let timers = Timers {
            heartbeat_ms: 500,
            election_min_ms: 300,
            election_max_ms: 400,
        };
        assert!(matches!(timers.config(1), Err(Error::Raft(_))));
    }
}
