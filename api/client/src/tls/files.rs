//! Reading the certificate files, and refusing what no node would accept, with a better message than theirs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use x509_parser::parse_x509_certificate;

use super::verify::NodeVerifier;
use crate::Error;
use crate::identity::Identity;

/// The largest certificate or key file that is read, bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The PEM files that say whom to trust and who we are.
///
/// They may be replaced while the client runs: new connections are made with what they hold then. To change the
/// authority, let `ca` hold both certificates for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that sign nodes.
    pub ca: PathBuf,
    /// Our certificate, followed by its chain if there is one.
    pub cert: PathBuf,
    /// The private key of our certificate.
    pub key: PathBuf,
}

/// The bytes of the files.
#[derive(Hash)]
pub(super) struct Contents {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, Error> {
        Ok(Self {
            ca: read(&files.ca)?,
            cert: read(&files.cert)?,
            key: read(&files.key)?,
        })
    }
}

/// What the files say, ready to use.
pub(super) struct Loaded {
    pub(super) config: ClientConfig,
    pub(super) identity: Identity,
    /// Whose nodes are accepted.
    pub(super) cluster: String,
}

impl Loaded {
    /// Checks the contents of the files. `cluster_name` overrides the one in our own certificate.
    pub(super) fn from_contents(
        files: &TlsFiles,
        contents: &Contents,
        cluster_name: Option<&str>,
    ) -> Result<Self, Error> {
        let roots = roots(&files.ca, &contents.ca)?;
        let chain = certificates(&files.cert, &contents.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| pem_error(&files.key, &error))?;
        let identity = own_identity(&files.cert, &chain)?;
        let cluster = cluster_name.unwrap_or(identity.cluster()).to_owned();
        let config = client_config(roots, &cluster, chain, key).map_err(|error| Error::File {
            path: files.key.clone(),
            problem: format!("does not fit the certificate {}: {error}", files.cert.display()),
        })?;
        Ok(Self {
            config,
            identity,
            cluster,
        })
    }
}

fn client_config(
    roots: RootCertStore,
    cluster: &str,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = NodeVerifier::new(roots, cluster, &provider);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every connection is judged by the certificates in force.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let unreadable = |error| file_error(path, format!("cannot be read: {error}"));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(file_error(path, format!("is larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn roots(path: &Path, bytes: &[u8]) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, bytes)? {
        roots.add(certificate).map_err(|error| {
            file_error(
                path,
                format!("holds a certificate that cannot be an authority: {error}"),
            )
        })?;
    }
    Ok(roots)
}

fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem_error(path, &error))?;
    if certificates.is_empty() {
        return Err(file_error(path, "holds no certificate in PEM form"));
    }
    Ok(certificates)
}

/// Reads our identity, and refuses a certificate that no node would accept.
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
