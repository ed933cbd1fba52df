//! Disks that run full: nothing new is taken, everything else goes on, and all of it comes back with the room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;

use super::cluster::{Cluster, TIMERS, batch, eventually, in_time, propose, read_all};
use super::recovery::{command, notebooks};
use crate::{Answer, CommandError, NotApplied, Partition, Role};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_with_a_full_disk_refuses_what_is_new_and_takes_it_again_later() {
    let cluster = Cluster::with_rooms(Arc::new(|| None)).await;
    cluster.accept(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let leader = cluster.leader().await;
    let partition = cluster.partition(leader);
    cluster.leave_room(leader, 5_000);
    let refused = in_time("a refusal", propose(partition, batch(1, 1))).await;
    assert_eq!(refused, Answer::NotApplied(NotApplied::DiskFull));
    assert_eq!(read_all(partition).await.len(), 1, "reads go on");
    assert_eq!(
        in_time("a confirmation", partition.confirmed_high_watermark()).await,
        Ok(2)
    );
    assert_eq!(
        in_time("a trim", partition.trim(1)).await,
        Ok(1),
        "what makes room is taken"
    );
    assert_eq!(partition.status().role, Role::Leader);
    cluster.leave_room(leader, u64::MAX);
    assert_eq!(cluster.accept(batch(1, 1)).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machines_commands_are_refused_while_the_disk_is_full() {
    let cluster = Cluster::with_rooms(notebooks(false)).await;
    let leader = cluster.leader().await;
    cluster.leave_room(leader, 5_000);
    let refused = cluster.partition(leader).command(Bytes::from_static(b"line")).await;
    assert_eq!(refused, Err(CommandError::DiskFull));
    cluster.leave_room(leader, u64::MAX);
    command(&cluster, "line").await;
}

/// How long ago the last request that a replica has answered was sent to it.
fn heard_ago(leader: &Partition, index: usize) -> Option<Duration> {
    let metrics = leader.raft().metrics().borrow_watched().clone();
    let heard = metrics.heartbeat?.get(&(index as u64 + 1)).copied().flatten()?;
    Some(heard.elapsed())
}

/// The others are a majority without it. Its vote and its heartbeats are needed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_with_a_full_disk_takes_no_entries_but_follows_and_catches_up() {
    let cluster = Cluster::with_rooms(Arc::new(|| None)).await;
    cluster.accept(batch(1, 0)).await;
    cluster.all_reach(2).await;
    let leader = cluster.leader().await;
    let (partition, full) = (cluster.partition(leader), (leader + 1) % 3);
    cluster.leave_room(full, 5_000);
    let held = cluster.node(full).log.last();
    let term = partition.status().term;
    for sequence in 1..10 {
        cluster.accept(batch(1, sequence)).await;
    }
    // a lease and the longest election time later it would campaign if it heard no heartbeats
    let (began, patience) = (Instant::now(), Duration::from_millis(2 * TIMERS.election_max_ms));
    eventually("heartbeats", || {
        heard_ago(partition, full).is_some_and(|ago| began.elapsed() > patience + ago)
    })
    .await;
    assert_eq!(cluster.node(full).log.last(), held, "entries were taken");
    let status = cluster.partition(full).status();
    assert_eq!((status.role, status.term), (Role::Follower, term));
    // without the third replica a read needs its heartbeats
    cluster.isolate(3 - leader - full);
    let confirmed = partition.confirmed_high_watermark();
    assert_eq!(in_time("a confirmation", confirmed).await, Ok(20));
    cluster.network.heal();
    cluster.leave_room(full, u64::MAX);
    cluster.all_reach(20).await;
    cluster.equal_logs().await;
    eventually("the same leader", || {
        cluster.partition(leader).status().role == Role::Leader
    })
    .await;
}
