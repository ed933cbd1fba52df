//! Revocation lists: certificates that are not to be let in although their time is not over.
//!
//! The file may hold one list or several, such as one of each authority. A certificate of an authority without a list is
//! judged without one. A list that is past its time is used all the same: what it names stays revoked, and that nobody
//! renews it is said loudly. So a list can only be replaced by one that is readable and not past its time.
//!
//! A list names its authority by the subject alone, and webpki takes the first list with the right name: if that is of another
//! authority with the same name, every certificate of the one is refused. Such lists and authorities are not taken together.

use std::path::Path;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateRevocationListDer, TrustAnchor};
use rustls::{DistinguishedName, RootCertStore};
use x509_parser::asn1_rs::BitString;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::AlgorithmIdentifier;

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
            let list = parse(path, number, der)?;
            let its_own = list.next_update().map(|time| time_of(time.timestamp()));
            due = due.into_iter().chain(its_own).min();
        }
        Ok(Lists { ders, due })
    }

    /// Refuses them beside an authority that has the name of a list's issuer and has not signed it. Lists of authorities that stand in no
    /// file, such as intermediate ones, are not looked at.
    pub(super) fn check_issuers(&self, path: &Path, roots: &RootCertStore) -> Result<(), TlsError> {
        for (number, der) in self.ders.iter().enumerate() {
            let list = parse(path, number, der)?;
            let is_namesake = |authority: &&TrustAnchor<'_>| {
                DistinguishedName::in_sequence(&authority.subject).as_ref() == list.issuer().as_raw()
            };
            let mut namesakes = roots.roots.iter().filter(is_namesake);
            if namesakes.any(|authority| !has_signed(authority, &list)) {
                let why = format!(
                    "its list number {} is called after an authority that is trusted and has not signed it, `{}`, so all certificates of \
                     that one would be refused; authorities that are trusted at once need different subjects as soon as one of them has a \
                     list: make the new one under another subject, or leave out the lists until one is left",
                    number + 1,
                    list.issuer()
                );
                return Err(file_error(path, why));
            }
        }
        Ok(())
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

fn parse<'a>(path: &Path, number: usize, der: &'a [u8]) -> Result<CertificateRevocationList<'a>, TlsError> {
    match CertificateRevocationList::from_der(der) {
        Ok((_, list)) => Ok(list),
        Err(error) => {
            let why = format!("its list number {} cannot be read: {error}", number + 1);
            Err(file_error(path, why))
        }
    }
}

/// Whether the list's signature is by the authority's key, in a way that we know.
fn has_signed(authority: &TrustAnchor<'_>, list: &CertificateRevocationList<'_>) -> bool {
    let key = AlgorithmIdentifier::from_der(&authority.subject_public_key_info)
        .and_then(|(rest, _)| BitString::from_der(rest).map_err(|error| error.map(Into::into)));
    let Ok((_, key)) = key else { return false };
    let (message, signature) = (list.tbs_cert_list.as_ref(), &list.signature_value.data);
    let provider = rustls::crypto::ring::default_provider();
    let mut algorithms = provider.signature_verification_algorithms.all.iter();
    algorithms.any(|algorithm| algorithm.verify_signature(&key.data, message, signature).is_ok())
}
