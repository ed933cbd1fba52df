//! A collector of traces for tests: takes spans by OTLP, over gRPC and over HTTP, and keeps them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

/// Takes spans over gRPC and over HTTP, until it is dropped.
pub struct Collector {
    runtime: Option<Runtime>,
    address: SocketAddr,
    is_encrypted: bool,
    spans: Spans,
}

/// A span as it came.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// Of the trace, in hex digits.
    pub trace: String,
    /// Of the span, in hex digits.
    pub id: String,
    /// Of its parent; empty: it has none.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// When it began and ended, nanoseconds since 1970.
    pub time_ns: (u64, u64),
    /// Its attributes and those of who told it, as text.
    pub attributes: BTreeMap<String, String>,
    /// What went wrong; empty: nothing.
    pub error: String,
    /// The headers of the request that it came with.
    pub came_with: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<CollectedSpan>>>);

impl Collector {
    /// Listens on a free port, in plain text.
    #[track_caller]
    pub fn start() -> Collector {
        Collector::listen(SocketAddr::from(([127, 0, 0, 1], 0)), None)
    }

    /// The same with TLS, by the certificate and key (PEM) at `pair`, without their extensions.
    #[track_caller]
    pub fn start_encrypted(pair: &Path) -> Collector {
        let good = |error: &dyn Display| -> ! { panic!("{}: {error}", pair.display()) };
        let certificates = CertificateDer::pem_file_iter(pair.with_extension("pem")).and_then(Iterator::collect);
        let certificates = certificates.unwrap_or_else(|error| good(&error));
        let key = PrivateKeyDer::from_pem_file(pair.with_extension("key")).unwrap_or_else(|error| good(&error));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map(|builder| builder.with_no_client_auth())
            .and_then(|builder| builder.with_single_cert(certificates, key));
        let mut config = config.unwrap_or_else(|error| good(&error));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Collector::listen(SocketAddr::from(([127, 0, 0, 1], 0)), Some(Arc::new(config).into()))
    }

    /// Listens again where a former one did.
    #[track_caller]
    pub fn start_again(address: SocketAddr) -> Collector {
        Collector::listen(address, None)
    }

    #[track_caller]
    fn listen(address: SocketAddr, tls: Option<TlsAcceptor>) -> Collector {
        let runtime = Runtime::new().unwrap_or_else(|error| panic!("no runtime: {error}"));
        let spans = Spans::default();
        let listener = runtime.block_on(TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
        let address = listener.local_addr().unwrap_or(address);
        let is_encrypted = tls.is_some();
        runtime.spawn(serve(listener, tls, router(spans.clone())));
        Collector {
            runtime: Some(runtime),
            address,
            is_encrypted,
            spans,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What nodes are told.
    pub fn endpoint(&self) -> String {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        format!("{scheme}://localhost:{}", self.address.port())
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.spans.lock().clone()
    }

    /// The spans of one trace, given in hex digits.
    pub fn trace(&self, trace: &str) -> Vec<CollectedSpan> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Spans {
    fn lock(&self) -> MutexGuard<'_, Vec<CollectedSpan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, headers: &HeaderMap, request: ExportTraceServiceRequest) {
        let value = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = headers.iter().map(|(name, text)| (name.to_string(), value(text)));
        let headers: BTreeMap<String, String> = headers.collect();
        for resource in request.resource_spans {
            let told_by = resource
                .resource
                .map(|resource| resource.attributes)
                .unwrap_or_default();
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            let spans = spans.map(|span| CollectedSpan {
                came_with: headers.clone(),
                ..collected(&told_by, span)
            });
            self.lock().extend(spans);
        }
    }
}

fn collected(told_by: &[KeyValue], span: Span) -> CollectedSpan {
    let attributes = told_by.iter().chain(&span.attributes).map(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        (attribute.key.clone(), value.map_or_else(String::new, text))
    });
    CollectedSpan {
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name.clone(),
        time_ns: (span.start_time_unix_nano, span.end_time_unix_nano),
        attributes: attributes.collect(),
        error: match &span.status {
            Some(status) if status.code == 2 => status.message.clone(),
            _ => String::new(),
        },
        came_with: BTreeMap::new(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Both ways in.
fn router(spans: Spans) -> Router {
    let of_http = spans.clone();
    let take = async move |headers: HeaderMap, body: Bytes| match ExportTraceServiceRequest::decode(body) {
        Ok(request) => {
            of_http.take(&headers, request);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    };
    let grpc = tonic::service::Routes::new(TraceServiceServer::new(spans));
    grpc.into_axum_router().route("/v1/traces", post(take))
}

/// It ends with its runtime, and so do its connections.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, service) = (tls.clone(), TowerToHyperService::new(router.clone()));
        tokio::spawn(async move {
            let builder = Builder::new(TokioExecutor::new());
            // Whoever does not get through sees that himself.
            match tls {
                None => drop(builder.serve_connection(TokioIo::new(stream), service).await),
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        drop(builder.serve_connection(TokioIo::new(stream), service).await);
                    }
                }
            }
        });
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        self.take(&metadata.into_headers(), request);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
