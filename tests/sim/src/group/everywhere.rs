//! One record is damaged on the disk of every replica. Then nobody can serve it: it must be reported for its offset, by every replica, and
//! never be skipped; everything else is served. When one disk has it again, all have. (New records may have to wait until then: a leader that
//! does not know yet what its followers hold begins by sending them entries that they have.)

use std::path::PathBuf;
use std::sync::Arc;

use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{Frame, Log};
use highwater_partition::ReadError;

use super::node::{log_dir, open_copy, start_if_down};
use super::world::{End, World, sleep_ms};

/// How long it may take until every replica knows that nobody has the record.
const REPORT_MS_MAX: u64 = 90_000;

/// The place of a record on one disk.
struct Place {
    disk: Arc<SimulatedDisk>,
    path: PathBuf,
    position: u64,
}

impl Place {
    fn flip(&self) -> bool {
        self.disk.flip(&self.path, self.position, 0x40)
    }
}

/// Damages a record everywhere, and puts it right on one disk in the end. Does nothing if no record is sealed and checkpointed everywhere.
pub(super) async fn damage_everywhere(world: &Arc<World>) {
    let Some((frame, places)) = choose(world) else { return };
    let nodes = world.plan.nodes;
    for node in 0..nodes {
        world.end_life(node, End::Kill);
    }
    if !places.iter().all(Place::flip) {
        return world.violation("a record that is to be damaged everywhere has no such byte".to_owned());
    }
    world.note(format_args!("damaged everywhere {}", frame.id()));
    for node in 0..nodes {
        start_if_down(world, node).await;
    }
    let until_ms = world.now_ms() + REPORT_MS_MAX;
    for node in 0..nodes {
        while !is_reported(world, node, &frame).await {
            if world.now_ms() > until_ms {
                world.violation(format!("n{node} does not report {} as damaged everywhere", frame.id()));
                break;
            }
            sleep_ms(500).await;
        }
        check_not_skipped(world, node, &frame).await;
    }
    world.count(|figures| figures.everywhere += 1);
    world.end_life(0, End::Kill);
    places[0].flip();
    start_if_down(world, 0).await;
}

/// A record that stands behind a checkpoint in a file of every replica.
fn choose(world: &World) -> Option<(Frame, Vec<Place>)> {
    let logs: Vec<Log> = (0..world.plan.nodes).filter_map(|node| world.open_log(node)).collect();
    let floor_end = logs.iter().filter_map(Log::floor).map(|floor| floor.index + 1).max();
    let first = floor_end.unwrap_or(0);
    let frames = logs.first()?.read(first, u64::MAX, 16 * 1024).ok()?;
    let (log_start, _) = logs.first()?.readable();
    let frame = frames
        .into_iter()
        .find(|frame| frame.header.record_count > 0 && frame.header.base_offset >= log_start)?;
    let places: Option<Vec<Place>> = (0..world.plan.nodes).map(|node| find(world, node, &frame)).collect();
    places
        .filter(|places| places.len() == logs.len())
        .map(|places| (frame, places))
}

/// Where a node's disk has the record, if its log opens without.
fn find(world: &World, node: usize, frame: &Frame) -> Option<Place> {
    let disk = { world.nodes()[node].disk.clone() };
    let dir = log_dir(world.replica(node)); // beside it those of replicas that are dead may lie
    let files = disk.files().into_iter().filter(|path| path.starts_with(&dir));
    let place = files.into_iter().find_map(|path| {
        let bytes = disk.bytes(&path)?;
        let mut windows = bytes.windows(frame.payload.len());
        let position = windows.position(|window| window == frame.payload)? as u64;
        let disk = disk.clone();
        Some(Place { disk, path, position })
    })?;
    let without = Place {
        disk: disk.fork(),
        path: place.path.clone(),
        position: place.position,
    };
    without.disk.crash(Keep::Everything);
    // behind the mark it could not be told from a torn write
    let marked = open_copy(world, node, without.disk.fork()).ok()?.noted_commit()?.index;
    let opens = without.flip() && open_copy(world, node, without.disk.clone()).is_ok();
    (opens && marked >= frame.header.id.index).then_some(place)
}

/// Whether a replica says that nobody has the record.
async fn is_reported(world: &Arc<World>, node: usize, frame: &Frame) -> bool {
    let Some((partition, life, _)) = world.serving(node) else {
        return false;
    };
    let (offset, index) = (frame.header.base_offset, frame.header.id.index);
    let holds = |range: &highwater_log::DamagedRange| (range.first_index..range.end_index).contains(&index);
    let known = partition.status().damage_everywhere.iter().any(holds);
    let read = life.spawn(world.task_seed(), async move { partition.read(offset, 1).await });
    known && matches!(read.await, Ok(Err(ReadError::Damaged { everywhere: true, .. })))
}

/// Whoever reads on from before the record must come to it, and not beyond.
async fn check_not_skipped(world: &Arc<World>, node: usize, frame: &Frame) {
    let Some((partition, life, _)) = world.serving(node) else {
        return world.violation(format!(
            "n{node} does not serve with a record that is damaged everywhere"
        ));
    };
    let damaged = frame.header.base_offset;
    let walked = life.spawn(world.task_seed(), async move {
        let mut next = partition.watermark().borrow().log_start;
        while next < damaged {
            match partition.read(next, 4 * 1024).await {
                Ok(batches) => {
                    let last = batches.last()?;
                    next = last.base_offset + u64::from(last.record_count);
                }
                Err(_) => return Some(next),
            }
        }
        let behind = damaged + u64::from(batch_records(&partition, damaged).await);
        Some(if behind == damaged { next } else { behind })
    });
    match walked.await {
        Ok(Some(end)) if end == damaged => {}
        other => world.violation(format!(
            "n{node}: whoever reads on to the damaged offset {damaged} comes to {other:?}"
        )),
    }
}

/// Records that a read at this offset gives.
async fn batch_records(partition: &highwater_partition::Partition, offset: u64) -> u32 {
    let batches = partition.read(offset, 1).await.unwrap_or_default();
    batches.iter().map(|batch| batch.record_count).sum()
}
