//! The runtime of simulations: tokio's types on a paused clock, with two differences.
//!
//! * Randomness comes from a seed that each task hands on to the tasks it starts (openraft's own deterministic generator).
//! * Each task belongs to the [`Life`] of a simulated node: all tasks that it starts, however indirectly, join the same life.
//!   Ending the life is a crash: nothing of the node runs any more, nothing is cleaned up.
//!
//! Code of a node runs only within a life ([`Life::spawn`]); openraft panics elsewhere, because there is no seed.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openraft::async_runtime::AsyncRuntime;
use openraft::base::OptionalSend;
use openraft_rt::deterministic_rng::DeterministicRng;
use tokio::task::{AbortHandle, JoinHandle};

#[allow(deprecated)]
type Tokio = openraft::impls::TokioRuntime;

pub(crate) type Runtime = DeterministicRng<LifeRuntime>;

tokio::task_local! {
    static LIFE: Arc<Life>;
}

/// One life of a simulated node: the tasks that run in it.
#[derive(Default)]
pub struct Life {
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    handles: Vec<AbortHandle>,
    /// At how many handles those of finished tasks are let go.
    sweep_at: usize,
    ended: bool,
}

impl Life {
    /// A life without tasks.
    pub fn begin() -> Arc<Life> {
        Arc::default()
    }

    /// Starts a task of this life with a seed of its own.
    pub fn spawn<T>(self: &Arc<Life>, seed: u64, future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        self.join(Runtime::scope(seed, future))
    }

    /// The crash: no task of this life is polled again.
    pub fn end(&self) {
        let mut tasks = self.lock();
        tasks.ended = true;
        let handles = std::mem::take(&mut tasks.handles);
        drop(tasks);
        handles.iter().for_each(AbortHandle::abort);
    }

    fn join<T>(self: &Arc<Life>, future: T) -> JoinHandle<T::Output>
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        let handle = tokio::spawn(LIFE.scope(self.clone(), future));
        let mut tasks = self.lock();
        if tasks.ended {
            handle.abort();
        }
        if tasks.handles.len() >= tasks.sweep_at {
            tasks.handles.retain(|task| !task.is_finished());
            tasks.sweep_at = 2 * tasks.handles.len() + 64;
        }
        tasks.handles.push(handle.abort_handle());
        handle
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// tokio, with every task in the life of the task that starts it.
#[derive(Debug)]
pub struct LifeRuntime;

impl AsyncRuntime for LifeRuntime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = <Tokio as AsyncRuntime>::Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        LIFE.with(Arc::clone).join(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Tokio::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(duration: Duration, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(deadline: Self::Instant, future: F) -> Self::Timeout<R, F> {
        Tokio::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        Tokio::is_panic(join_error)
    }

    /// Never called: the deterministic generator stands before it.
    fn thread_rng() -> Self::ThreadLocalRng {
        Tokio::thread_rng()
    }

    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    /// Never called: the simulation makes its runtime itself.
    fn new(_threads: usize) -> Self {
        LifeRuntime
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        tokio::runtime::Handle::current().block_on(future)
    }
}
