//! Plain connections over mutual TLS, as the port has them: TLS 1.3, the same provider and so the same suites, the
//! cluster's own certificates. Each carries bytes in one direction.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::Failure;

/// The end that sends.
pub(crate) type Sending = StreamOwned<ClientConnection, TcpStream>;
/// The end that receives.
pub(crate) type Receiving = StreamOwned<ServerConnection, TcpStream>;

/// What both ends of connections need.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Tls {
    /// With the certificates of a test cluster's first node on both ends.
    pub(crate) fn load(certificates: &Path) -> Result<Tls, Failure> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificates.join("ca.pem"))?)?;
        let roots = Arc::new(roots);
        let chain = vec![CertificateDer::from_pem_file(certificates.join("node-n1.pem"))?];
        let key = PrivateKeyDer::from_pem_file(certificates.join("node-n1.key"))?;
        Ok(Tls {
            client: client(&provider, &roots, &chain, key.clone_key())?,
            server: server(provider, roots, chain, key)?,
        })
    }

    /// A connection over loopback whose handshake is done.
    pub(crate) fn connect(&self) -> Result<(Sending, Receiving), Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut near = TcpStream::connect(listener.local_addr()?)?;
        let (mut far, _) = listener.accept()?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let mut sending = ClientConnection::new(self.client.clone(), ServerName::try_from("localhost")?)?;
        let mut receiving = ServerConnection::new(self.server.clone())?;
        std::thread::scope(|scope| {
            let shaken = scope.spawn(|| sending.complete_io(&mut near));
            receiving.complete_io(&mut far)?;
            shaken.join().map_err(|_| "a handshake panicked")??;
            Ok::<(), Failure>(())
        })?;
        Ok((StreamOwned::new(sending, near), StreamOwned::new(receiving, far)))
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, Failure> {
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(chain.to_vec(), key)?;
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn server(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, Failure> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone()).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
