//! The two verifiers: the chain of trust is checked by webpki, the identity by us.
//!
//! Refusing inside the handshake has two merits: the other side gets a TLS alert instead of a connection that falls
//! silent, and no code behind the handshake ever meets a certificate without an identity of our cluster.

use std::io;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use super::lists::Lists;
use super::{Expected, TlsError};
use crate::identity::{Identity, IdentityError};

/// Why a trusted certificate is not welcome here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Unwelcome {
    #[error(transparent)]
    NoIdentity(#[from] IdentityError),
    #[error("{identity} is of another cluster, this is {cluster:?}")]
    OtherCluster { identity: Identity, cluster: String },
    #[error("{identity} is not a node")]
    NotANode { identity: Identity },
    #[error("{identity} answered where node {expected:?} was dialled")]
    OtherNode { identity: Identity, expected: String },
}

/// What went wrong on a TLS connection, in words for people.
pub(crate) fn explain(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(error) => describe(error),
        None => error.to_string(),
    }
}

/// The same of a TLS error itself.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(why))) => why.to_string(),
        Error::InvalidCertificate(CertificateError::Revoked) => "its certificate is revoked".to_owned(),
        Error::AlertReceived(alert) => format!("the other side refuses our certificate or protocol: {alert:?}"),
        error => error.to_string(),
    }
}

fn member_of(cluster: &str, identity: Identity) -> Result<Identity, Unwelcome> {
    if identity.cluster() != cluster {
        return Err(Unwelcome::OtherCluster {
            identity,
            cluster: cluster.to_owned(),
        });
    }
    Ok(identity)
}

fn refuse(why: Unwelcome) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

/// Checks those who connect to us: nodes and clients of our cluster.
#[derive(Debug)]
pub(super) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    cluster: String,
    names: ClientNames,
}

/// Where a client's identity may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientNames {
    /// In the certificate's URI, and nowhere else.
    Uri,
    /// Without any URI, in its common name.
    UriOrCommonName,
}

impl ClientVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        lists: &Lists,
        provider: &Arc<CryptoProvider>,
        cluster: &str,
        names: ClientNames,
    ) -> Result<ClientVerifier, TlsError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .with_crls(lists.ders.iter().cloned())
            .allow_unknown_revocation_status()
            .build()
            .map_err(|error| TlsError::Unfit(error.to_string()))?;
        Ok(ClientVerifier {
            chain,
            cluster: cluster.to_owned(),
            names,
        })
    }

    /// Where it lets clients' identities stand.
    pub(super) fn names(&self) -> ClientNames {
        self.names
    }

    /// Whose certificate it is.
    pub(super) fn identity_of(&self, certificate: &[u8]) -> Result<Identity, IdentityError> {
        match self.names {
            ClientNames::Uri => Identity::from_certificate(certificate),
            ClientNames::UriOrCommonName => Identity::from_certificate_or_name(certificate, &self.cluster),
        }
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let identity = self.identity_of(end_entity).map_err(|error| refuse(error.into()))?;
        member_of(&self.cluster, identity).map_err(refuse)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks those whom we dial: nodes of our cluster, by name when the name is known.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    roots: Arc<RootCertStore>,
    /// Knows the revocation lists; None if there are none. Nodes also call, so their certificates must pass there, too.
    callers: Option<Arc<ClientVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
    cluster: String,
    expected: Expected,
}

impl NodeVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        callers: Option<Arc<ClientVerifier>>,
        provider: &CryptoProvider,
        cluster: &str,
        expected: Expected,
    ) -> NodeVerifier {
        let algorithms = provider.signature_verification_algorithms;
        NodeVerifier {
            roots,
            callers,
            algorithms,
            cluster: cluster.to_owned(),
            expected,
        }
    }

    fn check_identity(&self, certificate: &CertificateDer<'_>) -> Result<(), Unwelcome> {
        let identity = member_of(&self.cluster, Identity::from_certificate(certificate)?)?;
        let Some(name) = identity.node_name() else {
            return Err(Unwelcome::NotANode { identity });
        };
        match &self.expected {
            Expected::Node(expected) if expected != name => Err(Unwelcome::OtherNode {
                expected: expected.clone(),
                identity,
            }),
            _ => Ok(()),
        }
    }
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, self.algorithms.all)?;
        if let Some(callers) = &self.callers {
            callers.verify_client_cert(end_entity, intermediates, now)?;
        }
        self.check_identity(end_entity).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
