//! What the two services have in common: health over gRPC, metrics over HTTP, and what they can fail with.

use std::future::pending;

use highwater::Client;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::{logs, topics, transform};
use tonic::service::Routes;

use crate::journal::JournalError;
use crate::wire::{COMMAND_TOPIC, PARTITIONS, RESULT_TOPIC};

/// Why one of the programs has ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The cluster cannot be reached, or refuses.
    #[error(transparent)]
    Cluster(#[from] highwater::Error),
    /// The back end cannot go on.
    #[error(transparent)]
    Transform(#[from] transform::Failed),
    /// The file of the log cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A port, a signal, or standard input or output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The gRPC server.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
    /// The log of what happens, or the metrics.
    #[error("{0}")]
    Telemetry(String),
}

/// A service at work: what it is given.
#[derive(Debug)]
pub struct Service {
    /// The cluster, with both topics in place.
    pub client: Client,
    /// Its metrics and readiness.
    pub telemetry: Telemetry,
    /// When to end.
    pub stop: Stop,
}

/// Runs `work` with all that a service needs around it, until it ends. The service is ready once all of `waiting` are there.
///
/// # Errors
/// [`Failed`].
pub async fn run(
    settings: &ServiceSettings,
    waiting: &[&'static str],
    work: impl AsyncFnOnce(Service) -> Result<(), Failed>,
) -> Result<(), Failed> {
    logs::init(settings.log_format, &settings.log_level).map_err(Failed::Telemetry)?;
    let telemetry = Telemetry::new("calc", waiting).map_err(|error| Failed::Telemetry(error.to_string()))?;
    let stop = Stop::on_signals()?;
    let health = serving::listen("health over gRPC", settings.address()).await?;
    let metrics = serving::listen("metrics over HTTP", settings.metrics_address()).await?;
    let serve = async {
        let health =
            async { Ok::<_, Failed>(serving::grpc(health, Routes::default(), telemetry.clone(), stop.clone()).await?) };
        let metrics = async { Ok::<_, Failed>(serving::http(metrics, telemetry.router(), stop.clone()).await?) };
        tokio::try_join!(health, metrics)?;
        // They end when they are asked to; the work may have something to finish then.
        pending().await
    };
    let work = async {
        let client = tokio::select! {
            client = connect(settings) => client?,
            () = stop.wait() => return Ok(()),
        };
        let service = Service {
            client,
            telemetry: telemetry.clone(),
            stop: stop.clone(),
        };
        work(service).await
    };
    tokio::select! {
        served = Box::pin(serve) => served,
        worked = Box::pin(work) => worked,
    }
}

async fn connect(settings: &ServiceSettings) -> Result<Client, highwater::Error> {
    let client = settings.connect().await?;
    ensure_topics(&client).await?;
    Ok(client)
}

/// Makes the two topics if they are not there.
///
/// # Errors
/// As those of [`topics::ensure`].
pub async fn ensure_topics(client: &Client) -> Result<(), highwater::Error> {
    for topic in [COMMAND_TOPIC, RESULT_TOPIC] {
        topics::ensure(client, topic, PARTITIONS).await?;
    }
    Ok(())
}
