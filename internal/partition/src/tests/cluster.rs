//! Three replicas on three directories, and what tests want to know of them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use highwater_log::{
    Batch, Disk, DiskWriter, Frame, GroupId, Log, LogConfig, OpenLog, PrincipalDigest, ProducerId, RealDisk, ReplicaId,
    TailCache, Verdict, take_over,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::logs::{all_frames, open_options, start_writer};
use super::network::Network;
use super::room::{LIMITS, RoomyDisk};
use crate::{
    Answer, CatchUpPace, Error, GroupOptions, Machine, Member, Partition, Role, ScrubPace, Stages, StoredBatch, Timers,
    Unstarted, become_only_member,
};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
pub(super) const GROUP: GroupId = GroupId(7);
/// No test may wait longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Slower than the product's, so that a busy machine does not take a leader's lease away.
pub(super) const TIMERS: Timers = Timers {
    heartbeat_ms: 100,
    election_min_ms: 600,
    election_max_ms: 800,
};

/// Makes a machine for a replica.
pub(super) type MakeMachine = Arc<dyn Fn() -> Option<Arc<dyn Machine>> + Send + Sync>;

/// One running replica.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) partition: Partition,
    pub(super) log: Log,
    pub(super) machine: Option<Arc<dyn Machine>>,
    writer: DiskWriter,
}

pub(super) struct Cluster {
    pub(super) network: Arc<Network>,
    pub(super) nodes: Vec<Option<Node>>,
    make_machine: MakeMachine,
    config: LogConfig,
    cache_bytes: usize,
    /// One for all replicas.
    pub(super) catch_up: CatchUpPace,
    /// Bytes that each replica's disk says are left.
    rooms: Vec<Arc<AtomicU64>>,
    dir: TempDir,
}

pub(super) fn members(count: usize) -> Vec<Member> {
    (0..count).map(member).collect()
}

pub(super) fn member(index: usize) -> Member {
    Member {
        replica_id: ReplicaId(index as u64 + 1),
        node: node_name(index),
    }
}

fn node_name(index: usize) -> String {
    NAMES
        .get(index)
        .map_or_else(|| format!("n{index}"), |name| (*name).to_owned())
}

/// Waits for `done`, looking again every few milliseconds.
pub(super) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(what, wait).await;
}

pub(super) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

impl Cluster {
    /// Three replicas that have agreed on a leader.
    pub(super) async fn start() -> Cluster {
        Cluster::start_with(Arc::new(|| None)).await
    }

    pub(super) async fn start_with(make_machine: MakeMachine) -> Cluster {
        Cluster::found(Cluster::pristine(make_machine).await).await
    }

    /// Three replicas whose segments hold only a few entries, so that much of their logs can be purged.
    pub(super) async fn with_small_segments(make_machine: MakeMachine) -> Cluster {
        let config = LogConfig {
            segment_bytes_max: 2 * 1024,
            ..LogConfig::default()
        };
        Cluster::found(Cluster::pristine_with(make_machine, config).await).await
    }

    /// Three replicas on disks whose room can be set.
    pub(super) async fn with_rooms(make_machine: MakeMachine) -> Cluster {
        let mut cluster = Cluster::pristine(make_machine).await;
        cluster.rooms = (0..3).map(|_| Arc::new(AtomicU64::new(u64::MAX))).collect();
        for index in 0..3 {
            cluster.crash(index).await;
            cluster.boot(index).await;
        }
        Cluster::found(cluster).await
    }

    /// The replica's disk has so many bytes left from now on, and its node has noticed.
    pub(super) fn leave_room(&self, index: usize, bytes: u64) {
        self.rooms[index].store(bytes, Ordering::Release);
        self.node(index).writer.check_space().unwrap();
    }

    /// From the next boot on, what is on disk is read from there.
    pub(super) fn without_caches(&mut self) {
        self.cache_bytes = 0;
    }

    async fn found(cluster: Cluster) -> Cluster {
        assert!(cluster.partition(0).initialize(members(3)).await.unwrap());
        cluster.leader().await;
        cluster
    }

    /// Three replicas that know of no members yet.
    pub(super) async fn pristine(make_machine: MakeMachine) -> Cluster {
        Cluster::pristine_with(make_machine, LogConfig::default()).await
    }

    async fn pristine_with(make_machine: MakeMachine, config: LogConfig) -> Cluster {
        let mut cluster = Cluster {
            network: Network::new(),
            nodes: Vec::new(),
            make_machine,
            config,
            cache_bytes: 16 << 20,
            catch_up: CatchUpPace::default(),
            rooms: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
        };
        for index in 0..NAMES.len() {
            cluster.nodes.push(None);
            cluster.boot(index).await;
        }
        cluster
    }

    /// Adds a further replica, not yet a member.
    pub(super) async fn add_node(&mut self) -> usize {
        self.nodes.push(None);
        self.boot(self.nodes.len() - 1).await;
        self.nodes.len() - 1
    }

    /// Where a replica's log is.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.dir.path().join(node_name(index))
    }

    /// Starts a replica on its directory.
    pub(super) async fn boot(&mut self, index: usize) {
        self.try_boot(index, Vec::new()).await.unwrap();
    }

    /// A further replica goes on with the log of one that does not run, as the only member; answers which. Messages for the
    /// former one's node reach it too.
    pub(super) async fn succeed(&mut self, former: usize) -> usize {
        let new = self.nodes.len();
        self.nodes.push(None);
        std::fs::rename(self.path(former), self.path(new)).unwrap();
        self.boot_alone(new, former).await;
        new
    }

    /// The same again, after it was interrupted or has run.
    pub(super) async fn boot_alone(&mut self, index: usize, former: usize) {
        let writer = start_writer(Arc::new(RealDisk));
        let options = || {
            open_options(
                Arc::new(RealDisk),
                &self.path(index),
                member(index).replica_id.0,
                &writer,
            )
        };
        take_over(&options(), member(former).replica_id).unwrap();
        let log = Log::open(options()).unwrap();
        become_only_member(&log, &member(index)).await.unwrap();
        log.close().unwrap();
        writer.stop();
        self.boot(index).await;
        self.network.join(&node_name(former), self.partition(index).clone());
    }

    /// Starts several replicas at the same time: they may need each other for it.
    pub(super) async fn boot_together(&mut self, indexes: &[usize]) {
        let nodes = join_all(indexes.iter().map(|index| self.launch(*index, Vec::new()))).await;
        for (index, node) in indexes.iter().zip(nodes) {
            self.nodes[*index] = Some(node.unwrap());
        }
    }

    /// Starts a replica on its directory; `members` are known to it otherwise than from its log.
    pub(super) async fn try_boot(&mut self, index: usize, members: Vec<Member>) -> Result<(), Error> {
        self.nodes[index] = Some(self.launch(index, members).await?);
        Ok(())
    }

    async fn launch(&self, index: usize, known: Vec<Member>) -> Result<Node, Error> {
        let name = node_name(index);
        let room = self.rooms.get(index).cloned();
        let disk: Arc<dyn Disk> = match &room {
            Some(room) => Arc::new(RoomyDisk(room.clone())),
            None => Arc::new(RealDisk),
        };
        let writer = start_writer(disk.clone());
        if room.is_some() {
            let reserve = self.path(index).with_extension("reserve");
            std::fs::create_dir_all(&reserve).unwrap();
            writer.clone().with_reserve(&reserve, LIMITS).unwrap();
        }
        let machine = (self.make_machine)();
        let started = async {
            let log = self.open(index, disk, &writer).await?;
            let options = GroupOptions {
                group_id: GROUP,
                replica_id: member(index).replica_id,
                log: log.clone(),
                machine: machine.clone(),
                peers: self.network.peers(&name),
                timers: TIMERS,
                members: known,
                scrub: ScrubPace::default(),
                catch_up: self.catch_up.clone(),
                stages: Stages::default(),
            };
            Ok((log, Partition::start(options).await?))
        };
        match started.await {
            Ok((log, partition)) => {
                self.network.join(&name, partition.clone());
                Ok(Node {
                    name,
                    partition,
                    log,
                    machine,
                    writer,
                })
            }
            Err(error) => {
                self.network.leave(&name);
                writer.stop();
                Err(error)
            }
        }
    }

    /// Opens a replica's log, with the help of the others if need be, or makes it. From now on others are answered.
    async fn open(&self, index: usize, disk: Arc<dyn Disk>, writer: &DiskWriter) -> Result<Log, Error> {
        let (id, name, path) = (member(index).replica_id, node_name(index), self.path(index));
        let is_new = !path.exists();
        let (cache, config, writer) = (TailCache::new(self.cache_bytes), self.config.clone(), writer.clone());
        let options = move || OpenLog {
            cache: cache.clone(),
            config: config.clone(),
            ..open_options(disk.clone(), &path, id.0, &writer)
        };
        if is_new {
            let log = Log::create(options())?;
            self.network.begin(&name, Unstarted::with_log(log.clone()));
            return Ok(log);
        }
        let unstarted = Unstarted::new(id);
        self.network.begin(&name, unstarted.clone());
        let others: Vec<Member> = members(NAMES.len())
            .into_iter()
            .filter(|other| other.replica_id != id)
            .collect();
        unstarted
            .open(options, &others, self.network.peers(&name).as_ref())
            .await
    }

    /// Ends a replica without closing its log, as a crash of the process would.
    pub(super) async fn crash(&mut self, index: usize) {
        let node = self.nodes[index].take().unwrap();
        self.network.leave(&node.name);
        node.partition.halt().await.unwrap();
        node.writer.stop();
    }

    pub(super) fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    pub(super) fn partition(&self, index: usize) -> &Partition {
        &self.node(index).partition
    }

    pub(super) fn running(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((index, node.as_ref()?)))
    }

    /// Cuts a replica off from all others.
    pub(super) fn isolate(&self, index: usize) {
        let others: Vec<&str> = NAMES.iter().copied().filter(|name| *name != NAMES[index]).collect();
        self.network.isolate(NAMES[index], &others);
    }

    /// The replica that leads and that a majority follows.
    pub(super) async fn leader(&self) -> usize {
        self.leader_among(&self.running().map(|(index, _)| index).collect::<Vec<_>>())
            .await
    }

    /// The leader that all of `among` agree on and that is one of them.
    pub(super) async fn leader_among(&self, among: &[usize]) -> usize {
        let mut leader = None;
        eventually("a leader", || {
            leader = self.agreed_leader(among);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    fn agreed_leader(&self, among: &[usize]) -> Option<usize> {
        let leads = |index: &&usize| self.partition(**index).status().role == Role::Leader;
        let leader = *among.iter().find(leads)?;
        let agreed = |index: &usize| {
            let status = self.partition(*index).status();
            status
                .leader
                .is_some_and(|named| named.replica_id.0 == leader as u64 + 1)
        };
        among.iter().all(agreed).then_some(leader)
    }

    /// Hands leadership over until this replica has it: the others may be quicker once or twice.
    pub(super) async fn let_lead(&self, index: usize) {
        let handed = async {
            loop {
                let leader = self.leader().await;
                if leader == index {
                    return;
                }
                let transfer = self.partition(leader).transfer_leader(member(index).replica_id);
                if transfer.await.is_ok() {
                    let mut status = self.partition(leader).status_changes();
                    let moved = status.wait_for(|status| status.role != Role::Leader);
                    let _ = tokio::time::timeout(Duration::from_secs(3), moved).await;
                }
            }
        };
        in_time("a hand-over", handed).await;
    }

    /// A replica that does not lead.
    pub(super) async fn follower(&self) -> usize {
        (self.leader().await + 1) % NAMES.len()
    }

    /// Proposes at whoever leads among the running replicas until it is decided.
    pub(super) async fn decide(&self, batch: Batch) -> highwater_log::Decision {
        let decide = async {
            loop {
                for (_, node) in self.running() {
                    if node.partition.status().role != Role::Leader {
                        continue;
                    }
                    let answer = tokio::time::timeout(Duration::from_secs(3), propose(&node.partition, batch.clone()));
                    if let Ok(Answer::Decided(decision)) = answer.await {
                        return decision;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        in_time("a decision", decide).await
    }

    /// Proposes until the batch is decided; it must be accepted. Where it stands.
    pub(super) async fn accept(&self, batch: Batch) -> u64 {
        let decision = self.decide(batch).await;
        // a duplicate of an attempt whose answer was lost is as good
        assert!(
            matches!(decision.verdict, Verdict::Accepted | Verdict::Duplicate),
            "{decision:?}"
        );
        decision.base_offset
    }

    /// Waits until all running replicas have committed the same `high_watermark`.
    pub(super) async fn all_reach(&self, high_watermark: u64) {
        for (_, node) in self.running() {
            let mut watermark = node.partition.watermark();
            in_time(
                "the watermark",
                watermark.wait_for(|now| now.high_watermark >= high_watermark),
            )
            .await
            .unwrap();
        }
    }

    /// Waits until the logs of all running replicas are equal to the byte, and gives their frames.
    pub(super) async fn equal_logs(&self) -> Vec<Frame> {
        let mut frames = Vec::new();
        eventually("equal logs", || {
            let mut logs = self.running().map(|(_, node)| all_frames(&node.log));
            frames = logs.next().unwrap();
            logs.all(|other| other == frames)
        })
        .await;
        frames
    }
}

/// Proposes a batch and waits for its answer.
pub(super) async fn propose(partition: &Partition, batch: Batch) -> Answer {
    propose_now(partition, batch).await.expect("an answer is always given")
}

/// Proposes a batch; the answer comes later.
pub(super) fn propose_now(partition: &Partition, batch: Batch) -> oneshot::Receiver<Answer> {
    let (sender, receiver) = oneshot::channel();
    partition.propose(batch, None, Box::new(move |answer| drop(sender.send(answer))));
    receiver
}

/// Every committed batch, read piece by piece.
pub(super) async fn read_all(partition: &Partition) -> Vec<StoredBatch> {
    let mut batches: Vec<StoredBatch> = Vec::new();
    loop {
        let next = batches
            .last()
            .map_or(0, |last| last.base_offset + u64::from(last.record_count));
        let more = partition.read(next, 1 << 20).await.unwrap();
        if more.is_empty() {
            return batches;
        }
        assert_eq!(more[0].base_offset, next, "a hole");
        batches.extend(more);
    }
}

/// The batch number `sequence` of one producer: two records, whose bytes tell them apart.
pub(super) fn batch(producer: u8, sequence: u64) -> Batch {
    batch_of(
        producer,
        sequence,
        Bytes::from(format!("producer {producer} batch {sequence}")),
    )
}

pub(super) fn batch_of(producer: u8, sequence: u64, payload: Bytes) -> Batch {
    Batch {
        producer_id: ProducerId([producer; 16]),
        principal: PrincipalDigest([producer; 16]),
        sequence,
        record_count: 2,
        compression: 1,
        expected_offset: None,
        payload_crc: highwater_log::crc32c(&payload),
        payload,
    }
}
