//! A replica that goes on alone, and what happens when the others come back all the same.

use std::time::Duration;

use highwater_log::ReplicaId;

use super::cluster::{Cluster, TIMERS, batch, eventually, in_time, member, propose_now, read_all};
use crate::Role;

fn voters(cluster: &Cluster, index: usize) -> Vec<ReplicaId> {
    let status = cluster.partition(index).status();
    status.voters.iter().map(|voter| voter.replica_id).collect()
}

/// Two of three are gone; another one goes on alone with the log of the third. Answers which that is, and the other two.
async fn alone() -> (Cluster, usize, Vec<usize>) {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let survivor = cluster.follower().await;
    let given_up: Vec<usize> = (0..3).filter(|index| *index != survivor).collect();
    for other in &given_up {
        cluster.crash(*other).await;
    }
    cluster.crash(survivor).await;
    let successor = cluster.succeed(survivor).await;
    (cluster, successor, given_up)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_member_left_leads_with_all_that_it_has_and_takes_in_others() {
    let (mut cluster, survivor, _) = alone().await;
    assert_eq!(cluster.leader_among(&[survivor]).await, survivor);
    assert_eq!(voters(&cluster, survivor), [member(survivor).replica_id]);
    cluster.accept(batch(1, 1)).await;
    assert_eq!(read_all(cluster.partition(survivor)).await.len(), 2);

    let new = cluster.add_node().await;
    let leader = cluster.partition(survivor);
    in_time("the learner", leader.add_learner(member(new))).await.unwrap();
    let both = vec![member(survivor).replica_id, member(new).replica_id];
    in_time("the change", leader.change_voters(both)).await.unwrap();
    cluster.accept(batch(1, 2)).await;
    cluster.all_reach(6).await;
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_committed_yet_is_kept() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let survivor = cluster.leader().await;
    for other in (0..3).filter(|index| *index != survivor) {
        cluster.crash(other).await;
    }
    drop(propose_now(cluster.partition(survivor), batch(1, 1))); // nobody is there to commit it
    eventually("it is in the log", || cluster.node(survivor).log.log_end() == 4).await;
    cluster.crash(survivor).await;
    let survivor = cluster.succeed(survivor).await;
    cluster.leader_among(&[survivor]).await;
    cluster.all_reach(4).await;
    assert_eq!(read_all(cluster.partition(survivor)).await.len(), 2);
}

/// They are a majority of the group as they know it, so they elect a leader. It must not reach the log that goes on, though it
/// finds the node that had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_that_were_given_up_cannot_disturb_the_survivor() {
    let (mut cluster, survivor, given_up) = alone().await;
    cluster.leader_among(&[survivor]).await;
    cluster.accept(batch(1, 1)).await;
    cluster.boot_together(&given_up).await;
    eventually("they have a leader of their own", || {
        let leads = |index: &usize| cluster.partition(*index).status().role == Role::Leader;
        given_up.iter().any(leads)
    })
    .await;
    let term = cluster.partition(survivor).status().term;
    tokio::time::timeout(
        Duration::from_millis(4 * TIMERS.election_max_ms),
        cluster
            .partition(survivor)
            .status_changes()
            .wait_for(|now| now.term != term || now.role != Role::Leader),
    )
    .await
    .expect_err("the survivor is disturbed");
    assert_eq!(voters(&cluster, survivor), [member(survivor).replica_id]);
    assert_eq!(read_all(cluster.partition(survivor)).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_may_be_made_the_only_member_twice() {
    let (mut cluster, survivor, given_up) = alone().await;
    cluster.leader_among(&[survivor]).await;
    cluster.crash(survivor).await;
    let former = (0..3).find(|index| !given_up.contains(index)).unwrap();
    cluster.boot_alone(survivor, former).await;
    cluster.leader_among(&[survivor]).await;
    cluster.accept(batch(1, 1)).await;
}
