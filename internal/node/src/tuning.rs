//! Settings of a node that may change while it runs, without anything having to begin anew.
//!
//! Whoever works by one of them looks at it when it is used, or waits for it to change; nobody keeps a copy.
//!
//! Deliberately absent: what says who the node is, where it listens and where its data lies. That takes a restart.

use std::time::Duration;

use tokio::sync::watch;

use crate::config::Config;

/// What may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tuning {
    /// How often retention is looked after.
    pub(crate) retention_interval: Duration,
    /// How old a client's connection may become; those that are open keep what was drawn for them.
    pub(crate) connection_age_max: Duration,
}

impl Tuning {
    pub(crate) fn of(config: &Config) -> Tuning {
        Tuning {
            retention_interval: Duration::from_millis(config.retention_interval_ms),
            connection_age_max: Duration::from_millis(config.connection_age_max_ms),
        }
    }

    /// As a configuration says, for all who look.
    pub(crate) fn publish(config: &Config) -> watch::Sender<Tuning> {
        watch::Sender::new(Tuning::of(config))
    }
}
