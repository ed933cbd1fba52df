//! A disk that is restored from an older copy: what its replica promised since is gone, and nothing on the disk tells.
//!
//! The others can tell, as long as one of them stayed up that heard the promises: here the leader, which leads since before the copy was
//! made, and has had acknowledgements for entries that the copy lacks. Then the replica must be found dead at its start, before it says
//! anything. The restoring happens in a truce, so that the leader can be asked. If it cannot be after all, the replica is buried by the
//! simulation: more was lost than anybody could know.

use std::sync::Arc;

use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_partition::Role;
use highwater_verify::history::FaultKind;

use super::node::{open_copy, start_if_down};
use super::oracle::Loss;
use super::replacement::replace;
use super::world::{End, World, sleep_ms};
use crate::random::Random;

/// How long a truce may take.
const TRUCE_MS: u64 = 8_000;

/// Who can tell that a disk is an older one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Restored {
    leader: usize,
    boot: u64,
    /// Messages that faults had lost by then.
    lost: u64,
}

/// Copies the disk of a follower, and some time later puts the copy in its place.
pub(crate) fn restore_later(world: &Arc<World>, node: usize, random: &mut Random) {
    let Some((leader, boot, term)) = leader_now(world).filter(|(leader, ..)| *leader != node) else {
        return;
    };
    let (replica, copy) = {
        let nodes = world.nodes();
        (nodes[node].replica, nodes[node].disk.fork())
    };
    copy.crash(Keep::Nothing);
    copy.set_capacity(None); // that the disk was full then is not the copy's
    let after_ms = random.between(300, 5_000);
    let world = world.clone();
    tokio::spawn(async move {
        sleep_ms(after_ms).await;
        let same_leader = leader_now(&world) == Some((leader, boot, term));
        if same_leader && world.replica(node) == replica && world.lives_at_all(node) && world.begin_replacement() {
            world.set_truce(true);
            restore(&world, node, copy, (leader, boot)).await;
            world.set_truce(false);
        }
    });
}

fn leader_now(world: &World) -> Option<(usize, u64, u64)> {
    let leader = world.leader()?;
    let (partition, _, boot) = world.serving(leader)?;
    let status = partition.status();
    (status.role == Role::Leader).then_some((leader, boot, status.term))
}

async fn restore(world: &Arc<World>, node: usize, copy: Arc<SimulatedDisk>, (leader, boot): (usize, u64)) {
    if !is_remembered(world, node, &copy, leader) || !world.network.is_quiet() {
        return world.end_replacement();
    }
    world.end_life(node, End::Kill);
    {
        let mut nodes = world.nodes();
        nodes[node].disk = copy;
        nodes[node].cuts += 1;
        nodes[node].restored = Some(Restored {
            leader,
            boot,
            lost: world.network.lost(),
        });
    }
    world.note(format_args!("n{node} has an older disk"));
    world.fault(
        FaultKind::Wipe,
        node as u32,
        world.now_ns(),
        1,
        "disks restored from older copies",
    );
    start_if_down(world, node).await;
    let until_ms = world.now_ms() + TRUCE_MS;
    while world.nodes()[node].restored.is_some() && world.now_ms() < until_ms {
        sleep_ms(50).await;
    }
}

/// Whether the copy lacks entries that the leader has had an acknowledgement for, under the vote that the copy holds.
fn is_remembered(world: &World, node: usize, copy: &Arc<SimulatedDisk>, leader: usize) -> bool {
    let Ok(old) = open_copy(world, node, copy.fork()) else {
        return false;
    };
    let lost = world.oracle().would_lose(node, &old);
    let Some((partition, ..)) = world.serving(leader) else {
        return false;
    };
    let behind = partition.entries_behind(world.replica(node));
    let acknowledged = behind.map_or(0, |behind| world.last_index(leader).saturating_sub(behind));
    lost == Loss::Entries && old.last().is_some_and(|last| last.index < acknowledged)
}

/// The start of a node with an older disk is over: it must have been found dead.
pub(crate) fn judge(world: &Arc<World>, node: usize, restored: Restored, found_dead: bool) {
    let could_tell =
        world.lives(restored.leader, restored.boot) && world.network.lost() == restored.lost && !world.is_calm();
    world.note(format_args!(
        "n{node} with an older disk: found dead {found_dead}, could be {could_tell}"
    ));
    if found_dead {
        world.count(|figures| figures.old_copies += 1);
    } else if could_tell {
        world.violation(format!("n{node} speaks with an older disk, and nobody has noticed"));
    }
    world.end_life(node, End::Kill);
    replace(world, node);
}
