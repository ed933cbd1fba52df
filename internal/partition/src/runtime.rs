//! What tasks and blocking reads run on: tokio, and in the simulation tokio under control.
//!
//! Built with `--cfg highwater_simulation` (see `tests/sim`) every task belongs to one life of one simulated node and dies
//! with it, randomness comes from a seed, and what would block runs in its place. In every other build this is tokio, but
//! for what openraft sleeps for (`aligned`).

#[cfg(not(highwater_simulation))]
mod aligned;
#[cfg(highwater_simulation)]
pub mod simulation;

use std::future::Future;

use openraft::async_runtime::AsyncRuntime;
use tokio::task::{JoinError, JoinHandle};

#[cfg(not(highwater_simulation))]
pub(crate) type Runtime = aligned::AlignedRuntime;
#[cfg(highwater_simulation)]
pub(crate) type Runtime = simulation::Runtime;

#[cfg(not(highwater_simulation))]
pub(crate) use aligned::ticks;

/// Ticks in this period; those missed are left out.
#[cfg(highwater_simulation)]
pub(crate) fn ticks(period: std::time::Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Starts a task of this replica.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    Runtime::spawn(future)
}

/// Runs what may block off the async threads.
#[cfg(not(highwater_simulation))]
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    tokio::task::spawn_blocking(work).await
}

/// Runs what may block here, behind whatever is ready now.
#[cfg(highwater_simulation)]
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    tokio::task::yield_now().await;
    Ok(work())
}
