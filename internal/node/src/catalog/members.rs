//! Who is a member of the cluster, where it can be looked at without waiting for the catalog.
//!
//! Each message of a partition's peer asks for it, heartbeats and votes among them, and commands may keep the catalog busy for longer than these
//! can wait. So the names are published beside it, and looking costs no lock.

use std::collections::BTreeSet;

use arc_swap::ArcSwap;
use highwater_catalog::{Catalog, Node};

/// The names of the nodes that have registered and were not removed.
#[derive(Debug, Default)]
pub(crate) struct Members {
    names: ArcSwap<BTreeSet<String>>,
}

impl Members {
    /// Whether a node of this name is one.
    pub(crate) fn include(&self, name: &str) -> bool {
        self.names.load().contains(name)
    }

    /// From now on those count that this catalog knows. Called with every command, of which few change anything here.
    pub(super) fn publish(&self, catalog: &Catalog) {
        let names = || catalog.members().map(|Node { name, .. }| name);
        if !names().eq(self.names.load().iter()) {
            self.names.store(names().cloned().collect::<BTreeSet<String>>().into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use highwater_catalog::{Command, FoundingNode};

    use super::*;

    #[test]
    fn nobody_is_a_member_before_the_catalog_knows_him_nor_after_he_was_removed() {
        let founding = |name: &str, replica_id| FoundingNode {
            name: name.to_owned(),
            incarnation: [1; 16],
            address: format!("{name}:1"),
            rack: String::new(),
            replica_id,
        };
        let members = Members::default();
        let mut catalog = Catalog::new();
        members.publish(&catalog);
        assert!(!members.include("a"));
        let found = Command::Found {
            cluster_id: [9; 16],
            cluster_name: "prod".to_owned(),
            nodes: vec![founding("a", 1), founding("b", 2)],
        };
        catalog.apply(1, &found);
        members.publish(&catalog);
        assert!(members.include("a") && members.include("b") && !members.include("c"));
        members.publish(&Catalog::new());
        assert!(!members.include("a"), "a copy that was replaced counts no more");
    }
}
