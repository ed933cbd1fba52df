//! A certificate authority for tests, made anew in each test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::{Credentials, TlsFiles};

pub(crate) const CLUSTER: &str = "testing";

/// Signs certificates and writes them into a directory of its own.
pub(crate) struct TestCa {
    directory: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// What to put into a certificate.
#[derive(Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) uris: Vec<String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) common_name: Option<String>,
    /// (first year, last year) of validity.
    pub(crate) years: Option<(i32, i32)>,
    /// From now on, instead of years.
    pub(crate) seconds: Option<u64>,
    pub(crate) client_only: bool,
    pub(crate) server_only: bool,
    /// By its own key, not by the authority's.
    pub(crate) self_signed: bool,
}

impl TestCa {
    pub(crate) fn new() -> TestCa {
        TestCa::called("testing CA")
    }

    /// With this subject.
    pub(crate) fn called(subject: &str) -> TestCa {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, subject);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.as_ref().pem()).unwrap();
        TestCa { directory, issuer }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Writes a certificate and its key, and names the files.
    pub(crate) fn issue(&self, name: &str, wanted: &Wanted) -> TlsFiles {
        let mut params = CertificateParams::new(wanted.dns_names.clone()).unwrap();
        if let Some(name) = &wanted.common_name {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        let uris = wanted
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        if !wanted.server_only {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        if !wanted.client_only {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if let Some((first, last)) = wanted.years {
            params.not_before = date_time_ymd(first, 1, 1);
            params.not_after = date_time_ymd(last, 1, 1);
        }
        if let Some(seconds) = wanted.seconds {
            let end = UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(seconds);
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        }
        let key = KeyPair::generate().unwrap();
        let signed = match wanted.self_signed {
            true => params.self_signed(&key),
            false => params.signed_by(&key, &self.issuer),
        };
        let certificate = signed.unwrap();
        let files = self.files(name);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        write_key(&files.key, &key.serialize_pem());
        files
    }

    /// A certificate in DER form, without files.
    pub(crate) fn der(&self, wanted: &Wanted) -> Vec<u8> {
        let files = self.issue("der", wanted);
        CertificateDer::from_pem_file(files.certificate).unwrap().to_vec()
    }

    /// Writes a list `crl.pem` that revokes these certificates, to be replaced by the begin of `due_year`.
    pub(crate) fn revoke(&self, revoked: &[&TlsFiles], due_year: i32) {
        let revoked_certs = revoked.iter().map(|files| RevokedCertParams {
            serial_number: serial_of(&files.certificate),
            revocation_time: date_time_ymd(2000, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2000, 1, 1),
            next_update: date_time_ymd(due_year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked_certs.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(self.path("crl.pem"), list.pem().unwrap()).unwrap();
    }

    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            authorities: self.path("ca.pem"),
            revoked: None,
        }
    }

    pub(crate) fn node_files(&self, cluster: &str, name: &str) -> TlsFiles {
        let uri = format!("spiffe://{cluster}/node/{name}");
        self.issue(
            name,
            &Wanted {
                uris: vec![uri],
                dns_names: vec!["localhost".to_owned()],
                ..Wanted::default()
            },
        )
    }

    pub(crate) fn node(&self, name: &str) -> Arc<Credentials> {
        Credentials::load(self.node_files(CLUSTER, name)).unwrap()
    }

    pub(crate) fn client_files(&self, tenant: &str, name: &str) -> TlsFiles {
        self.client_files_of(CLUSTER, tenant, name)
    }

    pub(crate) fn client_files_of(&self, cluster: &str, tenant: &str, name: &str) -> TlsFiles {
        let uri = format!("spiffe://{cluster}/tenant/{tenant}/client/{name}");
        self.issue(
            name,
            &Wanted {
                uris: vec![uri],
                client_only: true,
                ..Wanted::default()
            },
        )
    }
}

fn serial_of(certificate: &Path) -> SerialNumber {
    let der = CertificateDer::from_pem_file(certificate).unwrap();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    SerialNumber::from_slice(certificate.raw_serial())
}

fn write_key(path: &Path, pem: &str) {
    fs::write(path, pem).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
