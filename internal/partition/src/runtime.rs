//! What tasks and blocking reads run on: tokio, and in the simulation tokio under control.
//!
//! Built with `--cfg highwater_simulation` (see `tests/sim`) every task belongs to one life of one simulated node and dies
//! with it, randomness comes from a seed, and what would block runs in its place. In every other build these are plain names
//! for tokio's own.

#[cfg(highwater_simulation)]
pub mod simulation;

use std::future::Future;

use openraft::async_runtime::AsyncRuntime;
use tokio::task::{JoinError, JoinHandle};

#[cfg(not(highwater_simulation))]
#[allow(deprecated)] // the replacement lives in a crate that openraft brings along anyway
pub(crate) type Runtime = openraft::impls::TokioRuntime;
#[cfg(highwater_simulation)]
pub(crate) type Runtime = simulation::Runtime;

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
