//! Leadership that is given away, in time and out of time.

use std::time::Duration;

use super::cluster::{Cluster, NAMES, batch, eventually, in_time, member, members, propose};
use crate::codec::kind;
use crate::{Answer, CommandError, Role};

fn refused(result: Result<(), CommandError>, why: &str) {
    match result {
        Err(CommandError::Refused(text)) if text.contains(why) => {}
        other => panic!("expected a refusal because of {why:?}, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_best_successor_is_a_voter_that_answers() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let [silent, other] = [(leader + 1) % 3, (leader + 2) % 3];
    cluster.isolate(silent);
    let partition = cluster.partition(leader);
    eventually("the one that answers first", || {
        partition.successors() == [member(other), member(silent)]
    })
    .await;
    assert!(cluster.partition(other).successors().is_empty(), "it does not lead");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_not_given_to_a_voter_that_is_silent() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let silent = (leader + 1) % 3;
    cluster.isolate(silent);
    let partition = cluster.partition(leader);
    eventually("silence", || partition.successors()[1] == member(silent)).await;
    let term = partition.status().term;
    refused(
        partition.transfer_leader(member(silent).replica_id).await,
        "has not answered",
    );
    cluster.accept(batch(1, 0)).await;
    assert_eq!(
        (partition.status().role, partition.status().term),
        (Role::Leader, term),
        "it leads on"
    );
}

/// openraft's leader stays mute once it hands over; nothing but another leader ends that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_over_that_gets_lost_costs_a_failover_and_no_more() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let term = cluster.partition(leader).status().term;
    cluster.network.lose(kind::TRANSFER);
    let next = member((leader + 1) % 3).replica_id;
    cluster.partition(leader).transfer_leader(next).await.unwrap();
    let mute = propose(cluster.partition(leader), batch(2, 0)).await;
    assert!(matches!(mute, Answer::NotApplied(_)), "{mute:?}");
    cluster.accept(batch(1, 0)).await;
    let now = cluster.leader().await;
    assert!(cluster.partition(now).status().term > term);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_does_not_hand_over_to_itself() {
    let cluster = Cluster::pristine(std::sync::Arc::new(|| None)).await;
    let alone = cluster.partition(0);
    assert!(alone.initialize(members(1)).await.unwrap());
    eventually("a leader", || alone.status().role == Role::Leader).await;
    assert_eq!(alone.successors(), []);
    refused(alone.transfer_leader(member(0).replica_id).await, "leads already");
    refused(alone.transfer_leader(member(1).replica_id).await, "is no voter");
    cluster.accept(batch(1, 0)).await;
}

/// A node that lost its disk comes back with another replica, which takes over the vote of the lost one. Whoever leads
/// then and goes away must not leave the group needing the lost one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_only_when_a_change_of_voters_is_done() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let added = cluster.add_node().await;
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    let [other, lost] = [(leader + 1) % 3, (leader + 2) % 3];
    let partition = cluster.partition(leader).clone();
    partition.add_learner(member(added)).await.unwrap();
    cluster.all_reach(2).await;
    cluster.crash(lost).await;
    let voters = [leader, other, added].map(|index| member(index).replica_id);

    // neither half of the change can be committed until the other voter is back
    cluster.network.isolate(NAMES[other], &[NAMES[leader]]);
    let changing = tokio::spawn({
        let partition = partition.clone();
        async move { partition.change_voters(voters.to_vec()).await }
    });
    eventually("both sets of voters", || partition.status().voters.len() == 4).await;
    let successors = partition.successors();
    assert!(!successors.contains(&member(lost)), "{successors:?}");
    let mut moving = tokio::spawn({
        let partition = partition.clone();
        async move { partition.transfer_leader(member(added).replica_id).await }
    });
    let early = tokio::time::timeout(Duration::from_millis(20), &mut moving).await;
    assert!(early.is_err(), "begun while the voters change: {early:?}");
    cluster.network.heal();
    in_time("the change", changing).await.unwrap().unwrap();
    in_time("the hand-over", moving).await.unwrap().unwrap();
    let next = cluster.partition(added);
    eventually("the next leader", || next.status().role == Role::Leader).await;
    assert_eq!(next.status().voters.len(), 3, "{:?}", next.status());
    cluster.accept(batch(1, 1)).await;
}
