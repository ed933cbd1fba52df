//! The policy in force, where it can be looked at without waiting for the catalog.
//!
//! Whoever decides looks at it for each question, while a change of ten thousand rules keeps the catalog busy for milliseconds. So each
//! version is published beside the catalog, and looking costs no lock. To free a version takes a millisecond as well, and whoever lets go of
//! it last has to: that is to be the catalog. So it keeps former versions for as long as others have them.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use highwater_catalog::Access;

/// The version of the policy that counts on this node.
#[derive(Debug, Default)]
pub(crate) struct InForce {
    version: ArcSwap<Access>,
    /// Versions that counted before, and that somebody may still look at.
    former: Mutex<Vec<Arc<Access>>>,
}

impl InForce {
    /// The policy in force.
    pub(crate) fn now(&self) -> Arc<Access> {
        self.version.load_full()
    }

    /// From now on this one counts.
    pub(crate) fn publish(&self, access: &Arc<Access>) {
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.retain(|version| Arc::strong_count(version) > 1);
        if !Arc::ptr_eq(&self.version.load(), access) {
            former.push(self.version.swap(access.clone()));
        }
    }
}
