//! The life of a simulated node: its start, its disk's rounds, what is watched while it lives.

use std::path::PathBuf;
use std::sync::Arc;

use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{
    ClusterId, DiskWriter, EntryId, Error, GroupId, Identity, Log, LogConfig, OpenLog, ReplicaId, TailCache, crc32c,
};
use highwater_partition::simulation::Life;
use highwater_partition::{GroupOptions, Partition, Role, ScrubPace};
use highwater_verify::history::{FaultKind, IncidentKind, Leader, Promise, PromiseKind};
use tokio::sync::Notify;

use super::network::Wire;
use super::oracle::Begun;
use super::replacement::replace;
use super::world::{End, NodeClock, PARTITION, Running, World, first_replica, members, sleep_ms, timers};

/// The group under test.
pub(crate) const GROUP: GroupId = GroupId(7);
/// Of so many rounds that bring no vote, one is checked against the synced bytes.
const CONTRACT_EVERY: u64 = 40;

/// What a power cut keeps, drawn.
pub(crate) fn draw_keep(world: &World) -> Keep {
    let kinds = [
        Keep::Nothing,
        Keep::Nothing,
        Keep::Everything,
        Keep::Torn,
        Keep::Torn,
        Keep::Reordered,
    ];
    world.draw_disk(|random| random.pick(&kinds))
}

fn options(
    world: &World,
    node: usize,
    disk: Arc<SimulatedDisk>,
    clock: Arc<NodeClock>,
    writer: DiskWriter,
    cache_bytes: usize,
) -> OpenLog {
    OpenLog {
        dir: log_dir(world.replica(node)),
        identity: Identity {
            cluster_id: ClusterId([1; 16]),
            group_id: GROUP,
            replica_id: world.replica(node),
        },
        disk,
        clock,
        writer,
        cache: TailCache::new(cache_bytes),
        config: LogConfig {
            segment_bytes_max: world.plan.segment_bytes,
            ..LogConfig::default()
        },
    }
}

/// Where a replica's log lies.
pub(crate) fn log_dir(replica: ReplicaId) -> PathBuf {
    PathBuf::from(format!("/replica-{}", replica.0))
}

/// A log on a copy of a disk, opened for a look only.
pub(crate) fn open_copy(world: &World, node: usize, disk: Arc<SimulatedDisk>) -> Result<Log, Error> {
    let writer = DiskWriter::manual(disk.clone());
    let clock = world.clock(0);
    Log::open(options(world, node, disk, clock, writer, 0))
}

/// Starts a node, as often as it takes; the start may be interrupted by another power cut.
pub(crate) async fn start(world: &Arc<World>, node: usize) {
    while !start_once(world, node).await {
        let keep = draw_keep(world);
        world.end_life(node, End::PowerCut(keep));
        sleep_ms(20).await;
    }
}

async fn start_once(world: &Arc<World>, node: usize) -> bool {
    let wake = Arc::new(Notify::new());
    let on_work = wake.clone();
    let (disk, created, boot, skew_ms) = {
        let mut nodes = world.nodes();
        let node = &mut nodes[node];
        node.boot += 1;
        node.disk_fault = false;
        (node.disk.clone(), node.created, node.boot, node.skew_ms)
    };
    let interrupted =
        created && !world.is_calm() && world.draw_disk(|random| random.permille(world.plan.crash_in_recovery_permille));
    if interrupted {
        let operation = disk.operations() + world.draw_disk(|random| random.between(1, 8));
        disk.fault_at(operation, Fault::Crash);
    }
    let writer = DiskWriter::driven(disk.clone(), Box::new(move || on_work.notify_one()));
    let open = options(
        world,
        node,
        disk.clone(),
        world.clock(skew_ms),
        writer.clone(),
        world.plan.cache_bytes,
    );
    let opened = if created { Log::open(open) } else { Log::create(open) };
    let log = match opened {
        Ok(log) => log,
        Err(_) if disk.is_stopped() => return false,
        Err(Error::AlreadyExists { .. }) if !created => {
            world.next_replica(node); // its making was interrupted: that id never lived
            return false;
        }
        Err(Error::HardStateLost { .. }) if world.nodes()[node].vote_damaged => {
            replace(world, node);
            return true;
        }
        Err(error) => {
            world.violation(format!("n{node} cannot open its log: {error}"));
            return true;
        }
    };
    world.note(format_args!("start n{node} boot {boot} last {:?}", log.last()));
    let kept = world.oracle().restarts(node, &log);
    if let Err(broken) = kept {
        world.violation(format!("n{node} {broken}"));
    }
    if created {
        world.count(|figures| figures.recoveries += 1);
        promise(world, node, restarted(world, node, &log));
        if let Some(last) = log.last() {
            promise(world, node, acked(last)); // the opening has synced all that it found
        }
    }
    let life = Life::begin();
    {
        let mut nodes = world.nodes();
        nodes[node].created = true;
        nodes[node].running = Some(Running {
            life: life.clone(),
            log: log.clone(),
            partition: None,
        });
    }
    tokio::spawn(drive(world.clone(), node, boot, writer, log.clone(), wake));
    let start = GroupOptions {
        group_id: GROUP,
        replica_id: world.replica(node),
        log,
        machine: None,
        peers: Arc::new(Wire {
            world: world.clone(),
            from: node,
        }),
        timers: timers(),
        members: Vec::new(),
        scrub: ScrubPace::default(),
    };
    let (inner, nodes) = (world.clone(), world.plan.nodes);
    drop(life.clone().spawn(world.task_seed(), async move {
        live(inner, node, boot, start, nodes).await;
    }));
    true
}

/// The life of a node, within its tasks: starts the replica and watches it.
async fn live(world: Arc<World>, node: usize, boot: u64, options: GroupOptions, nodes: usize) {
    let log = options.log.clone();
    let partition = match Partition::start(options).await {
        Ok(partition) => partition,
        Err(error) => {
            let explained = { world.nodes()[node].disk_fault };
            if !explained {
                world.violation(format!("n{node} does not start: {error}"));
            }
            return;
        }
    };
    if world.replica(node) == first_replica(0)
        && let Err(error) = partition.initialize(members(nodes)).await
    {
        world.violation(format!("n{node} cannot initialize the group: {error}"));
    }
    if let Some(running) = &mut world.nodes()[node].running {
        running.partition = Some(partition.clone());
    }
    world.note(format_args!("serving n{node} boot {boot}"));
    let mut status = partition.status_changes();
    let mut watermark = partition.watermark();
    loop {
        observe(&world, node, &partition, &log);
        let ended = tokio::select! {
            biased;
            how = partition.stopped() => Some(how),
            _ = status.changed() => None,
            _ = watermark.changed() => None,
        };
        if let Some(how) = ended {
            let explained = { world.nodes()[node].disk_fault };
            if !explained {
                let text = how.unwrap_or_else(|| "without a reason".to_owned());
                world.incident(node, IncidentKind::StorageError, format!("the core ended: {text}"));
            }
            return;
        }
    }
}

/// Takes in what a replica says of itself.
fn observe(world: &World, node: usize, partition: &Partition, log: &Log) {
    let status = partition.status();
    if status.role == Role::Leader {
        let alone = world.oracle().leads(node, status.term);
        if let Err(broken) = alone {
            world.violation(broken);
        }
        let (at_ns, replica) = (world.now_ns(), world.replica(node).0);
        world.note(format_args!("n{node} leads term {}", status.term));
        world.history().record_leader(Leader {
            at_ns,
            partition: PARTITION,
            replica,
            term: status.term,
        });
    }
    observe_commit(world, node, log);
}

/// Takes in what is committed at a replica.
pub(crate) fn observe_commit(world: &World, node: usize, log: &Log) {
    let (index_end, chain) = log.committed(|state| (state.next_index, state.chain));
    let agreed = world.oracle().commits(node, index_end, chain);
    match agreed {
        Ok(true) if index_end > 0 => {
            let quorum = (world.plan.nodes / 2 + 1) as u32;
            promise(world, node, PromiseKind::Published { index_end, quorum });
        }
        Ok(_) => {}
        Err(broken) => world.violation(broken),
    }
}

pub(crate) fn promise(world: &World, node: usize, kind: PromiseKind) {
    let (at_ns, replica) = (world.now_ns(), world.replica(node).0);
    world.history().record_promise(Promise {
        at_ns,
        partition: PARTITION,
        replica,
        kind,
    });
}

fn acked(last: EntryId) -> PromiseKind {
    PromiseKind::Acked {
        index_end: last.index + 1,
        term: last.term,
    }
}

fn restarted(world: &World, node: usize, log: &Log) -> PromiseKind {
    let (last, vote) = (log.last(), log.vote());
    PromiseKind::Restarted {
        index_end: last.map_or(0, |last| last.index + 1),
        last_term: last.map_or(0, |last| last.term),
        vote_term: vote.map_or(0, |vote| vote.term),
        voted_for: vote.and_then(|vote| world.oracle().voted_for(node, vote)),
    }
}

/// The disk of one life: rounds, each of which takes its time.
async fn drive(world: Arc<World>, node: usize, boot: u64, writer: DiskWriter, log: Log, wake: Arc<Notify>) {
    let disk = { world.nodes()[node].disk.clone() };
    loop {
        wake.notified().await;
        loop {
            sleep_ms(pause_ms(&world, node)).await;
            if !world.lives(node, boot) {
                return;
            }
            let begun = world.oracle().round_begins(node, &log);
            disk.begin_syncs();
            let Some(round) = writer.begin_round() else {
                disk.end_syncs();
                break;
            };
            let begun = match begun {
                Ok(begun) => begun,
                Err(error) => return world.violation(format!("n{node} cannot read its own log: {error}")),
            };
            note_begun(&world, node, &begun);
            if disk.is_stopped() {
                world.note(format_args!("n{node} loses power in a round"));
                let keep = draw_keep(&world);
                world.end_life(node, End::PowerCut(keep));
                restart_later(&world, node);
                return;
            }
            sleep_ms(pause_ms(&world, node)).await;
            if !world.lives(node, boot) {
                return;
            }
            disk.end_syncs();
            if round.failure().is_none() {
                ended_well(&world, node, &disk, &begun);
            }
            writer.end_round(round);
            if let Some(failure) = writer.failure() {
                fail(&world, node, &failure);
                return;
            }
        }
    }
}

fn pause_ms(world: &World, node: usize) -> u64 {
    let slowness = { world.nodes()[node].slowness };
    world.draw_disk(|random| random.between(0, world.plan.sync_ms)) * slowness
}

/// What the round will do to earlier promises is true from its beginning on.
fn note_begun(world: &World, node: usize, begun: &Begun) {
    world.note(format_args!("round n{node} end {} {:?}", begun.index_end, begun.vote));
    if let Some(index_end) = begun.truncated_to {
        let leader_term = begun.vote.map_or(0, |vote| vote.term);
        let kind = PromiseKind::Truncated {
            index_end: index_end as u64,
            leader_term,
        };
        promise(world, node, kind);
    }
}

/// From here on others may be told.
fn ended_well(world: &World, node: usize, disk: &Arc<SimulatedDisk>, begun: &Begun) {
    world.oracle().round_ends(node, begun);
    if let Some(last) = begun.last {
        promise(world, node, acked(last.id));
    }
    if let Some(vote) = begun.vote.filter(|vote| begun.vote_changed && !vote.committed)
        && let Some(candidate) = vote.voted_for
    {
        let term = vote.term;
        promise(world, node, PromiseKind::Voted { term, candidate });
    }
    if begun.vote_changed || begun.round.is_multiple_of(CONTRACT_EVERY) {
        check_contract(world, node, disk, begun);
    }
}

fn check_contract(world: &World, node: usize, disk: &Arc<SimulatedDisk>, begun: &Begun) {
    world.count(|figures| figures.contract_checks += 1);
    let copy = disk.fork();
    copy.crash(Keep::Nothing);
    let kept = match open_copy(world, node, copy) {
        Ok(log) => world.oracle().check_contract(begun, &log),
        Err(error) => Err(format!("the synced bytes alone cannot be opened: {error}")),
    };
    if let Err(broken) = kept {
        world.violation(format!("n{node} {broken}"));
    }
}

impl World {
    /// A client was told that this batch is certainly not in the log.
    pub(crate) fn check_absent(&self, payload: &[u8]) {
        let Some((node, id)) = self.oracle().find(crc32c(payload)) else {
            return;
        };
        let log = { self.nodes()[node].running.as_ref().map(|running| running.log.clone()) };
        let frames = log.and_then(|log| log.read(id.index, id.index + 1, 0).ok());
        if frames.is_some_and(|frames| frames.iter().any(|frame| frame.payload == payload)) {
            self.violation(format!(
                "a batch was called not applied, and stands in the log of n{node} as {id}"
            ));
        }
    }
}

/// A write or a sync failed: the process ends, as the product does, and is started again.
fn fail(world: &Arc<World>, node: usize, failure: &Error) {
    let (explained, reboots) = {
        let nodes = world.nodes();
        (nodes[node].disk_fault, nodes[node].reboots)
    };
    world.note(format_args!("n{node} disk fails {failure}"));
    if !explained {
        world.incident(node, IncidentKind::StorageError, failure.to_string());
    }
    let at_ns = world.now_ns();
    world.fault(FaultKind::DiskError, node as u32, at_ns, 1, "operations failed");
    let end = if reboots {
        End::PowerCut(draw_keep(world))
    } else {
        End::Kill
    };
    world.end_life(node, end);
    restart_later(world, node);
}

/// Starts a node again after its time.
pub(crate) fn restart_later(world: &Arc<World>, node: usize) {
    let down_ms = world.draw_disk(|random| random.between(1, 2 * world.plan.down_ms));
    let world = world.clone();
    tokio::spawn(async move {
        sleep_ms(down_ms).await;
        start_if_down(&world, node).await;
    });
}

/// Starts a node, unless somebody else does or did.
pub(crate) async fn start_if_down(world: &Arc<World>, node: usize) {
    let claimed = {
        let mut nodes = world.nodes();
        let node = &mut nodes[node];
        let free = node.running.is_none() && !node.starting;
        node.starting |= free;
        free
    };
    if !claimed {
        return;
    }
    start(world, node).await;
    world.nodes()[node].starting = false;
}
