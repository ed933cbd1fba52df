//! Replicas that are lost, and what stands in for the catalog here: a replacement under a new id.
//!
//! A replica whose disk was emptied, or whose vote is gone, must never speak again under its id: what it promised is forgotten.
//! Its node gets a new replica, which joins as a learner, catches up, and then takes the lost one's place among the voters. One replica is
//! replaced at a time; more losses at once are more than a group can stand.

use std::sync::Arc;
use std::time::Duration;

use highwater_log::ReplicaId;
use highwater_log::disk::simulated::SimulatedDisk;
use highwater_log::mutant;
use highwater_partition::{Member, Partition, Status};
use highwater_verify::history::{FaultKind, PromiseKind};

use super::node::{promise, start_if_down};
use super::world::{End, World, node_name, sleep_ms};

/// How long one step of the replacement may take before it is tried again.
const STEP: Duration = Duration::from_secs(3);

/// Empties the disk of a node. False if that is more than the group can stand now.
pub(crate) fn wipe(world: &Arc<World>, node: usize, end: End) -> bool {
    if !world.begin_replacement() {
        return false;
    }
    world.end_life(node, end);
    let seed = world.draw_disk(|random| random.any());
    {
        let mut nodes = world.nodes();
        nodes[node].disk = SimulatedDisk::new(seed);
        nodes[node].created = false;
    }
    world.fault(FaultKind::Wipe, node as u32, world.now_ns(), 1, "directories emptied");
    if mutant!("replica started empty") {
        let world = world.clone();
        tokio::spawn(async move { start_if_down(&world, node).await });
        return true;
    }
    replace(world, node);
    true
}

/// Gives the node a new replica and makes it a voter in the place of the lost one.
pub(crate) fn replace(world: &Arc<World>, node: usize) {
    let lost = world.replica(node);
    promise(world, node, PromiseKind::Died);
    world.count(|figures| figures.replaced += 1);
    world.next_replica(node);
    world.note(format_args!("n{node} lost replica {}", lost.0));
    let world = world.clone();
    tokio::spawn(async move {
        let grace_ms = world.draw_disk(|random| random.between(100, 2_000));
        sleep_ms(grace_ms).await;
        start_if_down(&world, node).await;
        let fresh = world.replica(node);
        let mut settled_at = None;
        while !step(&world, node, lost, fresh, &mut settled_at).await {
            sleep_ms(200).await;
        }
        world.note(format_args!("n{node} replica {} is a voter", fresh.0));
        world.end_replacement();
    });
}

/// Does what is to be done next, if there is a leader to do it. True if nothing is left to do.
///
/// A leader acts by a membership as soon as it stands in its log. It counts only when the fresh replica knows it to be committed:
/// `settled_at` is the end of the leader's log when it was first seen.
async fn step(
    world: &Arc<World>,
    node: usize,
    lost: ReplicaId,
    fresh: ReplicaId,
    settled_at: &mut Option<u64>,
) -> bool {
    let Some(leader) = world.leader() else { return false };
    let Some((partition, life, _)) = world.serving(leader) else {
        return false;
    };
    let status = partition.status();
    let caught_up = world.committed_index(node) >= Some(status.committed_index);
    let has = |id: ReplicaId| status.voters.iter().any(|voter| voter.replica_id == id);
    if status.voter_change.is_none() && has(fresh) && !has(lost) {
        let settled_at = *settled_at.get_or_insert(world.last_index(leader));
        return world.committed_index(node) >= Some(settled_at);
    }
    *settled_at = None;
    let member = Member {
        replica_id: fresh,
        node: node_name(node),
    };
    let asked = life.spawn(world.task_seed(), async move {
        tokio::time::timeout(STEP, change(&partition, &status, member, lost, caught_up)).await
    });
    let _ = asked.await; // whether it worked shows in the next status
    false
}

async fn change(partition: &Partition, status: &Status, fresh: Member, lost: ReplicaId, caught_up: bool) {
    let known = |member: &&Member| member.replica_id == fresh.replica_id;
    let is_member = status
        .learners
        .iter()
        .chain(&status.voters)
        .any(|member| known(&member));
    let _ = match &status.voter_change {
        Some(change) => partition.change_voters(change.to.clone()).await, // a leader left it half done
        None if !is_member => partition.add_learner(fresh).await,
        None if !caught_up => Ok(()),
        None => {
            let kept = status
                .voters
                .iter()
                .map(|voter| voter.replica_id)
                .filter(|id| *id != lost);
            partition.change_voters(kept.chain([fresh.replica_id]).collect()).await
        }
    };
}
