//! Certificates: reading ours, and judging those of nodes.
//!
//! A server is accepted if its certificate chains to our authority and carries a node identity of our cluster,
//! whatever its address: addresses of nodes change, identities do not. TLS 1.3 only, one crypto provider (ring),
//! named explicitly so that nothing depends on a process-wide default.
//!
//! Deliberately absent: revocation lists. Certificates are short-lived, and access is revoked by policy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
};
use x509_parser::parse_x509_certificate;

use crate::Error;
use crate::identity::Identity;

/// The PEM files that say whom to trust and who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that sign nodes.
    pub ca: PathBuf,
    /// Our certificate, followed by its chain if there is one.
    pub cert: PathBuf,
    /// The private key of our certificate.
    pub key: PathBuf,
}

/// What the files say, ready to use.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) config: Arc<ClientConfig>,
    /// The tenant in our certificate; `None` for a node's certificate.
    pub(crate) tenant: Option<String>,
}

impl Credentials {
    /// Reads and checks the files. `cluster_name` overrides the one in our own certificate.
    pub(crate) fn load(files: &TlsFiles, cluster_name: Option<&str>) -> Result<Self, Error> {
        let roots = read_roots(&files.ca)?;
        let chain = read_certificates(&files.cert)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| pem_error(&files.key, &error))?;
        let identity = own_identity(&files.cert, &chain)?;
        let cluster = cluster_name.unwrap_or(identity.cluster()).to_owned();

        let provider = Arc::new(ring::default_provider());
        let verifier = NodeVerifier {
            roots,
            cluster,
            algorithms: provider.signature_verification_algorithms,
        };
        let config = client_config(provider, verifier, chain, key).map_err(|error| Error::File {
            path: files.key.clone(),
            problem: format!("does not fit the certificate {}: {error}", files.cert.display()),
        })?;
        Ok(Self {
            config: Arc::new(config),
            tenant: identity.tenant().map(str::to_owned),
        })
    }
}

fn client_config(
    provider: Arc<CryptoProvider>,
    verifier: NodeVerifier,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| {
            file_error(
                path,
                format!("holds a certificate that cannot be an authority: {error}"),
            )
        })?;
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(file_error(path, "holds no certificate in PEM form"));
    }
    Ok(certificates)
}

/// Reads our identity, and refuses a certificate that no node would accept, with a better message than theirs.
fn own_identity(path: &Path, chain: &[CertificateDer<'_>]) -> Result<Identity, Error> {
    let own = chain.first().ok_or_else(|| file_error(path, "holds no certificate"))?;
    let (_, certificate) = parse_x509_certificate(own)
        .map_err(|error| file_error(path, format!("is not an X.509 certificate: {error}")))?;
    let validity = certificate.validity();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs() as i64;
    if now > validity.not_after.timestamp() {
        return Err(file_error(
            path,
            format!("the certificate expired at {}", validity.not_after),
        ));
    }
    if now < validity.not_before.timestamp() {
        return Err(file_error(
            path,
            format!("the certificate is not valid before {}", validity.not_before),
        ));
    }
    Identity::of_certificate(own)
        .map_err(|problem| file_error(path, format!("the certificate is of no use: {problem}")))
}

fn pem_error(path: &Path, error: &pem::Error) -> Error {
    match error {
        pem::Error::NoItemsFound => file_error(path, "holds nothing of the kind in PEM form"),
        pem::Error::Io(error) => file_error(path, format!("cannot be read: {error}")),
        error => file_error(path, format!("is not a PEM file: {error:?}")),
    }
}

fn file_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::File {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

/// Accepts any node of one cluster, and nobody else.
#[derive(Debug)]
struct NodeVerifier {
    roots: RootCertStore,
    cluster: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    fn check_identity(&self, certificate: &[u8]) -> Result<(), String> {
        match Identity::of_certificate(certificate)? {
            Identity::Client { .. } => Err("it belongs to a client, not to a node".to_owned()),
            Identity::Node { cluster } if cluster != self.cluster => Err(format!(
                "it belongs to a node of cluster {cluster:?}, but this client belongs to {:?}",
                self.cluster
            )),
            Identity::Node { .. } => Ok(()),
        }
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _address: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        self.check_identity(end_entity).map_err(|problem| {
            let problem = OtherError(Arc::new(IdentityProblem(problem)));
            rustls::Error::InvalidCertificate(CertificateError::Other(problem))
        })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Only TLS 1.3 is offered, so this cannot be asked.
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a certificate with a good signature is still not a node's.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct IdentityProblem(String);
