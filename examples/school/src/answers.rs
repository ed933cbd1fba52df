//! What the two services have in common when they answer, and when they begin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater::{Client, Reason};
use highwater_service::serving::{self, Stop};
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, State, View};
use tokio::sync::watch;
use tonic::Status;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::{Channel, Endpoint};

use crate::database::{Database, DatabaseError, Tables};
use crate::proto::{FILE_DESCRIPTOR_SET, Freshness};

/// How long an answer waits for what it must be made of.
const FRESH_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection to another service may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long another service may take to answer; longer than it waits itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why a service has ended.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Waits until the view is as fresh as an answer must be.
pub(crate) async fn wait_fresh<S: State>(view: &View<S>, fresh: Option<Freshness>) -> Result<(), Status> {
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
        let reached = view.reach(partition, position, FRESH_WITHIN).await;
        reached.map_err(|behind| Status::unavailable(format!("not as fresh as wanted: {behind}")))?;
    }
    Ok(())
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
        .connect_lazy())
}

/// Opens the database of a topic that `school init` has made, and has it follow the events.
pub(crate) async fn follow<T: Tables>(
    client: &Client,
    topic: &str,
    path: &Path,
) -> Result<(View<Database<T>>, Failing), Failure> {
    let known = match client.topics().get(topic).await {
        Err(error) if error.reason() == Some(Reason::TopicNotFound) => {
            return Err(format!("{error}; `school init` makes topics and access rules").into());
        }
        known => known?,
    };
    let with_path = |error: DatabaseError| format!("{}: {error}", path.display());
    let database = Database::open(path, &known).map_err(with_path)?;
    let failing = Failing {
        failure: database.failure(),
        path: path.to_owned(),
    };
    Ok((View::open(client, topic, Start::State, database).await?, failing))
}

/// Tells when a database has failed.
#[derive(Debug)]
pub(crate) struct Failing {
    failure: watch::Receiver<Option<String>>,
    path: PathBuf,
}

impl Failing {
    /// Ends with what has failed; or when the service ends.
    pub(crate) async fn watch(mut self, stop: &Stop) -> Result<(), Failure> {
        tokio::select! {
            () = stop.wait() => Ok(()),
            failed = self.failure.wait_for(Option::is_some) => {
                let why = failed.ok().and_then(|why| why.clone()).unwrap_or_default();
                Err(format!("{}: {why}", self.path.display()).into())
            }
        }
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
    Ok(serving::http(listener, telemetry.router(), stop).await?)
}

/// gRPC's own description of the services.
pub(crate) fn described(mut routes: RoutesBuilder) -> Result<Routes, Failure> {
    let reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET);
    routes.add_service(reflection.build_v1()?);
    Ok(routes.routes())
}
