//! Replicas on a disk that can be told to hang or to refuse, and what the others do meanwhile.

#![allow(clippy::unwrap_used)]

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use highwater_partition::log::{
    Batch, ClusterId, Disk, DiskFile, GroupId, PrincipalDigest, ProducerId, RealDisk, ReplicaId, crc32c, take_over,
};
use highwater_partition::{Answer, Member, Role, Timers};
use tempfile::TempDir;

use super::{CATALOG_GROUP, Keeper, KeeperOptions, Registry, Successor};
use crate::catalog::CatalogHost;
use crate::config::Config;
use crate::data_dir::{DataDir, Stage};
use crate::failures::Failures;
use crate::hex::Id;
use crate::metrics::Timings;
use crate::storage::Storage;
use crate::test_ca::TestCa;
use crate::test_node::{PATIENCE, TestNode, eventually};

const CLUSTER_ID: ClusterId = ClusterId([3; 16]);

#[derive(Default)]
struct Orders {
    /// Syncs wait as long as this is set.
    hangs: bool,
    /// Nothing can be made in this directory.
    refused: Option<PathBuf>,
}

/// A real disk that obeys.
#[derive(Clone, Default)]
struct TestDisk {
    orders: Arc<(Mutex<Orders>, Condvar)>,
}

impl TestDisk {
    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.0.lock().unwrap());
        self.orders.1.notify_all();
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let orders = self.orders.0.lock().unwrap();
        match orders.refused.as_ref().is_some_and(|refused| path.starts_with(refused)) {
            true => Err(io::Error::other("as ordered")),
            false => Ok(()),
        }
    }

    fn wait(&self) {
        let orders = self.orders.0.lock().unwrap();
        drop(self.orders.1.wait_while(orders, |orders| orders.hangs).unwrap());
    }

    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(TestFile {
            file,
            disk: self.clone(),
        })
    }
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.check(path)?;
        RealDisk.create(path).map(|file| self.file(file))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path).map(|file| self.file(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.sync_dir(path)
    }
}

struct TestFile {
    file: Arc<dyn DiskFile>,
    disk: TestDisk,
}

impl DiskFile for TestFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[Bytes], position: u64) -> io::Result<()> {
        self.file.write_at(parts, position)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.disk.wait();
        self.file.sync()
    }
}

struct Replicas {
    keeper: Arc<Keeper>,
    registry: Arc<Registry>,
    data: Arc<DataDir>,
    disk: TestDisk,
    failures: Failures,
    _node: TestNode,
    _directory: TempDir,
}

impl Replicas {
    async fn none() -> Replicas {
        let node = TestNode::start(&TestCa::new(), "a").await;
        let directory = TempDir::new().unwrap();
        let data = Arc::new(DataDir::open(directory.path(), "prod", "a", Id([7; 16])).unwrap());
        data.record_cluster(CLUSTER_ID, None).unwrap();
        let (disk, failures, registry) = (TestDisk::default(), Failures::default(), Registry::new());
        let storage = Storage::start_on(
            Arc::new(disk.clone()),
            &Config::default(),
            failures.clone(),
            Timings::new().unwrap(),
        );
        let keeper = Keeper::new(KeeperOptions {
            data: data.clone(),
            storage: Arc::new(storage.unwrap()),
            registry: registry.clone(),
            catalog: CatalogHost::new(failures.clone()),
            link: node.link.clone(),
            failures: failures.clone(),
        });
        Replicas {
            keeper: Arc::new(keeper),
            registry,
            data,
            disk,
            failures,
            _node: node,
            _directory: directory,
        }
    }

    /// Groups of one member each, all led here.
    async fn led(groups: &[GroupId]) -> Replicas {
        let replicas = Replicas::none().await;
        let new = groups.iter().map(|group| (*group, replica_of(*group))).collect();
        replicas.keeper.make(CLUSTER_ID, new).await.unwrap();
        for group in groups {
            let member = Member {
                replica_id: replica_of(*group),
                node: "a".to_owned(),
            };
            replicas.keeper.initialize(*group, vec![member]).await.unwrap();
            eventually("it leads", || replicas.role(*group) == Some(Role::Leader)).await;
        }
        replicas
    }

    fn role(&self, group: GroupId) -> Option<Role> {
        self.registry.hosted(group).map(|hosted| hosted.status().role)
    }

    fn stages(&self) -> Vec<(u64, Stage)> {
        let records = self.data.replicas();
        records.iter().map(|record| (record.group, record.stage)).collect()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.disk.order(|orders| orders.hangs = false);
    }
}

fn replica_of(group: GroupId) -> ReplicaId {
    ReplicaId(group.0 + 100)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_stopped_together_and_the_catalog_after_them() {
    let partitions = [GroupId(1), GroupId(2), GroupId(3)];
    let replicas = Replicas::led(&[CATALOG_GROUP, partitions[0], partitions[1], partitions[2]]).await;
    replicas.disk.order(|orders| orders.hangs = true);
    let keeper = replicas.keeper.clone();
    let stopping = tokio::spawn(async move { keeper.stop_all(PATIENCE).await });
    // None of them can have ended: the disk takes nothing.
    let all_asked = || {
        partitions
            .iter()
            .all(|group| replicas.role(*group) == Some(Role::Stopped))
    };
    eventually("every partition is asked to stop before one has", all_asked).await;
    assert_eq!(replicas.role(CATALOG_GROUP), Some(Role::Leader));
    replicas.disk.order(|orders| orders.hangs = false);
    stopping.await.unwrap();
    assert_eq!(replicas.role(CATALOG_GROUP), Some(Role::Stopped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_ends_also_when_the_disk_does_not_answer() {
    let replicas = Replicas::led(&[CATALOG_GROUP, GroupId(1)]).await;
    replicas.disk.order(|orders| orders.hangs = true);
    let stopping = replicas.keeper.stop_all(Duration::from_millis(50));
    tokio::time::timeout(PATIENCE, stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_cannot_be_made_keeps_no_other_from_running_and_is_tried_again() {
    let replicas = Replicas::none().await;
    let new: Vec<_> = [1, 2, 3]
        .map(|group| (GroupId(group), replica_of(GroupId(group))))
        .to_vec();
    let refused = replicas.data.replica_path(new[1].0, new[1].1);
    replicas.disk.order(|orders| orders.refused = Some(refused));
    let error = replicas.keeper.make(CLUSTER_ID, new.clone()).await.unwrap_err();
    assert_eq!(error.group, 2, "{error}");
    assert!(replicas.role(GroupId(1)).is_some() && replicas.role(GroupId(3)).is_some());
    let stages = [(1, Stage::Started), (2, Stage::Preparing), (3, Stage::Started)];
    assert_eq!(replicas.stages(), stages);
    replicas.disk.order(|orders| orders.refused = None);
    replicas.keeper.make(CLUSTER_ID, vec![new[1]]).await.unwrap();
    assert!(replicas.role(GroupId(2)).is_some());
    assert!(replicas.stages().iter().all(|(_, stage)| *stage == Stage::Started));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_half_made_at_a_crash_is_made_anew_at_the_next_start() {
    let replicas = Replicas::none().await;
    let (group, replica) = (GroupId(5), replica_of(GroupId(5)));
    replicas.data.record_preparing(&[(group, replica)]).unwrap();
    let path = replicas.data.replica_path(group, replica);
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("hard-state"), "half").unwrap();
    replicas.keeper.make(CLUSTER_ID, vec![(group, replica)]).await.unwrap();
    assert_eq!(replicas.stages(), [(5, Stage::Started)]);
    assert!(replicas.role(group).is_some());
    assert_ne!(std::fs::read(path.join("hard-state")).unwrap(), b"half");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_started_replica_without_its_directory_is_dead_and_not_made_anew() {
    let replicas = Replicas::none().await;
    let dead = (GroupId(5), replica_of(GroupId(5)));
    replicas.data.record_preparing(&[dead]).unwrap();
    replicas.data.record_started(&[dead]).unwrap();
    let record = replicas.data.replicas()[0];
    let error = replicas.keeper.open(CLUSTER_ID, record, Vec::new()).await.unwrap_err();
    assert!(error.why.contains("dead"), "{error}");
    assert!(replicas.role(GroupId(5)).is_none());
    assert!(!replicas.data.replica_path(dead.0, dead.1).exists());
}

/// Can be found in an old data directory, whose node stopped while one replica took the other's place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_replica_of_a_group_is_stopped_in_order_and_the_first_goes_on() {
    let group = GroupId(5);
    let replicas = Replicas::led(&[group]).await;
    let second = (group, ReplicaId(900));
    let error = replicas.keeper.make(CLUSTER_ID, vec![second]).await.unwrap_err();
    assert!(error.why.contains("replica 105"), "{error}");
    assert!(!error.is_dead && error.path == replicas.data.replica_path(second.0, second.1));
    let record = *replicas.data.replicas().last().unwrap();
    assert_eq!((record.replica_id(), record.stage), (second.1, Stage::Started));
    // at the next start of the node, say; its log was closed and can be opened
    let opened = replicas.keeper.open(CLUSTER_ID, record, Vec::new()).await;
    assert!(opened.unwrap_err().why.contains("replica 105"));
    assert_eq!(replicas.role(group), Some(Role::Leader));
    assert_eq!(replicas.registry.hosted(group).unwrap().replica_id, replica_of(group));
    // nothing of it is left that would keep its files
    replicas.keeper.remove(second.0, second.1).await.unwrap();
    assert!(!replicas.data.replica_path(second.0, second.1).exists());
    assert_eq!(replicas.role(group), Some(Role::Leader));
}

/// A batch of one record.
fn batch(sequence: u64) -> Batch {
    let payload = Bytes::from(format!("record {sequence}"));
    Batch {
        producer_id: ProducerId([1; 16]),
        principal: PrincipalDigest([1; 16]),
        sequence,
        record_count: 1,
        compression: 1,
        expected_offset: None,
        payload_crc: crc32c(&payload),
        payload,
    }
}

async fn propose(replicas: &Replicas, group: GroupId, sequence: u64) -> Answer {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let hosted = replicas.registry.hosted(group).unwrap();
    hosted
        .partition()
        .propose(batch(sequence), None, Box::new(|answer| drop(sender.send(answer))));
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_restarted_in_place_with_other_timers_and_keeps_everything() {
    let group = GroupId(5);
    let replicas = Replicas::led(&[CATALOG_GROUP, group]).await;
    let before = replicas.registry.hosted(group).unwrap();
    before.count_served(7);
    assert!(matches!(propose(&replicas, group, 0).await, Answer::Decided(_)));

    replicas.keeper.restart(group).await.unwrap();
    assert!(!before.has_ended(), "it has the timers that are in force");

    let step = Timers::step(2).unwrap();
    replicas.keeper.set_timers(step);
    replicas.keeper.restart(group).await.unwrap();
    tokio::time::timeout(PATIENCE, before.ended()).await.unwrap();
    assert!(before.has_ended() && !before.is_removed(), "a restart is no deletion");
    let after = replicas.registry.hosted(group).unwrap();
    assert_eq!((after.timers(), after.replica_id), (step, before.replica_id));
    assert_eq!(after.records_served(), 7);
    assert!(!replicas.registry.is_unstarted(group, after.replica_id));
    eventually("it leads again", || replicas.role(group) == Some(Role::Leader)).await;
    assert!(matches!(propose(&replicas, group, 1).await, Answer::Decided(decision) if decision.base_offset == 1));

    let catalog = replicas.registry.hosted(CATALOG_GROUP).unwrap();
    replicas.keeper.restart(CATALOG_GROUP).await.unwrap();
    assert!(!catalog.has_ended() && catalog.timers() == Timers::default());
    replicas.keeper.restart(GroupId(99)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_made_later_start_with_the_timers_in_force() {
    let replicas = Replicas::none().await;
    replicas.keeper.set_timers(Timers::step(3).unwrap());
    let new = [CATALOG_GROUP, GroupId(1)].map(|group| (group, replica_of(group)));
    replicas.keeper.make(CLUSTER_ID, new.to_vec()).await.unwrap();
    let timers = |group| replicas.registry.hosted(group).unwrap().timers();
    assert_eq!(timers(GroupId(1)), Timers::step(3).unwrap());
    assert_eq!(timers(CATALOG_GROUP), Timers::step(1).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_does_not_come_back_from_a_restart_is_the_end_of_the_node() {
    let group = GroupId(5);
    let replicas = Replicas::led(&[group]).await;
    let held = replicas.registry.hosted(group).unwrap();
    replicas.keeper.set_timers(Timers::step(2).unwrap());
    replicas.disk.order(|orders| orders.hangs = true);
    let error = replicas.keeper.restart(group).await.unwrap_err();
    assert!(!error.is_dead, "{error}");
    assert!(held.has_ended() && !held.is_removed());
    assert!(replicas.failures.first().is_some());
}

fn successor(group: GroupId) -> Successor {
    Successor {
        group,
        former: replica_of(group),
        replica: ReplicaId(900),
        node: "a".to_owned(),
    }
}

async fn assert_leads_alone(replicas: &Replicas, group: GroupId) {
    eventually("it leads", || replicas.role(group) == Some(Role::Leader)).await;
    let hosted = replicas.registry.hosted(group).unwrap();
    let voters: Vec<ReplicaId> = hosted.status().voters.iter().map(|voter| voter.replica_id).collect();
    assert_eq!((hosted.replica_id, voters), (ReplicaId(900), vec![ReplicaId(900)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_goes_on_with_the_log_of_a_former_one_as_the_only_member() {
    let group = GroupId(5);
    let replicas = Replicas::led(&[group]).await;
    let committed = || replicas.registry.hosted(group).unwrap().status().committed_index;
    // A leader's first entry may be committed a moment after it leads.
    eventually("an entry of the former one", || committed() > 0).await;
    let entries = committed();
    let prepared = replicas.keeper.take_over(CLUSTER_ID, &successor(group)).await.unwrap();
    replicas.keeper.run(prepared).await.unwrap();
    assert_leads_alone(&replicas, group).await;
    eventually("an entry of its own behind them", || committed() > entries).await;
}

/// The directory has its new name, and its hard state may or may not say so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_interrupted_in_taking_over_a_log_goes_on() {
    for group in [GroupId(5), GroupId(6)] {
        let replicas = Replicas::led(&[group]).await;
        let Successor { former, replica, .. } = successor(group);
        replicas.keeper.end(group, former).await.unwrap();
        assert!(replicas.data.hand_on(group, former, replica).unwrap());
        if group == GroupId(6) {
            let path = replicas.data.replica_path(group, replica);
            let open = replicas
                .keeper
                .options
                .storage
                .open_log(path, CLUSTER_ID, group, replica);
            take_over(&open, former).unwrap();
        }
        let prepared = replicas.keeper.take_over(CLUSTER_ID, &successor(group)).await.unwrap();
        replicas.keeper.run(prepared).await.unwrap();
        assert_leads_alone(&replicas, group).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_without_the_log_that_it_is_to_go_on_with_is_dead() {
    let replicas = Replicas::none().await;
    let lost = replicas.keeper.take_over(CLUSTER_ID, &successor(GroupId(5))).await;
    assert!(lost.is_err_and(|error| error.is_dead));
    assert!(replicas.stages().is_empty(), "it is not recorded as started");
}
