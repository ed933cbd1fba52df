//! What other nodes have told about the groups that they lead, and about themselves.
//!
//! Of each group the claim with the highest term is kept. Everything here is a hint: a node that cannot be asked any more
//! may be in it, and whoever uses it checks whether that node is alive.
//!
//! Invariant: at most [`GROUPS_MAX`] groups and [`NODES_MAX`] nodes; what goes beyond is not taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_partition::log::GroupId;
use tokio::sync::watch;

use super::Leader;
use super::message::{Answer, Page, PageKind};
use crate::readiness::NodeState;

/// All partitions that a cluster can have, and the catalog.
const GROUPS_MAX: usize = highwater_catalog::limits::CLUSTER_PARTITIONS_MAX + 1;
/// All nodes that a cluster can have, less this one, and as many that have left it.
const NODES_MAX: usize = 2 * highwater_catalog::limits::NODES_MAX;

/// The table; shared by those who take in what is told and those who look.
#[derive(Debug, Default)]
pub(crate) struct Told {
    tables: Mutex<Tables>,
    /// Counts up whenever something changes.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Tables {
    leaders: BTreeMap<GroupId, Leader>,
    tellers: BTreeMap<String, Teller>,
}

/// A node that tells.
#[derive(Debug)]
struct Teller {
    boot: u64,
    /// The last page taken in.
    number: u64,
    state: NodeState,
    /// Whether it has told everything once, so that changes can follow.
    is_complete: bool,
    /// The groups of the list that is being told.
    listing: BTreeSet<GroupId>,
}

impl Told {
    /// Takes in a page of the node `from`.
    pub(crate) fn take(&self, from: &str, page: Page) -> Answer {
        let (answer, changed) = self.lock().take(from, page);
        if changed {
            self.changes.send_modify(|count| *count += 1);
        }
        answer
    }

    /// Who claims to lead the group, with the highest term.
    pub(crate) fn leader(&self, group: GroupId) -> Option<Leader> {
        self.lock().leaders.get(&group).cloned()
    }

    /// What the node has last told of itself, and in which process start.
    pub(crate) fn state(&self, node: &str) -> Option<(u64, NodeState)> {
        let tables = self.lock();
        tables.tellers.get(node).map(|teller| (teller.boot, teller.state))
    }

    /// Counts up whenever something changes.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    /// What to answer, and whether anything changed.
    fn take(&mut self, from: &str, page: Page) -> (Answer, bool) {
        self.make_room(from);
        let is_new = self.tellers.get(from).is_none_or(|known| known.boot < page.boot);
        if is_new {
            let teller = Teller {
                boot: page.boot,
                number: 0,
                state: page.state,
                is_complete: false,
                listing: BTreeSet::new(),
            };
            self.tellers.insert(from.to_owned(), teller);
        }
        let Some(teller) = self.tellers.get_mut(from) else {
            return (Answer::Taken, false);
        };
        if page.boot < teller.boot || page.number <= teller.number {
            return (Answer::Taken, is_new); // it was late, and something newer is known
        }
        let follows = teller.number == page.after;
        let is_list = matches!(page.kind, PageKind::List { .. });
        match page.kind {
            PageKind::List { begins: true, .. } => {
                teller.listing.clear();
                teller.is_complete = false;
            }
            PageKind::List { .. } if follows && !teller.is_complete => {}
            PageKind::Change if follows && teller.is_complete => {}
            _ => return (Answer::WantsList, is_new),
        }
        let mut changed = is_new || teller.state != page.state;
        (teller.number, teller.state) = (page.number, page.state);
        if is_list {
            teller.listing.extend(page.led.iter().map(|(group, _)| *group));
        }
        for (group, term) in page.led {
            changed |= self.put(from, group, term);
        }
        if let PageKind::List { ends: true, .. } = page.kind {
            changed |= self.complete(from);
        }
        (Answer::Taken, changed)
    }

    /// Forgets the node whose process is the oldest if there are too many.
    fn make_room(&mut self, from: &str) {
        if self.tellers.len() < NODES_MAX || self.tellers.contains_key(from) {
            return;
        }
        let oldest = self.tellers.iter().min_by_key(|(_, teller)| teller.boot);
        if let Some(oldest) = oldest.map(|(node, _)| node.clone()) {
            self.tellers.remove(&oldest);
            self.leaders.retain(|_, leader| leader.node != oldest);
        }
    }

    fn put(&mut self, from: &str, group: GroupId, term: u64) -> bool {
        let known = self.leaders.get(&group);
        let is_own = known.is_some_and(|known| known.node == from);
        if term == 0 {
            return is_own && self.leaders.remove(&group).is_some();
        }
        let wins = match known {
            Some(known) => known.term < term || (is_own && known.term != term),
            None => self.leaders.len() < GROUPS_MAX,
        };
        if wins {
            let node = from.to_owned();
            self.leaders.insert(group, Leader { node, term });
        }
        wins
    }

    /// The list of a node is at its end: what it does not hold, that node does not lead.
    fn complete(&mut self, from: &str) -> bool {
        let Some(teller) = self.tellers.get_mut(from) else {
            return false;
        };
        teller.is_complete = true;
        let listed = std::mem::take(&mut teller.listing);
        let before = self.leaders.len();
        self.leaders
            .retain(|group, leader| leader.node != from || listed.contains(group));
        self.leaders.len() != before
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CHANGE: PageKind = PageKind::Change;
    const WHOLE: PageKind = PageKind::List {
        begins: true,
        ends: true,
    };

    fn page(kind: PageKind, number: u64, led: &[(u64, u64)]) -> Page {
        Page {
            kind,
            state: NodeState::Ready,
            boot: 1,
            number,
            after: number - 1,
            led: led.iter().map(|(group, term)| (GroupId(*group), *term)).collect(),
        }
    }

    fn leader(told: &Told, group: u64) -> Option<(String, u64)> {
        told.leader(GroupId(group)).map(|leader| (leader.node, leader.term))
    }

    fn led_by(node: &str, term: u64) -> Option<(String, u64)> {
        Some((node.to_owned(), term))
    }

    #[test]
    fn the_claim_with_the_highest_term_stays() {
        let told = Told::default();
        assert_eq!(told.take("a", page(WHOLE, 1, &[(7, 5)])), Answer::Taken);
        assert_eq!(told.take("b", page(WHOLE, 1, &[(7, 4)])), Answer::Taken);
        assert_eq!(leader(&told, 7), led_by("a", 5));
        assert_eq!(told.take("b", page(CHANGE, 2, &[(7, 6)])), Answer::Taken);
        assert_eq!(leader(&told, 7), led_by("b", 6));
        // That a does not lead any more says nothing about b.
        assert_eq!(told.take("a", page(CHANGE, 2, &[(7, 0)])), Answer::Taken);
        assert_eq!(leader(&told, 7), led_by("b", 6));
        assert_eq!(told.take("b", page(CHANGE, 3, &[(7, 0)])), Answer::Taken);
        assert_eq!(leader(&told, 7), None);
    }

    #[test]
    fn a_list_replaces_what_the_node_has_told_before_once_it_is_whole() {
        let told = Told::default();
        told.take("a", page(WHOLE, 1, &[(1, 1), (2, 1), (3, 1)]));
        let first = PageKind::List {
            begins: true,
            ends: false,
        };
        let last = PageKind::List {
            begins: false,
            ends: true,
        };
        told.take("a", page(first, 2, &[(1, 1)]));
        assert_eq!(leader(&told, 3), led_by("a", 1), "it may be on the next page");
        assert_eq!(told.take("a", page(last, 3, &[(2, 2)])), Answer::Taken);
        assert_eq!(
            (leader(&told, 1), leader(&told, 2), leader(&told, 3)),
            (led_by("a", 1), led_by("a", 2), None)
        );
    }

    #[test]
    fn who_lacks_a_page_wants_everything() {
        let told = Told::default();
        assert_eq!(told.take("a", page(CHANGE, 5, &[(1, 1)])), Answer::WantsList);
        assert_eq!(leader(&told, 1), None);
        told.take("a", page(WHOLE, 6, &[(1, 1)]));
        assert_eq!(told.take("a", page(CHANGE, 8, &[(2, 1)])), Answer::WantsList);
        let last = PageKind::List {
            begins: false,
            ends: true,
        };
        assert_eq!(told.take("a", page(last, 7, &[(3, 1)])), Answer::WantsList);
        assert_eq!((leader(&told, 2), leader(&told, 3)), (None, None));
    }

    #[test]
    fn what_comes_late_changes_nothing() {
        let told = Told::default();
        told.take("a", page(WHOLE, 5, &[(1, 3)]));
        let changes = told.changes();
        assert_eq!(told.take("a", page(CHANGE, 4, &[(1, 0)])), Answer::Taken);
        assert_eq!(told.take("a", page(WHOLE, 3, &[])), Answer::Taken);
        let of_old_process = Page {
            boot: 0,
            ..page(WHOLE, 9, &[])
        };
        assert_eq!(told.take("a", of_old_process), Answer::Taken);
        assert_eq!(leader(&told, 1), led_by("a", 3));
        assert!(!changes.has_changed().unwrap());
    }

    #[test]
    fn a_node_that_was_started_again_begins_anew() {
        let told = Told::default();
        told.take("a", page(WHOLE, 5, &[(1, 3)]));
        let starting = Page {
            boot: 2,
            state: NodeState::Starting,
            ..page(WHOLE, 1, &[])
        };
        assert_eq!(told.take("a", starting), Answer::Taken);
        assert_eq!(told.state("a"), Some((2, NodeState::Starting)));
        assert_eq!(leader(&told, 1), None);
    }

    #[test]
    fn the_tables_have_bounds() {
        let told = Told::default();
        for node in 0..=NODES_MAX as u64 {
            let page = Page {
                boot: 1 + node,
                ..page(WHOLE, 1, &[(node, 1)])
            };
            told.take(&format!("n{node}"), page);
        }
        assert_eq!((told.state("n0"), leader(&told, 0)), (None, None));
        assert!(told.state("n1").is_some());
        let groups: Vec<(u64, u64)> = (0..GROUPS_MAX as u64 + 10).map(|group| (1000 + group, 1)).collect();
        let page = Page {
            boot: 2,
            ..page(WHOLE, 2, &groups)
        };
        told.take("n1", page);
        // Full, less the one that it led before and does not any more.
        assert_eq!(told.lock().leaders.len(), GROUPS_MAX - 1);
    }
}
