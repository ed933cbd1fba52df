//! gRPC connections, each served by itself, and only for so long.
//!
//! A connection proves who it is when it begins. So that it has to prove it again, it ends in time: first its client is
//! told to begin no more calls on it (GOAWAY) and makes another one, while the calls in flight go on; after a grace it is
//! broken off, since streams could last for ever. Ages differ a little, so that clients that came together after a restart
//! do not come back together for ever.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt, once, pending};
use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::port::{Connection, Incoming};
use crate::tuning::Tuning;

/// The most time for calls that are in flight when a connection is old.
const GRACE_MAX: Duration = Duration::from_secs(30);
/// By how much of it connections end before their greatest age, at most.
const JITTER: f64 = 0.1;

/// One connection, in the form that the server takes.
pub(super) type Single = BoxStream<'static, std::io::Result<Connection>>;
/// Serves a connection to its end, and gracefully from the moment on when the second future is ready.
pub(super) type ServeOne =
    Arc<dyn Fn(Single, BoxFuture<'static, ()>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// How old a connection may become, its own grace excluded.
#[derive(Debug, Clone)]
pub(crate) struct AgeMax(pub(crate) watch::Receiver<Tuning>);

impl AgeMax {
    /// For one connection.
    pub(crate) fn draw(&self) -> Duration {
        self.at_present().mul_f64(rand::rng().random_range(1.0 - JITTER..=1.0))
    }

    fn grace(&self) -> Duration {
        self.at_present().min(GRACE_MAX)
    }

    fn at_present(&self) -> Duration {
        self.0.borrow().connection_age_max
    }
}

/// Serves until the node stops and every call has ended.
pub(super) async fn serve_each(mut incoming: Incoming, age: AgeMax, stopping: CancellationToken, serve_one: ServeOne) {
    let mut connections = JoinSet::new();
    loop {
        let next = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            next = incoming.next() => next,
        };
        match next {
            Some(Ok(connection)) => {
                let serving = serve_within(connection, age.clone(), stopping.clone(), serve_one.clone());
                drop(connections.spawn(serving));
            }
            Some(Err(error)) => tracing::debug!(%error, "a connection was not handed over"),
            None => break,
        }
        while connections.try_join_next().is_some() {}
    }
    while connections.join_next().await.is_some() {}
}

async fn serve_within(connection: Connection, age: AgeMax, stopping: CancellationToken, serve_one: ServeOne) {
    let (over, at_most, grace) = (connection.over(), age.draw(), age.grace());
    let ended = over.clone();
    let graceful = async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = ended.cancelled() => {}
            () = sleep(at_most) => {}
        }
    };
    let single = once(async { Ok(connection) }).chain(pending()).boxed();
    let mut serving = serve_one(single, Box::pin(graceful));
    let served = tokio::select! {
        served = &mut serving => served,
        () = sleep(at_most + grace) => {
            over.cancel();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended");
    }
}
