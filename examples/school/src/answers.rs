//! What the two services have in common when they answer, and when they begin.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use highwater::{Client, Error, Reason};
use highwater_service::serving::{self, Stop};
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, State, View};
use tokio::sync::watch;
use tokio::task::block_in_place;
use tonic::Status;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::{Channel, Endpoint};

use crate::database::{Database, DatabaseError, Tables};
use crate::proto::{FILE_DESCRIPTOR_SET, Freshness};

/// How long an answer waits for what it must be made of, unless less is wanted: for all of it together, and with what a service that is
/// asked for a part of the answer waits.
const FRESH_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection to another service may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another service may take to answer; longer than it waits itself, [`FRESH_WITHIN`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);
/// After what silence another service is asked whether it is there, and how long it may take to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Why a service has ended.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Until when a request that begins now waits for what its answer must be made of.
pub(crate) fn deadline(fresh: Option<&Freshness>) -> Instant {
    let wanted = fresh.and_then(|fresh| fresh.within_ms).map(u64::from);
    Instant::now() + wanted.map_or(FRESH_WITHIN, Duration::from_millis).min(FRESH_WITHIN)
}

/// What a service that is asked for a part of the answer is to wait for, and no longer than this one.
pub(crate) fn fresh_until(positions: Vec<u64>, until: Instant) -> Freshness {
    let left = until.saturating_duration_since(Instant::now());
    Freshness {
        positions,
        within_ms: Some(left.as_millis() as u32), // at most FRESH_WITHIN
    }
}

/// Waits until the view is as fresh as an answer must be, and no longer than that.
pub(crate) async fn wait_fresh<S: State>(
    view: &View<S>,
    fresh: Option<Freshness>,
    until: Instant,
) -> Result<(), Status> {
    let positions = fresh.unwrap_or_default().positions;
    if positions.len() > view.partitions() as usize {
        let problem = format!(
            "there are {} of them, and {} partitions",
            positions.len(),
            view.partitions()
        );
        return Err(Status::invalid_argument(format!("fresh.positions: {problem}")));
    }
    for (partition, position) in (0..).zip(positions) {
        let left = until.saturating_duration_since(Instant::now());
        let reached = view.reach(partition, position, left).await;
        reached.map_err(|behind| Status::unavailable(format!("not as fresh as wanted: {behind}")))?;
    }
    Ok(())
}

/// Looks at a read model. It may wait for the disk, so other tasks are left to other threads.
pub(crate) fn read<T: Tables, R>(view: &View<Database<T>>, look: impl FnOnce(&Database<T>) -> R) -> R {
    block_in_place(|| view.read(look))
}

impl From<DatabaseError> for Status {
    fn from(error: DatabaseError) -> Self {
        tracing::error!(%error, "cannot answer");
        Self::unavailable(error.to_string())
    }
}

/// A connection to another service, made when it is needed and again when it is lost.
pub(crate) fn channel(service: &str, url: &str) -> Result<Channel, Failure> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| format!("--{service} {url:?}: {error}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        // A machine that is gone closes nothing.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

/// The error of a cluster, and what to do if it is not prepared.
pub(crate) fn with_hint(error: Error) -> Failure {
    match error.reason() {
        Some(Reason::TopicNotFound) => format!("{error}; `school init` makes topics and access rules").into(),
        _ => error.into(),
    }
}

/// Opens the database of a topic that `school init` has made, and has it follow the events.
pub(crate) async fn follow<T: Tables>(
    client: &Client,
    topic: &str,
    path: &Path,
) -> Result<(View<Database<T>>, Failing), Failure> {
    let known = client.topics().get(topic).await.map_err(with_hint)?;
    let with_path = |error: DatabaseError| format!("{}: {error}", path.display());
    let database = block_in_place(|| Database::open(path, &known)).map_err(with_path)?;
    let failing = Failing::new(path.display().to_string(), database.failure());
    Ok((View::open(client, topic, Start::State, database).await?, failing))
}

/// Tells when a state of events has failed: a database, or an event that is not understood.
#[derive(Debug)]
pub(crate) struct Failing {
    what: String,
    failure: watch::Receiver<Option<String>>,
}

impl Failing {
    /// `what`: for the user, which one has failed.
    pub(crate) fn new(what: String, failure: watch::Receiver<Option<String>>) -> Self {
        Self { what, failure }
    }

    /// Ends with what has failed; or when the service ends.
    pub(crate) async fn watch(mut self, stop: &Stop) -> Result<(), Failure> {
        tokio::select! {
            () = stop.wait() => Ok(()),
            failed = self.failure.wait_for(Option::is_some) => {
                let why = failed.ok().and_then(|why| why.clone()).unwrap_or_default();
                Err(format!("{}: {why}", self.what).into())
            }
        }
    }
}

/// Ends with why a view does not follow its topic any more; or when the service ends.
pub(crate) async fn watch_lost<S: State>(view: &View<S>, stop: &Stop) -> Result<(), Failure> {
    tokio::select! {
        () = stop.wait() => Ok(()),
        why = view.lost() => Err(why.into()),
    }
}

/// Tells when what was there at the start is part of the state.
pub(crate) async fn tell_caught_up<S: State>(
    view: &View<S>,
    telemetry: &Telemetry,
    what: &'static str,
    stop: &Stop,
) -> Result<(), Failure> {
    tokio::select! {
        () = stop.wait() => (),
        () = view.caught_up() => telemetry.there(what),
    }
    Ok(())
}

/// Metrics and health on their own port, until the service ends.
pub(crate) async fn tell(address: SocketAddr, telemetry: Telemetry, stop: Stop) -> Result<(), Failure> {
    let listener = serving::listen("metrics", address).await?;
    serving::http(listener, telemetry.router(), stop).await;
    Ok(())
}

/// gRPC's own description of the services.
pub(crate) fn described(mut routes: RoutesBuilder) -> Result<Routes, Failure> {
    let reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    routes.add_service(reflection.build_v1()?);
    Ok(routes.routes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_may_want_to_wait_less_and_not_more() {
        let left = |within_ms| {
            let fresh = Freshness {
                positions: Vec::new(),
                within_ms,
            };
            let until = deadline(Some(&fresh));
            let left = fresh_until(Vec::new(), until).within_ms.unwrap_or_default();
            u64::from(left).div_ceil(1_000)
        };
        assert_eq!([None, Some(60_000), Some(3_000), Some(0)].map(left), [5, 5, 3, 0]);
    }
}
