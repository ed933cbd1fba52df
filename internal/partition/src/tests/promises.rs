//! Replicas whose disks have lost what they promised. Nothing on such a disk tells; the others do.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use tempfile::TempDir;

use super::cluster::{Cluster, NAMES, batch, eventually, in_time, members};
use crate::codec::{calls, kind, recall};
use crate::memory::Seen;
use crate::types::{Vote, VoteRequest, log_id};
use crate::{Error, Role};

/// A copy of a replica's directory, to be put back later.
struct Copy {
    kept: TempDir,
    of: PathBuf,
}

impl Copy {
    fn of(cluster: &Cluster, index: usize) -> Copy {
        let copy = Copy {
            kept: tempfile::tempdir().unwrap(),
            of: cluster.path(index),
        };
        copy_files(&copy.of, copy.kept.path());
        copy
    }

    fn put_back(&self) {
        std::fs::remove_dir_all(&self.of).unwrap();
        std::fs::create_dir(&self.of).unwrap();
        copy_files(self.kept.path(), &self.of);
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Stops a replica for a moment, and copies what its disk holds by then.
async fn copied(cluster: &mut Cluster, index: usize) -> Copy {
    cluster.crash(index).await;
    let copy = Copy::of(cluster, index);
    cluster.boot(index).await;
    copy
}

/// Stops a replica and puts an older copy of its disk in the place of what it has by now.
async fn restored(cluster: &mut Cluster, index: usize, copy: &Copy) {
    cluster.crash(index).await;
    copy.put_back();
}

/// A group one of whose replicas, which does not lead, has an older log than it has acknowledged. It is not started yet.
async fn group_with_an_older_log() -> (Cluster, usize) {
    let (mut cluster, follower) = group().await;
    let copy = copied(&mut cluster, follower).await;
    cluster.accept(batch(1, 5)).await;
    acknowledged(&cluster, follower).await;
    restored(&mut cluster, follower, &copy).await;
    (cluster, follower)
}

/// Three replicas that have committed something, and one of them that does not lead.
async fn group() -> (Cluster, usize) {
    let cluster = Cluster::start().await;
    for sequence in 0..5 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(10).await;
    let follower = cluster.follower().await;
    (cluster, follower)
}

/// Waits until the leader has heard that `follower` has everything.
async fn acknowledged(cluster: &Cluster, follower: usize) {
    let leader = cluster.leader().await;
    eventually("an acknowledgement", || {
        let metrics = cluster.partition(leader).raft().metrics().borrow_watched().clone();
        let matching = metrics
            .replication
            .and_then(|all| all.get(&(follower as u64 + 1)).copied().flatten());
        matching.is_some() && matching == cluster.node(leader).log.last().map(log_id)
    })
    .await;
}

fn is_dead(result: Result<(), Error>, why: &str) {
    match result {
        Err(error) if error.is_dead() && error.to_string().contains(why) => {}
        other => panic!("expected a dead replica because of {why:?}, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_an_older_log_than_it_acknowledged_is_dead() {
    let (mut cluster, follower) = group_with_an_older_log().await;
    is_dead(cluster.try_boot(follower, Vec::new()).await, "its log up to");
    cluster.accept(batch(1, 6)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_with_an_older_vote_than_it_gave_is_dead() {
    let (mut cluster, follower) = group().await;
    let copy = copied(&mut cluster, follower).await;
    let leader = cluster.leader().await;
    let term = cluster.partition(leader).status().term;
    cluster.let_lead(3 - leader - follower).await;
    eventually("another term", || {
        let status = cluster.partition(follower).status();
        status.term > term && status.leader.is_some()
    })
    .await;
    cluster.accept(batch(1, 5)).await;
    acknowledged(&cluster, follower).await;
    restored(&mut cluster, follower, &copy).await;
    is_dead(cluster.try_boot(follower, Vec::new()).await, "its vote");
}

/// What is on a leader's own disk counts for commits, too. Its term stays the same here: only its followers can tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_an_older_log_than_it_showed_is_dead() {
    let (mut cluster, _) = group().await;
    let leader = cluster.leader().await;
    let copy = Copy::of(&cluster, leader);
    cluster.accept(batch(1, 5)).await;
    cluster.all_reach(12).await;
    let (own, last) = (leader as u64 + 1, cluster.node(leader).log.last().map(log_id));
    let others = (0..3).filter(|index| *index != leader);
    eventually("what the leader shows", || {
        others.clone().any(|index| {
            let seen = cluster.partition(index).memory().of(own);
            seen.and_then(|seen| seen.last) == last
        })
    })
    .await;
    restored(&mut cluster, leader, &copy).await;
    is_dead(cluster.try_boot(leader, Vec::new()).await, "its log up to");
    cluster.accept(batch(1, 6)).await;
}

/// The leader's own promises are its votes; the followers remember those.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_an_older_vote_than_it_led_with_is_dead() {
    let (mut cluster, follower) = group().await;
    let copy = copied(&mut cluster, follower).await;
    cluster.let_lead(follower).await;
    cluster.accept(batch(1, 5)).await;
    restored(&mut cluster, follower, &copy).await;
    is_dead(cluster.try_boot(follower, Vec::new()).await, "its vote");
}

/// A log without a single entry names no member; its node may know some.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_replica_is_dead_if_its_node_knows_the_members() {
    let mut cluster = Cluster::pristine(Arc::new(|| None)).await;
    let emptied = 1;
    let copy = copied(&mut cluster, emptied).await;
    assert!(cluster.partition(0).initialize(members(3)).await.unwrap());
    for sequence in 0..3 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(6).await;
    restored(&mut cluster, emptied, &copy).await;
    is_dead(cluster.try_boot(emptied, members(3)).await, "the disk holds");
}

/// A candidate has its vote and its log on its disk before it shows them, whether it wins or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_candidate_has_shown_is_remembered() {
    let (cluster, follower) = group().await;
    let leader = cluster.leader().await;
    let (candidate, node) = (3 - leader - follower, NAMES[3 - leader - follower]);
    let partition = cluster.partition(follower);
    let vote = Vote::new(partition.status().term + 1, candidate as u64 + 1);
    let last = cluster.node(candidate).log.last().map(log_id);
    let request = calls::encode_vote_request(follower as u64 + 1, &VoteRequest::new(vote, last));
    partition.handle_call(node, kind::VOTE, request).await.unwrap();
    let question = recall::encode_remember(follower as u64 + 1, candidate as u64 + 1);
    let answer = partition
        .handle_call(node, kind::REMEMBER, question.clone())
        .await
        .unwrap();
    let seen = recall::decode_seen(Bytes::from(answer.concat())).unwrap();
    assert_eq!(seen, Some(Seen { vote, last }));
    let curious = partition.handle_call(NAMES[leader], kind::REMEMBER, question).await;
    assert!(matches!(curious, Err(Error::BadMessage(_))), "{curious:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_members_all_start_anew_goes_on() {
    let (mut cluster, _) = group().await;
    for index in 0..3 {
        cluster.crash(index).await;
    }
    for index in 0..3 {
        cluster.boot(index).await;
    }
    assert_eq!(cluster.accept(batch(1, 5)).await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_cannot_be_asked_are_not_waited_for_for_ever() {
    let (mut cluster, follower) = group().await;
    cluster.crash(follower).await;
    cluster.isolate(follower);
    in_time("a start alone", cluster.boot(follower)).await;
    eventually("a follower", || {
        cluster.partition(follower).status().role == Role::Follower
    })
    .await;
    cluster.network.heal();
    cluster.accept(batch(1, 5)).await;
    cluster.all_reach(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_late_still_counts() {
    let (mut cluster, follower) = group_with_an_older_log().await;
    cluster.network.lose(kind::REMEMBER);
    let network = cluster.network.clone();
    let heal = async {
        eventually("a lost question", || network.lost_calls() > 0).await;
        network.heal();
    };
    let (started, ()) = tokio::join!(cluster.try_boot(follower, Vec::new()), heal);
    is_dead(started, "its log up to");
    let leader = cluster.leader().await;
    assert_ne!(NAMES[leader], NAMES[follower]);
}
