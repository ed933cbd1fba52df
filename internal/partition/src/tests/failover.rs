//! Leaders that vanish, links that break.

use std::time::Duration;

use bytes::Bytes;
use highwater_log::Verdict;

use super::cluster::{Cluster, NAMES, PATIENCE, batch, eventually, in_time, propose, propose_now, read_all};
use super::logs::all_frames;
use crate::{Answer, NotApplied, Role};

/// The two replicas that are not `index`.
fn others(index: usize) -> [usize; 2] {
    [(index + 1) % 3, (index + 2) % 3]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_leader() {
    let mut cluster = Cluster::start().await;
    for sequence in 0..20 {
        cluster.accept(batch(1, sequence)).await;
    }
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    assert_eq!(cluster.accept(batch(1, 20)).await, 40);
    cluster.all_reach(42).await;
    cluster.boot(leader).await;
    cluster.all_reach(42).await;
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tail_of_a_leader_that_was_cut_off_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let old = cluster.leader().await;
    cluster.isolate(old);
    let lost: Vec<_> = (1..4)
        .map(|sequence| propose_now(cluster.partition(old), batch(1, sequence)))
        .collect();
    let appended = || {
        all_frames(&cluster.node(old).log)
            .iter()
            .any(|frame| frame.payload == batch(1, 1).payload)
    };
    eventually("the tail that will be lost", appended).await;

    cluster.leader_among(&others(old)).await;
    let decision = loop {
        let leader = cluster.leader_among(&others(old)).await;
        if let Answer::Decided(decision) = propose(cluster.partition(leader), batch(2, 0)).await {
            break decision;
        }
    };
    assert_eq!(decision.base_offset, 2, "{decision:?}");

    cluster.network.heal();
    cluster.all_reach(4).await;
    let frames = cluster.equal_logs().await;
    assert!(
        frames.iter().all(|frame| frame.payload != batch(1, 1).payload),
        "the lost tail is still there"
    );
    for answer in lost {
        match in_time("an answer for the lost tail", answer).await.unwrap() {
            Answer::Unknown(_) | Answer::NotApplied(NotApplied::NotLeader { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_after_a_failover_is_answered_as_the_duplicate_it_is() {
    let mut cluster = Cluster::start().await;
    for sequence in 0..3 {
        cluster.accept(batch(1, sequence)).await;
    }
    let leader = cluster.leader().await;
    cluster.crash(leader).await;
    let decision = cluster.decide(batch(1, 1)).await;
    assert_eq!(
        (decision.verdict, decision.base_offset, decision.record_count),
        (Verdict::Duplicate, 2, 2)
    );
    assert_eq!(cluster.accept(batch(1, 3)).await, 6);
    cluster.boot(leader).await;
    cluster.all_reach(8).await;
    cluster.equal_logs().await;
    let read = read_all(cluster.partition(leader)).await;
    assert_eq!(read.len(), 4, "the duplicate is no record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_nothing_is_decided_and_nobody_waits_for_ever() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for other in others(leader) {
        cluster.crash(other).await;
    }
    let mut early = propose_now(cluster.partition(leader), batch(1, 0));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut early).await;
    assert!(!matches!(waited, Ok(Ok(Answer::Decided(_)))), "{waited:?}");
    // once its lease is over the leader refuses, and knows that it did not append
    let refused = async {
        loop {
            let mut answer = propose_now(cluster.partition(leader), batch(1, 1));
            match tokio::time::timeout(Duration::from_millis(100), &mut answer).await {
                Ok(Ok(Answer::NotApplied(NotApplied::NotLeader { .. }))) => return,
                Ok(Ok(Answer::Decided(decision))) => panic!("decided alone: {decision:?}"),
                _ => {}
            }
        }
    };
    in_time("a refusal", refused).await;
    let confirmed = in_time("no confirmation", cluster.partition(leader).confirmed_high_watermark()).await;
    assert!(confirmed.is_err(), "{confirmed:?}");
    for other in others(leader) {
        cluster.boot(other).await;
    }
    cluster.decide(batch(2, 0)).await;
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_the_core_answers_what_waits() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for other in others(leader) {
        cluster.crash(other).await;
    }
    let waiting = propose_now(cluster.partition(leader), batch(1, 0));
    let partition = cluster.partition(leader).clone();
    cluster.crash(leader).await;
    let answer = in_time("an answer", waiting).await.unwrap();
    assert!(matches!(answer, Answer::Unknown(_)), "{answer:?}");
    assert_eq!(
        propose(&partition, batch(1, 1)).await,
        Answer::NotApplied(NotApplied::Stopped)
    );
    assert_eq!(partition.stopped().await, None, "it was asked to stop");
    assert_eq!(partition.in_flight_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_answers_get_lost_catches_up_afterwards() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let deaf = others(leader)[0];
    cluster.network.deafen(NAMES[leader], NAMES[deaf]);
    for sequence in 0..10 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.network.heal();
    // nothing new is proposed: only the time limit of the stream can notice
    cluster.all_reach(20).await;
    cluster.equal_logs().await;
    cluster.accept(batch(1, 10)).await;
    cluster.all_reach(22).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_far_behind_the_cache_catches_up_from_the_disk() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let behind = others(leader)[0];
    cluster.crash(behind).await;
    let payload = Bytes::from(vec![3u8; 512 * 1024]);
    for sequence in 0..60 {
        let batch = super::cluster::batch_of(1, sequence, payload.clone());
        cluster.accept(batch).await;
    }
    assert!(
        cluster.node(leader).log.read_cached(2, 3, 1).is_none(),
        "the cache must have lost it"
    );
    cluster.boot(behind).await;
    cluster.all_reach(120).await;
    cluster.equal_logs().await;
    for (_, node) in cluster.running() {
        assert_ne!(
            node.partition.status().role,
            Role::Stopped,
            "reading the disk must not end a core"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_die_again_and_again_lose_nothing_and_repeat_nothing() {
    let mut cluster = Cluster::start().await;
    let mut sequence = 0;
    for _ in 0..4 {
        let leader = cluster.leader().await;
        let waiting = propose_now(cluster.partition(leader), batch(1, sequence));
        cluster.crash(leader).await;
        drop(tokio::time::timeout(PATIENCE, waiting).await);
        let decision = cluster.decide(batch(1, sequence)).await;
        assert!(
            matches!(decision.verdict, Verdict::Accepted | Verdict::Duplicate),
            "{decision:?}"
        );
        assert_eq!(decision.base_offset, sequence * 2);
        sequence += 1;
        cluster.boot(leader).await;
    }
    cluster.all_reach(sequence * 2).await;
    cluster.equal_logs().await;
    let read = read_all(cluster.partition(0)).await;
    assert_eq!(read.len() as u64, sequence);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_knows_since_when_it_has_not_heard_from_its_leader_and_how_far_that_was() {
    let cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let leader = cluster.leader().await;
    let [follower, _] = others(leader);
    let contact = || cluster.partition(follower).contact();
    let is_silent = || contact().heard_at.elapsed() > contact().silence_max;
    assert!(contact().leader_committed_end >= contact().committed_end && contact().committed_end > 0);

    cluster.isolate(follower);
    eventually("the silence is noticed", is_silent).await;
    cluster.network.heal();
    eventually("the leader is heard again", || !is_silent()).await;
    let heard_at = contact().heard_at;
    eventually("it is heard again and again", || contact().heard_at > heard_at).await;
    // A leader needs nobody to tell it.
    let led = cluster.partition(cluster.leader().await).contact();
    assert!(led.heard_at.elapsed() < led.silence_max, "{led:?}");
}
