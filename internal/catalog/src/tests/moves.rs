//! Replicas that move, and preferred leaders.

use super::*;
use crate::limits::REPLACED_REPLICAS_MAX;

/// Four nodes and a partition on two of them, `n0` and `n1`; its group is 1.
fn fixture() -> (Fixture, Partition) {
    let mut fixture = Fixture::level_2(&["", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 2));
    assert_eq!(nodes_of(&topic.partitions[0]), ["n0", "n1"]);
    (fixture, topic.partitions[0].clone())
}

fn now(fixture: &Fixture) -> Partition {
    fixture.catalog.partition_of_group(1).unwrap().1.clone()
}

#[test]
fn a_moved_replica_gives_its_place_to_a_new_one() {
    let (mut fixture, before) = fixture();
    let old = &before.replicas[0];
    fixture.done_twice(move_to(1, old.replica_id, "n3"));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), ["n3", "n1"]);
    assert!(after.replicas[0].replica_id > before.replicas[1].replica_id && !after.replicas[0].started);
    assert_eq!(
        (after.replaced.as_slice(), after.changed),
        (std::slice::from_ref(old), true)
    );
    assert_eq!(fixture.catalog.groups_on("n0").count(), 0);
    assert_eq!(fixture.catalog.groups_on("n3").count(), 1);
    fixture.done(replicas::retire(1, old.replica_id));
    fixture.done(move_to(1, old.replica_id, "n2"));
    assert_eq!(
        nodes_of(&now(&fixture)),
        ["n3", "n1"],
        "a repetition moves nothing, wherever to"
    );
}

#[test]
fn the_load_follows_a_move() {
    let (mut fixture, before) = fixture();
    fixture.done(move_to(1, before.replicas[0].replica_id, "n2"));
    let topic = fixture.topic(create("later", 2, 1));
    let leaders: Vec<Vec<&str>> = topic.partitions.iter().map(nodes_of).collect();
    assert_eq!(leaders, [["n0"], ["n3"]], "n2 is not empty any more");
}

#[test]
fn a_node_gets_at_most_one_replica_of_a_group() {
    let (mut fixture, before) = fixture();
    let [first, second] = [0, 1].map(|at: usize| before.replicas[at].replica_id);
    let held = |node: &str| Refusal::ReplicaHeld {
        group_id: 1,
        node: node.to_string(),
    };
    assert_eq!(fixture.refused(move_to(1, first, "n1")), held("n1"));
    assert_eq!(fixture.refused(move_to(1, first, "n0")), held("n0"));
    fixture.done(move_to(1, first, "n2"));
    assert_eq!(
        fixture.refused(move_to(1, second, "n0")),
        held("n0"),
        "it has a former one"
    );
    fixture.settle();
    fixture.done(move_to(1, second, "n0"));
}

#[test]
fn a_leaving_node_gets_no_moved_replica() {
    let (mut fixture, before) = fixture();
    fixture.done(decommission("n2", true));
    let node = "n2".to_string();
    assert_eq!(
        fixture.refused(move_to(1, before.replicas[0].replica_id, "n2")),
        Refusal::NodeLeaving { node }
    );
}

#[test]
fn replicas_that_never_were_do_not_move() {
    let (mut fixture, before) = fixture();
    for (group_id, replica_id) in [(1, 999), (99, before.replicas[0].replica_id)] {
        let not_found = Refusal::ReplicaNotFound { group_id, replica_id };
        assert_eq!(fixture.refused(move_to(group_id, replica_id, "n3")), not_found);
        assert_eq!(fixture.refused(prefer(group_id, replica_id)), not_found);
    }
}

#[test]
fn former_replicas_of_moves_are_bounded() {
    let names: Vec<&str> = vec![""; REPLACED_REPLICAS_MAX + 3];
    let mut fixture = Fixture::level_2(&names);
    fixture.topic(create("orders", 1, 1));
    for target in 1..=REPLACED_REPLICAS_MAX {
        let replica_id = now(&fixture).replicas[0].replica_id;
        fixture.done(move_to(1, replica_id, &format!("n{target}")));
    }
    let replica_id = now(&fixture).replicas[0].replica_id;
    let target = format!("n{}", REPLACED_REPLICAS_MAX + 1);
    assert!(matches!(
        fixture.refused(move_to(1, replica_id, &target)),
        Refusal::TooManyReplaced { .. }
    ));
}

#[test]
fn the_preferred_leader_is_the_first_replica() {
    let (mut fixture, before) = fixture();
    let second = before.replicas[1].replica_id;
    fixture.done_twice(prefer(1, second));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), ["n1", "n0"]);
    assert!(!after.changed && after.replaced.is_empty(), "the replicas are the same");
    assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog.clone()));
    fixture.done(move_to(1, second, "n3"));
    assert!(matches!(
        fixture.refused(prefer(1, second)),
        Refusal::ReplicaNotFound { .. }
    ));
}
