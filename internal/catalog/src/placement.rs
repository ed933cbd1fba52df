//! Which nodes get the replicas of new partitions, and further replicas of partitions that there are.
//!
//! Rules, in this order: the replicas of a partition stand on distinct nodes; nodes that are to be avoided come last; the
//! replicas use as many racks as there are; the nodes with the fewest replicas come first; preferred leaders are even, too.
//! What is left is decided by name, so every replica of the catalog decides the same. Only the nodes' present loads enter:
//! existing replicas are not moved.
//!
//! Nodes that name no rack count as one rack. Where racks are of different size, spreading over them goes before an
//! even load. Deliberately absent: liveness, disk space, traffic. They are not facts that all replicas share; what is
//! known of them stands in the command, as nodes to be avoided.

use std::collections::BTreeMap;

/// What a node holds already, over all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Replicas of partitions.
    pub(crate) replicas: u64,
    /// Partitions whose preferred leader it is.
    pub(crate) leaders: u64,
}

/// Whether a node may get replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    Open,
    /// Only if there are not enough others.
    Avoided,
    /// Never; it still counts where it holds replicas.
    Closed,
}

/// A node, as the placer is told of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) name: &'a str,
    pub(crate) rack: &'a str,
    pub(crate) load: Load,
    pub(crate) standing: Standing,
}

/// A node, as the placer knows it.
#[derive(Debug, Clone)]
struct Candidate<'a> {
    site: Site<'a>,
    /// Index into `Placer::rack_replicas`.
    rack: usize,
}

/// Places partition after partition, and counts each in the loads that the next one sees.
#[derive(Debug)]
pub(crate) struct Placer<'a> {
    /// In order of name.
    candidates: Vec<Candidate<'a>>,
    /// The replicas on each rack.
    rack_replicas: Vec<u64>,
}

impl<'a> Placer<'a> {
    /// `sites` are in order of name.
    pub(crate) fn new(sites: impl Iterator<Item = Site<'a>>) -> Placer<'a> {
        let mut racks = BTreeMap::new();
        let mut rack_replicas = Vec::new();
        let mut candidates = Vec::new();
        for site in sites {
            let rack = *racks.entry(site.rack).or_insert(rack_replicas.len());
            if rack == rack_replicas.len() {
                rack_replicas.push(0);
            }
            rack_replicas[rack] += site.load.replicas;
            candidates.push(Candidate { site, rack });
        }
        Placer {
            candidates,
            rack_replicas,
        }
    }

    // ------------------------------------------------------------------------------------------------------ placing

    /// The nodes of the next partition, the preferred leader first. There must be at least `replication` nodes that are
    /// not closed.
    pub(crate) fn place(&mut self, replication: usize) -> Vec<&'a str> {
        let mut chosen: Vec<usize> = Vec::with_capacity(replication);
        while chosen.len() < replication {
            match self.pick(&chosen, &[]) {
                Some(next) => chosen.push(next),
                None => unreachable!("{replication} replicas on {} nodes", self.candidates.len()),
            }
        }
        assert!(!chosen.is_empty(), "a partition has replicas");
        self.put_leader_first(&mut chosen);
        for (at, node) in chosen.iter().enumerate() {
            self.count(*node, at == 0);
        }
        self.names(&chosen)
    }

    /// The nodes of `count` more replicas of a partition that has replicas on `held`; `barred` get none. None if there
    /// are not enough nodes.
    pub(crate) fn add(&mut self, held: &[String], barred: &[String], count: usize) -> Option<Vec<&'a str>> {
        let find = |name: &String| self.find(name);
        let mut chosen: Vec<usize> = held.iter().filter_map(find).collect();
        let barred: Vec<usize> = barred.iter().filter_map(find).collect();
        let held = chosen.len();
        for _ in 0..count {
            chosen.push(self.pick(&chosen, &barred)?);
        }
        let new = chosen.split_off(held);
        new.iter().for_each(|node| self.count(*node, false));
        Some(self.names(&new))
    }

    /// The best node for one more replica of a partition that has `chosen` already. The first one is likely to lead, so
    /// it should lead little; those behind it should lead much, which keeps the others free to lead next.
    fn pick(&self, chosen: &[usize], barred: &[usize]) -> Option<usize> {
        let is_free = |node: &usize| {
            let is_closed = self.candidates[*node].site.standing == Standing::Closed;
            !is_closed && !chosen.contains(node) && !barred.contains(node)
        };
        let rank = |node: &usize| {
            let Candidate { site, rack } = self.candidates[*node].clone();
            let rack_uses = chosen
                .iter()
                .filter(|other| self.candidates[**other].rack == rack)
                .count();
            let leaders = if chosen.is_empty() {
                site.load.leaders
            } else {
                u64::MAX - site.load.leaders
            };
            (
                site.standing,
                rack_uses,
                site.load.replicas,
                self.rack_replicas[rack],
                leaders,
                *node,
            )
        };
        (0..self.candidates.len()).filter(is_free).min_by_key(rank)
    }

    fn put_leader_first(&self, chosen: &mut [usize]) {
        let rank = |at: &usize| {
            let Site { standing, load, .. } = self.candidates[chosen[*at]].site;
            (standing, load.leaders)
        };
        let leader = (0..chosen.len()).min_by_key(rank);
        if let Some(leader) = leader {
            chosen[..=leader].rotate_right(1);
        }
    }

    fn names(&self, nodes: &[usize]) -> Vec<&'a str> {
        nodes.iter().map(|node| self.candidates[*node].site.name).collect()
    }

    // ------------------------------------------------------------------------------------------------------ counting

    fn count(&mut self, node: usize, leads: bool) {
        let candidate = &mut self.candidates[node];
        candidate.site.load.replicas += 1;
        candidate.site.load.leaders += u64::from(leads);
        self.rack_replicas[candidate.rack] += 1;
    }

    /// A partition has a replica less on a node; `leads`: that of its preferred leader.
    pub(crate) fn uncount(&mut self, name: &str, leads: bool) {
        if let Some(node) = self.find(name) {
            let candidate = &mut self.candidates[node];
            candidate.site.load.replicas -= 1;
            candidate.site.load.leaders -= u64::from(leads);
            self.rack_replicas[candidate.rack] -= 1;
        }
    }

    /// A partition's preferred leader has become that on a node.
    pub(crate) fn count_leader(&mut self, name: &str) {
        if let Some(node) = self.find(name) {
            self.candidates[node].site.load.leaders += 1;
        }
    }

    // ------------------------------------------------------------------------------------------------------- reading

    /// Of a node, as it is counted now. A node that is not known has none.
    pub(crate) fn load(&self, name: &str) -> Load {
        self.site(name).map_or_else(Load::default, |site| site.load)
    }

    /// Of a node; empty if it is not known.
    pub(crate) fn rack(&self, name: &str) -> &'a str {
        self.site(name).map_or("", |site| site.rack)
    }

    /// Of a node; closed if it is not known.
    pub(crate) fn standing(&self, name: &str) -> Standing {
        self.site(name).map_or(Standing::Closed, |site| site.standing)
    }

    fn site(&self, name: &str) -> Option<&Site<'a>> {
        self.find(name).map(|node| &self.candidates[node].site)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.candidates
            .binary_search_by(|candidate| candidate.site.name.cmp(name))
            .ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    /// `racks[n]` is the rack of node n.
    fn placer<'a>(names: &'a [String], racks: &'a [String]) -> Placer<'a> {
        Placer::new(
            names
                .iter()
                .zip(racks)
                .map(|(name, rack)| site(name, rack, Load::default())),
        )
    }

    fn site<'a>(name: &'a str, rack: &'a str, load: Load) -> Site<'a> {
        Site {
            name,
            rack,
            load,
            standing: Standing::Open,
        }
    }

    fn names(prefix: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{prefix}{number:03}")).collect()
    }

    fn spread(counts: impl Iterator<Item = u64> + Clone) -> u64 {
        counts.clone().max().unwrap_or(0) - counts.min().unwrap_or(0)
    }

    fn distinct<T: Ord>(mut things: Vec<T>) -> usize {
        things.sort_unstable();
        things.dedup();
        things.len()
    }

    fn replica_spread(placer: &Placer) -> u64 {
        spread(placer.candidates.iter().map(|candidate| candidate.site.load.replicas))
    }

    fn leader_spread(placer: &Placer) -> u64 {
        spread(placer.candidates.iter().map(|candidate| candidate.site.load.leaders))
    }

    #[test]
    fn three_partitions_on_three_nodes_are_led_by_one_each() {
        let (names, racks) = (names("n", 3), vec![String::new(); 3]);
        let mut placer = placer(&names, &racks);
        let leaders: Vec<&str> = (0..3).map(|_| placer.place(3)[0]).collect();
        assert_eq!(leaders, ["n000", "n001", "n002"]);
    }

    #[test]
    fn the_least_loaded_node_comes_first() {
        let load = |replicas, leaders| Load { replicas, leaders };
        let nodes = [
            ("a", "", load(5, 0)),
            ("b", "", load(2, 2)),
            ("c", "", load(2, 1)),
            ("d", "", load(4, 0)),
        ];
        let mut placer = Placer::new(nodes.into_iter().map(|(name, rack, load)| site(name, rack, load)));
        assert_eq!(placer.place(2), ["c", "b"]);
        assert_eq!(placer.place(1), ["b"]);
    }

    #[test]
    fn a_small_rack_is_used_before_an_even_load() {
        let nodes = [("a", "r1"), ("b", "r1"), ("c", "r1"), ("d", "r2")];
        let mut placer = Placer::new(nodes.into_iter().map(|(name, rack)| site(name, rack, Load::default())));
        for _ in 0..6 {
            assert!(placer.place(2).contains(&"d"));
        }
    }

    proptest! {
        /// Topics of one replication: nodes are distinct, replicas and leaders stay within one of each other.
        #[test]
        fn equal_nodes_stay_even(nodes in 1usize..13, replication in 1usize..8, partitions in 1usize..200) {
            let (names, racks) = (names("n", nodes), vec![String::new(); nodes]);
            let mut placer = placer(&names, &racks);
            for _ in 0..partitions {
                prop_assert_eq!(distinct(placer.place(replication.min(nodes))), replication.min(nodes));
                prop_assert!(replica_spread(&placer) <= 1, "{:?}", &placer);
                prop_assert!(leader_spread(&placer) <= 1, "{:?}", &placer);
            }
        }

        /// Topics of any replication, in any order: replicas stay within one of each other, leaders within two (a
        /// partition of one replica has no choice of leader).
        #[test]
        fn mixed_replication_stays_even(
            nodes in 1usize..13,
            replications in proptest::collection::vec(1usize..8, 1..100),
        ) {
            let (names, racks) = (names("n", nodes), vec![String::new(); nodes]);
            let mut placer = placer(&names, &racks);
            for replication in replications {
                prop_assert_eq!(distinct(placer.place(replication.min(nodes))), replication.min(nodes));
                prop_assert!(replica_spread(&placer) <= 1, "{:?}", &placer);
                prop_assert!(leader_spread(&placer) <= 2, "{:?}", &placer);
            }
        }

        /// Racks of equal size: every partition uses as many racks as it can, replicas stay within one of each
        /// other, leaders within two.
        #[test]
        fn equal_racks_are_spread_over(
            rack_count in 1usize..6,
            rack_nodes in 1usize..5,
            replication in 1usize..8,
            partitions in 1usize..200,
        ) {
            let nodes = rack_count * rack_nodes;
            let names = names("n", nodes);
            let racks: Vec<String> = (0..nodes).map(|node| format!("r{}", node % rack_count)).collect();
            let rack_of: BTreeMap<&String, &String> = names.iter().zip(&racks).collect();
            let mut placer = placer(&names, &racks);
            for _ in 0..partitions {
                let placed = placer.place(replication.min(nodes));
                let used = distinct(placed.iter().map(|name| rack_of[&name.to_string()]).collect());
                prop_assert_eq!(used, replication.min(rack_count));
                prop_assert_eq!(distinct(placed), replication.min(nodes));
                prop_assert!(replica_spread(&placer) <= 1, "{:?}", &placer);
                prop_assert!(leader_spread(&placer) <= 2, "{:?}", &placer);
            }
        }
    }
}
