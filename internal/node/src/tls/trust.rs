//! Connections that are open, each with the certificate that it was let in with.
//!
//! A handshake looks at a certificate once, and a connection may last. So whenever other authorities or revocation lists
//! are in force, every open connection's certificate is looked at again, as in a handshake, and a connection that would
//! not be let in now is ended. Connections with nodes that we have dialled are looked at alike.
//!
//! Invariant: a connection is either looked at after a change, or was let in by what is in force since. A handshake that
//! goes on during a change is noticed by its generation.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio_util::sync::CancellationToken;

use super::material::Material;
use super::verify::describe;
use super::{Credentials, Expected};

/// From which side a connection was made.
#[derive(Debug, Clone)]
pub(crate) enum Side {
    /// By the other one, a client or a node.
    Theirs,
    /// By us, to a node.
    Ours(Expected),
}

/// What the open connections are held by.
#[derive(Debug, Default)]
pub(super) struct Trusts {
    held: Mutex<Held>,
    /// Counts changes of what certificates are judged by.
    generation: AtomicU64,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct Held {
    last: u64,
    by_number: HashMap<u64, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    chain: Vec<CertificateDer<'static>>,
    side: Side,
    remote: SocketAddr,
    lost: CancellationToken,
}

/// An open connection's entry; taken out when dropped.
#[derive(Debug)]
pub(crate) struct Trust {
    credentials: Arc<Credentials>,
    number: u64,
    lost: CancellationToken,
}

impl Trust {
    /// Cancelled when the connection must end, or has ended.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        self.credentials.trusts.lock().by_number.remove(&self.number);
        self.lost.cancel();
    }
}

impl Trusts {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials {
    /// To be asked before a handshake, for [`Credentials::hold`].
    pub(crate) fn generation(&self) -> u64 {
        self.trusts.generation.load(Ordering::SeqCst)
    }

    /// Connections that were ended because their certificate was no longer good.
    pub fn connections_ended(&self) -> u64 {
        self.trusts.ended.load(Ordering::Relaxed)
    }

    /// Looks after a connection whose handshake began in `generation`, and in which the other side showed `chain`.
    pub(crate) fn hold(
        self: &Arc<Self>,
        generation: u64,
        chain: Option<&[CertificateDer<'static>]>,
        side: Side,
        remote: SocketAddr,
    ) -> Trust {
        let entry = Entry {
            chain: chain.unwrap_or_default().to_vec(),
            side,
            remote,
            lost: CancellationToken::new(),
        };
        let number = {
            let mut held = self.trusts.lock();
            held.last += 1;
            let number = held.last;
            held.by_number.insert(number, entry.clone());
            number
        };
        if self.generation() != generation {
            self.judge(&self.current.load(), &entry);
        }
        Trust {
            credentials: self.clone(),
            number,
            lost: entry.lost,
        }
    }

    /// Looks at all open connections again; after other roots or lists have come into force. Blocks.
    pub(super) fn judge_all(&self) {
        self.trusts.generation.fetch_add(1, Ordering::SeqCst);
        let entries: Vec<Entry> = self.trusts.lock().by_number.values().cloned().collect();
        let material = self.current.load();
        entries.iter().for_each(|entry| self.judge(&material, entry));
    }

    fn judge(&self, material: &Material, entry: &Entry) {
        let Err(error) = entry.check(material, &self.cluster) else {
            return;
        };
        if entry.lost.is_cancelled() {
            return;
        }
        self.trusts.ended.fetch_add(1, Ordering::Relaxed);
        let identity = entry
            .chain
            .first()
            .and_then(|leaf| material.callers.identity_of(leaf).ok());
        let identity = identity.map(|identity| identity.to_string()).unwrap_or_default();
        let why = describe(&error);
        tracing::warn!(identity, remote = %entry.remote, why, "a connection is ended: its certificate is no longer good");
        entry.lost.cancel();
    }
}

impl Entry {
    fn check(&self, material: &Material, cluster: &str) -> Result<(), rustls::Error> {
        let Some((leaf, intermediates)) = self.chain.split_first() else {
            return Err(rustls::Error::NoCertificatesPresented);
        };
        let now = UnixTime::now();
        match &self.side {
            Side::Theirs => material.callers.verify_client_cert(leaf, intermediates, now).map(drop),
            Side::Ours(expected) => {
                let verifier = material.node_verifier(cluster, expected);
                let name = ServerName::IpAddress(self.remote.ip().into());
                verifier
                    .verify_server_cert(leaf, intermediates, &name, &[], now)
                    .map(drop)
            }
        }
    }
}
