//! Topics that change while they are in use.

use super::*;
use crate::limits::{NODES_MAX, REPLICATION_MAX, TOPIC_PARTITIONS_MAX};

fn partitions(count: u32) -> Command {
    let partitions = Some(count);
    update(
        "orders",
        Change {
            partitions,
            ..Change::default()
        },
    )
}

#[test]
fn an_update_changes_what_it_says_and_answers_the_same_again() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let before = fixture.topic(create("orders", 1, 2));
    let change = || Change {
        topic_id: Some(before.topic_id),
        partitions: Some(3),
        retention_ms: Some(5),
        leader_rack: Some("r1"),
        ..Change::default()
    };
    let after = fixture.topic(update("orders", change()));
    assert_eq!((after.retention_ms, after.retention_bytes), (5, before.retention_bytes));
    assert_eq!((after.partitions.len(), after.leader_rack.as_str()), (3, "r1"));
    assert_eq!(
        after.partitions[0], before.partitions[0],
        "what there was stays as it is"
    );
    assert!(
        after.partitions[1..]
            .iter()
            .all(|it| it.replicas.len() == 2 && !it.changed)
    );
    let revision = fixture.catalog.revision();
    assert_eq!(fixture.topic(update("orders", change())), after);
    assert_eq!(fixture.catalog.revision(), revision, "nothing new was said");
    let cleared = Change {
        leader_rack: Some(""),
        ..Change::default()
    };
    assert_eq!(fixture.topic(update("orders", cleared)).leader_rack, "");
}

#[test]
fn only_the_topic_that_is_meant_is_updated() {
    let mut fixture = Fixture::level_2(&[""]);
    let other = Change {
        topic_id: Some(9),
        ..Change::default()
    };
    assert!(matches!(
        fixture.refused(update("orders", other)),
        Refusal::TopicNotFound { .. }
    ));
    fixture.topic(create("orders", 1, 1));
    let other = Change {
        topic_id: Some(9),
        ..Change::default()
    };
    assert!(matches!(
        fixture.refused(update("orders", other)),
        Refusal::TopicChanged { topic_id: 1, .. }
    ));
}

#[test]
fn partitions_only_become_more() {
    let mut fixture = Fixture::level_2(&["", ""]);
    fixture.topic(create("orders", 3, 1));
    assert_eq!(
        fixture.refused(partitions(2)),
        Refusal::FewerPartitions { wanted: 2, have: 3 }
    );
    assert_eq!(fixture.topic(partitions(3)).partitions.len(), 3);
    let limit = TOPIC_PARTITIONS_MAX;
    let wanted = limit + 1;
    assert_eq!(
        fixture.refused(partitions(wanted)),
        Refusal::TooManyPartitions { wanted, limit }
    );
    let topic = fixture.topic(partitions(limit));
    assert_eq!(topic.partitions.len(), limit as usize);
    let on_n0 = fixture.catalog.groups_on("n0").count();
    assert_eq!(on_n0, limit as usize / 2, "new partitions are placed by load");
}

#[test]
fn more_replicas_go_to_other_nodes_and_racks() {
    let mut fixture = Fixture::level_2(&["r0", "r0", "r1", "r1"]);
    let before = fixture.topic(create("orders", 4, 1));
    let after = fixture.topic(resize("orders", 2));
    assert_eq!(after.replication, 2);
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        assert_eq!(new.replicas[0], old.replicas[0], "the first stays");
        let rack = |at: usize| &fixture.catalog.node(&new.replicas[at].node).unwrap().rack;
        assert_ne!(rack(0), rack(1));
        assert!(new.changed && new.replaced.is_empty());
    }
    for node in ["n0", "n1", "n2", "n3"] {
        assert_eq!(fixture.catalog.groups_on(node).count(), 2, "{node}");
    }
    assert_eq!(fixture.topic(resize("orders", 2)), after);
}

#[test]
fn fewer_replicas_keep_the_preferred_leader_and_the_racks() {
    let mut fixture = Fixture::level_2(&["r0", "r0", "r1"]);
    let before = fixture.topic(create("orders", 3, 3));
    let after = fixture.topic(resize("orders", 2));
    for (old, new) in before.partitions.iter().zip(&after.partitions) {
        assert_eq!(new.replicas[0], old.replicas[0]);
        assert!(nodes_of(new).contains(&"n2"), "the only one in its rack stays: {new:?}");
        assert_eq!((new.replaced.len(), new.changed), (1, true));
    }
    assert_eq!(fixture.topic(resize("orders", 2)), after);
    fixture.settle();
    assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog));
}

#[test]
fn dead_and_avoided_replicas_go_first() {
    let mut fixture = Fixture::level_2(&["", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 4));
    let [first, second, ..] = &topic.partitions[0].replicas[..] else {
        panic!("{topic:?}")
    };
    fixture.done(replicas::report(1, second.replica_id));
    let avoid = [first.node.as_str()];
    let change = Change {
        replication: Some(2),
        avoid: &avoid,
        ..Change::default()
    };
    let after = fixture.topic(update("orders", change));
    assert_eq!(after.partitions[0].replicas, topic.partitions[0].replicas[2..]);
    assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog));
}

#[test]
fn the_most_loaded_node_loses_first() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 1, 3));
    let other = fixture.topic(create("other", 1, 1));
    let preferred = &fixture.catalog.partition_of_group(1).unwrap().1.replicas[0].node;
    let loaded = other.partitions[0].replicas[0].node.clone();
    assert_ne!(*preferred, loaded);
    let after = fixture.topic(resize("orders", 2));
    assert_eq!(after.partitions[0].replaced[0].node, loaded);
}

#[test]
fn the_preferred_leader_stays_even_on_the_most_loaded_node() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let topic = fixture.topic(create("orders", 1, 3));
    let [first, others @ ..] = &topic.partitions[0].replicas[..] else {
        panic!("{topic:?}")
    };
    let mut on_the_first = create("other", 2, 1);
    if let Command::CreateTopic { avoid, .. } = &mut on_the_first {
        avoid.extend(others.iter().map(|replica| replica.node.clone()));
    }
    fixture.topic(on_the_first);
    assert_eq!(fixture.catalog.groups_on(&first.node).count(), 3);
    let after = fixture.topic(resize("orders", 2));
    assert_eq!(after.partitions[0].replicas[0], *first);
}

#[test]
fn a_replication_that_is_not_possible_is_refused() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 1, 1));
    assert!(
        matches!(fixture.refused(resize("orders", 0)), Refusal::InvalidValue { field, .. } if field == "replication")
    );
    assert_eq!(
        fixture.refused(resize("orders", 4)),
        Refusal::NotEnoughNodes { wanted: 4, have: 3 }
    );
    let limit = REPLICATION_MAX;
    assert_eq!(
        fixture.refused(resize("orders", limit + 1)),
        Refusal::TooManyReplicas {
            wanted: limit + 1,
            limit
        }
    );
    fixture.topic(resize("orders", 3));
    fixture.topic(resize("orders", 1));
    assert_eq!(
        fixture.refused(resize("orders", 3)),
        Refusal::Unfinished { group_id: 1 },
        "the others still hold former replicas"
    );
    fixture.settle();
    fixture.topic(resize("orders", 3));
}

#[test]
fn former_replicas_of_updates_are_bounded() {
    let mut fixture = Fixture::level_2(&[""; 12]);
    fixture.topic(create("orders", 1, 7));
    fixture.topic(resize("orders", 1));
    fixture.topic(resize("orders", 6));
    assert!(matches!(
        fixture.refused(resize("orders", 1)),
        Refusal::TooManyReplaced { group_id: 1, .. }
    ));
}

#[test]
fn nodes_to_be_avoided_get_replicas_only_if_there_are_not_enough_others() {
    let mut fixture = Fixture::level_2(&["r0", "r1", "r2"]);
    let avoiding = |name: &str, replication, avoided: &[&str]| {
        let mut command = create(name, 3, replication);
        if let Command::CreateTopic { avoid, .. } = &mut command {
            avoid.extend(avoided.iter().map(|name| name.to_string()));
        }
        command
    };
    let topic = fixture.topic(avoiding("two", 2, &["n1", "nobody"]));
    assert!(
        topic
            .partitions
            .iter()
            .all(|partition| !nodes_of(partition).contains(&"n1"))
    );
    let topic = fixture.topic(avoiding("three", 3, &["n1"]));
    assert!(topic.partitions.iter().all(|partition| nodes_of(partition)[0] != "n1"));
    let many = vec!["n1"; NODES_MAX + 1];
    assert!(
        matches!(fixture.refused(avoiding("many", 1, &many)), Refusal::InvalidValue { field, .. } if field == "avoid")
    );
    assert!(matches!(
        fixture.refused(avoiding("bad", 1, &["N1"])),
        Refusal::InvalidName { .. }
    ));
}
