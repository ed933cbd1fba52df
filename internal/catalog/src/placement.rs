//! Which nodes get the replicas of a new topic.
//!
//! Rules, in this order: the replicas of a partition stand on distinct nodes; they use as many racks as there are;
//! the nodes with the fewest replicas come first; preferred leaders are even, too. What is left is decided by name, so
//! every replica of the catalog decides the same. Only the nodes' present loads enter: existing topics are not moved.
//!
//! Nodes that name no rack count as one rack. Where racks are of different size, spreading over them goes before an
//! even load. Deliberately absent: liveness, disk space, traffic. They are not facts that all replicas share.

use std::collections::BTreeMap;

/// What a node holds already, over all topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    /// Replicas of partitions.
    pub(crate) replicas: u64,
    /// Partitions whose preferred leader it is.
    pub(crate) leaders: u64,
}

/// A node that may get replicas.
#[derive(Debug, Clone)]
struct Candidate<'a> {
    name: &'a str,
    /// Index into `Placer::rack_replicas`.
    rack: usize,
    load: Load,
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
    /// `nodes` are (name, rack, load), in order of name.
    pub(crate) fn new(nodes: impl Iterator<Item = (&'a str, &'a str, Load)>) -> Placer<'a> {
        let mut racks = BTreeMap::new();
        let mut rack_replicas = Vec::new();
        let mut candidates = Vec::new();
        for (name, rack, load) in nodes {
            let rack = *racks.entry(rack).or_insert(rack_replicas.len());
            if rack == rack_replicas.len() {
                rack_replicas.push(0);
            }
            rack_replicas[rack] += load.replicas;
            candidates.push(Candidate { name, rack, load });
        }
        Placer {
            candidates,
            rack_replicas,
        }
    }

    /// The nodes of the next partition, the preferred leader first. There must be at least `replication` nodes.
    pub(crate) fn place(&mut self, replication: usize) -> Vec<&'a str> {
        assert!(
            replication >= 1 && replication <= self.candidates.len(),
            "{replication} replicas on {} nodes",
            self.candidates.len()
        );
        let mut chosen: Vec<usize> = Vec::with_capacity(replication);
        while chosen.len() < replication {
            let next = self.pick(&chosen);
            chosen.push(next);
        }
        self.put_leader_first(&mut chosen);
        self.count(&chosen);
        chosen.into_iter().map(|node| self.candidates[node].name).collect()
    }

    /// The best node for one more replica of a partition that has `chosen` already. The first one is likely to lead, so
    /// it should lead little; those behind it should lead much, which keeps the others free to lead next.
    fn pick(&self, chosen: &[usize]) -> usize {
        let free = (0..self.candidates.len()).filter(|node| !chosen.contains(node));
        let rank = |node: &usize| {
            let Candidate { rack, load, .. } = self.candidates[*node];
            let rack_uses = chosen
                .iter()
                .filter(|other| self.candidates[**other].rack == rack)
                .count();
            let leaders = if chosen.is_empty() {
                load.leaders
            } else {
                u64::MAX - load.leaders
            };
            (rack_uses, load.replicas, self.rack_replicas[rack], leaders, *node)
        };
        match free.min_by_key(rank) {
            Some(node) => node,
            None => unreachable!("{} nodes are chosen of {}", chosen.len(), self.candidates.len()),
        }
    }

    fn put_leader_first(&self, chosen: &mut [usize]) {
        let leader = (0..chosen.len()).min_by_key(|at| self.candidates[chosen[*at]].load.leaders);
        if let Some(leader) = leader {
            chosen[..=leader].rotate_right(1);
        }
    }

    fn count(&mut self, chosen: &[usize]) {
        for (at, node) in chosen.iter().enumerate() {
            let candidate = &mut self.candidates[*node];
            candidate.load.replicas += 1;
            candidate.load.leaders += u64::from(at == 0);
            self.rack_replicas[candidate.rack] += 1;
        }
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
                .map(|(name, rack)| (name.as_str(), rack.as_str(), Load::default())),
        )
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
        spread(placer.candidates.iter().map(|candidate| candidate.load.replicas))
    }

    fn leader_spread(placer: &Placer) -> u64 {
        spread(placer.candidates.iter().map(|candidate| candidate.load.leaders))
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
        let mut placer = Placer::new(nodes.into_iter());
        assert_eq!(placer.place(2), ["c", "b"]);
        assert_eq!(placer.place(1), ["b"]);
    }

    #[test]
    fn a_small_rack_is_used_before_an_even_load() {
        let nodes = [("a", "r1"), ("b", "r1"), ("c", "r1"), ("d", "r2")];
        let mut placer = Placer::new(nodes.into_iter().map(|(name, rack)| (name, rack, Load::default())));
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
