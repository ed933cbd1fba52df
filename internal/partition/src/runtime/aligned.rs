//! tokio, with timers that go off together.
//!
//! Each Raft core ticks about five times per heartbeat interval, at a moment of its own. A node with hundreds of groups
//! would be woken up thousands of times a second, each time for one tick, and its groups' heartbeats would leave one by
//! one. So what openraft sleeps for is rounded up to a grid that all groups of the process share: the ticks of many groups
//! fall into one wakeup, their heartbeats into one frame (see `Peers::heartbeat`).
//!
//! The grid is a power of two of milliseconds, at most a third of what is slept for, so a tick of 20 ms comes up to 3 ms late,
//! one of 203 ms up to 63 ms. Deadlines of calls are no sleeps and stay exact. Which replica of a group campaigns first
//! is decided by election times that are drawn, and by grids that differ between processes.

use std::future::Future;
use std::sync::OnceLock;
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::AsyncRuntime;
use openraft::base::OptionalSend;

#[allow(deprecated)] // the replacement lives in a crate that openraft brings along anyway
type Tokio = openraft::impls::TokioRuntime;
type Instant = <Tokio as AsyncRuntime>::Instant;

/// What is slept for, in grids of it.
const SLEEP_GRIDS_LEAST: u128 = 3;

/// Where the grid begins.
static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// The first moment not before the deadline of the grid that fits what is slept for.
fn aligned(now: Instant, deadline: Instant) -> Instant {
    on_grid(deadline, grid_ms(deadline.saturating_duration_since(now)))
}

/// Ticks at moments that all who tick in this period share; those missed are left out.
pub(crate) fn ticks(period: Duration) -> tokio::time::Interval {
    let now = Instant::now();
    let first = on_grid(now, period.as_millis().max(1)) - now;
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}

fn on_grid(deadline: Instant, grid_ms: u128) -> Instant {
    let origin = *ORIGIN.get_or_init(Instant::now);
    let since_us = deadline.saturating_duration_since(origin).as_micros();
    let late_us = since_us % (grid_ms * 1_000);
    if late_us == 0 {
        return deadline;
    }
    deadline + Duration::from_micros((grid_ms * 1_000 - late_us) as u64)
}

/// The largest power of two of which `SLEEP_GRIDS_LEAST` fit; at least 1, which is how exact tokio's timers are.
fn grid_ms(sleep: Duration) -> u128 {
    let most = (sleep.as_millis() / SLEEP_GRIDS_LEAST).max(1);
    1 << most.ilog2()
}

/// tokio for openraft, with aligned sleeps.
#[derive(Debug)]
pub(crate) struct AlignedRuntime(Tokio);

impl AsyncRuntime for AlignedRuntime {
    type JoinError = <Tokio as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <Tokio as AsyncRuntime>::Sleep;
    type Instant = Instant;
    type TimeoutError = <Tokio as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <Tokio as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Tokio as AsyncRuntime>::ThreadLocalRng;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        Tokio::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        Self::sleep_until(Instant::now() + duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        Tokio::sleep_until(aligned(Instant::now(), deadline))
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

    fn thread_rng() -> Self::ThreadLocalRng {
        Tokio::thread_rng()
    }

    type Mpsc = <Tokio as AsyncRuntime>::Mpsc;
    type Watch = <Tokio as AsyncRuntime>::Watch;
    type Oneshot = <Tokio as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <Tokio as AsyncRuntime>::Mutex<T>;

    fn new(threads: usize) -> Self {
        AlignedRuntime(Tokio::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_are_rounded_up_by_less_than_a_third() {
        let grids = [(1, 1), (5, 1), (6, 2), (20, 4), (101, 32), (203, 64), (1_000, 256)];
        for (sleep_ms, expected_ms) in grids {
            assert_eq!(grid_ms(Duration::from_millis(sleep_ms)), expected_ms, "{sleep_ms} ms");
        }
        let now = Instant::now();
        for sleep_ms in 1..2_000 {
            let deadline = now + Duration::from_millis(sleep_ms);
            let late = aligned(now, deadline) - deadline;
            assert!(
                late <= Duration::from_millis(sleep_ms.div_ceil(3)),
                "{sleep_ms} ms: {late:?} late"
            );
        }
    }

    #[test]
    fn equal_sleeps_that_begin_apart_end_together() {
        let begin = Instant::now();
        let ends = |offset_ms: u64| {
            let now = begin + Duration::from_millis(offset_ms);
            aligned(now, now + Duration::from_millis(203))
        };
        let mut all: Vec<Instant> = (0..640).map(ends).collect();
        all.dedup();
        assert!(all.len() <= 11, "{}", all.len());
    }
}
