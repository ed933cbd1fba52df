//! The disk of a simulated node: rounds, each of which takes its time, and what is looked at when one begins and ends.

use std::sync::Arc;

use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{DiskWriter, Error, Grade, Log, Space, crc32c};
use highwater_verify::history::{FaultKind, IncidentKind, PromiseKind};
use tokio::sync::Notify;

use super::node::{acked, draw_keep, open_copy, promise, restart_later};
use super::oracle::Begun;
use super::world::{End, World, sleep_ms};

/// Of so many rounds that bring no vote, one is checked against the synced bytes.
const CONTRACT_EVERY: u64 = 40;
/// How often a node looks after its log and its disk.
const CARE_MS: u64 = 1_000;

/// What a node does about once a second: notes marks, looks for room.
pub(super) async fn care(world: Arc<World>, node: usize, boot: u64, writer: DiskWriter, log: Log) {
    loop {
        sleep_ms(CARE_MS).await;
        if !world.lives(node, boot) {
            return;
        }
        log.tick();
        let space = writer.check_space(); // an error: the writer has failed
        if matches!(space, Ok(Space::Full)) {
            world.note(format_args!("n{node} disk is full"));
            world.nodes()[node].was_full = true;
        }
    }
}

/// The disk of one life: rounds, each of which takes its time.
pub(super) async fn drive(world: Arc<World>, node: usize, boot: u64, writer: DiskWriter, log: Log, wake: Arc<Notify>) {
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
            // what a replica with an older disk does is not held against it: it is found dead, or was never
            let older = { world.nodes()[node].restored.is_some() };
            let begun = match begun {
                Ok(begun) => begun,
                Err(error) => return world.violation(format!("n{node} cannot read its own log: {error}")),
            };
            if !older {
                note_begun(&world, node, &begun);
            }
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
            if round.failure().is_none() && !older {
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
    world.count(|figures| {
        figures.installs += u64::from(begun.installed);
        figures.purges += u64::from(begun.purged);
    });
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
        promise(world, node, acked(last));
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
        Err(error) if error.grade() == Grade::Inside && !world.scars().is_empty() => Ok(()),
        Err(error) => Err(format!("the synced bytes alone cannot be opened: {error}")),
    };
    if let Err(broken) = kept {
        world.violation(format!("n{node} {broken}"));
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
