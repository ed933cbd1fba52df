//! A replica is stopped while others, or its own disk, do not answer.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use highwater_log::{Disk, DiskFile, LogConfig, RealDisk, ReplicaId};

use super::cluster::{Cluster, GROUP, NAMES, TIMERS, batch, eventually, in_time, member, propose_now};
use super::logs::open_log_on;
use super::network::Network;
use crate::{Answer, CatchUpPace, Error, GroupOptions, Partition, Role, ScrubPace, Stages};

/// Whether syncs return.
#[derive(Default)]
struct Gate {
    hangs: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, hangs: bool) {
        *self.hangs.lock().unwrap() = hangs;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let hangs = self.hangs.lock().unwrap();
        drop(self.changed.wait_while(hangs, |hangs| *hangs).unwrap());
    }
}

/// A disk whose syncs hang on demand.
#[derive(Default)]
struct HangingDisk(Arc<Gate>);

struct HangingFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl HangingDisk {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        let gate = self.0.clone();
        Arc::new(HangingFile { file, gate })
    }
}

impl Disk for HangingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.create(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.file(RealDisk.open(path)?))
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

impl DiskFile for HangingFile {
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
        self.gate.pass();
        self.file.sync()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_stops_though_its_disk_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = HangingDisk::default();
    let gate = disk.0.clone();
    let (log, writer) = open_log_on(
        Arc::new(disk),
        &dir.path().join("log"),
        1,
        1 << 20,
        LogConfig::default(),
    );
    let options = GroupOptions {
        group_id: GROUP,
        replica_id: ReplicaId(1),
        log,
        machine: None,
        peers: Network::new().peers(NAMES[0]),
        timers: TIMERS,
        members: Vec::new(),
        scrub: ScrubPace::default(),
        catch_up: CatchUpPace::default(),
        stages: Stages::default(),
    };
    let partition = Partition::start(options).await.unwrap();
    assert!(partition.initialize(vec![member(0)]).await.unwrap());
    eventually("a leader", || partition.status().role == Role::Leader).await;
    gate.set(true);
    let waiting = propose_now(&partition, batch(1, 0));
    let patience = Duration::from_millis(100);
    let stopped = in_time("the end", partition.shutdown_within(patience)).await;
    assert!(matches!(stopped, Err(Error::Log(_) | Error::Raft(_))), "{stopped:?}");
    assert!(!writer.stop_within(patience));
    gate.set(false);
    assert!(writer.stop());
    let answer = in_time("an answer", waiting).await.unwrap();
    assert!(matches!(answer, Answer::Unknown(_)), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_stops_in_order_though_its_followers_do_not_answer() {
    let cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    for other in [(leader + 1) % 3, (leader + 2) % 3] {
        cluster.network.deafen(NAMES[leader], NAMES[other]);
    }
    let waiting = propose_now(cluster.partition(leader), batch(1, 0));
    let stopped = in_time("the end", cluster.partition(leader).shutdown()).await;
    assert!(stopped.is_ok(), "{stopped:?}");
    let answer = in_time("an answer", waiting).await.unwrap();
    assert!(!matches!(answer, Answer::Decided(_)), "{answer:?}");
}
