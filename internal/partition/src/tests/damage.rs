//! Bits that rot inside logs: every record is served right or not at all, and the files become whole again.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_log::{DamagedRange, Kind, Log, RealDisk};

use super::cluster::{Cluster, NAMES, batch, eventually, in_time, member, members};
use super::logs::{all_frames, open_options, start_writer};
use crate::codec::kind;
use crate::{Partition, ReadError, Role, Unstarted};

/// Three replicas with 60 batches of two records in small segments, which are read from the disk.
pub(super) async fn group() -> Cluster {
    let mut cluster = Cluster::with_small_segments(Arc::new(|| None)).await;
    for sequence in 0..60 {
        cluster.accept(batch(1, sequence)).await;
    }
    cluster.all_reach(120).await;
    cluster.equal_logs().await;
    cluster.without_caches();
    for index in 0..3 {
        cluster.crash(index).await;
    }
    cluster.boot_together(&[0, 1, 2]).await;
    cluster.leader().await;
    cluster.all_reach(120).await;
    cluster
}

pub(super) fn segments(cluster: &Cluster, index: usize) -> BTreeMap<PathBuf, Vec<u8>> {
    let names = std::fs::read_dir(cluster.path(index)).unwrap();
    let paths = names.map(|entry| entry.unwrap().path());
    let logs = paths.filter(|path| path.extension().is_some_and(|end| end == "log"));
    logs.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Flips a bit in the middle of the sealed segment number `place` of a replica.
pub(super) fn rot(cluster: &Cluster, index: usize, place: usize) {
    let segments = segments(cluster, index);
    assert!(place + 2 < segments.len(), "{} segments", segments.len());
    let (path, bytes) = segments.iter().nth(place).unwrap();
    let position = bytes.len() / 2;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[bytes[position] ^ 0x10], position as u64).unwrap();
}

/// Reads all that is known to be committed, most of what there is, and compares it.
async fn reads_whole(partition: &Partition) {
    let end = partition.watermark().borrow().high_watermark;
    assert!(end > 60, "only {end} is known to be committed");
    let mut next = 0;
    while next < end {
        let batches = match partition.read(next, 300).await {
            Ok(batches) => batches,
            Err(ReadError::Damaged { everywhere: false, .. }) => {
                tokio::task::yield_now().await;
                continue;
            }
            Err(other) => panic!("{other:?}"),
        };
        assert!(!batches.is_empty(), "nothing at {next}");
        for found in batches {
            assert_eq!(found.base_offset, next);
            assert_eq!(found.payload, batch(1, next / 2).payload, "a wrong record");
            next += u64::from(found.record_count);
        }
    }
}

async fn whole_again(cluster: &Cluster, index: usize, before: &BTreeMap<PathBuf, Vec<u8>>) {
    eventually("whole files", || {
        let now = segments(cluster, index);
        before
            .iter()
            .rev()
            .skip(1)
            .all(|(path, bytes)| now.get(path) == Some(bytes))
    })
    .await;
    eventually("no damage", || cluster.partition(index).status().damage.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_follower_is_mended_and_never_serves_a_wrong_record() {
    let mut cluster = group().await;
    let follower = cluster.follower().await;
    let before = segments(&cluster, follower);
    cluster.crash(follower).await;
    rot(&cluster, follower, 1);
    cluster.boot(follower).await;
    in_time("the records", reads_whole(cluster.partition(follower))).await;
    whole_again(&cluster, follower, &before).await;
}

/// The damage is done while the replica runs, so only the scrubber or a reader can find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotten_leader_gives_leadership_away_and_serves_nothing_of_the_range() {
    let cluster = group().await;
    let leader = cluster.leader().await;
    let before = segments(&cluster, leader);
    cluster.network.lose(kind::REFILL);
    rot(&cluster, leader, 1);
    let found = async {
        let mut next = 0;
        loop {
            match cluster.partition(leader).read(next, 1).await {
                Ok(batches) => next += u64::from(batches[0].record_count),
                Err(ReadError::Damaged {
                    offset,
                    first_index,
                    end_index,
                    ..
                }) => {
                    assert_eq!(offset, next);
                    break DamagedRange { first_index, end_index };
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    let range = in_time("the damage", found).await;
    assert_eq!(cluster.partition(leader).status().damage, [range]);
    eventually("another leader", || {
        cluster
            .running()
            .any(|(index, node)| index != leader && node.partition.status().role == Role::Leader)
    })
    .await;
    cluster.accept(batch(1, 60)).await;
    cluster.all_reach(122).await;
    assert_eq!(
        cluster.partition(leader).status().damage,
        [range],
        "nobody could be asked"
    );
    cluster.network.heal();
    whole_again(&cluster, leader, &before).await;
    in_time("the records", reads_whole(cluster.partition(leader))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_rotten_replicas_mend_each_other_also_without_a_leader() {
    let mut cluster = group().await;
    let before: Vec<_> = (0..3).map(|index| segments(&cluster, index)).collect();
    for index in 0..3 {
        cluster.crash(index).await;
        rot(&cluster, index, index);
    }
    cluster.network.lose(kind::PRE_VOTE);
    cluster.network.lose(kind::VOTE);
    cluster.boot_together(&[0, 1, 2]).await;
    for (index, before) in before.iter().enumerate() {
        in_time("the records", reads_whole(cluster.partition(index))).await;
        whole_again(&cluster, index, before).await;
        assert_ne!(cluster.partition(index).status().role, Role::Leader, "without votes");
    }
    cluster.network.heal();
    cluster.accept(batch(1, 60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rotten_everywhere_is_reported_for_its_offset_and_never_skipped() {
    let mut cluster = group().await;
    for index in 0..3 {
        cluster.crash(index).await;
        rot(&cluster, index, 1);
    }
    cluster.boot_together(&[0, 1, 2]).await;
    cluster.all_reach(120).await;
    for index in 0..3 {
        let partition = cluster.partition(index);
        eventually("a report", || !partition.status().damage_everywhere.is_empty()).await;
        let status = partition.status();
        assert_eq!(status.damage, status.damage_everywhere);
        let frames = before_and_behind(&cluster, index, status.damage[0]);
        let mut lost = 0;
        for offset in (0..120).step_by(2) {
            match partition.read(offset, 1).await {
                Ok(batches) => assert_eq!(batches[0].base_offset, offset, "another record instead"),
                Err(ReadError::Damaged {
                    offset: found,
                    everywhere: true,
                    ..
                }) => {
                    assert_eq!(found, offset);
                    assert!(!frames.contains(&offset), "{offset} is whole");
                    lost += 1;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert!(lost > 0, "the damage was not met");
    }
    cluster.accept(batch(1, 60)).await;
    cluster.all_reach(122).await;
}

/// What the others have purged stands in their manifest; that one reaches beyond what this log knows to be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_opened_is_dead_if_it_is_behind_what_all_others_have_purged() {
    let mut cluster = group().await;
    let follower = cluster.follower().await;
    cluster.crash(follower).await;
    rot(&cluster, follower, 1);
    std::fs::remove_file(cluster.path(follower).join("checkpoint")).unwrap();
    let others: Vec<usize> = (0..3).filter(|index| *index != follower).collect();
    for sequence in 60..120 {
        cluster.accept(batch(1, sequence)).await;
    }
    let leader = cluster.leader_among(&others).await;
    let trim = cluster.partition(leader).trim(230);
    assert_eq!(in_time("a trim", trim).await, Ok(230));
    let ahead =
        |index: &usize| cluster.node(*index).log.readable().0 > 125 && cluster.node(*index).log.floor().is_some();
    eventually("floors", || others.iter().all(ahead)).await;
    let writer = start_writer(Arc::new(RealDisk));
    let options = {
        let (dir, writer) = (cluster.path(follower), writer.clone());
        move || open_options(Arc::new(RealDisk), &dir, follower as u64 + 1, &writer)
    };
    let peers = cluster.network.peers(NAMES[follower]);
    let unstarted = Unstarted::new(member(follower).replica_id);
    let opened = in_time("an opening", unstarted.open(options, &members(3), peers.as_ref())).await;
    assert!(matches!(&opened, Err(error) if error.is_dead()), "{:?}", opened.err());
    assert!(writer.stop());
}

/// openraft asks for single entries to learn their terms, and cannot start without.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_term_of_a_damaged_entry_is_known_if_it_is_the_same_on_both_sides() {
    let cluster = group().await;
    let follower = cluster.follower().await;
    cluster.network.lose(kind::REFILL);
    rot(&cluster, follower, 1);
    let partition = cluster.partition(follower);
    for offset in (0..120).step_by(2) {
        let _ = partition.read(offset, 1).await; // until it has met the damage
    }
    let range = partition.status().damage[0];
    let log = &cluster.node(follower).log;
    assert!(log.entry_id(range.first_index).is_err());
    let whole = cluster.node(cluster.leader().await).log.entry_id(range.first_index);
    let id = crate::storage::id_at(log, range.first_index).unwrap();
    assert_eq!(Some(crate::types::entry_id(&id)), whole.unwrap());
    crate::storage::terms_of(log).unwrap();
}

/// The offsets of the batches around a damaged range.
fn before_and_behind(cluster: &Cluster, index: usize, range: DamagedRange) -> Vec<u64> {
    let log = &cluster.node(index).log;
    let mut offsets = Vec::new();
    for stretch in [(0, range.first_index), (range.end_index, log.last().unwrap().index + 1)] {
        let mut next = stretch.0;
        while next < stretch.1 {
            let frames = log.read(next, stretch.1, 1 << 20).unwrap();
            next += frames.len() as u64;
            let batches = frames.iter().filter(|frame| frame.header.kind == Kind::Batch);
            offsets.extend(batches.map(|frame| frame.header.base_offset));
        }
    }
    offsets
}

/// A read error of openraft's would end the leader's core.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_needs_a_damaged_entry_waits_for_its_refill() {
    let mut cluster = group().await;
    let new = cluster.add_node().await;
    cluster.network.lose(kind::REFILL);
    let leader = cluster.leader_among(&[0, 1, 2]).await;
    for index in 0..3 {
        rot(&cluster, index, 1);
    }
    in_time("the learner", cluster.partition(leader).add_learner(member(new)))
        .await
        .unwrap();
    eventually("damage", || {
        cluster
            .running()
            .filter(|(_, node)| !node.partition.status().damage.is_empty())
            .count()
            > 0
    })
    .await;
    // whoever leads by now has rotten entries as well, and nobody else may be asked: but one is put right by hand
    let path_of = |index: usize| segments(&cluster, index).into_keys().nth(1).unwrap();
    let held = cluster.node(new).log.last();
    cluster.accept(batch(1, 60)).await;
    for (_, node) in cluster.running() {
        assert_ne!(node.partition.status().role, Role::Stopped);
    }
    let healer = (leader + 1) % 3;
    let path = path_of(healer);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    cluster.crash(healer).await;
    std::fs::write(&path, bytes).unwrap();
    cluster.network.heal();
    cluster.boot(healer).await;
    cluster.all_reach(122).await;
    assert!(cluster.node(new).log.last() > held);
    eventually("no damage", || {
        cluster
            .running()
            .all(|(_, node)| node.partition.status().damage.is_empty())
    })
    .await;
    let frames = cluster.equal_logs().await;
    assert_eq!(frames, all_frames(&cluster.node(new).log));
}

/// The others have purged what is damaged here: their manifest stands for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rotten_here_and_purged_elsewhere_is_given_up_for_the_manifest() {
    let mut cluster = group().await;
    let sleeper = cluster.follower().await;
    cluster.crash(sleeper).await;
    rot(&cluster, sleeper, 1);
    let others: Vec<usize> = (0..3).filter(|index| *index != sleeper).collect();
    let leader = cluster.leader_among(&others).await;
    let trimmed = cluster.partition(leader).trim(100);
    assert_eq!(in_time("a trim", trimmed).await, Ok(100));
    eventually("floors", || {
        others.iter().all(|index| cluster.node(*index).log.floor().is_some())
    })
    .await;
    let floor = cluster.node(leader).log.floor();
    cluster.boot(sleeper).await;
    eventually("the floor", || cluster.node(sleeper).log.floor() == floor).await;
    eventually("no damage", || cluster.partition(sleeper).status().damage.is_empty()).await;
    cluster.equal_logs().await;
}

/// Without its checkpoint a log must be folded from its first entry, so it cannot be opened with damage there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_cannot_be_opened_is_mended_first_by_the_others_or_by_their_manifest() {
    for trimmed in [false, true] {
        let mut cluster = group().await;
        let follower = cluster.follower().await;
        let before = segments(&cluster, follower);
        cluster.crash(follower).await;
        rot(&cluster, follower, 1);
        std::fs::remove_file(cluster.path(follower).join("checkpoint")).unwrap();
        let others: Vec<usize> = (0..3).filter(|index| *index != follower).collect();
        let leader = cluster.leader_among(&others).await;
        if trimmed {
            let trim = cluster.partition(leader).trim(60);
            assert_eq!(in_time("a trim", trim).await, Ok(60));
            eventually("floors", || {
                others.iter().all(|index| cluster.node(*index).log.floor().is_some())
            })
            .await;
        }
        let writer = start_writer(Arc::new(RealDisk));
        let options = {
            let (dir, writer) = (cluster.path(follower), writer.clone());
            move || open_options(Arc::new(RealDisk), &dir, follower as u64 + 1, &writer)
        };
        assert!(matches!(
            Log::open(options()),
            Err(highwater_log::Error::NeedsRefill { .. })
        ));
        let peers = cluster.network.peers(NAMES[follower]);
        let unstarted = Unstarted::new(member(follower).replica_id);
        let opened = in_time("an opening", unstarted.open(options, &members(3), peers.as_ref())).await;
        let log = opened.unwrap();
        assert_eq!(log.floor(), cluster.node(leader).log.floor());
        drop(log);
        assert!(writer.stop());
        if !trimmed {
            let now = segments(&cluster, follower);
            assert!(
                before
                    .iter()
                    .rev()
                    .skip(1)
                    .all(|(path, bytes)| now.get(path) == Some(bytes))
            );
        }
        cluster.boot(follower).await;
        cluster.accept(batch(1, 60)).await;
        cluster.all_reach(122).await;
        cluster.equal_logs().await;
    }
}
