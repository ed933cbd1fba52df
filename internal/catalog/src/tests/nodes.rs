//! Founding, registering, and nodes that come back with a new disk.

use super::*;
use crate::limits::{NODE_PAST_LIVES_MAX, NODES_MAX};

#[test]
fn nothing_but_a_founding_is_accepted_before_the_founding() {
    let mut fixture = Fixture::unfounded();
    for command in [register("n0", 0), create("orders", 1, 1), delete("orders", None)] {
        assert_eq!(fixture.refused(command), Refusal::NotFounded);
    }
    assert_eq!(fixture.catalog.cluster_id(), None);
    assert_eq!(fixture.catalog.revision(), 0);
}

#[test]
fn founding_names_the_cluster_and_its_nodes() {
    let fixture = Fixture::founded(3);
    assert_eq!(fixture.catalog.cluster_id(), Some(CLUSTER_ID));
    assert_eq!(fixture.catalog.cluster_name(), Some("test"));
    let nodes: Vec<(&str, u64)> = fixture
        .catalog
        .nodes()
        .map(|node| (node.name.as_str(), node.catalog_replica_id))
        .collect();
    assert_eq!(nodes, [("n0", 1), ("n1", 2), ("n2", 3)]);
}

#[test]
fn the_same_founding_again_is_answered_the_same_and_another_is_refused() {
    let mut fixture = Fixture::founded(3);
    assert_eq!(
        fixture.apply(found(CLUSTER_ID, 3)),
        Reply::Founded { cluster_id: CLUSTER_ID }
    );
    assert_eq!(fixture.catalog.revision(), 1);
    assert_eq!(
        fixture.refused(found([9; 16], 3)),
        Refusal::AlreadyFounded { cluster_id: CLUSTER_ID }
    );
}

#[test]
fn a_founding_that_contradicts_itself_is_refused() {
    let with = |change: fn(&mut Vec<FoundingNode>)| {
        let mut nodes: Vec<FoundingNode> = (0..3).map(founding_node).collect();
        change(&mut nodes);
        Command::Found {
            cluster_id: CLUSTER_ID,
            cluster_name: "test".to_string(),
            nodes,
        }
    };
    let cases = [
        (with(|nodes| nodes.clear()), "nodes"),
        (with(|nodes| nodes[2].name = "n0".to_string()), "nodes"),
        (with(|nodes| nodes[2].replica_id = 1), "replica_id"),
        (with(|nodes| nodes[2].replica_id = 0), "replica_id"),
        (with(|nodes| nodes[2].replica_id = u64::MAX), "replica_id"),
        (with(|nodes| nodes[2].address = "n2".to_string()), "address"),
    ];
    for (command, wrong) in cases {
        match Fixture::unfounded().refused(command) {
            Refusal::InvalidValue { field, .. } => assert_eq!(field, wrong),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_node_that_moves_keeps_its_replica() {
    let mut fixture = Fixture::founded(3);
    let moved = Command::RegisterNode {
        name: "n1".to_string(),
        incarnation: [1; 16],
        address: "[::1]:9001".to_string(),
        rack: "r1".to_string(),
        version: "0.2.0".to_string(),
        feature_level: 1,
        catalog_replica: Some(CatalogReplica::Runs(2)),
    };
    assert_eq!(fixture.replica_id(moved.clone()), 2);
    let node = fixture.catalog.node("n1").unwrap();
    assert_eq!(
        (&*node.address, &*node.rack, &*node.version),
        ("[::1]:9001", "r1", "0.2.0")
    );
    let revision = fixture.catalog.revision();
    assert_eq!(fixture.replica_id(moved), 2, "said again");
    assert_eq!(fixture.catalog.revision(), revision, "nothing new was said");
}

#[test]
fn a_new_node_gets_a_catalog_replica_of_its_own() {
    let mut fixture = Fixture::founded(3);
    assert_eq!(fixture.replica_id(register("n3", 3)), 4);
    assert_eq!(fixture.replica_id(register("n4", 4)), 5);
}

#[test]
fn a_wiped_node_gets_a_new_catalog_replica_and_its_old_replicas_are_dead() {
    let mut fixture = Fixture::founded(3);
    fixture.topic(create("orders", 2, 3));
    assert_eq!(
        fixture
            .catalog
            .groups_on("n1")
            .filter(|placement| placement.dead)
            .count(),
        0
    );

    let new = fixture.replica_id(register("n1", 77));
    let node = fixture.catalog.node("n1").unwrap();
    assert_eq!(new, node.catalog_replica_id);
    assert_eq!(node.past_lives.len(), 1);
    assert_eq!(node.past_lives[0].catalog_replica_id, 2);
    assert_eq!(
        fixture
            .catalog
            .groups_on("n1")
            .map(|placement| placement.dead)
            .collect::<Vec<_>>(),
        [true, true]
    );
    assert!(fixture.catalog.groups_on("n0").all(|placement| !placement.dead));

    let later = fixture.topic(create("later", 1, 3));
    assert!(
        later.partitions[0]
            .replicas
            .iter()
            .all(|replica| !fixture.catalog.is_dead(replica))
    );
}

#[test]
fn a_node_that_lost_its_catalog_replica_gets_another_and_keeps_the_rest() {
    let mut fixture = Fixture::founded(3);
    fixture.topic(create("orders", 2, 3));
    let new = fixture.replica_id(register_holding(CatalogReplica::Lost(2), "n1", 1));
    assert!(new > 3, "{new} was given before");
    let node = fixture.catalog.node("n1").unwrap().clone();
    assert_eq!(node.catalog_replica_id, new);
    assert_eq!(
        node.past_lives.last().map(|lost| lost.catalog_replica_id),
        Some(2),
        "the lost one can be taken out of the group"
    );
    assert!(fixture.catalog.groups_on("n1").all(|placement| !placement.dead));
    let revision = fixture.catalog.revision();
    assert_eq!(
        fixture.replica_id(register_holding(CatalogReplica::Lost(2), "n1", 1)),
        new,
        "said again"
    );
    assert_eq!(fixture.replica_id(register("n1", 1)), new, "it is not made yet");
    assert_eq!(fixture.catalog.revision(), revision, "nothing new was said");
    let running = register_holding(CatalogReplica::Runs(new), "n1", 1);
    assert_eq!(fixture.replica_id(running.clone()), new, "it runs");
    assert_eq!(fixture.replica_id(running), new, "and runs again");
    fixture.replica_id(register("n1", 77));
    assert!(fixture.catalog.groups_on("n1").all(|placement| placement.dead));
    assert_eq!(
        fixture.refused(register_holding(CatalogReplica::Runs(new), "n1", 1)),
        Refusal::IncarnationReplaced { node: "n1".to_string() }
    );
}

#[test]
fn a_directory_from_before_its_catalog_replica_ran_gets_another_one() {
    let mut fixture = Fixture::founded(3);
    let first = fixture.replica_id(register("n3", 3));
    assert_eq!(fixture.replica_id(register("n3", 3)), first, "it has not run yet");
    fixture.replica_id(register_holding(CatalogReplica::Runs(first), "n3", 3));
    fixture.topic(create("orders", 4, 3));
    let second = fixture.replica_id(register("n3", 3));
    assert!(second > first, "{second} was given before");
    assert!(!fixture.catalog.node("n3").unwrap().catalog_replica_started);
    assert!(
        fixture.catalog.groups_on("n3").all(|placement| !placement.dead),
        "it is the same life; what else the copy lacks shows by itself"
    );
    assert_eq!(
        fixture.refused(register_holding(CatalogReplica::Runs(first), "n3", 3)),
        Refusal::CatalogReplicaReplaced {
            node: "n3".to_string(),
            replica_id: first
        }
    );
    let lost_again = register_holding(CatalogReplica::Lost(first), "n3", 3);
    assert_eq!(fixture.replica_id(lost_again), second, "of a copy of the copy");
    let founder = fixture.replica_id(register("n0", 0));
    assert!(founder > second, "founders have run");
}

#[test]
fn replicas_stay_alive_however_many_catalog_replicas_a_node_loses() {
    let mut fixture = Fixture::founded(3);
    fixture.replica_id(register("n1", 77));
    fixture.topic(create("orders", 2, 3));
    for _ in 0..NODE_PAST_LIVES_MAX + 10 {
        let lost = fixture.catalog.node("n1").unwrap().catalog_replica_id;
        fixture.replica_id(register_holding(CatalogReplica::Lost(lost), "n1", 77));
    }
    assert_eq!(
        fixture.catalog.node("n1").unwrap().past_lives.len(),
        NODE_PAST_LIVES_MAX
    );
    assert!(fixture.catalog.groups_on("n1").all(|placement| !placement.dead));
    Catalog::decode(&fixture.catalog.encode()).unwrap();
}

#[test]
fn a_data_directory_that_was_replaced_cannot_come_back() {
    let mut fixture = Fixture::founded(3);
    fixture.replica_id(register("n1", 77));
    assert_eq!(
        fixture.refused(register("n1", 1)),
        Refusal::IncarnationReplaced { node: "n1".to_string() }
    );
}

#[test]
fn only_so_many_past_lives_are_remembered() {
    let mut fixture = Fixture::founded(1);
    for life in 0..NODE_PAST_LIVES_MAX as u8 + 10 {
        fixture.replica_id(register("n0", life + 1));
    }
    let node = fixture.catalog.node("n0").unwrap();
    assert_eq!(node.past_lives.len(), NODE_PAST_LIVES_MAX);
    assert_eq!(
        node.past_lives.last().unwrap().incarnation,
        [NODE_PAST_LIVES_MAX as u8 + 9; 16],
        "the latest stay"
    );
}

#[test]
fn a_cluster_has_a_most_of_nodes() {
    let mut fixture = Fixture::founded(1);
    for number in 1..NODES_MAX {
        fixture.replica_id(register(&format!("n{number}"), 1));
    }
    assert_eq!(
        fixture.refused(register("more", 1)),
        Refusal::TooManyNodes { limit: NODES_MAX }
    );
    fixture.replica_id(register("n7", 2));
}

#[test]
fn what_a_node_says_of_itself_is_checked() {
    let node = |name: &str, address: &str, rack: &str| Command::RegisterNode {
        name: name.to_string(),
        incarnation: [1; 16],
        address: address.to_string(),
        rack: rack.to_string(),
        version: String::new(),
        feature_level: 1,
        catalog_replica: None,
    };
    let mut fixture = Fixture::founded(1);
    assert!(matches!(fixture.refused(node("N3", "a:1", "")), Refusal::InvalidName { field, .. } if field == "node"));
    let long = format!("{}:1", "a".repeat(300));
    for address in [
        "",
        "host",
        ":9000",
        "host:",
        "host:0",
        "host:65536",
        "ho st:9",
        "host:9\n",
        long.as_str(),
    ] {
        let refusal = fixture.refused(node("n3", address, ""));
        assert!(
            matches!(&refusal, Refusal::InvalidValue { field, .. } if field == "address"),
            "{address:?}: {refusal}"
        );
    }
    assert!(
        matches!(fixture.refused(node("n3", "a:1", "r\t1")), Refusal::InvalidValue { field, .. } if field == "rack")
    );
}
