//! Consumer groups: claims and commits through the log, on leaders that change.

use bytes::Bytes;

use super::cluster::{Cluster, batch, eventually, in_time};
use crate::{Claimed, CommandError, GroupError};

const GROUP: Bytes = Bytes::from_static(b"billing");

fn member(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

async fn claim(cluster: &Cluster, index: usize, name: &'static str) -> Claimed {
    let claimed = cluster.partition(index).claim(GROUP, member(name));
    in_time("the claim", claimed).await.unwrap()
}

async fn commit(cluster: &Cluster, index: usize, claim: u64, offset: u64) -> Result<(), GroupError> {
    in_time(
        "the commit",
        cluster.partition(index).commit_offset(GROUP, claim, offset),
    )
    .await
}

/// What the leader among these answers. On a busy machine one may not lead any more when it is asked; then nothing has been done.
async fn at_leader<T>(
    cluster: &Cluster,
    among: &[usize],
    ask: impl AsyncFn(usize) -> Result<T, GroupError>,
) -> Result<T, GroupError> {
    loop {
        let leader = cluster.leader_among(among).await;
        match in_time("the answer", ask(leader)).await {
            Err(GroupError::Command(CommandError::NotLeader { .. })) => {}
            answer => return answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_goes_on_where_the_group_stopped_and_shuts_out_who_had_it() {
    let cluster = Cluster::start().await;
    for sequence in 0..5 {
        cluster.accept(batch(1, sequence)).await;
    }
    let leader = cluster.leader().await;
    let first = claim(&cluster, leader, "first").await;
    assert_eq!(first.offset, None);
    commit(&cluster, leader, first.claim, 2).await.unwrap();
    let second = claim(&cluster, leader, "second").await;
    assert_eq!(second.offset, Some(2));
    assert!(second.claim > first.claim);
    assert_eq!(commit(&cluster, leader, first.claim, 3).await, Err(GroupError::Stale));
    commit(&cluster, leader, second.claim, 4).await.unwrap();
    let end = cluster.partition(leader).status().watermark.high_watermark;
    let beyond = commit(&cluster, leader, second.claim, end + 1).await;
    assert_eq!(beyond, Err(GroupError::BeyondEnd { log_end: end }));
    assert_eq!(cluster.partition(leader).group(&GROUP).unwrap().offset, Some(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_and_commits_survive_the_leader_that_took_them() {
    let mut cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let leader = cluster.leader().await;
    let claimed = claim(&cluster, leader, "worker").await;
    commit(&cluster, leader, claimed.claim, 1).await.unwrap();
    cluster.crash(leader).await;
    let rest: Vec<usize> = (0..3).filter(|index| *index != leader).collect();
    let next = cluster.leader_among(&rest).await;
    eventually("the next leader knows the group", || {
        let group = cluster.partition(next).group(&GROUP);
        group.is_some_and(|group| (group.claim, group.offset) == (claimed.claim, Some(1)))
    })
    .await;
    let claim_again = async |leader: usize| cluster.partition(leader).claim(GROUP, member("another")).await;
    let again = at_leader(&cluster, &rest, claim_again).await.unwrap();
    assert_eq!(again.offset, Some(1));
    let commit_late = async |leader: usize| commit(&cluster, leader, claimed.claim, 1).await;
    assert_eq!(at_leader(&cluster, &rest, commit_late).await, Err(GroupError::Stale));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_takes_claims_and_names_itself_to_who_asks_others() {
    let cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let refused = in_time("the answer", cluster.partition(follower).claim(GROUP, member("worker"))).await;
    let Err(GroupError::Command(CommandError::NotLeader {
        leader: Some(named), ..
    })) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(named, super::cluster::member(leader));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_is_forgotten_only_as_it_was_seen() {
    let cluster = Cluster::start().await;
    cluster.accept(batch(1, 0)).await;
    let leader = cluster.leader().await;
    claim(&cluster, leader, "worker").await;
    let partition = cluster.partition(leader);
    let seen = partition.group(&GROUP).unwrap();
    let claimed = claim(&cluster, leader, "worker").await;
    let forgotten = in_time("the answer", partition.forget_group(GROUP, &seen)).await;
    assert_eq!(forgotten, Err(GroupError::Stale), "it has been claimed since");
    let seen = partition.group(&GROUP).unwrap();
    in_time("the answer", partition.forget_group(GROUP, &seen))
        .await
        .unwrap();
    assert_eq!(partition.groups(), []);
    assert_eq!(commit(&cluster, leader, claimed.claim, 0).await, Err(GroupError::Stale));
    assert!(claim(&cluster, leader, "worker").await.claim > claimed.claim);
}
