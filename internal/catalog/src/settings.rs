//! What an operator sets for the whole cluster.
//!
//! All nodes use the same settings, so they live in the catalog and nowhere else. Each has a default that serves most
//! clusters. Deliberately absent: anything that only one node needs to know; that is in its configuration.

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::checks;
use crate::limits::{
    CATCH_UP_BYTES_PER_SECOND, CATCH_UP_BYTES_PER_SECOND_DEFAULT, REPLACE_AFTER_MS, REPLACE_AFTER_MS_DEFAULT,
    TIMER_STEP_DEFAULT, TIMER_STEPS,
};
use crate::reply::{Refusal, Reply};

/// The settings of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How patient the groups' timers are, from 1 (fast failover) to 3 (many replicas on a node).
    pub timer_step: u32,
    /// How long a node may be away before its replicas are placed elsewhere, milliseconds.
    pub replace_after_ms: u64,
    /// How fast one node sends to all replicas together that are new or far behind, bytes per second.
    pub catch_up_bytes_per_second: u64,
    /// Whether replicas and preferred leaders are moved only to even out the nodes' load.
    pub balance: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            timer_step: TIMER_STEP_DEFAULT,
            replace_after_ms: REPLACE_AFTER_MS_DEFAULT,
            catch_up_bytes_per_second: CATCH_UP_BYTES_PER_SECOND_DEFAULT,
            balance: true,
        }
    }
}

impl Settings {
    pub(crate) fn is_default(&self) -> bool {
        *self == Settings::default()
    }

    /// Refuses the first value that is out of bounds.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        checks::within("timer_step", self.timer_step, &TIMER_STEPS)?;
        checks::within("replace_after_ms", self.replace_after_ms, &REPLACE_AFTER_MS)?;
        checks::within(
            "catch_up_bytes_per_second",
            self.catch_up_bytes_per_second,
            &CATCH_UP_BYTES_PER_SECOND,
        )
    }
}

impl Catalog {
    /// The settings of the cluster.
    pub fn settings(&self) -> &Settings {
        &self.state.settings
    }

    pub(crate) fn update_settings(&mut self, index: u64, wanted: Settings) -> Result<Reply, Refusal> {
        self.cluster()?;
        wanted.check()?;
        if self.state.settings != wanted {
            self.state.settings = wanted;
            self.state.revision = index;
        }
        Ok(Reply::Done)
    }
}
