//! Partitions that go on from one replica.

use super::replicas::{report, retire, started};
use super::*;
use crate::limits::REPLACED_REPLICAS_MAX;

/// Four nodes and a partition on three of them, whose replicas have all run; its group is 1.
fn fixture() -> (Fixture, Partition) {
    let mut fixture = Fixture::level_2(&["", "", "", ""]);
    let topic = fixture.topic(create("orders", 1, 3));
    let all: Vec<(u64, u64)> = topic.partitions[0]
        .replicas
        .iter()
        .map(|it| (1, it.replica_id))
        .collect();
    fixture.done(started(&all));
    let partition = now(&fixture);
    (fixture, partition)
}

fn now(fixture: &Fixture) -> Partition {
    fixture.catalog.partition_of_group(1).unwrap().1.clone()
}

#[test]
fn the_others_are_declared_dead_and_their_places_go_to_new_ones_on_the_same_nodes() {
    let (mut fixture, before) = fixture();
    let survivor = &before.replicas[1];
    fixture.done(recover(1, survivor.replica_id));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), nodes_of(&before));
    assert_eq!(&after.replicas[1], survivor);
    let others = [0, 2].map(|at: usize| &before.replicas[at]);
    for (at, old) in [0, 2].into_iter().zip(others) {
        let new = &after.replicas[at];
        assert!(new.replica_id > before.replicas[2].replica_id && !new.started && !new.reported_dead);
        let former = after.replaced.iter().find(|it| it.replica_id == old.replica_id);
        assert!(
            fixture.catalog.is_dead(former.unwrap()),
            "it may still have a vote somewhere"
        );
        fixture.done(retire(1, old.replica_id));
    }
    assert!(after.changed, "nobody may give the group its first members again");
}

#[test]
fn a_repetition_keeps_the_places_that_have_not_run_yet() {
    let (mut fixture, before) = fixture();
    fixture.done(recover(1, before.replicas[0].replica_id));
    let once = now(&fixture);
    let revision = fixture.catalog.revision();
    fixture.done(recover(1, before.replicas[0].replica_id));
    assert_eq!((now(&fixture), fixture.catalog.revision()), (once, revision));
}

#[test]
fn former_replicas_that_still_vote_are_declared_dead_too() {
    let (mut fixture, before) = fixture();
    let moved = before.replicas[0].replica_id;
    fixture.done(move_to(1, moved, "n3"));
    fixture.done(recover(1, before.replicas[1].replica_id));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), ["n3", nodes_of(&before)[1], nodes_of(&before)[2]]);
    assert!(after.replaced.iter().all(|it| it.reported_dead) && after.replaced.len() == 2);
}

#[test]
fn a_dead_or_unknown_replica_is_no_survivor() {
    let (mut fixture, before) = fixture();
    let (group_id, replica_id) = (1, before.replicas[0].replica_id);
    fixture.done(report(1, replica_id));
    assert_eq!(
        fixture.refused(recover(1, replica_id)),
        Refusal::ReplicaDead { group_id, replica_id }
    );
    let refused = fixture.refused(recover(1, 99));
    assert_eq!(
        refused,
        Refusal::ReplicaNotFound {
            group_id,
            replica_id: 99
        }
    );
    assert_eq!(now(&fixture).replicas[1..], before.replicas[1..]);
}

#[test]
fn no_more_are_given_up_than_may_wait() {
    let (mut fixture, before) = fixture();
    let survivor = before.replicas[0].replica_id;
    for _ in 0..REPLACED_REPLICAS_MAX / 2 {
        let new: Vec<(u64, u64)> = now(&fixture).replicas.iter().map(|it| (1, it.replica_id)).collect();
        fixture.done(started(&new));
        fixture.done(recover(1, survivor));
    }
    let new: Vec<(u64, u64)> = now(&fixture).replicas.iter().map(|it| (1, it.replica_id)).collect();
    fixture.done(started(&new));
    let refused = fixture.refused(recover(1, survivor));
    assert!(matches!(refused, Refusal::TooManyReplaced { .. }), "{refused}");
}
