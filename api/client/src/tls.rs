//! Certificates: reading ours, and judging those of nodes.
//!
//! A server is accepted if its certificate chains to our authority and carries a node identity of our cluster,
//! whatever its address: addresses of nodes change, identities do not. TLS 1.3 only, one crypto provider (ring),
//! named explicitly so that nothing depends on a process-wide default.
//!
//! Deliberately absent: revocation lists. Certificates are short-lived, and access is revoked by policy.

mod credentials;
mod files;
mod verify;

pub(crate) use self::credentials::Credentials;
pub use self::files::TlsFiles;
pub(crate) use self::verify::IdentityProblem;
