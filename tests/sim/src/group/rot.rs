//! Rot: bytes of committed entries that change, and files that go, on one disk at a time, and what becomes of them. Several logs may be
//! damaged at once, and also so that none of them can be opened: what is whole in one is there for the others all the same.
//!
//! Only what the others still have is damaged: each of them has promised the range, none is being replaced, and none has open damage in the
//! same range. So of every record a good copy remains somewhere, also when different segments rot on all replicas, and every one of
//! these *scars* must be gone at the end: the same bytes stand in the same place, or the range was purged, or the replica was replaced.
//!
//! A repair whose sync failed, or whose process ended before it, can be read like any other until the power goes; then the rot is there
//! again, to be found and repaired once more. Such a scar counts as gone, but it is remembered as *masked*. Once the world is at rest a
//! masked scar must have one of these two reasons: a repair that nobody ever synced has none.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{Disk, Log, ReplicaId};
use highwater_verify::history::FaultKind;

use super::node::{log_dir, open_copy, restart_later};
use super::world::{End, World};
use crate::random::Random;

/// What rotted, and what stood there.
pub(crate) struct Scar {
    node: usize,
    replica: ReplicaId,
    path: PathBuf,
    /// The whole file before.
    bytes: Vec<u8>,
    /// The entries in the file.
    entries: Range<u64>,
}

/// A sealed segment that may be damaged.
struct Target {
    path: PathBuf,
    entries: Range<u64>,
}

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Flip(u64),
    Remove,
    Cut(u64),
}

/// Damages a sealed segment of a node, under its eyes or while it is down.
pub(crate) fn rot(world: &Arc<World>, node: usize, random: &mut Random) {
    let Some(target) = pick(world, node, random) else {
        return;
    };
    let down = random.permille(600);
    if down {
        world.end_life(node, End::PowerCut(Keep::Everything));
    }
    harm(world, node, &target, random, down);
    if down {
        restart_later(world, node);
    }
}

/// Damages a sealed segment and takes the checkpoint away, so that the damaged entries have to be folded.
pub(crate) fn rot_unopenable(world: &Arc<World>, node: usize, random: &mut Random) {
    let Some(target) = pick(world, node, random) else {
        return;
    };
    world.end_life(node, End::PowerCut(Keep::Everything));
    let disk = disk_of(world, node);
    remove(&disk, log_dir(world.replica(node)).join("checkpoint"));
    harm(world, node, &target, random, false);
    restart_later(world, node);
}

fn disk_of(world: &World, node: usize) -> Arc<SimulatedDisk> {
    world.nodes()[node].disk.clone()
}

/// A sealed segment of this node that everybody else has.
fn pick(world: &World, node: usize, random: &mut Random) -> Option<Target> {
    if world.is_replacing() || world.is_truce() {
        return None;
    }
    forget_healed(world);
    let (disk, dir) = (disk_of(world, node), log_dir(world.replica(node)));
    let synced = disk.fork();
    synced.crash(Keep::Nothing);
    let log = open_copy(world, node, synced).ok()?;
    let noted_end = log.noted_commit()?.index + 1;
    if is_any_scarred_away(world) && highest_floor(world) >= Some(noted_end) {
        return None; // both could be dead: what stands for their damage elsewhere reaches beyond what they know
    }
    let segments: Vec<(u64, PathBuf)> = disk
        .files()
        .into_iter()
        .filter(|path| path.parent() == Some(&dir) && path.extension().is_some_and(|end| end == "log"))
        .filter_map(|path| Some((path.file_stem()?.to_str()?.parse().ok()?, path)))
        .collect();
    let sealed = segments.windows(2).map(|pair| Target {
        path: pair[0].1.clone(),
        entries: pair[0].0..pair[1].0,
    });
    let free: Vec<Target> = sealed
        .filter(|target| target.entries.end <= noted_end && is_safe(world, &target.entries))
        .collect();
    let place = random.place(free.len());
    free.into_iter().nth(place)
}

/// The highest index below which an open log has let go of everything.
fn highest_floor(world: &World) -> Option<u64> {
    let logs = (0..world.plan.nodes).filter_map(|node| world.open_log(node));
    logs.filter_map(|log| log.floor()).map(|floor| floor.index).max()
}

/// Whether all replicas have these entries, and none of them has damage there, or will have it when the power goes.
fn is_safe(world: &World, entries: &Range<u64>) -> bool {
    let promised = (0..world.plan.nodes).all(|other| world.oracle().has_promised(other, entries.end));
    let (scars, masked) = (world.scars(), world.masked_scars());
    let overlaps = |scar: &Scar| scar.entries.start < entries.end && entries.start < scar.entries.end;
    promised && !scars.iter().chain(masked.iter()).any(overlaps)
}

fn harm(world: &Arc<World>, node: usize, target: &Target, random: &mut Random, wholly: bool) {
    let disk = disk_of(world, node);
    let Some(bytes) = disk.bytes(&target.path) else { return };
    let length = bytes.len() as u64;
    let harm = match random.below(10) {
        0 | 1 if wholly => Harm::Remove,
        2 if wholly => Harm::Cut(random.below(length)),
        3 => Harm::Flip(random.below(80)), // the header
        _ => Harm::Flip(random.between(80, length.saturating_sub(1))),
    };
    let done = match harm {
        Harm::Flip(position) => disk.flip(&target.path, position, 1 << random.below(8)),
        Harm::Remove => remove(&disk, target.path.clone()),
        Harm::Cut(length) => cut(&disk, &target.path, length),
    };
    world.note(format_args!("rot n{node} {:?} {harm:?} {done}", target.path));
    world.fault(
        FaultKind::BitRot,
        node as u32,
        world.now_ns(),
        u64::from(done),
        "segments damaged",
    );
    let scar = Scar {
        node,
        replica: world.replica(node),
        path: target.path.clone(),
        bytes,
        entries: target.entries.clone(),
    };
    world.scars().push(scar);
}

fn remove(disk: &SimulatedDisk, path: PathBuf) -> bool {
    let removed = disk.remove(&path);
    let synced = path.parent().map(|dir| disk.sync_dir(dir));
    removed.is_ok() && matches!(synced, Some(Ok(())))
}

fn cut(disk: &SimulatedDisk, path: &std::path::Path, length: u64) -> bool {
    let Ok(file) = disk.open(path) else { return false };
    file.set_len(length).and_then(|()| file.sync()).is_ok()
}

/// Whether a node's log is damaged: if the others have purged that as well, and more, its replica may be dead.
pub(crate) fn is_scarred(world: &World, node: usize) -> bool {
    world.scars().iter().any(|scar| scar.node == node)
}

/// Whether a replica with damage does not serve: it may turn out to be dead, if the others let go of what it lacks meanwhile.
pub(crate) fn is_any_scarred_away(world: &World) -> bool {
    world.scars().iter().any(|scar| world.serving(scar.node).is_none())
}

/// Lets go of scars that are no more; says what is left of them.
pub(crate) fn forget_healed(world: &World) -> Vec<String> {
    let scars = std::mem::take(&mut *world.scars());
    let (gone, left): (Vec<Scar>, Vec<Scar>) = scars.into_iter().partition(|scar| is_healed(world, scar));
    let healed = gone.len() as u64;
    world.count(|figures| figures.healed += healed);
    let told = left
        .iter()
        .map(|scar| format!("n{} {} entries {:?}", scar.node, scar.path.display(), scar.entries));
    let told = told.collect();
    world.scars().extend(left);
    world
        .masked_scars()
        .extend(gone.into_iter().filter(|scar| is_masked(world, scar)));
    told
}

/// Whether a scar that is gone comes back when the power goes.
fn is_masked(world: &World, scar: &Scar) -> bool {
    let disk = disk_of(world, scar.node);
    let is_there = |disk: &SimulatedDisk| disk.bytes(&scar.path).is_some_and(|now| is_as_before(&now, scar));
    let synced = disk.fork();
    synced.crash(Keep::Nothing);
    is_there(&disk) && !is_there(&synced)
}

/// Keeps those masked scars in mind that have a reason to come back; called before the last power cut.
pub(crate) fn keep_excused(world: &World) {
    forget_healed(world);
    let is_excused = |scar: &Scar| disk_of(world, scar.node).has_given_up(&scar.path);
    world.masked_scars().retain(is_excused);
}

/// Whether all that a log knows to be damaged was rotten there, and was repaired as far as its process could tell.
pub(crate) fn is_only_masked_damage(world: &World, node: usize, log: &Log) -> bool {
    let masked = world.masked_scars();
    let own: Vec<&Scar> = masked.iter().filter(|scar| scar.node == node).collect();
    log.damage().iter().all(|range| {
        let mut entries = own.iter().map(|scar| &scar.entries);
        entries.any(|entries| entries.start <= range.first_index && range.end_index <= entries.end)
    })
}

fn is_healed(world: &World, scar: &Scar) -> bool {
    if world.replica(scar.node) != scar.replica {
        return true;
    }
    let log = world.open_log(scar.node);
    let floor = log.as_ref().and_then(Log::floor);
    if floor.is_some_and(|floor| floor.index + 1 >= scar.entries.end) {
        return true;
    }
    let now = disk_of(world, scar.node).bytes(&scar.path);
    now.is_some_and(|now| is_as_before(&now, scar))
}

fn is_as_before(now: &[u8], scar: &Scar) -> bool {
    now.starts_with(&scar.bytes) || frames_equal(now, &scar.bytes)
}

/// Whether files differ by no more than zeros at the end.
fn frames_equal(one: &[u8], other: &[u8]) -> bool {
    let shorter = one.len().min(other.len());
    let rest = &[&one[shorter..], &other[shorter..]].concat();
    one[..shorter] == other[..shorter] && rest.iter().all(|byte| *byte == 0)
}
