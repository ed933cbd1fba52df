//! The certificate files in force, read again before each new connection.
//!
//! Certificates are short-lived and replaced on disk while programs run. Nobody watches the files: a connection is made
//! rarely, and just then they are looked at. What is compared is their content, so it does not matter whether they were
//! written over, renamed or linked anew, or what their times say.
//!
//! Files that cannot be used (half written, expired, of somebody else) change nothing: the former ones stay in force, a
//! warning says why, once for each content, and the next connection looks again. Connections that exist are left alone.
//!
//! Invariants: the configuration in force was whole and valid when it was read, and always of the same identity, so that
//! two connections of a client never have different rights. The files are read by one task at a time, so a file
//! system that hangs holds up one thread, and connections are made with what is in force.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ClientConfig;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::TlsFiles;
use super::files::{Contents, Loaded};
use crate::Error;
use crate::identity::Identity;
use crate::metrics::Metrics;

/// How long a new connection waits for the files to be read; then it is made with what is in force.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// Whom we trust and who we are.
#[derive(Debug)]
pub(crate) struct Credentials {
    files: TlsFiles,
    identity: Identity,
    /// Whose nodes are accepted.
    cluster: String,
    in_force: ArcSwap<ClientConfig>,
    /// Held while the files are read.
    seen: Arc<Mutex<Seen>>,
    metrics: Arc<dyn Metrics>,
}

/// Which contents were met.
#[derive(Debug)]
struct Seen {
    in_force: u64,
    refused: Option<u64>,
}

impl Credentials {
    /// Reads and checks the files. `cluster_name` overrides the one in our own certificate.
    pub(crate) fn load(
        files: TlsFiles,
        cluster_name: Option<&str>,
        metrics: Arc<dyn Metrics>,
    ) -> Result<Arc<Self>, Error> {
        let contents = Contents::read(&files)?;
        let loaded = Loaded::from_contents(&files, &contents, cluster_name)?;
        let seen = Seen {
            in_force: fingerprint(&contents),
            refused: None,
        };
        Ok(Arc::new(Self {
            files,
            identity: loaded.identity,
            cluster: loaded.cluster,
            in_force: ArcSwap::from_pointee(loaded.config),
            seen: Arc::new(Mutex::new(seen)),
            metrics,
        }))
    }

    /// The tenant in our certificate; `None` for a node's certificate.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.identity.tenant()
    }

    /// What a new connection is made with: the files as they are now, if they can be used.
    pub(crate) async fn for_connection(self: &Arc<Self>) -> Arc<ClientConfig> {
        let this = self.clone();
        let refresh = async {
            let seen = this.seen.clone().lock_owned().await;
            // An end of the runtime is all that can go wrong; then there is no connection either.
            let _ = tokio::task::spawn_blocking(move || this.refresh(seen)).await;
        };
        if timeout(FILES_TIMEOUT, refresh).await.is_err() {
            tracing::warn!("the certificate files cannot be read in time; those in force are used");
        }
        self.in_force.load_full()
    }

    fn refresh(&self, mut seen: OwnedMutexGuard<Seen>) {
        let contents = Contents::read(&self.files);
        let now = contents.as_ref().map_or(0, fingerprint);
        if now == seen.in_force {
            seen.refused = None;
            return;
        }
        let loaded = contents.and_then(|contents| self.take(&contents));
        match loaded {
            Ok(config) => {
                self.in_force.store(Arc::new(config));
                *seen = Seen {
                    in_force: now,
                    refused: None,
                };
                tracing::info!(cert = %self.files.cert.display(), "new certificate files are in force");
                self.metrics.certificates_reloaded();
            }
            Err(error) => {
                if seen.refused.replace(now) != Some(now) {
                    tracing::warn!(%error, "new certificate files cannot be used, the former ones stay in force");
                    self.metrics.certificates_refused(&error);
                }
            }
        }
    }

    /// The configuration for these contents, if they are of the same identity.
    fn take(&self, contents: &Contents) -> Result<ClientConfig, Error> {
        let loaded = Loaded::from_contents(&self.files, contents, Some(&self.cluster))?;
        if loaded.identity != self.identity {
            return Err(Error::File {
                path: self.files.cert.clone(),
                problem: format!(
                    "is of {}, but this client was made as {}",
                    loaded.identity, self.identity
                ),
            });
        }
        Ok(loaded.config)
    }
}

/// Tells contents apart. Whoever could make two alike on purpose may write our key anyway.
fn fingerprint(contents: &Contents) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
