//! Random histories: what must hold after any of them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::FEATURE_LEVEL;

fn name() -> impl Strategy<Value = String> {
    prop_oneof![8 => "[a-d]", 1 => "[A-Z/.]{0,2}"]
}

fn command() -> impl Strategy<Value = Command> {
    let created = (
        name(),
        name(),
        0u32..6,
        0u32..9,
        any::<Option<u64>>(),
        any::<Option<u64>>(),
    );
    prop_oneof![
        1 => (0u8..3, 0usize..5).prop_map(|(id, nodes)| found([id; 16], nodes)),
        3 => (0usize..7, 0u8..8).prop_map(|(node, incarnation)| register(&format!("n{node}"), incarnation)),
        2 => (0usize..7, 0u8..8, 1u64..40, any::<bool>()).prop_map(|(node, incarnation, id, runs)| {
            let held = if runs { CatalogReplica::Runs(id) } else { CatalogReplica::Lost(id) };
            register_holding(held, &format!("n{node}"), incarnation)
        }),
        6 => created.prop_map(|(tenant, name, partitions, replication, retention_ms, retention_bytes)| {
            Command::CreateTopic { tenant, name, partitions, replication, retention_ms, retention_bytes, avoid: Vec::new() }
        }),
        6 => level_2(),
        2 => (1u64..12, 1u64..60).prop_map(|(group_id, replica_id)| replicas::started(&[(group_id, replica_id)])),
        4 => (name(), name(), proptest::option::of(1u64..20))
            .prop_map(|(tenant, name, topic_id)| Command::DeleteTopic { tenant, name, topic_id }),
        6 => (0u8..3, 1u64..12, 1u64..60).prop_map(|(step, group_id, replica_id)| match step {
            0 => Command::ReportDeadReplica { group_id, replica_id },
            1 => Command::ReplaceReplica { group_id, replica_id },
            _ => Command::RetireReplica { group_id, replica_id },
        }),
    ]
}

fn level_2() -> impl Strategy<Value = Command> {
    let node = || (0usize..8).prop_map(|number| format!("n{number}"));
    let updated = (
        name(),
        name(),
        proptest::option::of(0u32..6),
        proptest::option::of(0u32..9),
        node(),
    );
    prop_oneof![
        2 => (0usize..8, 0u8..8, 0u8..3).prop_map(|(number, incarnation, rack)| {
            register_2(&format!("n{number}"), incarnation, &format!("r{rack}"), None)
        }),
        4 => updated.prop_map(|(tenant, name, partitions, replication, avoided)| Command::UpdateTopic {
            tenant,
            name,
            topic_id: None,
            partitions,
            replication,
            retention_ms: None,
            retention_bytes: replication.map(u64::from),
            leader_rack: partitions.map(|number| format!("r{number}")),
            avoid: vec![avoided],
        }),
        4 => (1u64..12, 1u64..60, node()).prop_map(|(group, replica, node)| move_to(group, replica, &node)),
        2 => (1u64..12, 1u64..60).prop_map(|(group, replica)| prefer(group, replica)),
        2 => (1u64..12, 1u64..60).prop_map(|(group, replica)| recover(group, replica)),
        3 => (node(), any::<bool>()).prop_map(|(node, leaving)| decommission(&node, leaving)),
        1 => (node(), any::<bool>()).prop_map(|(node, drained)| drain(&node, drained)),
        3 => node().prop_map(|node| remove(&node)),
        1 => proptest::option::of(0u32..5).prop_map(|timer_step| Command::UpdateSettings {
            timer_step,
            replace_after_ms: None,
            catch_up_bytes_per_second: None,
            balance: timer_step.map(|step| step > 1),
            groups_kept_ms: None,
        }),
        1 => (0u64..400_000_000_000).prop_map(settings::groups_kept_ms),
        1 => (0..=FEATURE_LEVEL).prop_map(|level| Command::RaiseFeatureLevel { level }),
    ]
}

fn history() -> impl Strategy<Value = Vec<Command>> {
    let commands = proptest::collection::vec(command(), 0..60);
    (1usize..6, 1..=FEATURE_LEVEL, commands).prop_map(|(nodes, level, mut commands)| {
        commands.insert(0, found(CLUSTER_ID, nodes));
        commands.insert(1, Command::RaiseFeatureLevel { level });
        commands
    })
}

/// Ids of topics, groups and replicas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ids {
    topics: BTreeSet<u64>,
    groups: BTreeSet<u64>,
    replicas: BTreeSet<u64>,
}

impl Ids {
    /// Those in use, and of replicas those that may not be used again.
    fn of(catalog: &Catalog) -> Ids {
        let mut ids = Ids::default();
        for topic in catalog.all_topics() {
            ids.topics.insert(topic.topic_id);
            for partition in &topic.partitions {
                ids.groups.insert(partition.group_id);
                let replicas = partition.replicas.iter().chain(&partition.replaced);
                ids.replicas.extend(replicas.map(|replica| replica.replica_id));
            }
        }
        ids.replicas.extend(catalog.nodes().map(|node| node.catalog_replica_id));
        ids
    }

    /// Notes what has come into use since `before`, none of which may have been in use ever.
    fn note(&mut self, before: &Ids, after: &Ids) {
        let kinds = [
            (&mut self.topics, &before.topics, &after.topics),
            (&mut self.groups, &before.groups, &after.groups),
            (&mut self.replicas, &before.replicas, &after.replicas),
        ];
        for (ever, before, after) in kinds {
            for id in after - before {
                assert!(ever.insert(id), "id {id} is used again");
            }
        }
    }
}

fn check_nodes(catalog: &Catalog) {
    for topic in catalog.all_topics() {
        for partition in &topic.partitions {
            let nodes: BTreeSet<&str> = nodes_of(partition).into_iter().collect();
            assert_eq!(nodes.len(), topic.replication as usize, "not on distinct nodes");
        }
    }
}

proptest! {
    #[test]
    fn ids_are_never_used_again_and_replicas_stand_on_distinct_nodes(history in history()) {
        let mut fixture = Fixture::unfounded();
        let mut ever = Ids::default();
        for command in history {
            let before = Ids::of(&fixture.catalog);
            fixture.apply(command);
            ever.note(&before, &Ids::of(&fixture.catalog));
            check_nodes(&fixture.catalog);
            prop_assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog.clone()));
            let deleted: BTreeSet<u64> = fixture.catalog.tombstones().flatten().collect();
            let living: BTreeSet<u64> =
                fixture.catalog.all_topics().flat_map(|it| &it.partitions).map(|it| it.group_id).collect();
            prop_assert!(deleted.is_disjoint(&living));
            prop_assert_eq!(&(&deleted | &living), &ever.groups);
        }
    }

    #[test]
    fn applying_is_deterministic_also_across_a_checkpoint(history in history(), cut in any::<prop::sample::Index>()) {
        let cut = cut.index(history.len());
        let (mut straight, mut resumed) = (Catalog::new(), Catalog::new());
        for (at, command) in history.iter().enumerate() {
            if at == cut {
                let bytes = resumed.encode();
                resumed = Catalog::decode(&bytes).unwrap();
                prop_assert_eq!(resumed.encode(), bytes);
            }
            let index = at as u64 + 1;
            prop_assert_eq!(straight.apply(index, command), resumed.apply(index, command));
            prop_assert_eq!(&straight, &resumed);
            prop_assert_eq!(straight.encode(), resumed.encode());
        }
    }

    #[test]
    fn commands_and_replies_survive_encoding(history in history()) {
        let mut fixture = Fixture::unfounded();
        for command in history {
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command.clone()));
            let reply = fixture.apply(command);
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200), versioned in any::<bool>()) {
        let mut bytes = bytes;
        if versioned && !bytes.is_empty() {
            bytes[0] = crate::codec::FORMAT_VERSION;
        }
        let _ = (Command::decode(&bytes), Reply::decode(&bytes), Catalog::decode(&bytes));
    }

    /// A checkpoint with any one byte changed is refused, or is a catalog that works.
    #[test]
    fn a_damaged_checkpoint_never_panics(history in history(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut fixture = Fixture::unfounded();
        history.into_iter().for_each(|command| drop(fixture.apply(command)));
        let mut bytes = fixture.catalog.encode();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(mut catalog) = Catalog::decode(&bytes) {
            let index = catalog.revision() + 1;
            catalog.apply(index, &found(CLUSTER_ID, 1));
            catalog.apply(index + 1, &register("fresh", 1));
            catalog.apply(index + 2, &create("fresh", 3, 1));
            catalog.apply(index + 3, &delete("fresh", None));
            prop_assert_eq!(Catalog::decode(&catalog.encode()), Ok(catalog));
        }
    }
}
