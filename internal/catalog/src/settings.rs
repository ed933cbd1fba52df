//! What an operator sets for the whole cluster.
//!
//! All nodes use the same settings, so they live in the catalog and nowhere else. Each has a default that serves most
//! clusters. Deliberately absent: anything that only one node needs to know; that is in its configuration.

use serde::{Deserialize, Serialize};

use crate::catalog::Catalog;
use crate::checks;
use crate::levels::{CHANGES_LEVEL, FIRST_LEVEL, POLICIES_LEVEL};
use crate::limits::{
    CATCH_UP_BYTES_PER_SECOND, CATCH_UP_BYTES_PER_SECOND_DEFAULT, GROUPS_KEPT_MS, GROUPS_KEPT_MS_DEFAULT,
    REPLACE_AFTER_MS, REPLACE_AFTER_MS_DEFAULT, TIMER_STEP_DEFAULT, TIMER_STEPS,
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
    /// How long a consumer group is kept that lags and neither claims nor commits, milliseconds. Written only where it is not
    /// the default: builds below [`POLICIES_LEVEL`] cannot read it.
    #[serde(
        default = "groups_kept_ms_default",
        skip_serializing_if = "is_groups_kept_ms_default"
    )]
    pub groups_kept_ms: u64,
}

fn groups_kept_ms_default() -> u64 {
    GROUPS_KEPT_MS_DEFAULT
}

fn is_groups_kept_ms_default(kept_ms: &u64) -> bool {
    *kept_ms == GROUPS_KEPT_MS_DEFAULT
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            timer_step: TIMER_STEP_DEFAULT,
            replace_after_ms: REPLACE_AFTER_MS_DEFAULT,
            catch_up_bytes_per_second: CATCH_UP_BYTES_PER_SECOND_DEFAULT,
            balance: true,
            groups_kept_ms: GROUPS_KEPT_MS_DEFAULT,
        }
    }
}

impl Settings {
    pub(crate) fn is_default(&self) -> bool {
        *self == Settings::default()
    }

    /// The level whose builds can read these.
    pub(crate) fn feature_level(&self) -> u32 {
        if !is_groups_kept_ms_default(&self.groups_kept_ms) {
            return POLICIES_LEVEL;
        }
        if self.is_default() { FIRST_LEVEL } else { CHANGES_LEVEL }
    }

    /// Refuses the first value that is out of bounds.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        checks::within("timer_step", self.timer_step, &TIMER_STEPS)?;
        checks::within("replace_after_ms", self.replace_after_ms, &REPLACE_AFTER_MS)?;
        checks::within(
            "catch_up_bytes_per_second",
            self.catch_up_bytes_per_second,
            &CATCH_UP_BYTES_PER_SECOND,
        )?;
        checks::within("groups_kept_ms", self.groups_kept_ms, &GROUPS_KEPT_MS)
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
