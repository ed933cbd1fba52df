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

    /// Notes where `node` may be reached, if nothing is known of it: an address that was true some time ago.
    pub fn suggest(&self, node: &str, address: &str) {
        let mut addresses = self.lock();
        if addresses.len() < NODES_MAX {
            addresses.entry(node.to_owned()).or_insert_with(|| address.to_owned());
        }
    }

    /// All addresses, in order of the nodes' names.
    pub fn all(&self) -> Vec<String> {
        self.lock().values().cloned().collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_told_wins_and_only_changes_are_news() {
        let book = AddressBook::default();
        assert!(book.learn("n1", "a:1"));
        assert!(!book.learn("n1", "a:1"));
        assert!(book.learn("n1", "b:1"));
        assert_eq!(book.address("n1").as_deref(), Some("b:1"));
        book.forget("n1");
        assert_eq!(book.address("n1"), None);
    }

    #[test]
    fn a_suggestion_never_replaces_what_was_told() {
        let book = AddressBook::default();
        book.suggest("n1", "old:1");
        assert_eq!(book.address("n1").as_deref(), Some("old:1"));
        assert!(book.learn("n1", "a:1"));
        book.suggest("n1", "old:1");
        assert_eq!(book.all(), ["a:1"]);
    }

    #[test]
    fn names_beyond_the_limit_are_not_remembered() {
        let book = AddressBook::default();
        for number in 0..NODES_MAX {
            assert!(book.learn(&format!("n{number}"), "a:1"));
        }
        assert!(!book.learn("one-more", "a:1"));
        assert_eq!(book.address("one-more"), None);
        assert!(book.learn("n0", "b:1"), "a known node may still move");
    }
}
