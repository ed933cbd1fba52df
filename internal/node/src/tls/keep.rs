//! Keeping credentials true to their files while the node runs.
//!
//! The files are read every few seconds and when somebody asks for it, and compared by their content: so it does not
//! matter whether they were written over, renamed, or reached through links that now lead elsewhere, or what their times
//! say. Files that are being replaced one by one do not fit together for a moment; that is told, changes nothing, and is
//! over at the next look.
//!
//! Invariants: what is in force was whole and of this node when it was read. Each flaw of the files is told once for each
//! content. The files are read by one task at a time, so a file system that hangs holds up one thread and nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;

use super::files::{self, Contents, Loaded};
use super::material::Material;
use super::{Credentials, TlsError};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Which contents were met.
#[derive(Debug)]
pub(super) struct Seen {
    in_force: u64,
    /// What was told last of contents that cannot be used, and their fingerprint.
    refused: Option<(u64, String)>,
}

impl Seen {
    pub(super) fn new(in_force: &Contents) -> Seen {
        Seen {
            in_force: fingerprint(in_force),
            refused: None,
        }
    }
}

impl Credentials {
    /// Looks at the files for as long as it is not dropped.
    pub(crate) async fn keep(self: Arc<Self>) {
        loop {
            let looking = self.clone();
            // An end of the runtime is all that can go wrong.
            let _ = tokio::task::spawn_blocking(move || looking.look()).await;
            let _ = timeout(LOOK_INTERVAL, self.look_now.notified()).await;
        }
    }

    /// Has [`Credentials::keep`] look at the files now rather than in its own time.
    pub(crate) fn ask_for_look(&self) {
        self.look_now.notify_one();
    }

    /// Takes what the files hold, if it is new and can be used. Says what it has done, and what it could not. Blocks.
    pub(crate) fn look(&self) {
        let contents = Contents::read(&self.files);
        let now = match &contents {
            Ok(contents) => fingerprint(contents),
            Err(error) => fingerprint(&error.to_string()),
        };
        let mut seen = self.seen();
        if now == seen.in_force {
            seen.refused = None;
        } else {
            match contents.and_then(|contents| self.take(&contents)) {
                Ok(()) => {
                    *seen = Seen {
                        in_force: now,
                        refused: None,
                    };
                    tracing::info!(certificate = %self.files.certificate.display(), "new certificate files are in force");
                }
                Err(error) => refuse(&mut seen, now, &error),
            }
        }
        let refused = seen.refused.as_ref().map(|(_, why)| why.clone());
        drop(seen);
        self.publish(refused);
    }

    /// Puts these contents in force, if they are of the same identity.
    fn take(&self, contents: &Contents) -> Result<(), TlsError> {
        let loaded: Loaded = files::load(&self.files, contents)?;
        self.require_identity(&loaded.identity, self.identity.clone())?;
        self.current.store(Arc::new(Material::new(loaded, &self.cluster)?));
        Ok(())
    }

    /// Tells those who show it to people what is to be known of the credentials.
    fn publish(&self, refused: Option<String>) {
        let notices: Vec<String> = refused.into_iter().collect();
        self.notices.send_if_modified(|before| {
            let is_news = *before != notices;
            *before = notices;
            is_news
        });
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(seen: &mut Seen, now: u64, error: &TlsError) {
    if seen.refused.as_ref().is_some_and(|(before, _)| *before == now) {
        return;
    }
    tracing::warn!(%error, "new certificate files cannot be used, the former ones stay in force");
    let notice = format!("its certificate files cannot be used, the former ones stay in force: {error}");
    seen.refused = Some((now, notice));
}

/// Tells contents apart. Whoever could make two alike on purpose may write our key anyway.
fn fingerprint(contents: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
