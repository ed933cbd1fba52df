//! The library against a cluster that misbehaves on demand.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::result_large_err,
    missing_docs,
    unreachable_pub
)]

mod batches;
mod certificates;
mod cluster;
mod server;

mod administering;
mod connecting;
mod consuming;
mod corrupt;
mod forgetting;
mod guide;
mod metrics;
mod producing;
mod random_faults;
mod replacing;
mod returning;
mod seeking;
mod setting_aside;
mod sizing;
mod spans;

use std::time::Duration;

/// How long a test may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ends a test that hangs.
pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("the test hangs")
}

/// Waits for a condition.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let give_up = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < give_up, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
