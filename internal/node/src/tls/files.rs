//! Reading PEM files: every complaint names the file and says what is wrong with it.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, TlsFiles, time_of};
use crate::identity::Identity;

/// The largest PEM file that is read, bytes; a chain or a bundle of authorities is some kilobytes.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// The bytes of the files.
#[derive(Hash)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Contents {
    pub(super) fn read(files: &TlsFiles) -> Result<Contents, TlsError> {
        check_key(&files.key)?;
        Ok(Contents {
            certificate: read_file(&files.certificate)?,
            key: read_file(&files.key)?,
            authorities: read_file(&files.authorities)?,
        })
    }
}

/// What the files hold, checked one by one.
pub(super) struct Loaded {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
    pub(super) roots: RootCertStore,
    pub(super) identity: Identity,
    pub(super) not_after: SystemTime,
}

pub(super) fn load(files: &TlsFiles, contents: &Contents) -> Result<Loaded, TlsError> {
    let chain = certificates(&files.certificate, &contents.certificate)?;
    let key = private_key(&files.key, &contents.key)?;
    let roots = authorities(&files.authorities, &contents.authorities)?;
    let identity = Identity::from_certificate(&chain[0]).map_err(|source| TlsError::Identity {
        path: files.certificate.clone(),
        source,
    })?;
    let not_after = check_validity(&files.certificate, &chain[0], SystemTime::now())?;
    Ok(Loaded {
        chain,
        key,
        roots,
        identity,
        not_after,
    })
}

/// At least one certificate, in the order of the file.
fn certificates(path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file_error(path, format!("it is not valid PEM: {}", describe(error))))?;
    if certificates.is_empty() {
        return Err(file_error(
            path,
            "it holds no certificate (looking for BEGIN CERTIFICATE)",
        ));
    }
    Ok(certificates)
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => file_error(path, "it holds no private key (looking for BEGIN PRIVATE KEY)"),
        error => file_error(path, format!("it is not a valid PEM key: {}", describe(error))),
    })
}

/// The authorities in a file, for whom it may concern beside the port.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    authorities(path, &read_file(path)?)
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in certificates(path, bytes)?.into_iter().enumerate() {
        roots.add(certificate).map_err(|error| {
            file_error(
                path,
                format!("its certificate number {} cannot be an authority: {error}", number + 1),
            )
        })?;
    }
    Ok(roots)
}

pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, TlsError> {
    let metadata = fs::metadata(path).map_err(|error| file_error(path, format!("it cannot be read: {error}")))?;
    if metadata.len() > PEM_BYTES_MAX {
        let why = format!(
            "it has {} bytes, more than the {PEM_BYTES_MAX} that are read",
            metadata.len()
        );
        return Err(file_error(path, why));
    }
    fs::read(path).map_err(|error| file_error(path, format!("it cannot be read: {error}")))
}

/// The user who may do everything anyway.
#[cfg(unix)]
const ROOT: u32 = 0;

/// The rights to a key that somebody else would have by this mode. Root may let a group read its file: so a container that runs as another
/// user is given one (`fsGroup` in Kubernetes).
#[cfg(unix)]
fn foreign_rights(mode: u32, owner: u32, own: u32) -> u32 {
    const GROUP_READS: u32 = 0o040;
    const OTHERS: u32 = 0o077;
    let is_lent = owner == ROOT && own != ROOT;
    mode & if is_lent { OTHERS & !GROUP_READS } else { OTHERS }
}

/// Refuses a key that somebody else could have read, or could replace.
#[cfg(unix)]
fn check_key(path: &Path) -> Result<(), TlsError> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).map_err(|error| file_error(path, format!("it cannot be read: {error}")))?;
    let (mode, owner, name) = (metadata.mode() & 0o777, metadata.uid(), path.display());
    let own = rustix::process::geteuid().as_raw();
    if foreign_rights(mode, owner, own) != 0 {
        let why = format!(
            "it is a private key that others than its owner may use, its mode is {mode:o}; `chmod 600 {name}` mends that"
        );
        return Err(file_error(path, why));
    }
    if owner != own && owner != ROOT {
        let why = format!(
            "it is a private key of user {owner}, but the node runs as user {own}; `chown {own} {name}` mends that"
        );
        return Err(file_error(path, why));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_key(_path: &Path) -> Result<(), TlsError> {
    Ok(())
}

/// The end of the certificate's validity, or why it is not valid at `now`.
fn check_validity(path: &Path, der: &CertificateDer<'_>, now: SystemTime) -> Result<SystemTime, TlsError> {
    let (_, certificate) = X509Certificate::from_der(der)
        .map_err(|error| file_error(path, format!("its first certificate cannot be read: {error}")))?;
    let validity = certificate.validity();
    let now_seconds = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
    let why = if validity.not_after.timestamp() < now_seconds {
        format!(
            "expired on {} (this machine's clock is at {now_seconds} s since 1970)",
            validity.not_after
        )
    } else if validity.not_before.timestamp() > now_seconds {
        format!(
            "is not valid before {} (this machine's clock is at {now_seconds} s since 1970)",
            validity.not_before
        )
    } else {
        return Ok(time_of(validity.not_after.timestamp()));
    };
    Err(TlsError::Validity {
        path: path.to_owned(),
        why,
    })
}

pub(super) fn describe(error: pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { end_marker } => {
            format!("the line {:?} is missing", String::from_utf8_lossy(&end_marker))
        }
        other => other.to_string(),
    }
}

pub(super) fn file_error(path: &Path, why: impl Into<String>) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        why: why.into(),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_lend_a_key_to_a_group_and_only_to_be_read() {
        for (mode, owner, own, expected) in [
            (0o600, 7, 7, 0),
            (0o640, 7, 7, 0o040),
            (0o640, 0, 0, 0o040),
            (0o440, 0, 7, 0),
            (0o660, 0, 7, 0o020),
            (0o644, 0, 7, 0o004),
        ] {
            assert_eq!(
                foreign_rights(mode, owner, own),
                expected,
                "{mode:o} of {owner} for {own}"
            );
        }
    }
}
