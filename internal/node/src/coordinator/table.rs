//! Who of a group should consume which partitions: a pure table, without clock and network.
//!
//! * A partition is *free* unless some member was told that it is its own, or says that it still has it. Only free partitions are
//!   given out, so no partition has two members as long as one coordinator knows all of them; claims make sure of the rest.
//! * Shares are equal up to one, and nobody loses a partition but to make them so: an unaffected member never notices a change.
//! * A member that is to give something up is told so, and keeps it until it says that it has let go, or is gone.
//! * A member is told one thing at a time: until it has answered, what it was told stays as it is. So whatever it may have in mind
//!   is in its row, however late its messages come.
//!
//! Deliberately absent: time. Who has been silent for too long is removed by whoever holds the table.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of partitions.
pub(crate) type Partitions = BTreeSet<u32>;

/// The members of a group on one topic.
///
/// Invariant: what members were told does not overlap.
#[derive(Debug, Default)]
pub(super) struct Table {
    partition_count: u32,
    members: BTreeMap<String, Row>,
}

/// One member.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Row {
    /// What it was told that it should consume.
    told: Partitions,
    /// How often it has been told; 0 until shares are known to be final.
    version: u64,
    /// Whether it has answered to that.
    has_answered: bool,
    /// What it says that it has.
    held: Partitions,
}

/// What a member should consume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Counts from 1; 0 as long as others may still be missing: the shares are not final then.
    pub(crate) version: u64,
    pub(crate) partitions: Partitions,
}

impl Table {
    /// The topic has so many partitions now.
    pub(super) fn set_partition_count(&mut self, partition_count: u32) {
        self.partition_count = partition_count;
    }

    /// A member comes, or comes again, with what it has. What it has and nobody else was told is its own, and so is what it was told
    /// before: one that was only restarted finds its partitions waiting.
    pub(super) fn join(&mut self, name: &str, held: Partitions) {
        let others = self.told_to_others(name);
        let former = self.members.remove(name).unwrap_or_default();
        let own = former.told.union(&held).copied();
        let told = own
            .filter(|it| *it < self.partition_count && !others.contains(it))
            .collect();
        let row = Row {
            told,
            version: 0,
            has_answered: true,
            held,
        };
        self.members.insert(name.to_owned(), row);
        self.check();
    }

    /// A member says what it has, knowing what it was told in `version`.
    pub(super) fn report(&mut self, name: &str, version: u64, held: Partitions) {
        if let Some(row) = self.members.get_mut(name) {
            row.has_answered |= version == row.version;
            row.held = held;
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.members.remove(name);
    }

    pub(super) fn assignment(&self, name: &str) -> Option<Assignment> {
        self.members.get(name).map(|row| Assignment {
            version: row.version,
            partitions: row.told.clone(),
        })
    }

    /// What a member says that it has.
    pub(super) fn held(&self, name: &str) -> Option<&Partitions> {
        self.members.get(name).map(|row| &row.held)
    }

    /// Whether a member still has what it was told to let go of.
    pub(super) fn is_to_let_go(&self, name: &str) -> bool {
        self.members.get(name).is_some_and(|row| !row.held.is_subset(&row.told))
    }

    /// Shares the partitions out; the members that have to be told.
    pub(super) fn assign(&mut self) -> Vec<String> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let before = self.members.clone();
        self.take_back_surplus();
        self.give_out_free();
        self.check();
        let mut to_tell = Vec::new();
        for (name, row) in &mut self.members {
            let is_news = row.version == 0 || before.get(name).is_none_or(|former| former.told != row.told);
            if is_news && row.has_answered {
                row.version += 1;
                row.has_answered = false;
                to_tell.push(name.clone());
            }
        }
        to_tell
    }

    fn told_to_others(&self, name: &str) -> Partitions {
        let others = self.members.iter().filter(|(other, _)| *other != name);
        others.flat_map(|(_, row)| row.told.iter().copied()).collect()
    }

    /// The smallest share, and how many members have one more.
    fn shares(&self) -> (usize, usize) {
        let (partitions, members) = (self.partition_count as usize, self.members.len());
        (partitions / members, partitions % members)
    }

    /// Whoever has more than its share is to let go of the rest, the highest numbers first. Those that have most keep the larger shares.
    fn take_back_surplus(&mut self) {
        let (share, mut larger) = self.shares();
        for row in by_size(&mut self.members) {
            let mut keeps = share;
            if larger > 0 && row.told.len() > share {
                larger -= 1;
                keeps += 1;
            }
            while row.has_answered && row.told.len() > keeps {
                row.told.pop_last();
            }
        }
    }

    /// Free partitions go to whoever has least and has answered, up to its share: what is left then is somebody's who has not.
    fn give_out_free(&mut self) {
        let (share, larger) = self.shares();
        let rows = self.members.values();
        let taken: Partitions = rows.flat_map(|row| row.told.union(&row.held)).copied().collect();
        for partition in (0..self.partition_count).filter(|partition| !taken.contains(partition)) {
            let with_larger = self.members.values().filter(|row| row.told.len() > share).count();
            let share_max = if with_larger < larger { share + 1 } else { share };
            let rows = self.members.values_mut();
            let takers = rows.filter(|row| row.has_answered && row.told.len() < share_max);
            let Some(least) = takers.min_by_key(|row| row.told.len()) else {
                return;
            };
            least.told.insert(partition);
        }
    }

    fn check(&self) {
        let mut seen = Partitions::new();
        for (name, row) in &self.members {
            for partition in &row.told {
                assert!(
                    seen.insert(*partition),
                    "{name} and another were told partition {partition}"
                );
            }
        }
    }
}

/// The largest first, and of equal ones those with the first names.
fn by_size(members: &mut BTreeMap<String, Row>) -> Vec<&mut Row> {
    let mut rows: Vec<&mut Row> = members.values_mut().collect();
    rows.sort_by_key(|row| Reverse(row.told.len()));
    rows
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A table, and what its members have: each does at once, and no later, what it is told.
    struct Group {
        table: Table,
        members: BTreeMap<String, Partitions>,
    }

    impl Group {
        fn new(partition_count: u32) -> Group {
            let mut table = Table::default();
            table.set_partition_count(partition_count);
            Group {
                table,
                members: BTreeMap::new(),
            }
        }

        fn join(&mut self, name: &str, held: &[u32]) {
            let held: Partitions = held.iter().copied().collect();
            self.table.join(name, held.clone());
            self.members.insert(name.to_owned(), held);
        }

        fn leave(&mut self, name: &str) {
            self.table.remove(name);
            self.members.remove(name);
        }

        /// Tells and answers until nothing changes any more; how many messages that took.
        fn settle(&mut self) -> usize {
            let mut messages = 0;
            loop {
                let to_tell = self.table.assign();
                if to_tell.is_empty() {
                    return messages;
                }
                messages += to_tell.len();
                assert!(messages < 1_000, "it does not come to rest: {:?}", self.table);
                for name in to_tell {
                    self.obey(&name);
                }
            }
        }

        fn obey(&mut self, name: &str) {
            let Assignment { version, partitions } = self.table.assignment(name).unwrap();
            let overlap = self.members.iter().filter(|(other, _)| *other != name);
            for (other, held) in overlap {
                assert!(held.is_disjoint(&partitions), "{other} still has some of {name}'s");
            }
            self.members.insert(name.to_owned(), partitions.clone());
            self.table.report(name, version, partitions);
        }

        fn sizes(&self) -> Vec<usize> {
            let mut sizes: Vec<usize> = self.members.values().map(BTreeSet::len).collect();
            sizes.sort_unstable();
            sizes
        }

        fn all(&self) -> usize {
            self.members.values().map(BTreeSet::len).sum()
        }
    }

    #[test]
    fn shares_are_equal_up_to_one_and_cover_everything() {
        let mut group = Group::new(12);
        for (joined, sizes) in [
            ("a", vec![12]),
            ("b", vec![6, 6]),
            ("c", vec![4, 4, 4]),
            ("d", vec![3, 3, 3, 3]),
            ("e", vec![2, 2, 2, 3, 3]),
        ] {
            group.join(joined, &[]);
            group.settle();
            assert_eq!(group.sizes(), sizes);
        }
    }

    #[test]
    fn whoever_keeps_its_share_hears_nothing_of_a_change() {
        let mut group = Group::new(12);
        for name in ["a", "b", "c", "d"] {
            group.join(name, &[]);
            group.settle();
        }
        let before = group.members.clone();
        group.leave("d");
        let messages = group.settle();
        assert_eq!(messages, 3, "each of the others gets one, in one message");
        for name in ["a", "b", "c"] {
            assert!(group.members[name].is_superset(&before[name]), "and gives nothing up");
        }
        group.join("d", &[]);
        group.settle();
        for name in ["a", "b", "c"] {
            assert!(before[name].len() == 3 && group.members[name].len() == 3);
        }
    }

    #[test]
    fn a_partition_is_given_on_only_when_it_was_let_go_of() {
        let mut table = Table::default();
        table.set_partition_count(2);
        table.join("a", Partitions::new());
        assert_eq!(table.assign(), ["a"]);
        table.report("a", 1, [0, 1].into());
        table.join("b", Partitions::new());
        assert_eq!(table.assign(), ["a", "b"]);
        assert_eq!(table.assignment("a").unwrap().partitions, [0].into());
        assert_eq!(table.assignment("b").unwrap().partitions, [].into());
        table.report("b", 1, [].into());
        // It has heard, and is not done with it.
        table.report("a", 2, [0, 1].into());
        assert!(table.is_to_let_go("a") && table.assign().is_empty());
        table.report("a", 2, [0].into());
        assert!(!table.is_to_let_go("a"));
        assert_eq!(table.assign(), ["b"]);
        assert_eq!(table.assignment("b").unwrap().partitions, [1].into());
    }

    #[test]
    fn what_a_member_may_still_take_is_not_given_to_another() {
        let mut table = Table::default();
        table.set_partition_count(2);
        table.join("a", Partitions::new());
        assert_eq!(table.assign(), ["a"]);
        table.join("b", Partitions::new());
        assert_eq!(table.assign(), ["b"], "a is not told anything before it has answered");
        table.report("a", 0, [].into()); // on its way since before it was told
        table.report("b", 1, [].into());
        assert!(table.assign().is_empty(), "a may take both at any moment");
        table.report("a", 1, [0, 1].into());
        assert_eq!(table.assign(), ["a"]);
    }

    #[test]
    fn a_new_coordinator_leaves_everybody_what_it_has() {
        let mut group = Group::new(6);
        group.join("a", &[0, 3]);
        group.join("b", &[1, 4]);
        group.join("c", &[2, 5]);
        let before = group.members.clone();
        assert_eq!(group.settle(), 3, "each is told once that it is so");
        assert_eq!(group.members, before);
    }

    #[test]
    fn a_member_that_was_restarted_finds_its_partitions_waiting() {
        let mut group = Group::new(6);
        group.join("a", &[]);
        group.join("b", &[]);
        group.settle();
        let before = group.members.clone();
        group.join("b", &[]);
        assert_eq!(group.settle(), 1);
        assert_eq!(group.members, before);
    }

    #[test]
    fn of_two_that_have_the_same_the_first_keeps_it() {
        let mut group = Group::new(2);
        group.join("a", &[0, 1]);
        group.table.join("b", [1].into());
        assert_eq!(group.table.assignment("b").unwrap().partitions, [].into());
        assert!(group.table.is_to_let_go("b"));
    }

    #[test]
    fn new_partitions_are_shared_out_and_more_members_than_partitions_wait() {
        let mut group = Group::new(2);
        for name in ["a", "b", "c"] {
            group.join(name, &[]);
        }
        group.settle();
        assert_eq!(group.sizes(), [0, 1, 1]);
        group.table.set_partition_count(9);
        group.settle();
        assert_eq!(group.sizes(), [3, 3, 3]);
    }

    #[test]
    fn a_silent_member_holds_up_only_its_own_share() {
        let mut table = Table::default();
        table.set_partition_count(4);
        table.join("silent", Partitions::new());
        table.join("a", Partitions::new());
        assert_eq!(table.assign(), ["a", "silent"]);
        table.report("a", 1, table.assignment("a").unwrap().partitions);
        table.join("b", Partitions::new());
        table.assign();
        table.report("b", 1, [].into());
        table.remove("silent");
        assert_eq!(table.assign(), ["b"]);
        assert_eq!(table.assignment("a").unwrap().partitions.len(), 2);
        assert_eq!(table.assignment("b").unwrap().partitions.len(), 2);
    }

    #[test]
    fn whatever_happens_nobody_overlaps_and_everything_is_consumed_in_the_end() {
        let mut seed = 7u64;
        let mut random = move |below: u64| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let mut group = Group::new(1 + random(20) as u32);
            for _ in 0..30 {
                let name = format!("m{}", random(6));
                match random(4) {
                    0 => group.leave(&name),
                    1 => {
                        let held: Vec<u32> = group.members.get(&name).into_iter().flatten().copied().collect();
                        group.join(&name, &held);
                    }
                    2 => drop(group.table.assign()),
                    _ if group.members.contains_key(&name) => group.obey(&name),
                    _ => {}
                }
            }
            for name in group.members.keys().cloned().collect::<Vec<_>>() {
                group.obey(&name);
            }
            group.settle();
            if !group.members.is_empty() {
                assert_eq!(group.all(), group.table.partition_count as usize);
                let sizes = group.sizes();
                assert!(sizes[sizes.len() - 1] - sizes[0] <= 1, "{sizes:?}");
            }
        }
    }
}
