//! `highwater health`: asks nodes over the standard gRPC health service whether they serve.
//!
//! It goes its own way to the node instead of through the client library, because it must work with a node's
//! certificate too (a probe in a container has no other), must reach exactly the node that is meant, and must
//! say why that one is not reached. It verifies the server by the DNS name that all nodes of a cluster carry.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::certificates::{cluster_of, server_name};
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::files;
use crate::output::{self, Format, Table};
use crate::profile::ProfileArgs;

/// How long to leave a node alone between two questions while waiting for it.
const WAIT_INTERVAL: Duration = Duration::from_millis(100);

/// How long a node may take to greet before it is asked all the same.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
/// How it is told that the handshake failed by our certificate.
const REFUSED: &str = "the node refuses our certificate";
/// How the TLS library tells that it failed by the node's.
const REFUSED_BY_US: &str = "invalid peer certificate";

const EXAMPLES: &str = "\
Examples:
  highwater health                                  every node of the profile
  highwater health --wait 30s                       until all of them serve
  highwater health --address localhost:7400 --ca ca.pem --cert node-n1.pem --key node-n1.key

Ends with 0 if every node asked serves, otherwise with 5.";

/// Ask nodes whether they serve.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// The node to ask, host:port; may be repeated. Without it, all addresses of the profile.
    #[arg(long, value_name = "ADDRESS")]
    address: Vec<String>,
    /// The CA certificate; with --cert and --key it takes the place of a profile.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CA", requires_all = ["cert", "key", "address"])]
    ca: Option<PathBuf>,
    /// A client's or node's certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_CERT")]
    cert: Option<PathBuf>,
    /// The private key of the certificate.
    #[arg(long, value_name = "FILE", env = "HIGHWATER_KEY")]
    key: Option<PathBuf>,
    /// How long a node may take to answer.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "5s")]
    timeout: Duration,
    /// Ask again until all serve, for at most so long.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse)]
    wait: Option<Duration>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

/// What one node answered: whether it serves, or why that is not known.
type Answer = std::result::Result<ServingStatus, String>;

pub(crate) async fn run(args: &Args) -> Result<()> {
    let (addresses, probe) = targets(args)?;
    let deadline = Instant::now() + args.wait.unwrap_or(Duration::ZERO);
    let mut answers = ask_all(&probe, &addresses, args.timeout).await;
    while !all_serve(&answers) && Instant::now() < deadline {
        sleep_until(deadline.min(Instant::now() + WAIT_INTERVAL)).await;
        let left = deadline.saturating_duration_since(Instant::now()).max(WAIT_INTERVAL);
        answers = ask_all(&probe, &addresses, args.timeout.min(left)).await;
    }
    print(args.output, &addresses, &answers)?;
    if all_serve(&answers) {
        return Ok(());
    }
    let missing = answers.iter().filter(|answer| !serves(answer)).count();
    let message = format!("{missing} of {} nodes asked do not serve", answers.len());
    let refused = |answer: &Answer| {
        let by_certificate = |why: &String| [REFUSED, REFUSED_BY_US].iter().any(|refusal| why.contains(refusal));
        answer.as_ref().is_err_and(by_certificate)
    };
    let hint = match answers.iter().any(refused) {
        true => "check the certificate: same CA and same cluster as the node's, still valid",
        false => "a node serves once it has found its cluster and caught up; its log says what it waits for",
    };
    Err(Failure::new(Code::Unavailable, message).hint(hint))
}

fn targets(args: &Args) -> Result<(Vec<String>, Probe)> {
    if let (Some(ca), Some(cert), Some(key)) = (&args.ca, &args.cert, &args.key) {
        return Ok((args.address.clone(), Probe::new(ca, cert, key)?));
    }
    let profile = args.profile.load()?;
    let probe = Probe::new(&profile.ca, &profile.cert, &profile.key)?;
    let addresses = if args.address.is_empty() {
        profile.addresses
    } else {
        args.address.clone()
    };
    Ok((addresses, probe))
}

async fn ask_all(probe: &Probe, addresses: &[String], timeout: Duration) -> Vec<Answer> {
    join_all(addresses.iter().map(|address| probe.ask(address, timeout))).await
}

fn serves(answer: &Answer) -> bool {
    matches!(answer, Ok(ServingStatus::Serving))
}

fn all_serve(answers: &[Answer]) -> bool {
    answers.iter().all(serves)
}

fn print(format: Format, addresses: &[String], answers: &[Answer]) -> Result<()> {
    let rows = addresses.iter().zip(answers);
    if format == Format::Json {
        let nodes = rows.map(|(address, answer)| {
            json!({ "address": address, "serving": serves(answer), "state": state(answer), "error": answer.as_ref().err() })
        });
        return output::json(&json!({ "nodes": nodes.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["ADDRESS", "STATE", "WHY"]);
    for (address, answer) in rows {
        let why = answer.as_ref().err().cloned().unwrap_or_default();
        table.row([address.clone(), state(answer).to_owned(), why]);
    }
    table.print()
}

fn state(answer: &Answer) -> &'static str {
    match answer {
        Ok(ServingStatus::Serving) => "serving",
        Ok(_) => "not serving",
        Err(_) => "unreachable",
    }
}

/// Asks single nodes for their health, with one certificate.
#[derive(Clone)]
pub(crate) struct Probe {
    connector: TlsConnector,
    server_name: ServerName<'static>,
}

impl Probe {
    /// Loads the PEM files; failures name the file.
    pub(crate) fn new(ca: &Path, cert: &Path, key: &Path) -> Result<Self> {
        let cluster = cluster_of(&files::read_text("the certificate", cert)?)
            .map_err(|why| Failure::setup(format!("{}: {why}", cert.display())))?;
        let server_name = ServerName::try_from(server_name(&cluster))
            .map_err(|error| Failure::setup(format!("cluster name {cluster:?} cannot stand in a DNS name: {error}")))?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(tls_config(ca, cert, key)?)),
            server_name,
        })
    }

    /// Asks the node at `address`.
    pub(crate) async fn ask(&self, address: &str, timeout: Duration) -> Answer {
        let deadline = Instant::now() + timeout;
        match timeout_at(deadline, self.ask_without_timeout(address)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {timeout:?}")),
        }
    }

    /// Whether the node at `address` serves now.
    pub(crate) async fn serves(&self, address: &str, timeout: Duration) -> bool {
        serves(&self.ask(address, timeout).await)
    }

    async fn ask_without_timeout(&self, address: &str) -> Answer {
        let channel = self.connect(address).await.map_err(|error| {
            // The error itself says no more than that there is one.
            chain(error.source().unwrap_or(&error))
        })?;
        let request = HealthCheckRequest { service: String::new() };
        let answer = HealthClient::new(channel).check(request).await;
        let response = answer.map_err(|status| match status.source() {
            Some(cause) => chain(cause),
            None => status.message().to_owned(),
        })?;
        Ok(response.into_inner().status())
    }

    async fn connect(&self, address: &str) -> std::result::Result<Channel, tonic::transport::Error> {
        let (probe, target) = (self.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: http::Uri| {
            let (probe, target) = (probe.clone(), target.clone());
            async move {
                let stream = TcpStream::connect(&target).await?;
                let mut stream = probe.connector.connect(probe.server_name, stream).await?;
                hear_of_acceptance(&mut stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        });
        // TLS is ours, so that the scheme says "http"; the host only fills the :authority header.
        let endpoint = Endpoint::from_static("http://node.highwater");
        endpoint.connect_with_connector(connector).await
    }
}

/// With TLS 1.3 the node judges our certificate after our side of the handshake has ended; its refusal is the first thing
/// to read, and would be lost if we wrote before. A node that accepts us greets at once (HTTP/2 settings).
async fn hear_of_acceptance(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    match timeout(GREETING_TIMEOUT, stream.fill_buf()).await {
        Ok(Err(error)) if is_alert(&error) => Err(io::Error::new(error.kind(), format!("{REFUSED}: {error}"))),
        Ok(Err(error)) => Err(error),
        _ => Ok(()),
    }
}

fn is_alert(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(_)))
}

fn tls_config(ca: &Path, cert: &Path, key: &Path) -> Result<ClientConfig> {
    let unusable = |path: &Path, why: String| Failure::setup(format!("cannot use {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|error| unusable(ca, error.to_string()))?;
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(ca, error.to_string()))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(cert)?, key_der)
        .map_err(|error| unusable(cert, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failure = |why: String| Failure::setup(format!("cannot use {}: {why}", path.display()));
    let list = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>)
        .map_err(|error| failure(error.to_string()))?;
    if list.is_empty() {
        return Err(failure("it holds no certificate".to_owned()));
    }
    Ok(list)
}

/// An error with its causes, without saying anything twice.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
