//! What the two services have in common: health over gRPC, metrics over HTTP, and what they can fail with.

use std::future::pending;

use highwater::Client;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::topics::TopicError;
use highwater_service::{Lost, OpenError, access, logs, topics, transform};
use tonic::service::Routes;

use crate::journal::{JournalError, TopicIds};
use crate::wire::{COMMAND_TOPIC, PARTITIONS, RESULT_TOPIC};

/// Why one of the programs has ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The cluster cannot be reached, or refuses.
    #[error(transparent)]
    Cluster(#[from] highwater::Error),
    /// The cluster is not as it shall be.
    #[error(transparent)]
    Init(#[from] access::InitError),
    /// A topic cannot be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// A topic cannot be followed.
    #[error(transparent)]
    View(#[from] OpenError),
    /// A topic is not what it was.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The back end cannot go on.
    #[error(transparent)]
    Transform(#[from] transform::Failed),
    /// The file of the log cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A port, a signal, or standard input or output.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The log of what happens, or the metrics.
    #[error("{0}")]
    Telemetry(String),
}

/// A service at work: what it is given.
#[derive(Debug)]
pub struct Service {
    /// The cluster, with both topics in place.
    pub client: Client,
    /// Which topics those are.
    pub topic_ids: TopicIds,
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
    let metrics = serving::listen("metrics", settings.metrics_address()).await?;
    let serve = async {
        let health = serving::grpc(health, Routes::default(), telemetry.clone(), stop.clone());
        tokio::join!(health, serving::http(metrics, telemetry.router(), stop.clone()));
        // They end when they are asked to; the work may have something to finish then.
        pending().await
    };
    let work = async {
        let (client, topic_ids) = tokio::select! {
            connected = connect(settings) => connected?,
            () = stop.wait() => return Ok(()),
        };
        let service = Service {
            client,
            topic_ids,
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

async fn connect(settings: &ServiceSettings) -> Result<(Client, TopicIds), Failed> {
    let client = settings.connect().await?;
    let topic_ids = ensure_topics(&client).await?;
    Ok((client, topic_ids))
}

/// Makes the two topics if they are not there, and tells which they are.
///
/// # Errors
/// As those of [`topics::ensure`].
pub async fn ensure_topics(client: &Client) -> Result<TopicIds, TopicError> {
    let mut topic_ids = TopicIds::new();
    for name in [COMMAND_TOPIC, RESULT_TOPIC] {
        let topic = topics::ensure(client, name, PARTITIONS).await?;
        topic_ids.insert(name, topic.topic_id);
    }
    Ok(topic_ids)
}
