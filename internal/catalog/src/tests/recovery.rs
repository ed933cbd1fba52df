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
fn all_are_declared_dead_and_the_survivor_s_place_continues_its_log() {
    let (mut fixture, before) = fixture();
    fixture.done(recover(1, before.replicas[1].replica_id));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), nodes_of(&before));
    let survivor = Some(before.replicas[1].replica_id);
    let continued: Vec<Option<u64>> = after.replicas.iter().map(|it| it.continues).collect();
    assert_eq!(continued, [None, survivor, None]);
    for (new, old) in after.replicas.iter().zip(&before.replicas) {
        assert!(new.replica_id > before.replicas[2].replica_id && !new.started && !new.reported_dead);
        let former = after.replaced.iter().find(|it| it.replica_id == old.replica_id);
        assert!(
            fixture.catalog.is_dead(former.unwrap()),
            "it may still have a vote somewhere"
        );
        fixture.done(retire(1, old.replica_id));
    }
    assert!(after.changed, "nobody may give the group its first members again");
    let placed = fixture.catalog.groups_on(nodes_of(&after)[1]).next();
    assert_eq!(placed.unwrap().continues, survivor);
}

#[test]
fn a_repetition_before_the_survivor_runs_changes_nothing_and_one_afterwards_begins_anew() {
    let (mut fixture, before) = fixture();
    fixture.done(recover(1, before.replicas[0].replica_id));
    let once = now(&fixture);
    let (survivor, revision) = (once.replicas[0].replica_id, fixture.catalog.revision());
    for again in [before.replicas[0].replica_id, survivor] {
        fixture.done(recover(1, again));
        assert_eq!((now(&fixture), fixture.catalog.revision()), (once.clone(), revision));
    }
    fixture.done(started(&[(1, survivor)]));
    fixture.done(retire(1, once.replaced[1].replica_id));
    fixture.done(recover(1, survivor));
    assert_eq!(now(&fixture).replicas[0].continues, Some(survivor));
}

/// It may be a voter from the group's first members on; and two that continue survivors would make two groups of one.
#[test]
fn a_replica_that_has_not_run_is_given_up_like_the_others() {
    let mut fixture = Fixture::level_2(&["", "", ""]);
    let before = fixture.topic(create("orders", 1, 3)).partitions[0].clone();
    let [first, second, late] = [0, 1, 2].map(|at| before.replicas[at].replica_id);
    fixture.done(started(&[(1, first), (1, second)]));
    fixture.done(recover(1, first));
    let once = now(&fixture);
    let former: Vec<u64> = once.replaced.iter().map(|it| it.replica_id).collect();
    assert_eq!(former, [first, second, late]);
    fixture.done(started(&[(1, late)]));
    assert_eq!(fixture.catalog.is_started(1, late), None, "it has no place to run in");

    fixture.done(started(&[(1, once.replicas[1].replica_id)]));
    fixture.done(recover(1, once.replicas[1].replica_id));
    let twice = now(&fixture);
    let continuing: Vec<Option<u64>> = twice.replicas.iter().map(|it| it.continues).collect();
    assert_eq!(continuing, [None, Some(once.replicas[1].replica_id), None]);
}

#[test]
fn former_replicas_that_still_vote_are_declared_dead_too() {
    let (mut fixture, before) = fixture();
    let moved = before.replicas[0].replica_id;
    fixture.done(move_to(1, moved, "n3"));
    fixture.done(recover(1, before.replicas[1].replica_id));
    let after = now(&fixture);
    assert_eq!(nodes_of(&after), ["n3", nodes_of(&before)[1], nodes_of(&before)[2]]);
    assert!(after.replaced.iter().all(|it| it.reported_dead) && after.replaced.len() == 4);
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
    let (mut fixture, _) = fixture();
    let refused = loop {
        let partition = now(&fixture);
        let new: Vec<(u64, u64)> = partition.replicas.iter().map(|it| (1, it.replica_id)).collect();
        fixture.done(started(&new));
        match fixture.apply(recover(1, new[0].1)) {
            Reply::Done => assert!(now(&fixture).replaced.len() <= REPLACED_REPLICAS_MAX),
            Reply::Refused(refused) => break refused,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(refused, Refusal::TooManyReplaced { .. }), "{refused}");
}
