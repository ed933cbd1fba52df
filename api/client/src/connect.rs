//! Connections to nodes: TCP, TLS, HTTP/2.
//!
//! One HTTP/2 connection per address carries all calls; it is made when first used and made again when it breaks. A
//! node allows only so many streams on a connection, so streams that stay open (produce, consume) are *leased*, and
//! further connections are opened when the first is full.
//!
//! The connection's receive window is as large as all its streams' windows together. So a consumer that stops reading
//! stops only its own stream, never the answers of a producer beside it; its memory is bounded by its stream's window.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_proto::limits::{CONNECTION_STREAMS_MAX, HEADER_LIST_BYTES_MAX};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConfig};
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, TimeoutExpired};

use crate::error::{ConnectionProblem, Error, NodeFailure, Refusal};
use crate::tls::IdentityProblem;

/// How long name look-up, TCP and TLS may take together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for the node's first words after the handshake.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a quiet connection is asked whether it lives.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// How long the answer may take before the connection counts as broken.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// What a node may send on one stream before we have read it.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
/// What a node may send on all streams of a connection: never less than the streams' windows together.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * CONNECTION_STREAMS_MAX;
/// The largest HTTP/2 frame that we accept.
const FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// How many streams of a connection may be leased; the rest is for calls.
const LEASES_PER_CONNECTION_MAX: usize = CONNECTION_STREAMS_MAX as usize - 28;
/// How many addresses are remembered before unused ones are forgotten.
const ADDRESSES_MAX: usize = 256;

const _: () = assert!(CONNECTION_WINDOW_BYTES < 1 << 31, "HTTP/2 allows windows below 2 GiB");

/// All connections of a client, by address.
#[derive(Debug)]
pub(crate) struct Connections {
    config: Arc<ClientConfig>,
    by_address: Mutex<BTreeMap<String, Vec<Connection>>>,
}

impl Connections {
    pub(crate) fn new(config: Arc<ClientConfig>) -> Self {
        Self {
            config,
            by_address: Mutex::default(),
        }
    }

    /// The connection for calls to an address.
    pub(crate) fn connection(&self, address: &str) -> Result<Connection, ConnectionProblem> {
        let mut by_address = self.lock();
        self.lanes(&mut by_address, address).map(|lanes| lanes[0].clone())
    }

    /// Room for one long stream to an address.
    pub(crate) fn lease(&self, address: &str) -> Result<Lease, ConnectionProblem> {
        let mut by_address = self.lock();
        let lanes = self.lanes(&mut by_address, address)?;
        let free = lanes
            .iter()
            .find(|lane| lane.leases.load(Ordering::Relaxed) < LEASES_PER_CONNECTION_MAX);
        let connection = match free {
            Some(lane) => lane.clone(),
            None => {
                lanes.push(Connection::new(address, &self.config)?);
                lanes[lanes.len() - 1].clone()
            }
        };
        connection.leases.fetch_add(1, Ordering::Relaxed);
        Ok(Lease { connection })
    }

    /// The connections to an address: at least one.
    fn lanes<'a>(
        &self,
        by_address: &'a mut BTreeMap<String, Vec<Connection>>,
        address: &str,
    ) -> Result<&'a mut Vec<Connection>, ConnectionProblem> {
        if by_address.len() >= ADDRESSES_MAX && !by_address.contains_key(address) {
            by_address.retain(|_, lanes| lanes.iter().any(|lane| lane.leases.load(Ordering::Relaxed) > 0));
        }
        let lanes = by_address.entry(address.to_owned()).or_default();
        if lanes.is_empty() {
            lanes.push(Connection::new(address, &self.config)?);
        }
        Ok(lanes)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Connection>>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is made when first used, and again when it has broken. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    leases: Arc<AtomicUsize>,
}

/// The right to one long stream on a connection.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Connection,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.connection.leases.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn new(address: &str, config: &Arc<ClientConfig>) -> Result<Self, ConnectionProblem> {
        let address_problem = |error: &dyn std::error::Error| ConnectionProblem::Address(format!("{address}: {error}"));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| address_problem(&error))?;
        let origin: Uri = format!("https://{address}")
            .parse()
            .map_err(|error| address_problem(&error))?;
        let endpoint = endpoint
            .origin(origin)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .http2_max_header_list_size(HEADER_LIST_BYTES_MAX)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);

        let dialer = Dialer {
            address: address.into(),
            connector: TlsConnector::from(config.clone()),
        };
        let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let dialer = dialer.clone();
            async move { dialer.dial().await.map(TokioIo::new) }
        }));
        Ok(Self {
            channel,
            leases: Arc::default(),
        })
    }
}

/// What a failed call to `node` means.
pub(crate) fn call_error(node: &str, status: &Status) -> Error {
    // Only failures below gRPC carry a source.
    if std::error::Error::source(status).is_none() {
        return Error::refused(Refusal::from_status(node, status));
    }
    let problem = find_cause::<ConnectionProblem>(status).cloned();
    Error::Connection(NodeFailure {
        node: node.to_owned(),
        problem: problem.unwrap_or_else(|| ConnectionProblem::Broken(root_cause(status))),
    })
}

/// Whether the call failed because no connection could be made for it.
pub(crate) fn was_never_sent(status: &Status) -> bool {
    find_cause::<ConnectionProblem>(status).is_some()
}

/// Whether the call failed because its own time was over.
pub(crate) fn has_timed_out(status: &Status) -> bool {
    find_cause::<TimeoutExpired>(status).is_some()
}

fn find_cause<E: std::error::Error + 'static>(status: &Status) -> Option<&E> {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        cause = error.source();
    }
    None
}

/// The innermost cause is the one that tells something.
fn root_cause(status: &Status) -> String {
    let mut cause: &dyn std::error::Error = status;
    while let Some(source) = cause.source() {
        cause = source;
    }
    match cause.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => cause.to_string(),
    }
}

#[derive(Clone)]
struct Dialer {
    address: Arc<str>,
    connector: TlsConnector,
}

impl Dialer {
    async fn dial(&self) -> Result<TlsStream<TcpStream>, ConnectionProblem> {
        let dialled = timeout(DIAL_TIMEOUT, self.connect()).await;
        dialled.unwrap_or(Err(ConnectionProblem::Timeout(DIAL_TIMEOUT)))
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectionProblem> {
        let server_name = server_name(&self.address)?;
        let tcp = TcpStream::connect(&*self.address)
            .await
            .map_err(|error| tcp_problem(&error))?;
        tcp.set_nodelay(true).map_err(|error| tcp_problem(&error))?;
        let tls = self.connector.connect(server_name, tcp).await;
        let mut tls = tls.map_err(|error| tls_problem(&error))?;
        hear_of_acceptance(&mut tls).await?;
        Ok(tls)
    }
}

/// With TLS 1.3 our side of the handshake ends before the node has judged our certificate; its refusal comes as the first
/// thing to read, and would be lost if we wrote before. A node that accepts us greets at once (HTTP/2 settings).
async fn hear_of_acceptance(tls: &mut TlsStream<TcpStream>) -> Result<(), ConnectionProblem> {
    match timeout(GREETING_TIMEOUT, tls.fill_buf()).await {
        Ok(Ok([])) => Err(ConnectionProblem::Tls("closed right after the handshake".to_owned())),
        Ok(Err(error)) => Err(tls_problem(&error)),
        // Whoever does not greet first may still be served; only the reason for a refusal is then less clear.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// The name for SNI. The verifier goes by identity, so a host that cannot be a name is no obstacle to anything else.
fn server_name(address: &str) -> Result<ServerName<'static>, ConnectionProblem> {
    let problem = |problem: &str| ConnectionProblem::Address(format!("{address}: {problem}"));
    let (host, _port) = address.rsplit_once(':').ok_or_else(|| problem("is not host:port"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| problem("the host is neither a name nor an IP address"))
}

fn tcp_problem(error: &io::Error) -> ConnectionProblem {
    match error.raw_os_error() {
        // Name look-up fails without an error number of the system.
        None => ConnectionProblem::Address(error.to_string()),
        Some(_) => ConnectionProblem::Tcp(error.to_string()),
    }
}

fn tls_problem(error: &io::Error) -> ConnectionProblem {
    use ConnectionProblem::{NodeCertificate, NotTls, OwnCertificate, Tls};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidMessage(_)) => NotTls,
        Some(rustls::Error::InvalidCertificate(problem)) => NodeCertificate(certificate_problem(problem)),
        Some(rustls::Error::AlertReceived(alert)) => match refusal_of_us(*alert) {
            Some(why) => OwnCertificate(why.to_owned()),
            None => Tls(format!("the node ended the handshake: {alert:?}")),
        },
        Some(other) => Tls(other.to_string()),
        None if error.kind() == io::ErrorKind::UnexpectedEof => Tls("closed during the handshake".to_owned()),
        None => Tls(error.to_string()),
    }
}

fn certificate_problem(problem: &CertificateError) -> String {
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "it is not signed by our authority (file `ca`)".to_owned()
        }
        CertificateError::Other(other) => match other.0.downcast_ref::<IdentityProblem>() {
            Some(problem) => problem.to_string(),
            None => other.to_string(),
        },
        problem => problem.to_string(),
    }
}

/// What a node's alert says about our certificate, if it is about that.
fn refusal_of_us(alert: AlertDescription) -> Option<&'static str> {
    let why = match alert {
        AlertDescription::CertificateExpired => "it has expired",
        AlertDescription::CertificateRevoked => "it has been revoked",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "it is not signed by an authority of the node",
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => "none was sent",
        AlertDescription::AccessDenied => "its identity is not wanted there",
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown => "it is of a wrong kind or of another cluster",
        _ => return None,
    };
    Some(why)
}
