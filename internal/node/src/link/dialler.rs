//! When to dial: at first need, once for all who wait, and not again before a pause after a failure.
//!
//! Invariants: at most one dial of a dialler is under way; a dial goes on when those who wait for it give up; without a
//! connection or a dial, a call fails at once until the pause is over.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use highwater_partition::Lane;
use rand::Rng;
use tokio::time::Instant;

use super::Inner;
use super::connection::{Connection, lock};
use super::greeting;
use super::limits::{REDIAL_PAUSE_LEAST, REDIAL_PAUSE_MAX};

/// Whom to dial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// This very node, at the address that the directory gives.
    Node(String),
    /// Any node of our cluster at this address, `host:port`.
    Address(String),
}

/// A dial under way, for any number of waiters.
pub(super) type Dial = Shared<BoxFuture<'static, Result<Arc<Connection>, String>>>;

/// What a dialler has to offer at the moment.
pub(super) enum Attempt {
    /// A connection that is up.
    Up(Arc<Connection>),
    /// A dial; `begun` if by this very question.
    Dialling { dial: Dial, begun: bool },
    /// Nothing before the pause is over; why the last dial failed.
    Pausing(String),
}

pub(super) struct Dialler {
    target: Target,
    lane: Lane,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    dial: Option<Dial>,
    /// Failed dials since the last successful one.
    failures: u32,
    /// No dial before this.
    not_before: Option<Instant>,
    last_failure: String,
}

impl Dialler {
    pub(super) fn new(target: Target, lane: Lane) -> Arc<Dialler> {
        Arc::new(Dialler {
            target,
            lane,
            state: Mutex::default(),
        })
    }

    /// The connection, or the way to it.
    pub(super) fn attempt(self: &Arc<Self>, inner: &Arc<Inner>) -> Attempt {
        let mut state = lock(&self.state);
        if let Some(connection) = &state.connection {
            if !connection.is_closed() {
                return Attempt::Up(connection.clone());
            }
            state.last_failure = connection.why_closed().to_owned();
            state.connection = None;
        }
        if let Some(dial) = &state.dial {
            return Attempt::Dialling {
                dial: dial.clone(),
                begun: false,
            };
        }
        if state.not_before.is_some_and(|time| Instant::now() < time) {
            return Attempt::Pausing(format!("{} (dialling again shortly)", state.last_failure));
        }
        let dial = self.clone().begin(inner.clone());
        state.dial = Some(dial.clone());
        Attempt::Dialling { dial, begun: true }
    }

    /// The connection, waiting for a dial if need be.
    pub(super) async fn connection(self: &Arc<Self>, inner: &Arc<Inner>) -> Result<Arc<Connection>, String> {
        match self.attempt(inner) {
            Attempt::Up(connection) => Ok(connection),
            Attempt::Dialling { dial, .. } => dial.await,
            Attempt::Pausing(why) => Err(why),
        }
    }

    /// Ends a pause; the node has shown itself alive.
    pub(super) fn end_pause(&self) {
        let mut state = lock(&self.state);
        state.failures = 0;
        state.not_before = None;
    }

    /// Whether a connection is up or on its way.
    pub(super) fn is_in_use(&self) -> bool {
        let state = lock(&self.state);
        state.dial.is_some()
            || state
                .connection
                .as_ref()
                .is_some_and(|connection| !connection.is_closed())
    }

    /// Dials in a task of its own, which outlives those who wait.
    fn begin(self: Arc<Self>, inner: Arc<Inner>) -> Dial {
        let task = tokio::spawn(async move {
            let result = tokio::select! {
                biased;
                () = inner.closed.cancelled() => Err("the link was shut down".to_owned()),
                result = greeting::dial(&inner, &self.target, self.lane) => result,
            };
            self.note(&result);
            result
        });
        task.map(|ended| ended.unwrap_or_else(|error| Err(format!("the dial was broken off: {error}"))))
            .boxed()
            .shared()
    }

    fn note(&self, result: &Result<Arc<Connection>, String>) {
        let mut state = lock(&self.state);
        state.dial = None;
        match result {
            Ok(connection) => {
                state.connection = Some(connection.clone());
                state.failures = 0;
                // A connection that is cut off right after the hello must not be dialled in a tight loop.
                state.not_before = Some(Instant::now() + REDIAL_PAUSE_LEAST);
            }
            Err(why) => {
                state.not_before = Some(Instant::now() + pause_after(state.failures));
                state.failures = state.failures.saturating_add(1);
                state.last_failure = why.clone();
                tracing::debug!(target = ?self.target, lane = ?self.lane, why, "dialling failed");
            }
        }
    }
}

/// Doubles with every failure up to a bound; half of it is drawn, so that nodes do not dial in step.
fn pause_after(failures: u32) -> Duration {
    let doubled = REDIAL_PAUSE_LEAST.saturating_mul(1 << failures.min(16));
    let pause = doubled.min(REDIAL_PAUSE_MAX);
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}
