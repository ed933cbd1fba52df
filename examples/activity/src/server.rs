//! The server: both ways in, metrics and health, put together.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use highwater_service::Lost;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntGauge, Opts};
use tokio::net::TcpListener;
use tonic::service::Routes;

use crate::FILE_DESCRIPTOR_SET;
use crate::feed::{Feed, OpenError};
use crate::grpc::Grpc;
use crate::limits::{NEWEST_BYTES, REQUEST_BYTES_MAX};
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
    /// How much memory the newest messages take, bytes; older ones are read from the log when they are wanted.
    #[arg(long, env = "MESSAGE_MEMORY_BYTES", value_name = "BYTES", default_value_t = NEWEST_BYTES)]
    pub message_memory_bytes: usize,
}

/// Why the server ended, or did not begin.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A port, or a signal.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The cluster, or the topic.
    #[error("the log cannot be used: {0}")]
    Log(#[from] OpenError),
    /// The topic is another one.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A metric.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
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
    tokio::select! {
        served = both(grpc, web, &feed, &telemetry, &stop) => served?,
        never = tell_ready(&feed, &telemetry) => match never {},
        why = feed.lost() => return Err(why.into()),
    };
    metrics.await.map_err(|error| std::io::Error::other(error).into())
}

/// Serves gRPC and the page.
async fn both(
    grpc: TcpListener,
    web: TcpListener,
    feed: &Arc<Feed>,
    telemetry: &Telemetry,
    stop: &Stop,
) -> Result<(), ServeError> {
    let routes = routes(feed, telemetry)?;
    let pages = web::router(feed.clone(), telemetry.clone());
    let grpc = serving::grpc(grpc, routes, telemetry.clone(), stop.clone());
    tokio::join!(grpc, serving::http(web, pages, stop.clone()));
    Ok(())
}

async fn tell_ready(feed: &Feed, telemetry: &Telemetry) -> Infallible {
    feed.caught_up().await;
    telemetry.there(LOG);
    tracing::info!("ready");
    std::future::pending().await
}

async fn open(settings: &ServeSettings, stop: &Stop) -> Result<Feed, OpenError> {
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
