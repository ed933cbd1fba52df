//! The life of a simulated node: its start, its disk's rounds, what is watched while it lives.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{
    ClusterId, DiskWriter, EntryId, Error, GroupId, Identity, Log, LogConfig, OpenLog, ReplicaId, SpaceLimits,
    TailCache,
};
use highwater_partition::simulation::Life;
use highwater_partition::{
    CatchUpPace, Error as PartitionError, GroupOptions, Partition, Role, ScrubPace, Stages, Unstarted,
};
use highwater_verify::history::{IncidentKind, Leader, Promise, PromiseKind};
use tokio::sync::Notify;

use super::network::Wire;
use super::old_copy::judge;
use super::replacement::replace;
use super::rot::is_scarred;
use super::rounds::{care, drive};
use super::world::{End, NodeClock, PARTITION, Running, World, first_replica, members, sleep_ms, timers};

/// The group under test.
pub(crate) const GROUP: GroupId = GroupId(7);
/// When a simulated disk is low, and when it is full. The reserve is for what is under way when it gets full.
const SPACE: SpaceLimits = SpaceLimits {
    low_bytes: 96 * 1024,
    full_bytes: FULL_BYTES,
    reserve_bytes: 256 * 1024,
};
/// Less room than this is none.
pub(crate) const FULL_BYTES: u64 = 48 * 1024;

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
    let life = Life::begin();
    let unstarted = Unstarted::new(world.replica(node));
    let (disk, created, boot, skew_ms, cuts) = {
        let mut nodes = world.nodes();
        let node = &mut nodes[node];
        node.boot += 1;
        node.disk_fault = false;
        node.unstarted = Some((unstarted.clone(), life.clone()));
        (node.disk.clone(), node.created, node.boot, node.skew_ms, node.cuts)
    };
    let interrupted =
        created && !world.is_calm() && world.draw_disk(|random| random.permille(world.plan.crash_in_recovery_permille));
    if interrupted {
        let operation = disk.operations() + world.draw_disk(|random| random.between(1, 8));
        disk.fault_at(operation, Fault::Crash);
    }
    let writer = DiskWriter::driven(disk.clone(), Box::new(move || on_work.notify_one()));
    let writer = match writer.with_reserve(Path::new("/"), SPACE) {
        Ok(writer) => writer,
        Err(error) => {
            world.violation(format!("n{node} cannot look for room: {error}"));
            return true;
        }
    };
    let make = {
        let (world, disk, writer) = (world.clone(), disk.clone(), writer.clone());
        move || {
            let clock = world.clock(skew_ms);
            options(
                &world,
                node,
                disk.clone(),
                clock,
                writer.clone(),
                world.plan.cache_bytes,
            )
        }
    };
    let opened = match created {
        true => tokio::select! {
            biased;
            () = world.cut(node, cuts) => return false, // the power failed, or it has another disk
            opened = opened(world, node, &unstarted, make) => opened,
        },
        false => Log::create(make()).map_err(Into::into),
    };
    if disk.is_stopped() || world.cuts(node) != cuts {
        return false;
    }
    if opened.is_err() {
        world.nodes()[node].unstarted = None;
    }
    let log = match opened {
        Ok(log) => log,
        Err(PartitionError::Log(Error::AlreadyExists { .. })) if !created => {
            world.next_replica(node); // its making was interrupted: that id never lived
            return false;
        }
        Err(PartitionError::Log(Error::HardStateLost { .. })) if world.nodes()[node].vote_damaged => {
            replace(world, node);
            return true;
        }
        Err(PartitionError::Log(Error::Io { source, .. })) if source.kind() == ErrorKind::StorageFull => {
            sleep_ms(500).await;
            return false;
        }
        Err(error) if error.is_dead() && is_scarred(world, node) => {
            world.note(format_args!("n{node} cannot be mended: {error}"));
            bury(world, node);
            return true;
        }
        Err(error) => {
            world.violation(format!("n{node} cannot open its log: {error}"));
            return true;
        }
    };
    world.note(format_args!("start n{node} boot {boot} last {:?}", log.last()));
    let restored = { world.nodes()[node].restored };
    if restored.is_none() {
        note_found(world, node, &log, created);
    }
    {
        let mut nodes = world.nodes();
        if !created {
            nodes[node].unstarted = Some((Unstarted::with_log(log.clone()), life.clone()));
        }
        nodes[node].created = true;
        nodes[node].running = Some(Running {
            life: life.clone(),
            log: log.clone(),
            partition: None,
        });
    }
    tokio::spawn(care(world.clone(), node, boot, writer.clone(), log.clone()));
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
        catch_up: CatchUpPace::default(),
        stages: Stages::default(),
    };
    let (inner, nodes) = (world.clone(), world.plan.nodes);
    drop(life.clone().spawn(world.task_seed(), async move {
        live(inner, node, boot, start, nodes).await;
    }));
    true
}

/// Ends a replica that is dead, and has it replaced as soon as no other is.
fn bury(world: &Arc<World>, node: usize) {
    world.nodes()[node].dead = true;
    world.end_life(node, End::Kill);
    let world = world.clone();
    tokio::spawn(async move {
        world.await_replacement().await;
        replace(&world, node);
    });
}

/// Opens a log, with the help of the others if need be.
async fn opened(
    world: &Arc<World>,
    node: usize,
    unstarted: &Unstarted,
    make: impl Fn() -> OpenLog + Send + Sync + Clone + 'static,
) -> Result<Log, PartitionError> {
    let copy = { world.nodes()[node].disk.fork() };
    let wire = Wire {
        world: world.clone(),
        from: node,
    };
    let log = unstarted.open(make, &world.others(node), &wire).await?;
    let alone = open_copy(world, node, copy);
    if alone.is_err() {
        world.note(format_args!("n{node} was mended before it was opened"));
        world.count(|figures| figures.mended += 1);
    }
    Ok(log)
}

/// Holds what a start has found against what was promised.
fn note_found(world: &World, node: usize, log: &Log, created: bool) {
    let kept = world.oracle().restarts(node, log);
    if let Err(broken) = kept {
        world.violation(format!("n{node} {broken}"));
    }
    if created {
        world.count(|figures| figures.recoveries += 1);
        promise(world, node, restarted(world, node, log));
        if let Some(last) = log.last() {
            promise(world, node, acked(last)); // the opening has synced all that it found
        }
    }
}

/// The life of a node, within its tasks: starts the replica and watches it.
async fn live(world: Arc<World>, node: usize, boot: u64, options: GroupOptions, nodes: usize) {
    let log = options.log.clone();
    let started = Partition::start(options).await;
    if started.is_err() {
        world.nodes()[node].unstarted = None;
    }
    let restored = { world.nodes()[node].restored };
    if let Some(restored) = restored {
        let found_dead = started.as_ref().is_err_and(PartitionError::is_dead);
        return judge(&world, node, restored, found_dead);
    }
    let partition = match started {
        Ok(partition) => partition,
        Err(error) if error.is_dead() && is_scarred(&world, node) => {
            world.note(format_args!("n{node} cannot be started: {error}"));
            return bury(&world, node);
        }
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
    {
        let mut nodes = world.nodes();
        nodes[node].unstarted = None;
        if let Some(running) = &mut nodes[node].running {
            running.partition = Some(partition.clone());
        }
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
    let manifest = log.manifest();
    let floor = manifest.map_or(Ok(true), |manifest| {
        world
            .oracle()
            .commits(node, manifest.last().index + 1, manifest.state().chain)
    });
    if let Err(broken) = floor {
        world.violation(format!("a manifest: {broken}"));
    }
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

pub(super) fn acked(last: EntryId) -> PromiseKind {
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
        let free = node.running.is_none() && !node.starting && !node.dead;
        node.starting |= free;
        free
    };
    if !claimed {
        return;
    }
    start(world, node).await;
    world.nodes()[node].starting = false;
}
