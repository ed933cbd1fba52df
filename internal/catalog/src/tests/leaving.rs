//! Nodes that are drained, leave, are removed, and come back.

use super::*;
use crate::LeftOn;

fn name(node: &str) -> String {
    node.to_string()
}

#[test]
fn a_leaving_node_gets_no_replicas_and_leaving_can_be_taken_back() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.done_twice(decommission("n1", true));
    let topic = fixture.topic(create("orders", 4, 2));
    assert!(
        topic
            .partitions
            .iter()
            .all(|partition| !nodes_of(partition).contains(&"n1"))
    );
    assert_eq!(
        fixture.refused(create("more", 1, 3)),
        Refusal::NotEnoughNodes { wanted: 3, have: 2 }
    );
    assert_eq!(fixture.topic(create("default", 1, 0)).replication, 2);
    fixture.done_twice(decommission("n1", false));
    fixture.topic(create("more", 1, 3));
}

#[test]
fn a_node_that_is_needed_cannot_leave() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.topic(create("orders", 1, 3));
    let needed = Refusal::NodeNeeded {
        node: name("n0"),
        tenant: name("acme"),
        name: name("orders"),
        replication: 3,
        nodes: 2,
    };
    assert_eq!(fixture.refused(decommission("n0", true)), needed);
    fixture.join(3, "");
    fixture.done(decommission("n0", true));
    assert_eq!(
        fixture.refused(decommission("n1", true)),
        Refusal::NodeNeeded {
            node: name("n1"),
            tenant: name("acme"),
            name: name("orders"),
            replication: 3,
            nodes: 2,
        }
    );
}

#[test]
fn the_last_node_cannot_leave() {
    let mut fixture = Fixture::level_2(&["", ""]);
    fixture.done(decommission("n0", true));
    assert_eq!(
        fixture.refused(decommission("n1", true)),
        Refusal::LastNode { node: name("n1") }
    );
}

#[test]
fn nodes_that_do_not_exist_are_refused() {
    let mut fixture = Fixture::level_2(&["", ""]);
    let topic = fixture.topic(create("orders", 1, 1));
    let replica_id = topic.partitions[0].replicas[0].replica_id;
    for command in [
        decommission("n9", true),
        drain("n9", true),
        remove("n9"),
        move_to(1, replica_id, "n9"),
    ] {
        assert_eq!(fixture.refused(command), Refusal::NodeNotFound { node: name("n9") });
    }
    assert!(matches!(
        fixture.refused(drain("N9", true)),
        Refusal::InvalidName { .. }
    ));
}

#[test]
fn draining_is_noted_and_survives_a_restart() {
    let mut fixture = Fixture::level_2(&["", ""]);
    fixture.done_twice(drain("n1", true));
    fixture.replica_id(register_2("n1", 1, "elsewhere", Some(CatalogReplica::Runs(2))));
    assert!(fixture.catalog.node("n1").unwrap().drained);
    fixture.done_twice(drain("n1", false));
    assert!(!fixture.catalog.node("n1").unwrap().drained);
}

#[test]
fn a_node_that_is_leaving_goes_on_leaving_with_a_new_disk() {
    let mut fixture = Fixture::level_2(&["", ""]);
    fixture.done(decommission("n1", true));
    fixture.replica_id(register_2("n1", 77, "", None));
    assert!(fixture.catalog.node("n1").unwrap().leaving);
}

#[test]
fn a_node_is_removed_only_once_it_holds_nothing() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let topic = fixture.topic(create("orders", 1, 2));
    let replica = topic.partitions[0]
        .replicas
        .iter()
        .find(|replica| replica.node == "n0")
        .unwrap();
    assert_eq!(
        fixture.refused(remove("n0")),
        Refusal::NodeNotLeaving { node: name("n0") }
    );
    fixture.done(decommission("n0", true));
    let in_use = |placed, replaced| Refusal::NodeInUse {
        node: name("n0"),
        placed,
        replaced,
    };
    assert_eq!(fixture.refused(remove("n0")), in_use(1, 0));
    fixture.done(move_to(1, replica.replica_id, "n2"));
    assert_eq!(fixture.catalog.left_on("n0"), LeftOn { placed: 0, replaced: 1 });
    assert_eq!(fixture.refused(remove("n0")), in_use(0, 1));
    fixture.settle();
    fixture.done_twice(remove("n0"));
    assert_eq!(fixture.catalog.left_on("n0"), LeftOn::default());
}

/// Three nodes, of which `n0` has been removed.
fn without_n0() -> Fixture {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    fixture.done(decommission("n0", true));
    fixture.done(remove("n0"));
    fixture
}

#[test]
fn a_removed_node_is_known_but_counts_nowhere() {
    let mut fixture = without_n0();
    assert_eq!(fixture.catalog.nodes().len(), 3);
    let members: Vec<&str> = fixture.catalog.members().map(|node| node.name.as_str()).collect();
    assert_eq!(members, ["n1", "n2"]);
    assert_eq!(
        fixture.refused(create("orders", 1, 3)),
        Refusal::NotEnoughNodes { wanted: 3, have: 2 }
    );
    let topic = fixture.topic(create("orders", 1, 1));
    let replica_id = topic.partitions[0].replicas[0].replica_id;
    let removed = Refusal::NodeRemoved { node: name("n0") };
    for command in [
        move_to(1, replica_id, "n0"),
        drain("n0", true),
        decommission("n0", false),
    ] {
        assert_eq!(fixture.refused(command), removed);
    }
    fixture.done(decommission("n0", true));
}

#[test]
fn a_removed_node_comes_back_only_with_a_new_data_directory() {
    let mut fixture = without_n0();
    let running = register_2("n0", 0, "", Some(CatalogReplica::Runs(1)));
    assert_eq!(fixture.refused(running), Refusal::NodeRemoved { node: name("n0") });
    let new = fixture.replica_id(register_2("n0", 77, "", None));
    let node = fixture.catalog.node("n0").unwrap();
    assert!(!node.removed && !node.leaving && !node.drained);
    assert_eq!((node.catalog_replica_id, node.past_lives.len()), (new, 1));
    fixture.topic(create("orders", 1, 3));
    assert_eq!(
        fixture.refused(register_2("n0", 0, "", None)),
        Refusal::IncarnationReplaced { node: name("n0") }
    );
    assert_eq!(
        fixture.refused(remove("n0")),
        Refusal::NodeNotLeaving { node: name("n0") },
        "a late repetition must not hit the new node"
    );
}

#[test]
fn removed_nodes_make_room_for_others() {
    let mut fixture = Fixture::level_2(&["", ""]);
    for number in 2..crate::limits::NODES_MAX {
        fixture.replica_id(register_2(&format!("n{number}"), 1, "", None));
    }
    assert!(matches!(
        fixture.refused(register_2("more", 1, "", None)),
        Refusal::TooManyNodes { .. }
    ));
    fixture.done(decommission("n5", true));
    fixture.done(remove("n5"));
    fixture.replica_id(register_2("more", 1, "", None));
    assert!(
        matches!(
            fixture.refused(register_2("n5", 2, "", None)),
            Refusal::TooManyNodes { .. }
        ),
        "coming back needs room, too"
    );
}

#[test]
fn a_dead_replica_is_not_replaced_on_a_leaving_node() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let topic = fixture.topic(create("orders", 1, 2));
    let replica = &topic.partitions[0].replicas[0];
    fixture.done(replicas::report(1, replica.replica_id));
    fixture.done(decommission(&replica.node, true));
    assert_eq!(
        fixture.refused(replicas::replace(1, replica.replica_id)),
        Refusal::NodeLeaving {
            node: replica.node.clone()
        }
    );
    fixture.done(move_to(1, replica.replica_id, "n2"));
}
