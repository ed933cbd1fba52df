//! Certificates for tests, made anew for each.

use std::path::{Path, PathBuf};

use highwater::TlsFiles;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use time::{Duration, OffsetDateTime};

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: PathBuf,
}

/// From when to when a certificate is valid, in days from now.
#[derive(Clone, Copy)]
pub struct Days(pub i64, pub i64);

pub const VALID: Days = Days(-1, 1);
pub const EXPIRED: Days = Days(-3, -1);
pub const NOT_YET_VALID: Days = Days(1, 3);

impl Authority {
    /// An authority that keeps its files in a directory; every authority has the same name, as copies of one would.
    pub fn new(directory: &Path) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("ca.pem"), issuer.pem()).unwrap();
        Self {
            issuer,
            directory: directory.to_owned(),
        }
    }

    /// Signs a certificate for an identity, and writes it and its key.
    pub fn sign(&self, file: &str, uri: &str, Days(from, to): Days) -> TlsFiles {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = OffsetDateTime::now_utc() + Duration::days(from);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(to);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = TlsFiles {
            ca: self.directory.join("ca.pem"),
            cert: self.directory.join(format!("{file}.pem")),
            key: self.directory.join(format!("{file}.key")),
        };
        std::fs::write(&files.cert, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    pub fn node(&self, name: &str) -> TlsFiles {
        self.sign(name, &format!("spiffe://test/node/{name}"), VALID)
    }

    pub fn client(&self) -> TlsFiles {
        self.sign("client", "spiffe://test/tenant/acme/client/app", VALID)
    }
}
