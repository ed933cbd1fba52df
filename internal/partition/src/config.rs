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
    /// this, one interval and one tick (13/64 of an interval) apart, which must stay below the shortest election time.
    fn heartbeat_min_interval_ms(&self) -> u64 {
        let tick_ms = (self.heartbeat_ms * 13 / 64).max(1);
        let room_ms = self.election_min_ms.saturating_sub(self.heartbeat_ms + tick_ms + 1);
        room_ms.min(self.heartbeat_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_of_the_cluster_setting_fit() {
        let steps = [(100, 300, 400), (500, 1_500, 2_000), (1_000, 3_000, 4_000)];
        for (heartbeat_ms, election_min_ms, election_max_ms) in steps {
            let timers = Timers {
                heartbeat_ms,
                election_min_ms,
                election_max_ms,
            };
            assert!(timers.config(1).is_ok(), "{timers:?}");
            assert_eq!(timers.heartbeat_min_interval_ms(), heartbeat_ms, "{timers:?}");
        }
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
