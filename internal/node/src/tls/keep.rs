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
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use tokio::time::timeout;

use super::expiry::Stage;
use super::files::{self, Contents, file_error};
use super::lists::Lists;
use super::material::Material;
use super::{Credentials, TlsError};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What was met, and what was said of it.
#[derive(Debug)]
pub(super) struct Seen {
    certificates: Half,
    lists: Half,
    stage: Stage,
    overdue: Option<String>,
}

/// Of the certificate files, or of the revocation lists: one of them may be replaced while the other is of no use.
#[derive(Debug)]
struct Half {
    in_force: u64,
    /// What was told last of contents that cannot be used, and their fingerprint.
    refused: Option<(u64, String)>,
}

impl Seen {
    pub(super) fn new(in_force: &Contents, lists: &[u8]) -> Seen {
        let half = |in_force| Half {
            in_force,
            refused: None,
        };
        Seen {
            certificates: half(fingerprint(in_force)),
            lists: half(fingerprint(lists)),
            stage: Stage::Fine,
            overdue: None,
        }
    }

    fn notices(&self, not_after: SystemTime) -> Vec<String> {
        let refused = [&self.certificates, &self.lists].into_iter();
        let refused = refused.filter_map(|half| half.refused.as_ref().map(|(_, why)| why.clone()));
        refused
            .chain(self.stage.notice(not_after))
            .chain(self.overdue.clone())
            .collect()
    }
}

impl Half {
    /// Has `take` put what was read in force if it is new. Answers whether it was.
    fn look<T: Hash>(
        &mut self,
        what: &str,
        read: Result<T, TlsError>,
        take: impl FnOnce(&T) -> Result<(), TlsError>,
    ) -> bool {
        let now = match &read {
            Ok(contents) => fingerprint(contents),
            Err(error) => fingerprint(&error.to_string()),
        };
        if now == self.in_force {
            self.refused = None;
            return false;
        }
        match read.and_then(|contents| take(&contents)) {
            Ok(()) => {
                tracing::info!("{what} are in force");
                *self = Half {
                    in_force: now,
                    refused: None,
                };
                true
            }
            Err(error) => {
                self.refuse(what, now, &error);
                false
            }
        }
    }

    fn refuse(&mut self, what: &str, now: u64, error: &TlsError) {
        if self.refused.as_ref().is_some_and(|(before, _)| *before == now) {
            return;
        }
        let notice = format!("{what} cannot be used, the former ones stay in force: {error}");
        tracing::warn!("{notice}");
        self.refused = Some((now, notice));
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

    /// Takes what the files hold, if it is new and can be used, and ends connections that would not be let in by it. Says
    /// what it has done, and what it could not. Blocks.
    pub(crate) fn look(&self) {
        self.look_at(SystemTime::now());
    }

    pub(super) fn look_at(&self, now: SystemTime) {
        let mut seen = self.seen();
        let take = |contents: &Contents| self.take(contents, now);
        let read = Contents::read(&self.files);
        let mut is_new = seen.certificates.look("new certificate files", read, take);
        if let Some(path) = &self.files.revoked {
            let take = |bytes: &Vec<u8>| self.take_lists(path, bytes, now);
            is_new |= seen.lists.look("new revocation lists", Lists::read(path), take);
        }
        let material = self.current.load_full();
        note_time(&mut seen, &material, now);
        let notices = seen.notices(material.not_after);
        drop(seen);
        self.is_expired
            .store(Stage::of(material.not_after, now) == Stage::Expired, Ordering::Relaxed);
        self.publish(notices);
        if is_new {
            self.judge_all();
        }
    }

    /// Puts these contents in force, if they are of the same identity.
    fn take(&self, contents: &Contents, now: SystemTime) -> Result<(), TlsError> {
        let loaded = files::load(&self.files, contents)?;
        self.require_identity(&loaded.identity, self.identity.clone())?;
        let lists = self.lists_beside(&loaded.roots, now)?;
        let names = self.current.load().callers.names();
        let material = Material::new(loaded, lists, &self.cluster, names)?;
        self.current.store(Arc::new(material));
        Ok(())
    }

    /// The lists in force, or if they cannot stand beside these authorities, those that have been put there together with them.
    fn lists_beside(&self, roots: &RootCertStore, now: SystemTime) -> Result<Lists, TlsError> {
        let in_force = self.current.load().lists().clone();
        let Some(path) = &self.files.revoked else {
            return Ok(in_force);
        };
        let Err(error) = in_force.check_issuers(path, roots) else {
            return Ok(in_force);
        };
        let found = Lists::read(path).and_then(|bytes| Lists::load(path, &bytes));
        match found {
            Ok(lists) if lists.overdue(now).is_none() && lists.check_issuers(path, roots).is_ok() => Ok(lists),
            _ => Err(error),
        }
    }

    fn take_lists(&self, path: &Path, bytes: &[u8], now: SystemTime) -> Result<(), TlsError> {
        let lists = Lists::load(path, bytes)?;
        if let Some(why) = lists.overdue(now) {
            return Err(file_error(path, why));
        }
        let former = self.current.load();
        lists.check_issuers(path, former.roots())?;
        let material = former.with_lists(lists, &self.cluster)?;
        self.current.store(Arc::new(material));
        Ok(())
    }

    /// Tells those who show it to people what is to be known of the credentials.
    fn publish(&self, notices: Vec<String>) {
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

/// Says once for each stage how near the end is.
fn note_time(seen: &mut Seen, material: &Material, now: SystemTime) {
    let stage = Stage::of(material.not_after, now);
    if stage > seen.stage {
        stage.tell(material.not_after);
    }
    seen.stage = stage;
    let overdue = material.lists().overdue(now);
    if let Some(why) = overdue.as_ref().filter(|_| seen.overdue.is_none()) {
        tracing::error!("{why}");
    }
    seen.overdue = overdue;
}

/// Tells contents apart. Whoever could make two alike on purpose may write our key anyway.
fn fingerprint(contents: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    hasher.finish()
}
