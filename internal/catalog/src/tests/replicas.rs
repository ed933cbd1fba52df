//! Dead replicas are replaced, and let go of in order.

use super::*;
use crate::{Partition, Replica, StartedReplica};

pub(super) fn report(group_id: u64, replica_id: u64) -> Command {
    Command::ReportDeadReplica { group_id, replica_id }
}

pub(super) fn started(replicas: &[(u64, u64)]) -> Command {
    let replica = |&(group_id, replica_id): &(u64, u64)| StartedReplica { group_id, replica_id };
    Command::ReportStarted {
        replicas: replicas.iter().map(replica).collect(),
    }
}

pub(super) fn replace(group_id: u64, replica_id: u64) -> Command {
    Command::ReplaceReplica { group_id, replica_id }
}

pub(super) fn retire(group_id: u64, replica_id: u64) -> Command {
    Command::RetireReplica { group_id, replica_id }
}

impl Fixture {
    /// The only partition of the only topic.
    fn partition(&self) -> Partition {
        self.catalog.all_topics().next().unwrap().partitions[0].clone()
    }

    /// A topic of one partition on three nodes; its group, and its replica on `n2`.
    fn with_partition() -> (Fixture, u64, Replica) {
        let mut fixture = Fixture::founded(3);
        let topic = fixture.topic(create("orders", 1, 3));
        let partition = &topic.partitions[0];
        let replica = partition.replicas.iter().find(|replica| replica.node == "n2");
        (fixture, partition.group_id, replica.unwrap().clone())
    }
}

#[test]
fn a_lost_incarnation_s_replica_is_replaced_under_a_new_id_on_the_same_node() {
    let (mut fixture, group, lost) = Fixture::with_partition();
    assert_eq!(
        fixture.refused(replace(group, lost.replica_id)),
        Refusal::ReplicaAlive {
            group_id: group,
            replica_id: lost.replica_id
        }
    );
    let catalog_replica = fixture.replica_id(register("n2", 9));
    assert_eq!(fixture.apply(replace(group, lost.replica_id)), Reply::Done);
    let partition = fixture.partition();
    let new = partition.replicas.iter().find(|replica| replica.node == "n2").unwrap();
    assert!(new.replica_id > catalog_replica && !fixture.catalog.is_dead(new));
    assert_eq!(partition.replaced, std::slice::from_ref(&lost));
    assert!(partition.changed);
    let placed: Vec<_> = fixture.catalog.groups_on("n2").collect();
    assert_eq!(
        (placed.len(), placed[0].replica_id, placed[0].dead),
        (1, new.replica_id, false)
    );
    assert!(
        !fixture.catalog.is_retired(lost.replica_id),
        "its group may still count on it"
    );
}

#[test]
fn a_replica_that_was_reported_as_started_stays_so_until_it_is_replaced() {
    let (mut fixture, group, first) = Fixture::with_partition();
    let is_started = |fixture: &Fixture| {
        let placed = fixture.catalog.groups_on("n2").next();
        placed.unwrap().started
    };
    assert!(!is_started(&fixture));
    assert_eq!(fixture.apply(started(&[(group, first.replica_id)])), Reply::Done);
    assert!(is_started(&fixture));
    assert!(
        !fixture.catalog.groups_on("n1").next().unwrap().started,
        "only that one"
    );
    let revision = fixture.catalog.revision();
    assert_eq!(fixture.apply(started(&[(group, first.replica_id)])), Reply::Done);
    assert_eq!(fixture.catalog.revision(), revision, "nothing new was said");
    assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog.clone()));
    fixture.apply(report(group, first.replica_id));
    fixture.apply(replace(group, first.replica_id));
    assert!(!is_started(&fixture), "the new one has not run");
    let mixed = started(&[(group, first.replica_id), (99, 7)]);
    assert_eq!(fixture.apply(mixed), Reply::Done, "those that are gone are passed over");
}

#[test]
fn only_so_many_replicas_are_reported_as_started_at_once() {
    let (mut fixture, ..) = Fixture::with_partition();
    let many = vec![(1, 1); crate::limits::STARTED_REPLICAS_MAX + 1];
    let refusal = fixture.refused(started(&many));
    assert!(
        matches!(&refusal, Refusal::InvalidValue { field, .. } if field == "replicas"),
        "{refusal}"
    );
    assert_eq!(fixture.apply(started(&many[1..])), Reply::Done);
}

#[test]
fn a_replica_reported_dead_is_dead_until_it_is_replaced() {
    let (mut fixture, group, lost) = Fixture::with_partition();
    assert_eq!(fixture.apply(report(group, lost.replica_id)), Reply::Done);
    assert!(fixture.catalog.groups_on("n2").all(|placed| placed.dead));
    assert_eq!(fixture.apply(replace(group, lost.replica_id)), Reply::Done);
    assert!(fixture.catalog.groups_on("n2").all(|placed| !placed.dead));
}

#[test]
fn a_retired_replica_is_forgotten_by_the_partition_and_may_be_deleted() {
    let (mut fixture, group, lost) = Fixture::with_partition();
    fixture.apply(report(group, lost.replica_id));
    assert!(matches!(
        fixture.refused(retire(group, lost.replica_id)),
        Refusal::ReplicaAlive { .. }
    ));
    fixture.apply(replace(group, lost.replica_id));
    assert_eq!(fixture.apply(retire(group, lost.replica_id)), Reply::Done);
    assert!(fixture.partition().replaced.is_empty() && fixture.partition().changed);
    assert!(fixture.catalog.is_retired(lost.replica_id));
    assert_eq!(Catalog::decode(&fixture.catalog.encode()), Ok(fixture.catalog));
}

#[test]
fn every_step_may_be_repeated() {
    let (mut fixture, group, lost) = Fixture::with_partition();
    let steps = [report, replace, retire].map(|step| step(group, lost.replica_id));
    for done in 1..=steps.len() {
        fixture.apply(steps[done - 1].clone());
        let after = fixture.catalog.clone();
        for again in &steps[..done] {
            assert_eq!(fixture.apply(again.clone()), Reply::Done);
        }
        assert_eq!(fixture.catalog, after, "a repetition changed something");
    }
}

#[test]
fn replicas_that_never_were_are_refused() {
    let (mut fixture, group, lost) = Fixture::with_partition();
    for step in [report, replace, retire] {
        for (group_id, replica_id) in [(group, 999), (99, lost.replica_id)] {
            assert_eq!(
                fixture.refused(step(group_id, replica_id)),
                Refusal::ReplicaNotFound { group_id, replica_id }
            );
        }
    }
}

#[test]
fn replaced_replicas_that_nobody_retires_are_bounded() {
    let (mut fixture, group, mut lost) = Fixture::with_partition();
    for _ in 0..crate::limits::REPLACED_REPLICAS_MAX {
        fixture.apply(report(group, lost.replica_id));
        assert_eq!(fixture.apply(replace(group, lost.replica_id)), Reply::Done);
        let replicas = fixture.partition().replicas;
        lost = replicas.into_iter().find(|replica| replica.node == "n2").unwrap();
    }
    fixture.apply(report(group, lost.replica_id));
    assert!(matches!(
        fixture.refused(replace(group, lost.replica_id)),
        Refusal::TooManyReplaced { .. }
    ));
}
