//! Revocation lists: certificates that are not to be let in although their time is not over.
//!
//! The file may hold one list or several, such as one of each authority. A certificate of an authority without a list is
//! judged without one. A list that is past its time is used all the same: what it names stays revoked, and that nobody
//! renews it is said loudly. So a list can only be replaced by one that is readable and not past its time.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::expiry::date;
use super::files::{describe, file_error, read_file};
use super::{TlsError, time_of};

/// The revocation lists in force; without any, nothing is revoked.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    pub(super) ders: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them was to be replaced; None if none of them says.
    pub(super) due: Option<SystemTime>,
}

impl Lists {
    /// What the file held, as bytes.
    pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
        read_file(path)
    }

    /// At least one list.
    pub(super) fn load(path: &Path, bytes: &[u8]) -> Result<Lists, TlsError> {
        let ders = CertificateRevocationListDer::pem_slice_iter(bytes)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| file_error(path, format!("it is not valid PEM: {}", describe(error))))?;
        if ders.is_empty() {
            return Err(file_error(
                path,
                "it holds no revocation list (looking for BEGIN X509 CRL)",
            ));
        }
        let mut due: Option<SystemTime> = None;
        for (number, der) in ders.iter().enumerate() {
            let (_, list) = CertificateRevocationList::from_der(der)
                .map_err(|error| file_error(path, format!("its list number {} cannot be read: {error}", number + 1)))?;
            let its_own = list.next_update().map(|time| time_of(time.timestamp()));
            due = due.into_iter().chain(its_own).min();
        }
        Ok(Lists { ders, due })
    }

    /// What a person is told, if they should have been replaced by now.
    pub(super) fn overdue(&self, now: SystemTime) -> Option<String> {
        let due = self.due.filter(|due| *due < now)?;
        let date = date(due);
        Some(format!(
            "its revocation list was to be replaced by {date}; it stays in use until it is"
        ))
    }
}
