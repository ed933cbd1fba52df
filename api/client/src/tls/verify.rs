//! Judging the certificate of a node.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore, SignatureScheme};

use crate::identity::Identity;

/// Accepts any node of one cluster, and nobody else.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    roots: RootCertStore,
    cluster: String,
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    pub(super) fn new(roots: RootCertStore, cluster: &str, provider: &CryptoProvider) -> Self {
        Self {
            roots,
            cluster: cluster.to_owned(),
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn check_identity(&self, certificate: &[u8]) -> Result<(), String> {
        match Identity::of_certificate(certificate)? {
            Identity::Client { .. } => Err("it belongs to a client, not to a node".to_owned()),
            Identity::Node { cluster, .. } if cluster != self.cluster => Err(format!(
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
