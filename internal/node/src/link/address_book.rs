//! The plain directory: the addresses that gossip, seeds and the catalog have told.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Directory;
use super::limits::NODES_MAX;

/// Addresses by node name; the last one told wins. Holds at most [`NODES_MAX`] names; further ones are not remembered.
#[derive(Debug, Default)]
pub struct AddressBook {
    addresses: Mutex<BTreeMap<String, String>>,
}

impl AddressBook {
    /// Notes where `node` can be reached (`host:port`). Answers whether that is news.
    pub fn learn(&self, node: &str, address: &str) -> bool {
        let mut addresses = self.lock();
        let full = addresses.len() >= NODES_MAX;
        match addresses.get_mut(node) {
            Some(known) if known == address => false,
            Some(known) => {
                *known = address.to_owned();
                true
            }
            None if full => false,
            None => addresses.insert(node.to_owned(), address.to_owned()).is_none(),
        }
    }

    /// Forgets a node.
    pub fn forget(&self, node: &str) {
        self.lock().remove(node);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory for AddressBook {
    fn address(&self, node: &str) -> Option<String> {
        self.lock().get(node).cloned()
    }
}
