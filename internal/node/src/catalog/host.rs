//! The catalog as the machine behind the catalog group.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_catalog::{Catalog, Command};
use highwater_partition::Machine;
use tokio::sync::watch;

use super::in_force::InForce;
use super::members::Members;
use crate::error::Failure;
use crate::failures::Failures;

/// How far this node's copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Index of the last command applied here.
    pub(crate) applied: u64,
    /// Index of the last command that changed something.
    pub(crate) revision: u64,
}

/// The committed catalog as this node knows it.
///
/// A committed command that cannot be decoded comes from a newer version. It is never skipped: the copy stays as it is
/// from then on, and the node reports a failure.
pub(crate) struct CatalogHost {
    catalog: Mutex<Catalog>,
    access: Arc<InForce>,
    members: Members,
    progress: watch::Sender<Progress>,
    failures: Failures,
    /// For tests of what becomes of a core that dies: the next command ends it.
    #[cfg(test)]
    pub(crate) breaks: std::sync::atomic::AtomicBool,
}

impl CatalogHost {
    pub(crate) fn new(failures: Failures) -> Arc<CatalogHost> {
        Arc::new(CatalogHost {
            catalog: Mutex::new(Catalog::new()),
            access: Arc::default(),
            members: Members::default(),
            progress: watch::Sender::new(Progress::default()),
            failures,
            #[cfg(test)]
            breaks: Default::default(),
        })
    }

    /// Looks at the catalog. `look` must be quick: commands wait for it.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&Catalog) -> R) -> R {
        look(&self.lock())
    }

    /// The policy in force, for those who look at it all the time. It is never older than what [`CatalogHost::read`] shows.
    pub(crate) fn access(&self) -> Arc<InForce> {
        self.access.clone()
    }

    /// Who is in the cluster, for those who ask all the time. It is never older than what [`CatalogHost::read`] shows.
    pub(crate) fn members(&self) -> &Members {
        &self.members
    }

    /// How far this copy is now.
    pub(crate) fn now(&self) -> Progress {
        *self.progress.borrow()
    }

    /// Changes with every command applied.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn publish(&self, catalog: &Catalog) {
        self.access.publish(catalog.access());
        self.members.publish(catalog);
    }

    fn lock(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Machine for CatalogHost {
    fn apply(&self, index: u64, command: Bytes) -> Bytes {
        #[cfg(test)]
        assert!(!self.breaks.load(std::sync::atomic::Ordering::SeqCst), "as ordered");
        let command = match Command::decode(&command) {
            Ok(command) => command,
            Err(error) => {
                let why = format!("the catalog's command at index {index} cannot be read: {error}");
                self.failures.report(Failure::Inconsistent(why));
                return Bytes::new();
            }
        };
        let (reply, revision) = {
            let mut catalog = self.lock();
            let reply = catalog.apply(index, &command);
            self.publish(&catalog);
            (reply, catalog.revision())
        };
        self.progress.send_replace(Progress {
            applied: index,
            revision,
        });
        reply.encode().into()
    }

    fn checkpoint(&self) -> Bytes {
        self.lock().encode().into()
    }

    fn restore(&self, checkpoint: &[u8]) -> Result<(), String> {
        let restored = Catalog::decode(checkpoint).map_err(|error| error.to_string())?;
        let revision = restored.revision();
        {
            let mut catalog = self.lock();
            *catalog = restored;
            self.publish(&catalog);
        }
        let applied = self.progress.borrow().applied.max(revision);
        self.progress.send_replace(Progress { applied, revision });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_catalog::{FoundingNode, Reply};

    use super::*;

    fn found() -> Command {
        let node = FoundingNode {
            name: "a".to_owned(),
            incarnation: [1; 16],
            address: "a:1".to_owned(),
            rack: String::new(),
            replica_id: 1,
        };
        Command::Found {
            cluster_id: [9; 16],
            cluster_name: "prod".to_owned(),
            nodes: vec![node],
        }
    }

    #[test]
    fn commands_are_applied_answered_and_announced() {
        let host = CatalogHost::new(Failures::default());
        let progress = host.progress();
        let reply = Reply::decode(&host.apply(3, found().encode().into())).unwrap();
        assert_eq!(reply, Reply::Founded { cluster_id: [9; 16] });
        assert_eq!(
            *progress.borrow(),
            Progress {
                applied: 3,
                revision: 3
            }
        );
        host.apply(4, found().encode().into());
        assert_eq!(
            *progress.borrow(),
            Progress {
                applied: 4,
                revision: 3
            }
        );
    }

    #[test]
    fn a_command_of_a_newer_version_is_a_failure_not_a_skip() {
        let failures = Failures::default();
        let host = CatalogHost::new(failures.clone());
        host.apply(1, Bytes::from_static(b"\xffwhat"));
        assert!(matches!(failures.first(), Some(Failure::Inconsistent(_))));
    }
}
