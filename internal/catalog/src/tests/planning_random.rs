//! Plans come to an end, wherever they begin, and what they lead to is as it should be.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::planning::{MOVES_IN_FLIGHT_MAX, MOVES_TO_NODE_MAX, View};

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Leaves,
    IsGone,
    IsDrained,
    IsAway,
}

#[derive(Debug, Clone)]
struct Start {
    /// A rack and a fate for each node; the first `founders` are there before the topics.
    nodes: Vec<(usize, Fate)>,
    founders: usize,
    /// Partitions, replicas, leader rack.
    topics: Vec<(u32, u32, Option<usize>)>,
    /// Topics that are made larger or smaller at the end.
    resized: Vec<(usize, u32)>,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Stays),
        1 => Just(Fate::Leaves),
        1 => Just(Fate::IsGone),
        1 => Just(Fate::IsDrained),
        1 => Just(Fate::IsAway),
    ]
}

fn start() -> impl Strategy<Value = Start> {
    let topic = (1u32..12, 1u32..5, proptest::option::weighted(0.2, 0usize..4));
    let nodes = proptest::collection::vec((0usize..3, fate()), 2..9);
    let resized = proptest::collection::vec((0usize..4, 1u32..5), 0..3);
    let parts = (nodes, 1usize..6, proptest::collection::vec(topic, 0..5), resized);
    parts.prop_map(|(nodes, founders, topics, resized)| Start {
        founders: founders.min(nodes.len()),
        nodes,
        topics,
        resized,
    })
}

/// Nodes that all stay, racks of one size, topics of one replication: everything can be even.
fn even_start() -> impl Strategy<Value = Start> {
    let shape = (1usize..4, 1usize..4, 1u32..5, proptest::collection::vec(1u32..16, 1..4));
    (shape, any::<prop::sample::Index>()).prop_map(|((racks, size, replication, partitions), founders)| {
        let nodes = racks * size;
        let replication = replication.min(nodes as u32);
        let least = replication as usize;
        Start {
            nodes: (0..nodes).map(|node| (node % racks, Fate::Stays)).collect(),
            founders: least + founders.index(nodes - least + 1),
            topics: partitions.into_iter().map(|count| (count, replication, None)).collect(),
            resized: Vec::new(),
        }
    })
}

struct World {
    fixture: Fixture,
    names: Vec<String>,
    fates: Vec<Fate>,
}

impl World {
    fn new(start: &Start) -> World {
        let rack = |number: usize| format!("r{}", start.nodes[number].0);
        let racks: Vec<String> = (0..start.founders).map(rack).collect();
        let racks: Vec<&str> = racks.iter().map(String::as_str).collect();
        let mut fixture = Fixture::level_2(&racks);
        for (number, (partitions, replication, leader_rack)) in start.topics.iter().enumerate() {
            let name = format!("t{number}");
            fixture.apply(create(&name, *partitions, *replication));
            let leader_rack = leader_rack.map(|rack| format!("r{rack}"));
            let leader_rack = leader_rack.as_deref();
            fixture.apply(update(
                &name,
                Change {
                    leader_rack,
                    ..Change::default()
                },
            ));
        }
        (start.founders..start.nodes.len()).for_each(|number| fixture.join(number, &rack(number)));
        fixture.settle();
        for (topic, replication) in &start.resized {
            fixture.apply(resize(&format!("t{topic}"), *replication));
        }
        let names: Vec<String> = (0..start.nodes.len()).map(|number| format!("n{number}")).collect();
        for (name, (_, fate)) in names.iter().zip(&start.nodes) {
            match fate {
                Fate::Leaves => drop(fixture.apply(decommission(name, true))), // unless it is needed
                Fate::IsDrained => fixture.done(drain(name, true)),
                _ => {}
            }
        }
        World {
            fixture,
            names,
            fates: start.nodes.iter().map(|(_, fate)| *fate).collect(),
        }
    }

    fn with(&self, fits: impl Fn(Fate) -> bool) -> BTreeSet<&str> {
        let all = self.names.iter().zip(&self.fates);
        all.filter(|(_, fate)| fits(**fate))
            .map(|(name, _)| name.as_str())
            .collect()
    }

    fn view(&self) -> View<'_> {
        View {
            usable: self.with(|fate| !matches!(fate, Fate::IsGone | Fate::IsAway)),
            gone: self.with(|fate| fate == Fate::IsGone),
        }
    }

    fn plan(&self) -> Vec<Command> {
        self.fixture.catalog.plan_moves(&self.view(), |_| true)
    }

    fn partitions(&self) -> Vec<&Partition> {
        self.fixture
            .catalog
            .all_topics()
            .flat_map(|topic| &topic.partitions)
            .collect()
    }

    /// Nodes that may get replicas.
    fn open(&self) -> BTreeSet<&str> {
        let stays = |name: &&str| !self.fixture.catalog.node(name).unwrap().leaving;
        self.view().usable.into_iter().filter(stays).collect()
    }

    fn rack(&self, node: &str) -> &str {
        &self.fixture.catalog.node(node).unwrap().rack
    }

    /// Carries plans out until there are none. `lets_go`: whether a group has finished by a round.
    fn carry_out(&mut self, lets_go: impl Fn(u64, usize) -> bool) {
        for round in 0..400 {
            let partitions: Vec<Partition> = self.partitions().into_iter().cloned().collect();
            for partition in partitions.iter().filter(|partition| lets_go(partition.group_id, round)) {
                self.fixture.settle_group(partition);
            }
            let commands = self.plan();
            self.check_limits(&commands);
            let waits = self.partitions().iter().any(|partition| !partition.replaced.is_empty());
            if commands.is_empty() && !waits {
                return;
            }
            commands.into_iter().for_each(|command| self.fixture.done(command));
        }
        panic!("the plans do not come to an end");
    }

    fn check_limits(&self, commands: &[Command]) {
        let mut groups = BTreeSet::new();
        let mut received: BTreeMap<&str, usize> = BTreeMap::new();
        for command in commands {
            let group_id = match command {
                Command::MoveReplica { group_id, node, .. } => {
                    *received.entry(node).or_default() += 1;
                    group_id
                }
                Command::PreferLeader { group_id, .. } => group_id,
                other => panic!("{other:?} is planned"),
            };
            assert!(groups.insert(group_id), "group {group_id} is changed twice");
        }
        assert!(
            received.values().all(|count| *count <= MOVES_TO_NODE_MAX),
            "{commands:?}"
        );
        assert!(received.values().sum::<usize>() <= MOVES_IN_FLIGHT_MAX, "{commands:?}");
    }

    /// Nothing is left on nodes that are gone or leave, where another node could have it.
    fn check_left(&self) {
        let view = self.view();
        let open = self.open();
        for partition in self.partitions() {
            let nodes = nodes_of(partition);
            let must_go = |node: &&&str| view.gone.contains(**node) || self.fixture.catalog.node(node).unwrap().leaving;
            let stuck = nodes.iter().find(must_go);
            let taker = open.iter().find(|node| !nodes.contains(node));
            assert!(
                stuck.is_none() || taker.is_none(),
                "{stuck:?} could give to {taker:?}: {partition:?}"
            );
        }
    }

    /// No replica that shares its rack could stand in a rack of its own.
    fn check_racks(&self) {
        let open = self.open();
        for partition in self.partitions() {
            let nodes = nodes_of(partition);
            let racks: Vec<&str> = nodes.iter().map(|node| self.rack(node)).collect();
            let shares = |node: &&&str| {
                let rack = self.rack(node);
                open.contains(**node) && racks.iter().filter(|other| **other == rack).count() > 1
            };
            let crowded = nodes.iter().find(shares);
            let better = open.iter().find(|node| !racks.contains(&self.rack(node)));
            assert!(
                crowded.is_none() || better.is_none(),
                "{better:?} is better: {partition:?}"
            );
        }
    }

    fn spread(&self, counts: impl Fn(&Partition, &str) -> bool) -> usize {
        let partitions = self.partitions();
        let count = |node: &&str| partitions.iter().filter(|partition| counts(partition, node)).count();
        let all: Vec<usize> = self.open().iter().map(count).collect();
        all.iter().max().unwrap_or(&0) - all.iter().min().unwrap_or(&0)
    }

    fn check_wanted_leaders(&self) {
        let catalog = &self.fixture.catalog;
        let usable = self.view().usable;
        let wanted = catalog.wanted_leaders(&usable);
        for (topic, partition) in catalog
            .all_topics()
            .flat_map(|it| it.partitions.iter().map(move |p| (it, p)))
        {
            let can = |replica: &&crate::Replica| {
                let node = catalog.node(&replica.node).unwrap();
                let may = usable.contains(replica.node.as_str()) && !node.leaving && !node.drained;
                may && replica.started && !catalog.is_dead(replica)
            };
            let able: Vec<&crate::Replica> = partition.replicas.iter().filter(can).collect();
            let there = able
                .iter()
                .copied()
                .filter(|it| self.rack(&it.node) == topic.leader_rack);
            let there: Vec<&crate::Replica> = there.collect();
            let best = if there.is_empty() { able } else { there };
            let leader = wanted.get(&partition.group_id);
            assert_eq!(leader.is_none(), best.is_empty());
            assert!(leader.is_none_or(|leader| best.iter().any(|it| it.replica_id == *leader)));
            let preferred = &partition.replicas[0];
            if best.contains(&preferred) {
                assert_eq!(leader, Some(&preferred.replica_id));
            }
        }
    }

    fn check_voters(&self) {
        let view = self.view();
        let mut voters: Vec<u64> = vec![1];
        for _ in 0..4 {
            let Some(next) = self.fixture.catalog.plan_catalog_voters(&voters, &view) else {
                assert_eq!(voters.len() % 2, 1, "{voters:?}");
                return;
            };
            assert!(
                next.iter().any(|voter| voters.contains(voter)),
                "{voters:?} to {next:?}"
            );
            voters = next;
        }
        panic!("the votes do not come to rest: {voters:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn plans_come_to_an_end_and_leave_nothing_to_be_done(start in start(), slow in any::<bool>()) {
        let mut world = World::new(&start);
        world.carry_out(|group, round| !slow || group as usize % 3 == round % 3);
        prop_assert_eq!(world.plan(), []);
        world.check_left();
        world.check_racks();
        world.check_wanted_leaders();
        world.check_voters();
        prop_assert_eq!(Catalog::decode(&world.fixture.catalog.encode()), Ok(world.fixture.catalog.clone()));
    }

    #[test]
    fn where_nothing_hinders_replicas_and_leaders_become_even(start in even_start()) {
        let mut world = World::new(&start);
        world.carry_out(|_, _| true);
        world.check_racks();
        prop_assert!(world.spread(|partition, node| nodes_of(partition).contains(&node)) <= 1);
        prop_assert!(world.spread(|partition, node| nodes_of(partition)[0] == node) <= 1);
    }
}
