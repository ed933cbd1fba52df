//! Members that come, go, and come back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_log::ReplicaId;

use super::cluster::{Cluster, NAMES, TIMERS, batch, batch_of, eventually, in_time, member};
use crate::codec::{calls, kind};
use crate::types::{CommittedLeaderId, LogId, Vote, VoteRequest};
use crate::{Error, Role};

fn ids(indexes: &[usize]) -> Vec<ReplicaId> {
    indexes.iter().map(|index| member(*index).replica_id).collect()
}

/// The three replicas without `left_out`, and a new one, which is a voter in its place.
async fn replaced(cluster: &mut Cluster, left_out: usize) -> Vec<usize> {
    let new = cluster.add_node().await;
    let present: Vec<usize> = (0..3)
        .filter(|index| cluster.running().any(|(each, _)| each == *index))
        .collect();
    let leader = cluster.leader_among(&present).await;
    let leader = cluster.partition(leader);
    in_time("the learner", leader.add_learner(member(new))).await.unwrap();
    let staying: Vec<usize> = (0..3).filter(|index| *index != left_out).chain([new]).collect();
    in_time("the change", leader.change_voters(ids(&staying)))
        .await
        .unwrap();
    staying
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_left_out_of_the_voters_makes_the_change_and_another_one_leads() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let old = cluster.leader().await;
    let staying = replaced(&mut cluster, old).await;
    let new_leader = cluster.leader_among(&staying).await;
    eventually("the old leader has stepped down", || {
        cluster.partition(old).status().role != Role::Leader
    })
    .await;
    let status = cluster.partition(new_leader).status();
    assert_eq!(status.voter_change, None);
    let voters: Vec<ReplicaId> = status.voters.iter().map(|voter| voter.replica_id).collect();
    assert_eq!(voters, ids(&staying));
    cluster.crash(old).await;
    cluster.accept(batch(1, 1)).await;
    cluster.all_reach(4).await;
}

/// It slept through the change, so it takes itself for a voter, hears of no leader, and campaigns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_voter_that_comes_back_cannot_disturb_the_group() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let away = cluster.follower().await;
    cluster.crash(away).await;
    let staying = replaced(&mut cluster, away).await;
    let leader = cluster.leader_among(&staying).await;
    let term = cluster.partition(leader).status().term;
    cluster.boot(away).await;
    eventually("it campaigns", || {
        cluster.partition(away).status().role == Role::Candidate
            || cluster.network.kinds_seen().1.contains(&kind::PRE_VOTE)
    })
    .await;

    let mut request = VoteRequest::new(
        Vote::new(term + 5, member(away).replica_id.0),
        Some(LogId::new(CommittedLeaderId::new(term + 5), 1_000)),
    );
    request.leadership_transfer = true; // would not wait for the leader's lease
    for index in &staying {
        for kind in [kind::VOTE, kind::PRE_VOTE] {
            let body = calls::encode_vote_request(member(*index).replica_id.0, &request);
            let answer = cluster.partition(*index).handle_call(NAMES[away], kind, body).await;
            let refused = matches!(&answer, Err(Error::BadMessage(why)) if why.contains("no member"));
            assert!(refused, "{answer:?}");
        }
    }
    // for as long as several elections of its own take
    let several = Duration::from_millis(4 * TIMERS.election_max_ms);
    let mut status = cluster.partition(leader).status_changes();
    let disturbed = tokio::time::timeout(
        several,
        status.wait_for(|now| now.term != term || now.role != Role::Leader),
    );
    assert!(disturbed.await.is_err(), "{:?}", cluster.partition(leader).status());
    cluster.accept(batch(1, 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_brought_up_at_the_pace_and_nobody_waits_for_it() {
    let mut cluster = Cluster::start().await;
    let payload = Bytes::from(vec![7; 128 * 1024]);
    for sequence in 0..24 {
        cluster.accept(batch_of(1, sequence, payload.clone())).await;
    }
    cluster.catch_up.set(4_000_000);
    let leader = cluster.leader().await;
    let new = cluster.add_node().await;
    let begin = Instant::now();
    in_time("the learner", cluster.partition(leader).add_learner(member(new)))
        .await
        .unwrap();
    for sequence in 24..28 {
        cluster.accept(batch_of(1, sequence, payload.clone())).await;
    }
    cluster.all_reach(56).await;
    // three megabytes, of which the last request, of one at most, is not waited for
    assert!(begin.elapsed() >= Duration::from_millis(500), "{:?}", begin.elapsed());
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_that_becomes_a_voter_is_brought_up_at_once() {
    let mut cluster = Cluster::start().await;
    let payload = Bytes::from(vec![7; 128 * 1024]);
    for sequence in 0..32 {
        cluster.accept(batch_of(1, sequence, payload.clone())).await;
    }
    cluster.catch_up.set(1_000_000);
    let leader = cluster.leader().await;
    let new = cluster.add_node().await;
    in_time("the learner", cluster.partition(leader).add_learner(member(new)))
        .await
        .unwrap();
    eventually("the learner has something", || cluster.node(new).log.last().is_some()).await;
    cluster.catch_up.set(10_000); // the rest takes longer than anybody here waits
    assert!(cluster.node(new).log.last() < cluster.node(leader).log.last());
    // only together can these decide
    let voters = ids(&[leader, new]);
    in_time("the change", cluster.partition(leader).change_voters(voters))
        .await
        .unwrap();
    cluster.accept(batch_of(1, 32, payload)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_has_not_caught_up() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    let id = member(follower).replica_id;
    eventually("it has caught up", || cluster.partition(leader).has_caught_up(id)).await;
    cluster.crash(follower).await;
    cluster.accept(batch(1, 1)).await;
    eventually("it lacks an entry", || !cluster.partition(leader).has_caught_up(id)).await;
}
