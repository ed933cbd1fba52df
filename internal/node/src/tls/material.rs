//! The TLS configurations made from one consistent set of files.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::lists::Lists;
use super::verify::{ClientNames, ClientVerifier, NodeVerifier};
use super::{ALPN_GRPC, ALPN_HTTP, ALPN_PEER, Expected, TlsError, files};

/// One consistent set of credentials.
#[derive(Debug)]
pub(super) struct Material {
    parts: Parts,
    pub(super) server: Arc<ServerConfig>,
    pub(super) any_node: Arc<ClientConfig>,
    /// Judges those who connect to us.
    pub(super) callers: Arc<ClientVerifier>,
    pub(super) not_after: SystemTime,
}

/// What all of that is made from.
#[derive(Debug)]
struct Parts {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Arc<RootCertStore>,
    lists: Lists,
    provider: Arc<CryptoProvider>,
    callers: Arc<ClientVerifier>,
}

impl Material {
    pub(super) fn new(
        loaded: files::Loaded,
        lists: Lists,
        cluster: &str,
        names: ClientNames,
    ) -> Result<Material, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = Arc::new(loaded.roots);
        let callers = ClientVerifier::new(roots.clone(), &lists, &provider, cluster, names)?;
        let parts = Parts {
            chain: loaded.chain,
            key: loaded.key,
            roots,
            lists,
            provider,
            callers: Arc::new(callers),
        };
        Material::of(parts, loaded.not_after, cluster)
    }

    /// The same with other revocation lists.
    pub(super) fn with_lists(&self, lists: Lists, cluster: &str) -> Result<Material, TlsError> {
        let (roots, provider) = (self.parts.roots.clone(), self.parts.provider.clone());
        let callers = ClientVerifier::new(roots.clone(), &lists, &provider, cluster, self.callers.names())?;
        let parts = Parts {
            chain: self.parts.chain.clone(),
            key: self.parts.key.clone_key(),
            roots,
            lists,
            provider,
            callers: Arc::new(callers),
        };
        Material::of(parts, self.not_after, cluster)
    }

    fn of(parts: Parts, not_after: SystemTime, cluster: &str) -> Result<Material, TlsError> {
        Ok(Material {
            server: server_config(&parts)?,
            any_node: client_config(&parts, cluster, &Expected::AnyNode)?,
            callers: parts.callers.clone(),
            not_after,
            parts,
        })
    }

    pub(super) fn lists(&self) -> &Lists {
        &self.parts.lists
    }

    pub(super) fn roots(&self) -> &RootCertStore {
        &self.parts.roots
    }

    /// The configuration for dialling.
    pub(super) fn client_config(&self, cluster: &str, expected: &Expected) -> Result<Arc<ClientConfig>, TlsError> {
        client_config(&self.parts, cluster, expected)
    }

    /// Judges those whom we dial.
    pub(super) fn node_verifier(&self, cluster: &str, expected: &Expected) -> NodeVerifier {
        self.parts.node_verifier(cluster, expected)
    }
}

impl Parts {
    fn node_verifier(&self, cluster: &str, expected: &Expected) -> NodeVerifier {
        let callers = (!self.lists.ders.is_empty()).then(|| self.callers.clone());
        NodeVerifier::new(self.roots.clone(), callers, &self.provider, cluster, expected.clone())
    }
}

fn server_config(parts: &Parts) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(parts.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unfit)?
        .with_client_cert_verifier(parts.callers.clone())
        .with_single_cert(parts.chain.to_vec(), parts.key.clone_key())
        .map_err(unfit)?;
    // Who offers both speaks HTTP in general, as curl does; who wants gRPC offers nothing but h2.
    config.alpn_protocols = vec![ALPN_HTTP.to_vec(), ALPN_GRPC.to_vec(), ALPN_PEER.to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(parts: &Parts, cluster: &str, expected: &Expected) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = parts.node_verifier(cluster, expected);
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
