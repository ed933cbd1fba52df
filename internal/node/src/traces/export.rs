//! The spans' way to the collector, by OTLP over gRPC or HTTP.
//!
//! Spans are gathered for [`GATHERING`], or until there are [`REQUEST_SPANS_MAX`], so that a collector gets few requests. One that does not take them, or takes longer than
//! [`PATIENCE`], costs them: they are counted, and the log says once that it began and once that it is over.
//!
//! The library reads further settings of its own from the environment, `OTEL_EXPORTER_OTLP_HEADERS` for one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_rustls::builderstates::WantsProtocols1;
use opentelemetry::KeyValue;
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_otlp::{
    ExporterBuildError, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

use super::Counts;
use crate::config::{Config, ConfigError, TracesConfig, TracesProtocol};
use crate::error::StartError;
use crate::tls::{self, TlsError};

/// How long spans are gathered after the first one.
const GATHERING: Duration = Duration::from_millis(500);
/// Most spans that are sent at once.
const REQUEST_SPANS_MAX: usize = 512;
/// How long a collector may take for them.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same when the node stops.
const LAST_PATIENCE: Duration = Duration::from_secs(1);
/// Where collectors take spans by HTTP.
const HTTP_PATH: &str = "/v1/traces";

/// Sends what comes out of the queue until `closing`, and then what is left in it.
pub(super) fn start(
    config: &Config,
    queue: mpsc::Receiver<SpanData>,
    counts: Arc<Counts>,
    closing: CancellationToken,
) -> Result<impl Future<Output = ()> + Send + use<>, StartError> {
    let mut exporter = exporter(&config.traces)?;
    exporter.set_resource(&resource(config));
    let sender = Sender {
        exporter,
        counts,
        endpoint: config.traces.endpoint.clone(),
        is_failing: false,
    };
    Ok(sender.run(queue, closing))
}

/// Who tells it all.
fn resource(config: &Config) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "highwater"),
            KeyValue::new("service.namespace", config.cluster.clone()),
            KeyValue::new("service.instance.id", config.node.clone()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

fn exporter(config: &TracesConfig) -> Result<SpanExporter, StartError> {
    let exporter = match config.protocol {
        TracesProtocol::Grpc => over_grpc(config)?,
        TracesProtocol::Http => over_http(config)?,
    };
    exporter.map_err(|error| ConfigError::new("traces.endpoint", error.to_string()).into())
}

type Built = Result<SpanExporter, ExporterBuildError>;

fn over_grpc(config: &TracesConfig) -> Result<Built, StartError> {
    let builder = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(PATIENCE)
        .with_retry_policy(RetryPolicy::disabled());
    if !config.is_encrypted() {
        return Ok(builder.build());
    }
    let endpoint = Endpoint::from_shared(config.endpoint.clone())
        .map_err(|error| ConfigError::new("traces.endpoint", error.to_string()))?;
    let connector = encrypted(config)?.enable_http2().build();
    let channel = endpoint.timeout(PATIENCE).connect_with_connector_lazy(connector);
    Ok(builder.with_channel(channel).build())
}

fn over_http(config: &TracesConfig) -> Result<Built, StartError> {
    let endpoint = config.endpoint.trim_end_matches('/');
    let has_path = endpoint.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let endpoint = match has_path {
        true => endpoint.to_owned(),
        false => format!("{endpoint}{HTTP_PATH}"),
    };
    let builder = SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_timeout(PATIENCE)
        .with_retry_policy(RetryPolicy::disabled());
    if !config.is_encrypted() {
        let client = HyperClient::with_default_connector(PATIENCE, None);
        return Ok(builder.with_http_client(client).build());
    }
    let connector = encrypted(config)?.enable_http1().build();
    Ok(builder
        .with_http_client(HyperClient::new(connector, PATIENCE, None))
        .build())
}

/// The way to a collector whose certificate comes from the authorities that are configured.
fn encrypted(config: &TracesConfig) -> Result<HttpsConnectorBuilder<WantsProtocols1>, StartError> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(client_config(&config.ca)?);
    Ok(builder.https_only())
}

fn client_config(ca: &Path) -> Result<ClientConfig, StartError> {
    let roots = tls::roots(ca).map_err(unusable)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.map_err(|error| StartError::Internal(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn unusable(error: TlsError) -> StartError {
    ConfigError::new("traces.ca", error.to_string()).into()
}

struct Sender {
    exporter: SpanExporter,
    counts: Arc<Counts>,
    endpoint: String,
    /// The collector did not take the last ones.
    is_failing: bool,
}

impl Sender {
    async fn run(mut self, mut queue: mpsc::Receiver<SpanData>, closing: CancellationToken) {
        let mut spans = Vec::new();
        while let Some(true) = closing.run_until_cancelled(gather(&mut queue, &mut spans)).await {
            self.send(std::mem::take(&mut spans), PATIENCE).await;
        }
        while let Ok(span) = queue.try_recv() {
            spans.push(span);
        }
        if !spans.is_empty() {
            self.send(spans, LAST_PATIENCE).await;
        }
    }

    async fn send(&mut self, spans: Vec<SpanData>, patience: Duration) {
        let count = spans.len() as u64;
        let sent = timeout(patience, self.exporter.export(spans)).await;
        let failure = match sent {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {patience:?}")),
        };
        let failed = failure.is_some();
        let counter = match &failure {
            None => &self.counts.exported,
            Some(_) => &self.counts.failed,
        };
        counter.fetch_add(count, Ordering::Relaxed);
        match failure {
            Some(why) if !self.is_failing => {
                tracing::warn!(endpoint = self.endpoint, why, "the collector takes no traces");
            }
            None if self.is_failing => tracing::info!(endpoint = self.endpoint, "the collector takes traces again"),
            _ => {}
        }
        self.is_failing = failed;
    }
}

/// Waits for spans, and a moment for more unless there are enough; false if none will come. What it has gathered is kept if it is given up.
async fn gather(queue: &mut mpsc::Receiver<SpanData>, spans: &mut Vec<SpanData>) -> bool {
    if queue.recv_many(spans, REQUEST_SPANS_MAX).await == 0 {
        return false;
    }
    let end = Instant::now() + GATHERING;
    while spans.len() < REQUEST_SPANS_MAX {
        let more = queue.recv_many(spans, REQUEST_SPANS_MAX - spans.len());
        if !matches!(timeout_at(end, more).await, Ok(1..)) {
            break;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_spans_do_not_wait_for_more_and_few_wait_a_moment() {
        let (sender, mut queue) = mpsc::channel(3 * REQUEST_SPANS_MAX);
        for _ in 0..REQUEST_SPANS_MAX + 1 {
            assert!(sender.try_send(span()).is_ok());
        }
        let (begin, mut spans) = (Instant::now(), Vec::new());
        assert!(gather(&mut queue, &mut spans).await);
        assert_eq!((spans.len(), begin.elapsed()), (REQUEST_SPANS_MAX, Duration::ZERO));
        spans.clear();
        assert!(gather(&mut queue, &mut spans).await);
        assert_eq!((spans.len(), begin.elapsed()), (1, GATHERING));
        drop(sender);
        spans.clear();
        assert!(!gather(&mut queue, &mut spans).await);
    }

    fn span() -> SpanData {
        SpanData {
            span_context: SpanContext::empty_context(),
            parent_span_id: SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Server,
            name: "produce".into(),
            start_time: SystemTime::UNIX_EPOCH,
            end_time: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::default(),
        }
    }
}
