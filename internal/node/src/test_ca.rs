//! A certificate authority for tests, made anew in each test.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    date_time_ymd,
};
use tempfile::TempDir;

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
    /// (first year, last year) of validity.
    pub(crate) years: Option<(i32, i32)>,
    pub(crate) client_only: bool,
}

impl TestCa {
    pub(crate) fn new() -> TestCa {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
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
        let uris = wanted
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !wanted.client_only {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        if let Some((first, last)) = wanted.years {
            params.not_before = date_time_ymd(first, 1, 1);
            params.not_after = date_time_ymd(last, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = self.files(name);
        fs::write(&files.certificate, certificate.pem()).unwrap();
        write_key(&files.key, &key.serialize_pem());
        files
    }

    /// A certificate in DER form, without files.
    pub(crate) fn der(&self, wanted: &Wanted) -> Vec<u8> {
        use rustls::pki_types::pem::PemObject;
        let files = self.issue("der", wanted);
        rustls::pki_types::CertificateDer::from_pem_file(files.certificate)
            .unwrap()
            .to_vec()
    }

    pub(crate) fn files(&self, name: &str) -> TlsFiles {
        TlsFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            authorities: self.path("ca.pem"),
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

fn write_key(path: &Path, pem: &str) {
    fs::write(path, pem).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}
