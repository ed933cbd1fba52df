//! The TLS configurations made from one consistent set of files.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::verify::{ClientVerifier, NodeVerifier};
use super::{ALPN_GRPC, ALPN_HTTP, ALPN_PEER, Expected, TlsError, files};

/// One consistent set of credentials.
#[derive(Debug)]
pub(super) struct Material {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    pub(super) server: Arc<ServerConfig>,
    pub(super) any_node: Arc<ClientConfig>,
    pub(super) not_after: SystemTime,
}

/// What both kinds of configuration are made from.
pub(super) struct Parts<'a> {
    chain: &'a [CertificateDer<'static>],
    key: &'a PrivateKeyDer<'static>,
    roots: &'a Arc<RootCertStore>,
    provider: &'a Arc<CryptoProvider>,
}

impl Material {
    pub(super) fn new(loaded: files::Loaded, cluster: &str) -> Result<Material, TlsError> {
        let files::Loaded {
            chain,
            key,
            roots,
            not_after,
            ..
        } = loaded;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let parts = Parts {
            chain: &chain,
            key: &key,
            roots: &roots,
            provider: &provider,
        };
        let server = server_config(&parts, cluster)?;
        let any_node = client_config(&parts, cluster, &Expected::AnyNode)?;
        Ok(Material {
            chain,
            key,
            roots,
            provider,
            server,
            any_node,
            not_after,
        })
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            chain: &self.chain,
            key: &self.key,
            roots: &self.roots,
            provider: &self.provider,
        }
    }
}

fn server_config(parts: &Parts<'_>, cluster: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = ClientVerifier::new(parts.roots.clone(), parts.provider, cluster)?;
    let mut config = ServerConfig::builder_with_provider(parts.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_single_cert(parts.chain.to_vec(), parts.key.clone_key())
        .map_err(unfit)?;
    // Who offers both speaks HTTP in general, as curl does; who wants gRPC offers nothing but h2.
    config.alpn_protocols = vec![ALPN_HTTP.to_vec(), ALPN_GRPC.to_vec(), ALPN_PEER.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

pub(super) fn client_config(
    parts: &Parts<'_>,
    cluster: &str,
    expected: &Expected,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = NodeVerifier::new(parts.roots.clone(), parts.provider, cluster, expected.clone());
    let mut config = ClientConfig::builder_with_provider(parts.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .dangerous() // the verifier is ours: chain of trust as usual, then the identity in place of a host name
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(parts.chain.to_vec(), parts.key.clone_key())
        .map_err(unfit)?;
    config.alpn_protocols = vec![ALPN_PEER.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn unfit(error: rustls::Error) -> TlsError {
    TlsError::Unfit(error.to_string())
}
