//! The end of a run: faults off, and now everything must come right.
//!
//! A write succeeds within half a minute; all that rotted is whole again; all replicas hold and have committed the same log; every acknowledged batch is in
//! it (the checker compares scans and dumps with what clients were told); and after a power cut of all nodes that keeps
//! nothing unsynced, a quorum of the disks still holds every committed entry, and all have the same bytes.

use std::sync::Arc;

use highwater_log::disk::simulated::{Fault, Keep};
use highwater_log::{DamagedRange, Frame, Log};
use highwater_partition::{Role, Status};
use highwater_verify::history::{Dump, Healing, LogEntry, Scan, SendOutcome, Span};

use super::clients::{Client, Manner, records};
use super::everywhere::damage_everywhere;
use super::node::{observe_commit, open_copy, start_if_down};
use super::rot::{forget_healed, is_only_masked_damage, keep_excused};
use super::world::{End, PARTITION, World, sleep_ms};

/// Faults that are under way end within this time.
const LAST_FAULTS_MS: u64 = 13_000;
/// How long the group may take to serve again.
const SERVE_MS_MAX: u64 = 30_000;
/// How long the replicas may take to become equal.
const EQUAL_MS_MAX: u64 = 60_000;

/// Lets the world come to rest, and looks at it.
pub(crate) async fn come_to_rest(world: &Arc<World>) {
    world.stop_clients();
    world.calm();
    sleep_ms(LAST_FAULTS_MS).await;
    for node in 0..world.plan.nodes {
        world.nodes()[node].disk.fault_at(0, Fault::Fail); // none any more
        start_if_down(world, node).await;
    }
    let healed_ns = world.now_ns();
    let served_ns = serve(world).await;
    if served_ns.is_none() {
        world.violation(format!(
            "no write succeeds within {SERVE_MS_MAX} ms after the last fault"
        ));
    } else if !become_equal(world).await {
        world.violation(format!(
            "the replicas are not equal {EQUAL_MS_MAX} ms after the last fault: {}",
            standing(world)
        ));
    }
    record_healing(world, healed_ns, served_ns);
    if served_ns.is_some() && world.plan.damage_everywhere {
        damage_everywhere(world).await;
        if !become_equal(world).await {
            world.violation(format!(
                "not all is whole after a record was damaged everywhere and put right on one disk: {}",
                standing(world)
            ));
        }
    }
    for node in 0..world.plan.nodes {
        record_dump(world, node);
        record_scan(world, node).await;
    }
    check_last_cut(world);
}

/// Writes until one is acknowledged; when that was.
async fn serve(world: &Arc<World>) -> Option<u64> {
    let until_ms = world.now_ms() + SERVE_MS_MAX;
    let mut client = Client::new(world, 900);
    while world.now_ms() < until_ms {
        if let SendOutcome::Appended { .. } = client.send_one(Manner::Single).await {
            return Some(world.now_ns());
        }
        sleep_ms(50).await;
    }
    None
}

fn logs(world: &World) -> Vec<Option<Log>> {
    let nodes = world.nodes();
    let log = |node: &super::world::Node| node.running.as_ref().map(|running| running.log.clone());
    nodes.iter().map(log).collect()
}

/// What the replicas know to be damaged.
fn damage(world: &World) -> Vec<Vec<DamagedRange>> {
    logs(world).iter().flatten().map(Log::damage).collect()
}

/// Last entry, and the committed end with its chain.
fn position(log: &Log) -> (Option<highwater_log::EntryId>, u64, u64) {
    let (end, chain) = log.committed(|state| (state.next_index, state.chain));
    (log.last(), end, chain)
}

fn standing(world: &World) -> String {
    let replacing = world.is_replacing();
    let positions = logs(world);
    let positions: Vec<_> = positions.iter().map(|log| log.as_ref().map(position)).collect();
    let (scars, damage) = (forget_healed(world), damage(world));
    format!("{positions:?}, a lost replica is being replaced: {replacing}, rotten: {scars:?}, known damage: {damage:?}")
}

async fn become_equal(world: &World) -> bool {
    let until_ms = world.now_ms() + EQUAL_MS_MAX;
    while world.now_ms() < until_ms {
        let positions: Vec<_> = logs(world).iter().map(|log| log.as_ref().map(position)).collect();
        let same = positions.windows(2).all(|pair| pair[0] == pair[1]);
        let settled = matches!(positions[0], Some((Some(last), end, _)) if last.index + 1 == end);
        let whole = forget_healed(world).is_empty() && damage(world).iter().all(Vec::is_empty);
        // A leader that was damaged a moment ago may be giving its place away.
        let led = statuses(world).iter().any(|status| status.role == Role::Leader);
        if same && settled && whole && led && !world.is_replacing() {
            return true;
        }
        sleep_ms(100).await;
    }
    false
}

/// What the replicas that run say of themselves.
fn statuses(world: &World) -> Vec<Status> {
    let nodes = world.nodes();
    let partitions = nodes.iter().filter_map(|node| node.running.as_ref()?.partition.clone());
    partitions.map(|partition| partition.status()).collect()
}

fn record_healing(world: &World, healed_ns: u64, served_ns: Option<u64>) {
    let statuses = statuses(world);
    let leaders = statuses.iter().filter(|status| status.role == Role::Leader).count();
    let mut memberships: Vec<_> = statuses.iter().map(|status| format!("{:?}", status.voters)).collect();
    memberships.sort_unstable();
    memberships.dedup();
    world.history().record_healing(Healing {
        partition: PARTITION,
        healed_ns,
        served_ns,
        leaders: leaders as u32,
        memberships: memberships.len() as u32,
    });
}

fn record_dump(world: &World, node: usize) {
    let Some(log) = logs(world).swap_remove(node) else {
        return;
    };
    observe_commit(world, node, &log);
    let (last, committed_end, _) = position(&log);
    let end = last.map_or(0, |last| last.index + 1);
    let floor_end = log.floor().map_or(0, |floor| floor.index + 1);
    let mut entries: Vec<LogEntry> = Vec::new();
    while floor_end + (entries.len() as u64) < end {
        match log.read(floor_end + entries.len() as u64, end, 1024 * 1024) {
            Ok(frames) if !frames.is_empty() => entries.extend(frames.iter().map(entry)),
            other => return world.violation(format!("n{node} cannot read its log at rest: {:?}", other.err())),
        }
    }
    let (at_ns, replica) = (world.now_ns(), world.replica(node).0);
    let dump = Dump {
        at_ns,
        partition: PARTITION,
        replica,
        node: node as u32,
        committed_end,
        last: true,
    };
    world.history().record_dump(dump, entries);
}

fn entry(frame: &highwater_log::Frame) -> LogEntry {
    let header = &frame.header;
    LogEntry {
        index: header.id.index,
        term: header.id.term,
        base_offset: header.base_offset,
        chain: header.chain,
        record_count: header.record_count,
        payload_crc: header.payload_crc,
        kind: header.kind as u8,
        verdict: header.verdict as u8,
    }
}

/// Reads everything from one node, as a reader would.
async fn record_scan(world: &Arc<World>, node: usize) {
    let Some((partition, life, _)) = world.serving(node) else {
        return;
    };
    let invoked_ns = world.now_ns();
    let scanned = life.spawn(world.task_seed(), async move {
        let watermark = *partition.watermark().borrow();
        let mut seen = Vec::new();
        let mut next = watermark.log_start;
        while next < watermark.high_watermark {
            let batches = partition.read(next, 1024 * 1024).await;
            let batches = batches.map_err(|error| error.to_string())?;
            let Some(last) = batches.last() else {
                return Err(format!("nothing at {next} of {}", watermark.high_watermark));
            };
            next = last.base_offset + u64::from(last.record_count);
            seen.extend(batches.iter().flat_map(records));
        }
        seen.retain(|seen| seen.offset >= watermark.log_start); // the first batch may begin before it
        Ok((watermark, seen))
    });
    match scanned.await {
        Ok(Ok((watermark, seen))) => {
            let span = Span {
                process: 950 + node as u32,
                invoked_ns,
                returned_ns: world.now_ns(),
            };
            let scan = Scan {
                span,
                partition: PARTITION,
                node: node as u32,
                log_start: watermark.log_start,
                end: watermark.high_watermark,
            };
            world.history().record_scan(scan, seen);
        }
        Ok(Err(why)) => world.violation(format!("n{node} cannot be scanned at rest: {why}")),
        Err(_) => world.violation(format!("n{node} died in the scan")),
    }
}

/// All nodes lose power and everything unsynced: the committed log must still be on a quorum of the disks.
fn check_last_cut(world: &World) {
    let committed = logs(world)
        .iter()
        .flatten()
        .map(position)
        .max_by_key(|(_, end, _)| *end);
    let Some((_, end, chain)) = committed.filter(|(_, end, _)| *end > 0) else {
        return;
    };
    keep_excused(world);
    let mut found = Vec::new();
    for node in 0..world.plan.nodes {
        world.end_life(node, End::PowerCut(Keep::Nothing));
        let disk = { world.nodes()[node].disk.clone() };
        match open_copy(world, node, disk) {
            Ok(log) => found.push((node, log)),
            Err(error) => world.violation(format!("n{node} cannot open its log after the last power cut: {error}")),
        }
    }
    let holds = |log: &Log| {
        let last = log.read(end - 1, end, 0);
        last.is_ok_and(|frames| frames.first().is_some_and(|frame| frame.header.chain == chain))
    };
    let holding = found.iter().filter(|(_, log)| holds(log)).count();
    if holding <= world.plan.nodes / 2 {
        world.violation(format!(
            "after a power cut of all nodes only {holding} hold the committed log up to {end}"
        ));
    }
    check_same_bytes(world, &found);
}

/// What logs have in common is the same, byte for byte. Only rot whose repair could not reach the disk may be there again.
fn check_same_bytes(world: &World, logs: &[(usize, Log)]) {
    let floors = logs.iter().filter_map(|(_, log)| log.floor());
    let start = floors.map(|floor| floor.index + 1).max().unwrap_or(0);
    let ends = logs.iter().map(|(_, log)| log.last().map_or(0, |last| last.index + 1));
    let end = ends.min().unwrap_or(0);
    let mut expected: Option<(usize, Vec<Frame>)> = None;
    for (node, log) in logs {
        let found = match frames(log, start, end) {
            Ok(found) => found,
            Err(_) if !log.damage().is_empty() && is_only_masked_damage(world, *node, log) => continue,
            Err(why) => {
                world.violation(format!("n{node} cannot be read after the last power cut: {why}"));
                continue;
            }
        };
        let (first, expected) = expected.get_or_insert_with(|| (*node, found.clone()));
        if found != *expected {
            world.violation(format!(
                "the disks of n{first} and n{node} differ between entries {start} and {end}"
            ));
        }
    }
}

fn frames(log: &Log, start: u64, end: u64) -> Result<Vec<Frame>, String> {
    let mut frames: Vec<Frame> = Vec::new();
    while start + (frames.len() as u64) < end {
        let next = start + frames.len() as u64;
        let some = log.read(next, end, 1024 * 1024).map_err(|error| error.to_string())?;
        if some.is_empty() {
            return Err(format!("nothing at {next}"));
        }
        frames.extend(some);
    }
    Ok(frames)
}
