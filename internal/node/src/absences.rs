//! Since when nodes have been away, as this node sees it.
//!
//! Kept in memory by whoever leads the catalog, and begun anew when somebody else does: so a node is away at least as long
//! as is told here, and a change of leaders only makes the cluster more patient. Nothing is lost by a wrong word here:
//! whose place is given away is decided by the catalog, and who votes by each group.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// The nodes that are away.
#[derive(Debug, Default)]
pub(crate) struct Absences {
    since: BTreeMap<String, Instant>,
}

impl Absences {
    /// Begins anew: everybody was here until now.
    pub(crate) fn clear(&mut self) {
        self.since.clear();
    }

    /// Notes who of `all` is here at this moment.
    pub(crate) fn note(&mut self, all: &[String], is_here: impl Fn(&str) -> bool) {
        let now = Instant::now();
        self.since.retain(|node, _| all.contains(node) && !is_here(node));
        for node in all.iter().filter(|node| !is_here(node)) {
            self.since.entry(node.clone()).or_insert(now);
        }
    }

    /// Those that have been away for so long.
    pub(crate) fn longer_than(&self, patience: Duration) -> BTreeSet<String> {
        let gone = self.since.iter().filter(|(_, since)| since.elapsed() >= patience);
        gone.map(|(node, _)| node.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_is_away_from_when_it_was_missed_first_until_it_is_back() {
        let all = ["a", "b"].map(str::to_owned);
        let mut absences = Absences::default();
        absences.note(&all, |node| node == "a");
        tokio::time::advance(Duration::from_secs(5)).await;
        absences.note(&all, |node| node == "a");
        assert_eq!(
            absences.longer_than(Duration::from_secs(5)),
            BTreeSet::from(["b".to_owned()])
        );
        assert!(absences.longer_than(Duration::from_secs(6)).is_empty());
        absences.note(&all, |_| true);
        absences.note(&all, |node| node == "a");
        assert!(absences.longer_than(Duration::from_secs(1)).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_just_begun_to_lead_misses_nobody() {
        let all = ["a".to_owned()];
        let mut absences = Absences::default();
        absences.note(&all, |_| false);
        tokio::time::advance(Duration::from_secs(5)).await;
        absences.clear();
        absences.note(&all, |_| false);
        assert!(absences.longer_than(Duration::from_secs(1)).is_empty());
    }
}
