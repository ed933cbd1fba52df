//! The front of the log goes, on all replicas, and nothing above it with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use highwater_log::{EntryId, Verdict};

use super::cluster::{Cluster, NAMES, batch, batch_of, eventually, in_time, member};
use super::logs::all_frames;
use super::recovery::{command, notebooks, pages};
use crate::codec::kind;
use crate::trim::CHECKPOINT_ENTRIES;
use crate::{CommandError, Partition, ReadError};

async fn trim(cluster: &Cluster, offset: u64) {
    let leader = cluster.leader_among(&running(cluster)).await;
    let trimmed = cluster.partition(leader).trim(offset);
    assert_eq!(in_time("a trim", trimmed).await, Ok(offset));
}

fn running(cluster: &Cluster) -> Vec<usize> {
    cluster.running().map(|(index, _)| index).collect()
}

/// Waits until the logs of all running replicas have been purged up to the same entry, at or above `floor`.
async fn purged(cluster: &Cluster, floor: Option<EntryId>) -> EntryId {
    let mut found = None;
    eventually("equal floors", || {
        let floors: Vec<_> = cluster.running().map(|(_, node)| node.log.floor()).collect();
        found = floors[0];
        found > floor && floors.iter().all(|floor| *floor == found)
    })
    .await;
    found.unwrap()
}

/// Three replicas with `count` batches of producer 1, two records each.
async fn filled(count: u64) -> Cluster {
    let cluster = Cluster::with_small_segments(Arc::new(|| None)).await;
    for sequence in 0..count {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(2 * count).await;
    cluster
}

async fn read_from(partition: &Partition, offset: u64) -> Vec<u64> {
    let mut offsets: Vec<u64> = Vec::new();
    let mut next = offset;
    loop {
        let more = partition.read(next, 1 << 20).await.unwrap();
        let Some(last) = more.last() else { return offsets };
        next = last.base_offset + u64::from(last.record_count);
        offsets.extend(more.iter().map(|batch| batch.base_offset));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_moves_the_log_start_of_all_replicas_and_their_files_go() {
    let cluster = filled(60).await;
    trim(&cluster, 83).await;
    let floor = purged(&cluster, None).await;
    for (_, node) in cluster.running() {
        let mut watermark = node.partition.watermark();
        in_time("the log start", watermark.wait_for(|now| now.log_start == 83))
            .await
            .unwrap();
        let first = &all_frames(&node.log)[0];
        assert_eq!(first.header.id.index, floor.index + 1);
        assert!(
            first.header.base_offset > 40,
            "much of the log is gone: {:?}",
            first.header
        );
        assert!(first.header.base_offset <= 83, "a record above the log start is gone");
        let below = node.partition.read(82, 1).await;
        assert!(
            matches!(
                below,
                Err(ReadError::BelowStart {
                    offset: 82,
                    log_start: 83,
                    high_watermark: 120
                })
            ),
            "{below:?}"
        );
        let expected: Vec<u64> = (41..60).map(|batch| 2 * batch).collect();
        assert_eq!(read_from(&node.partition, 83).await, expected);
    }
    cluster.equal_logs().await;
    cluster.accept(batch(1, 60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trim_goes_neither_beyond_what_is_committed_nor_back() {
    let cluster = filled(20).await;
    let leader = cluster.leader().await;
    let beyond = cluster.partition(leader).trim(41).await;
    assert!(matches!(beyond, Err(CommandError::Refused(_))), "{beyond:?}");
    trim(&cluster, 30).await;
    let back = cluster.partition(leader).trim(10).await;
    assert_eq!(back, Ok(30), "the log start stays");
    let follower = cluster.follower().await;
    let elsewhere = cluster.partition(follower).trim(35).await;
    let Err(CommandError::NotLeader { leader: Some(hint), .. }) = elsewhere else {
        panic!("{elsewhere:?}")
    };
    assert_eq!(hint, member(leader));
    trim(&cluster, 40).await;
    for (_, node) in cluster.running() {
        let mut watermark = node.partition.watermark();
        in_time("the log start", watermark.wait_for(|now| now.log_start == 40))
            .await
            .unwrap();
        assert!(node.partition.read(40, 1).await.unwrap().is_empty());
    }
}

/// Also checks that the manifest carries what the entries below the floor have left: who sent what.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_behind_the_floor_is_brought_up_with_the_manifest() {
    let mut cluster = filled(10).await;
    let sleeper = cluster.follower().await;
    cluster.crash(sleeper).await;
    for sequence in 10..60 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.accept(batch(9, 0)).await;
    for sequence in 60..80 {
        cluster.accept(batch(1, sequence)).await;
    }
    trim(&cluster, 160).await;
    let floor = purged(&cluster, None).await;
    assert!(floor.index > 61, "what producer 9 sent is purged: {floor}");
    cluster.boot(sleeper).await;
    cluster.all_reach(162).await;
    assert_eq!(purged(&cluster, None).await, floor);
    cluster.equal_logs().await;
    cluster.let_lead(sleeper).await;
    let again = cluster.decide(batch(9, 0)).await;
    assert_eq!((again.verdict, again.base_offset), (Verdict::Duplicate, 120));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_begins_at_the_floor_and_survives_a_restart_there() {
    let mut cluster = filled(60).await;
    trim(&cluster, 110).await;
    let floor = purged(&cluster, None).await;
    let new = cluster.add_node().await;
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    in_time("the learner", cluster.partition(leader).add_learner(member(new)))
        .await
        .unwrap();
    cluster.all_reach(120).await;
    assert_eq!(cluster.node(new).log.floor(), Some(floor));
    cluster.crash(new).await;
    cluster.boot(new).await;
    cluster.accept(batch(1, 60)).await;
    cluster.all_reach(122).await;
    cluster.equal_logs().await;
    let status = cluster.partition(new).status();
    assert_eq!(status.watermark.log_start, 110);
    assert!(status.learners.contains(&member(new)), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_start_again_from_their_manifests_and_trim_on() {
    let mut cluster = filled(60).await;
    trim(&cluster, 70).await;
    let floor = purged(&cluster, None).await;
    for index in 0..3 {
        cluster.crash(index).await;
    }
    for index in 0..3 {
        cluster.boot(index).await;
    }
    assert_eq!(cluster.accept(batch(1, 60)).await, 120);
    cluster.all_reach(122).await;
    assert_eq!(cluster.node(0).log.floor(), Some(floor));
    for (_, node) in cluster.running() {
        assert_eq!(node.partition.watermark().borrow().log_start, 70);
    }
    trim(&cluster, 118).await;
    purged(&cluster, Some(floor)).await;
    cluster.equal_logs().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_cut_on_its_way_is_sent_again() {
    let mut cluster = filled(10).await;
    let sleeper = cluster.follower().await;
    cluster.crash(sleeper).await;
    for sequence in 10..60 {
        cluster.accept(batch(1, sequence)).await;
    }
    trim(&cluster, 120).await;
    let floor = purged(&cluster, None).await;
    // the head arrives, the rest does not
    cluster.network.break_streams(kind::INSTALL_STREAM, 1);
    cluster.boot(sleeper).await;
    let lagging = cluster.partition(sleeper).status();
    cluster.accept(batch(1, 60)).await;
    assert!(cluster.partition(sleeper).status().log_end < 120, "{lagging:?}");
    assert!(cluster.node(sleeper).log.floor() < Some(floor));
    cluster.network.heal();
    cluster.all_reach(122).await;
    cluster.equal_logs().await;
}

/// A follower that is alive but far too slow must not keep the others from letting go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_follower_does_not_hold_the_disk() {
    let cluster = filled(1).await;
    let leader = cluster.leader().await;
    let slow = (leader + 1) % 3;
    cluster
        .network
        .slow_down(NAMES[leader], NAMES[slow], Duration::from_millis(1_000));
    let payload = Bytes::from(vec![7; 700 * 1024]);
    for sequence in 1..30 {
        cluster.accept(batch_of(1, sequence, payload.clone())).await;
    }
    let trimmed = cluster.partition(leader).trim(60);
    assert_eq!(in_time("a trim", trimmed).await, Ok(60));
    eventually("a purge", || cluster.node(leader).log.floor().is_some()).await;
    let behind = cluster.node(slow).log.last();
    assert!(
        behind < cluster.node(leader).log.floor(),
        "the slow one was not waited for: {behind:?}"
    );
    cluster.network.heal();
    cluster.all_reach(60).await;
    cluster.equal_logs().await;
}

/// Runs as many commands as it takes to reach the entry `index`.
async fn commands_until(cluster: &Cluster, index: u64) {
    let leader = cluster.leader().await;
    let partition = cluster.partition(leader);
    while cluster.node(leader).log.last().unwrap().index < index {
        let some = (0..256).map(|_| partition.command(Bytes::from_static(b"line")));
        let answers = in_time("commands", join_all(some)).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_with_a_machine_trims_itself_and_starts_from_the_machines_checkpoint() {
    let mut cluster = Cluster::with_small_segments(notebooks(false)).await;
    assert!(matches!(
        cluster.partition(cluster.leader().await).trim(0).await,
        Err(CommandError::Refused(_))
    ));
    commands_until(&cluster, CHECKPOINT_ENTRIES).await;
    let floor = purged(&cluster, None).await;
    assert_eq!(floor.index, CHECKPOINT_ENTRIES - 1);
    let before = command(&cluster, "last").await;
    assert!(before.starts_with(b"line "), "{before:?}");
    eventually("equal pages", || {
        let pages = pages(&cluster);
        pages.iter().all(|page| *page == pages[0])
    })
    .await;
    let page = pages(&cluster).swap_remove(0);
    let new = cluster.add_node().await;
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    in_time("the learner", cluster.partition(leader).add_learner(member(new)))
        .await
        .unwrap();
    eventually("the new one's pages", || pages(&cluster)[new] == page).await;
    assert_eq!(cluster.node(new).log.floor(), Some(floor));
    for index in 0..4 {
        cluster.crash(index).await;
    }
    for index in 0..4 {
        cluster.boot(index).await;
        let machine = cluster.node(index).machine.clone().unwrap();
        let restored = machine.checkpoint();
        assert!(page.starts_with(&restored), "what was noted as committed, and no more");
        assert!(restored.len() > 1_000, "the checkpoint is in it");
    }
    cluster.leader_among(&[0, 1, 2, 3]).await;
    eventually("all pages again", || pages(&cluster).iter().all(|found| *found == page)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_go_on_while_the_log_is_trimmed_again_and_again() {
    let cluster = filled(1).await;
    for sequence in 1..200 {
        let answer = cluster.decide(batch(1, sequence)).await;
        assert_eq!(answer.base_offset, 2 * sequence);
        if sequence % 20 == 0 {
            trim(&cluster, 2 * sequence - 10).await;
        }
    }
    cluster.all_reach(400).await;
    purged(&cluster, None).await;
    eventually("most of the log is gone", || {
        let gone = |node: &super::cluster::Node| node.log.floor().is_some_and(|floor| floor.index > 150);
        cluster.running().all(|(_, node)| gone(node))
    })
    .await;
    cluster.equal_logs().await;
}
