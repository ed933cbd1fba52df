//! Manifests that are cut, forged, misdirected or of another group. The group must not mind.

use std::sync::Arc;

use bytes::Bytes;
use highwater_log::{ClusterId, Disk, DiskWriter, GroupId, Identity, Log, LogConfig, Manifest, OpenLog, RealDisk};
use highwater_log::{ReplicaId, SystemClock, TailCache};
use openraft::storage::RaftStateMachine;
use tokio::sync::mpsc;

use super::cluster::{Cluster, GROUP, NAMES, batch, in_time};
use super::logs::open_log;
use crate::codec::{install, kind};
use crate::machine::GroupMachine;
use crate::mending::Mending;
use crate::progress::Progress;
use crate::snapshot::{Snapshots, snapshot_of};
use crate::types::Vote;
use crate::{Error, PeerStream};

/// A group with a manifest on all replicas: the cluster, a follower, and the leader.
async fn group() -> (Cluster, usize, usize) {
    let cluster = Cluster::start().await;
    for sequence in 0..5 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(10).await;
    let leader = cluster.leader().await;
    let follower = cluster.follower().await;
    (cluster, follower, leader)
}

/// Says all this to a replica, as `from`, and then nothing more.
async fn say(cluster: &Cluster, to: usize, from: &str, messages: Vec<Bytes>) -> Result<(), Error> {
    let (sender, mut answers) = mpsc::channel(1);
    let (words, receiver) = mpsc::channel(messages.len().max(1));
    for message in messages {
        words.send(message).await.unwrap();
    }
    drop(words);
    let stream = PeerStream { sender, receiver };
    let heard = cluster.partition(to).handle_stream(from, kind::INSTALL_STREAM, stream);
    let heard = in_time("an end", heard).await;
    assert_eq!(answers.recv().await.is_some(), heard.is_ok());
    heard
}

fn refused(result: Result<(), Error>, why: &str) {
    match result {
        Err(Error::BadMessage(text)) if text.contains(why) => {}
        other => panic!("expected a refusal because of {why:?}, got {other:?}"),
    }
}

/// A manifest of a group that is not this one, in the same place.
fn foreign() -> Manifest {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let writer = DiskWriter::start(disk.clone(), Box::new(|err| panic!("{err}"))).unwrap();
    let log = Log::create(OpenLog {
        dir: dir.path().join("log"),
        identity: Identity {
            cluster_id: ClusterId([1; 16]),
            group_id: GroupId(GROUP.0 + 1),
            replica_id: ReplicaId(1),
        },
        disk,
        clock: Arc::new(SystemClock),
        writer,
        cache: TailCache::new(1 << 20),
        config: LogConfig::default(),
    })
    .unwrap();
    let entries = (0..50).map(|index| highwater_log::Entry::Proposed {
        id: highwater_log::EntryId { term: 1, index },
        body: highwater_log::Body::Blank,
    });
    log.append(entries.collect(), Box::new(|_| {})).unwrap();
    log.commit(49).unwrap();
    log.fold_manifest(49).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_is_not_whole_is_refused_and_a_whole_one_is_taken() {
    let (cluster, follower, leader) = group().await;
    let term = cluster.partition(leader).status().term;
    let vote = Vote::new_committed(term, leader as u64 + 1);
    let to = follower as u64 + 1;
    let manifest = cluster.node(leader).log.fold_manifest(3).unwrap();
    let whole = install::encode(to, vote, &manifest).unwrap();
    let from = NAMES[leader];
    assert_eq!(whole.len(), 2);
    refused(say(&cluster, follower, from, Vec::new()).await, "too early");
    refused(say(&cluster, follower, from, whole[..1].to_vec()).await, "too early");
    let short = vec![whole[0].clone(), whole[1].slice(1..)];
    refused(say(&cluster, follower, from, short).await, "too early");
    let mut long = whole.clone();
    long[1] = Bytes::from([&whole[1][..], &[0]].concat());
    refused(say(&cluster, follower, from, long).await, "are to come");
    let mut flipped = whole[1].to_vec();
    flipped[100] ^= 1;
    let flipped = vec![whole[0].clone(), Bytes::from(flipped)];
    refused(say(&cluster, follower, from, flipped).await, "checksum");
    let empty = vec![whole[0].clone(), Bytes::new()];
    refused(say(&cluster, follower, from, empty).await, "are to come");
    // one that is behind what is committed is taken, and changes nothing
    say(&cluster, follower, from, whole).await.unwrap();
    assert_eq!(cluster.node(follower).log.floor(), None);
    cluster.accept(batch(1, 5)).await;
    cluster.all_reach(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_no_leader_of_this_group_would_send_is_refused() {
    let (cluster, follower, leader) = group().await;
    let term = cluster.partition(leader).status().term;
    let (to, own) = (follower as u64 + 1, leader as u64 + 1);
    let vote = Vote::new_committed(term, own);
    let manifest = cluster.node(leader).log.fold_manifest(3).unwrap();
    let other = NAMES[3 - leader - follower];
    let sent = |to: u64, vote: Vote, manifest: &Manifest| install::encode(to, vote, manifest).unwrap();
    let forged = say(&cluster, follower, other, sent(to, vote, &manifest)).await;
    refused(forged, "speaks for replica");
    let misdirected = say(&cluster, follower, NAMES[leader], sent(40, vote, &manifest)).await;
    refused(misdirected, "reached replica");
    let campaigning = say(
        &cluster,
        follower,
        NAMES[leader],
        sent(to, Vote::new(term, own), &manifest),
    )
    .await;
    refused(campaigning, "candidate");
    let foreign = say(&cluster, follower, NAMES[leader], sent(to, vote, &foreign())).await;
    refused(foreign, "group id");
    let far = Vote::new_committed(term + (1 << 40), own);
    let far = say(&cluster, follower, NAMES[leader], sent(to, far, &manifest)).await;
    refused(far, "too far ahead");
    let older = Vote::new_committed(0, own);
    let older = say(&cluster, follower, NAMES[leader], sent(to, older, &manifest)).await;
    refused(older, "from a leader of term 0");
    assert_eq!(cluster.partition(leader).status().term, term);
    cluster.accept(batch(1, 5)).await;
    cluster.all_reach(12).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_manifest_brings_can_be_seen_as_soon_as_it_is_installed() {
    let (cluster, _, leader) = group().await;
    let manifest = cluster.node(leader).log.fold_manifest(4).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (log, _writer) = open_log(&dir.path().join("log"), 9, 1 << 20);
    let (progress, snapshots) = (Arc::new(Progress::new(log.clone())), Snapshots::new(log.clone()));
    let mending = Mending::new(log.clone());
    let recovered = GroupMachine::recover(log.clone(), None, progress.clone(), snapshots, &mending);
    let mut machine = recovered.await.unwrap();
    let snapshot = snapshot_of(Arc::new(manifest.clone())).unwrap();
    for _ in 0..2 {
        let data = snapshot.snapshot.clone();
        machine.install_snapshot(&snapshot.meta, data).await.unwrap();
        assert_eq!(progress.watermark().high_watermark, manifest.state().log_end);
        assert_eq!(progress.committed_end(), 5);
        let (applied, membership) = machine.applied_state().await.unwrap();
        assert_eq!(applied, snapshot.meta.last_log_id);
        assert_eq!(membership.nodes().count(), 3);
        assert_eq!(log.floor(), Some(manifest.last()));
    }
}
