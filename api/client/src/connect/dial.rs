//! Making one connection: name look-up, TCP, TLS, and the node's word that it accepts us. And what it means when that
//! fails, in words that tell a person what to do.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::ConnectionProblem;
use crate::metrics::Metrics;
use crate::tls::{Credentials, IdentityProblem};

/// How long name look-up, TCP and TLS may take together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait for the node's first words after the handshake.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);

/// Makes connections to one address.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) address: Arc<str>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) metrics: Arc<dyn Metrics>,
}

impl Dialer {
    /// A connection on which the node has accepted us.
    #[tracing::instrument(level = "debug", skip_all, fields(address = %self.address))]
    pub(super) async fn dial(&self) -> Result<Dialled, ConnectionProblem> {
        let dialled = timeout(DIAL_TIMEOUT, self.connect()).await;
        let dialled = dialled.unwrap_or(Err(ConnectionProblem::Timeout(DIAL_TIMEOUT)));
        match dialled {
            Ok(tls) => {
                tracing::debug!("connected");
                self.metrics.connection_opened(&self.address);
                Ok(Dialled {
                    tls,
                    address: self.address.clone(),
                    metrics: self.metrics.clone(),
                })
            }
            Err(problem) => {
                tracing::debug!(%problem, "cannot connect");
                self.metrics.connection_failed(&self.address, &problem);
                Err(problem)
            }
        }
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>, ConnectionProblem> {
        let server_name = server_name(&self.address)?;
        let tcp = TcpStream::connect(&*self.address)
            .await
            .map_err(|error| tcp_problem(&error))?;
        tcp.set_nodelay(true).map_err(|error| tcp_problem(&error))?;
        let config = self.credentials.for_connection().await;
        let tls = TlsConnector::from(config).connect(server_name, tcp).await;
        let mut tls = tls.map_err(|error| tls_problem(&error))?;
        hear_of_acceptance(&mut tls).await?;
        Ok(tls)
    }
}

/// A connection, which tells when it ends.
pub(super) struct Dialled {
    tls: TlsStream<TcpStream>,
    address: Arc<str>,
    metrics: Arc<dyn Metrics>,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        self.metrics.connection_closed(&self.address);
    }
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_read(context, buffer)
    }
}

impl AsyncWrite for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(context)
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
