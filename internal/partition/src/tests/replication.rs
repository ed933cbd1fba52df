//! Three replicas, nothing goes wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_log::{Kind, ReplicaId, Verdict};

use super::cluster::{
    Cluster, NAMES, batch, batch_of, eventually, in_time, member, members, propose, propose_now, read_all,
};
use crate::codec::kind;
use crate::types::{LogPayload, Membership, nodes, voter_set};
use crate::{Answer, CommandError, NotApplied, Role, VoterChange};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_reach_all_replicas_with_dense_offsets_and_equal_bytes() {
    let cluster = Cluster::start().await;
    for sequence in 0..50 {
        assert_eq!(cluster.accept(batch(1, sequence)).await, sequence * 2);
    }
    cluster.all_reach(100).await;
    let frames = cluster.equal_logs().await;
    let with_records = frames.iter().filter(|frame| frame.header.record_count > 0);
    assert_eq!(
        with_records.filter(|frame| frame.header.kind == Kind::Batch).count(),
        50
    );
    for (_, node) in cluster.running() {
        let read = read_all(&node.partition).await;
        assert_eq!(read.len(), 50);
        for (sequence, stored) in (0u64..).zip(&read) {
            assert_eq!((stored.base_offset, stored.record_count), (sequence * 2, 2));
            assert_eq!(stored.payload, batch(1, sequence).payload);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_watermark_covers_a_batch_before_its_producer_is_answered() {
    let cluster = Cluster::start().await;
    let (mut sequence, mut answered) = (0, 0);
    while answered < 20 {
        let partition = cluster.partition(cluster.leader().await);
        let watermark = partition.watermark();
        let (sender, seen) = tokio::sync::oneshot::channel();
        let answer = Box::new(move |answer: Answer| {
            sender.send((answer, watermark.borrow().high_watermark)).unwrap();
        });
        partition.propose(batch(1, sequence), None, answer);
        // a leader that has just lost its lease gives another answer: try again
        if let (Answer::Decided(decision), high_watermark) = in_time("an answer", seen).await.unwrap() {
            let end = decision.base_offset + u64::from(decision.record_count);
            assert!(high_watermark >= end, "{high_watermark} at the answer for {decision:?}");
            answered += 1;
            sequence += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_start_inside_a_batch_and_end_at_the_watermark() {
    let cluster = Cluster::start().await;
    for sequence in 0..10 {
        cluster.decide(batch(1, sequence)).await;
    }
    cluster.all_reach(20).await;
    let follower = cluster.partition(cluster.follower().await);
    let read = follower.read(7, 1 << 20).await.unwrap();
    assert_eq!(read[0].base_offset, 6);
    assert_eq!(read.len(), 7);
    assert_eq!(follower.read(7, 1).await.unwrap().len(), 1, "at least one batch");
    assert!(follower.read(20, 1 << 20).await.unwrap().is_empty());
    assert!(follower.read(2_000, 1 << 20).await.unwrap().is_empty());
    assert_eq!(follower.offset_at(0).await.unwrap(), 0);
    assert_eq!(follower.offset_at(u64::MAX).await.unwrap(), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader() {
    let cluster = Cluster::start().await;
    let named = async {
        loop {
            let leader = cluster.leader().await;
            let follower = cluster.partition((leader + 1) % 3);
            match propose(follower, batch(1, 0)).await {
                Answer::NotApplied(NotApplied::NotLeader {
                    leader: Some(named),
                    term,
                }) if named == member(leader) => {
                    assert_eq!(term, cluster.partition(leader).status().term);
                    break follower.status();
                }
                Answer::NotApplied(NotApplied::NotLeader { .. }) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    };
    let status = in_time("the leader's name", named).await;
    assert_eq!((status.voters.len(), status.learners.len()), (3, 0));
    assert_eq!(status.role, Role::Follower);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_initialized_once() {
    let cluster = Cluster::start().await;
    for index in 0..3 {
        let again = cluster.partition(index).initialize(vec![member(index)]).await;
        assert!(!again.unwrap());
    }
}

/// Whoever of the members comes first may make the first entry; if several do, none of them has to give way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_initialize_apart_from_each_other_make_one_group_with_equal_bytes() {
    let cluster = Cluster::pristine(Arc::new(|| None)).await;
    for index in 0..3 {
        cluster.isolate(index);
    }
    for index in 0..3 {
        // at a different time each: no two replicas' clocks agree
        assert!(cluster.partition(index).initialize(members(3)).await.unwrap());
    }
    cluster.network.heal();
    cluster.accept(batch(1, 0)).await;
    let frames = cluster.equal_logs().await;
    assert_eq!((frames[0].header.id.term, frames[0].header.append_time_ms), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_confirmed_watermark_is_the_leaders_wherever_it_is_asked() {
    let cluster = Cluster::start().await;
    for sequence in 0..5 {
        cluster.decide(batch(1, sequence)).await;
    }
    for index in 0..3 {
        let confirmed = in_time("a confirmation", cluster.partition(index).confirmed_high_watermark()).await;
        assert_eq!(confirmed.unwrap(), 10, "asked replica {index}");
    }
}

/// The leader trims up to offset 7; gives it and a follower that does not hear of it.
async fn trimmed_without_one(cluster: &Cluster) -> (usize, usize) {
    loop {
        let (leader, behind) = (cluster.leader().await, cluster.follower().await);
        cluster.network.hold(NAMES[leader], NAMES[behind]);
        match cluster.partition(leader).trim(7).await {
            Ok(trimmed) => {
                assert_eq!(trimmed, 7);
                return (leader, behind);
            }
            Err(error) => assert!(matches!(error, CommandError::NotLeader { .. }), "{error:?}"),
        }
        cluster.network.heal();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_confirmed_log_start_is_the_leaders_even_if_the_asked_replica_does_not_know_it() {
    let cluster = Cluster::start().await;
    for sequence in 0..5 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(10).await;
    let (leader, behind) = trimmed_without_one(&cluster).await;
    for index in 0..3 {
        let confirmed = in_time("a confirmation", cluster.partition(index).confirmed_log_start()).await;
        assert_eq!(confirmed.unwrap(), 7, "asked replica {index}");
    }
    assert_eq!(cluster.partition(behind).status().watermark.log_start, 0);
    // Who cannot know whether others have trimmed more does not tell what it believes.
    cluster.isolate(leader);
    let confirmed = in_time("no confirmation", cluster.partition(leader).confirmed_log_start()).await;
    assert!(confirmed.is_err(), "{confirmed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_moves_where_it_is_asked_to() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let next = cluster.follower().await;
    let refused = cluster.partition(next).transfer_leader(member(leader).replica_id).await;
    assert!(
        matches!(refused, Err(CommandError::NotLeader { leader: Some(_), .. })),
        "{refused:?}"
    );
    let mut changes = cluster.partition(next).status_changes();
    cluster
        .partition(leader)
        .transfer_leader(member(next).replica_id)
        .await
        .unwrap();
    in_time("the hand-over", changes.wait_for(|status| status.role == Role::Leader))
        .await
        .unwrap();
    cluster.decide(batch(1, 0)).await;
    assert_eq!(cluster.leader().await, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_learns_then_votes_and_an_old_one_leaves() {
    let mut cluster = Cluster::start().await;
    cluster.decide(batch(1, 0)).await;
    let added = cluster.add_node().await;
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    let follower = (leader + 1) % 3;
    cluster.partition(leader).add_learner(member(added)).await.unwrap();
    cluster.all_reach(2).await;
    let learner = cluster.partition(added);
    eventually("the learner's role", || {
        learner.status().role == Role::Learner && learner.status().learners.len() == 1
    })
    .await;
    let mut voters: Vec<_> = (0..4)
        .filter(|index| *index != follower)
        .map(|index| member(index).replica_id)
        .collect();
    voters.sort();
    in_time("the change", cluster.partition(leader).change_voters(voters.clone()))
        .await
        .unwrap();
    eventually("the new voters", || {
        let named: Vec<_> = learner.status().voters.iter().map(|member| member.replica_id).collect();
        named == voters
    })
    .await;
    cluster.crash(follower).await;
    cluster.decide(batch(1, 1)).await;
    cluster.all_reach(4).await;
}

/// A leader can end between the two entries of a change. Then the group needs majorities of both sets, so a later leader
/// must see that there is something to finish.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_done_change_of_voters_is_seen_and_can_be_finished() {
    let mut cluster = Cluster::start().await;
    let new = cluster.add_node().await;
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    let old = (leader + 1) % 3;
    let leader = cluster.partition(leader);
    in_time("the learner", leader.add_learner(member(new))).await.unwrap();
    let ids = |index: usize| member(index).replica_id;
    let from: Vec<ReplicaId> = (0..3).map(ids).collect();
    let to: Vec<ReplicaId> = (0..4).filter(|index| *index != old).map(ids).collect();
    let both = Membership::new(vec![voter_set(&from), voter_set(&to)], nodes(&[0, 1, 2, 3].map(member))).unwrap();
    let half = leader.raft().append_membership(both, LogPayload::Blank, []);
    in_time("half of the change", half).await.unwrap();
    let status = leader.status();
    assert_eq!(status.voter_change, Some(VoterChange { from, to: to.clone() }));
    assert!(!status.is_lasting_voter(ids(old)) && !status.is_lasting_voter(ids(new)));
    in_time("the rest", leader.change_voters(to)).await.unwrap();
    let status = leader.status();
    assert_eq!(status.voter_change, None);
    assert!(!status.is_lasting_voter(ids(old)) && status.is_lasting_voter(ids(new)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn membership_changes_that_make_no_sense_are_refused() {
    let cluster = Cluster::start().await;
    let leader = cluster.partition(cluster.leader().await);
    let nobody = leader.change_voters(Vec::new()).await;
    assert!(matches!(nobody, Err(CommandError::Refused(_))), "{nobody:?}");
    let stranger = leader.change_voters(vec![member(9).replica_id]).await;
    assert!(matches!(stranger, Err(CommandError::Refused(_))), "{stranger:?}");
    let follower = cluster.partition(cluster.follower().await);
    let follower = follower.add_learner(member(9)).await;
    assert!(matches!(follower, Err(CommandError::NotLeader { .. })), "{follower:?}");
}

/// Only what is frequent may wait for others: an election or a hand-over must not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_and_nothing_else_may_share_their_way_with_other_groups() {
    let cluster = Cluster::start().await;
    cluster.let_lead(cluster.follower().await).await;
    let confirmed = cluster.partition(cluster.follower().await).confirmed_high_watermark();
    in_time("a confirmation", confirmed).await.unwrap();
    let (shared, alone) = cluster.network.kinds_seen();
    assert_eq!(shared.into_iter().collect::<Vec<_>>(), [kind::APPEND]);
    assert!(!alone.contains(&kind::APPEND));
    assert!(
        alone.is_superset(&[kind::VOTE, kind::TRANSFER, kind::CONFIRM_END].into()),
        "{alone:?}"
    );
}

/// Many batches of many producers at once: all are accepted, in order for each producer. Prints what it took.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_producers_at_once_are_all_answered() {
    const PRODUCERS: u8 = 16;
    const BATCHES: u64 = 60;
    let cluster = Arc::new(Cluster::start().await);
    let payload = Bytes::from(vec![7u8; 64 * 1024]);
    let started = Instant::now();
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let produce = produce(cluster.clone(), producer, BATCHES, payload.clone());
            tokio::spawn(produce)
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    let batches = u64::from(PRODUCERS) * BATCHES;
    let took = started.elapsed().max(Duration::from_millis(1));
    println!(
        "{batches} batches of 64 KiB in {took:?}, {} MiB/s",
        batches * 62_500 / took.as_millis() as u64 / 1_000
    );
    cluster.all_reach(batches * 2).await;
    cluster.equal_logs().await;
    for (_, node) in cluster.running() {
        assert_eq!(node.partition.in_flight_bytes(), 0);
    }
}

/// Produces with four batches in flight; a batch that is not accepted at once is proposed until it is.
async fn produce(cluster: Arc<Cluster>, producer: u8, batches: u64, payload: Bytes) {
    let mut offsets = Vec::new();
    for sequence in (0..batches).step_by(4) {
        let leader = cluster.partition(cluster.leader().await).clone();
        let four: Vec<_> = (sequence..sequence + 4)
            .map(|sequence| {
                let batch = batch_of(producer, sequence, payload.clone());
                (batch.clone(), propose_now(&leader, batch))
            })
            .collect();
        for (batch, answer) in four {
            offsets.push(match in_time("an answer", answer).await.unwrap() {
                Answer::Decided(decision) if decision.verdict == Verdict::Accepted => decision.base_offset,
                _ => cluster.accept(batch).await,
            });
        }
    }
    assert!(offsets.is_sorted(), "{offsets:?}");
}
