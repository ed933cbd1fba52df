//! The server: both ways in, metrics and health, put together.

use std::net::SocketAddr;
use std::sync::Arc;

use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};
use tonic::service::Routes;

use crate::FILE_DESCRIPTOR_SET;
use crate::feed::Feed;
use crate::grpc::Grpc;
use crate::limits::REQUEST_BYTES_MAX;
use crate::v1::activity_service_server::ActivityServiceServer;
use crate::web;

/// What is waited for before the service is ready.
const LOG: &str = "the log to be read";

/// Settings of `activity serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeSettings {
    /// Those of every service.
    #[command(flatten)]
    pub service: ServiceSettings,
    /// The port of the web page; 0 takes a free one, which the log tells.
    #[arg(long, env = "WEB_PORT", default_value_t = 8090)]
    pub web_port: u16,
    /// How much of the newest messages is kept in memory, bytes; older ones are read from the log when they are wanted.
    #[arg(long, env = "MESSAGE_MEMORY_BYTES", value_name = "BYTES", default_value_t = 64 * 1024 * 1024)]
    pub message_memory_bytes: usize,
}

/// Why the server ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port, or a signal.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The cluster.
    #[error("the log cannot be used: {0}")]
    Log(#[from] highwater::Error),
    /// A metric.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The gRPC server.
    #[error("gRPC: {0}")]
    Grpc(#[from] tonic::transport::Error),
    /// What reflection would tell.
    #[error("reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until the process gets SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`].
pub async fn serve(settings: &ServeSettings) -> Result<(), ServeError> {
    let service = &settings.service;
    let stop = Stop::on_signals()?;
    let telemetry = Telemetry::new("activity", &[LOG])?;
    let grpc = serving::listen("gRPC", service.address()).await?;
    let web = serving::listen("web", SocketAddr::new(service.host, settings.web_port)).await?;
    let metrics = serving::listen("metrics", service.metrics_address()).await?;
    let metrics = tokio::spawn(serving::http(metrics, telemetry.router(), stop.clone()));

    let feed = tokio::select! {
        feed = open(settings, &stop) => Arc::new(feed?),
        () = stop.wait() => return Ok(()),
    };
    telemetry.registry().register(Box::new(Followers::of(&feed)?))?;
    let readiness = async {
        feed.caught_up().await;
        telemetry.there(LOG);
        tracing::info!("ready");
        std::future::pending().await
    };
    let serving = async {
        let routes = routes(&feed, &telemetry)?;
        let grpc = async { Ok(serving::grpc(grpc, routes, telemetry.clone(), stop.clone()).await?) };
        let pages = web::router(feed.clone(), telemetry.clone());
        let web = async { Ok::<(), ServeError>(serving::http(web, pages, stop.clone()).await?) };
        tokio::try_join!(grpc, web)
    };
    tokio::select! {
        served = serving => served?,
        never = readiness => never,
    };
    match metrics.await {
        Ok(served) => Ok(served?),
        Err(error) => Err(std::io::Error::other(error).into()),
    }
}

async fn open(settings: &ServeSettings, stop: &Stop) -> Result<Feed, highwater::Error> {
    let client = settings.service.connect().await?;
    Feed::open(&client, settings.message_memory_bytes, stop.clone()).await
}

fn routes(feed: &Arc<Feed>, telemetry: &Telemetry) -> Result<Routes, ServeError> {
    let service = ActivityServiceServer::new(Grpc::new(feed.clone(), telemetry.clone()));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let service = service.max_decoding_message_size(REQUEST_BYTES_MAX);
    Ok(Routes::new(service).add_service(reflection))
}

/// The gauge of open streams, looked up when it is asked for.
struct Followers {
    feed: Arc<Feed>,
    gauge: IntGauge,
}

impl Followers {
    fn of(feed: &Arc<Feed>) -> Result<Self, prometheus::Error> {
        let gauge = IntGauge::with_opts(Opts::new("followers", "Streams of events that are open, gRPC and web."))?;
        Ok(Self {
            feed: feed.clone(),
            gauge,
        })
    }
}

impl Collector for Followers {
    fn desc(&self) -> Vec<&prometheus::core::Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(i64::try_from(self.feed.followers()).unwrap_or(i64::MAX));
        self.gauge.collect()
    }
}
