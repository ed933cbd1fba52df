//! The logs of replicas in tests: how they are opened, and what is in them.

use std::path::Path;
use std::sync::Arc;

use highwater_log::{
    Clock, ClusterId, Disk, DiskWriter, Frame, Identity, Log, LogConfig, OpenLog, RealDisk, ReplicaId, SystemClock,
    TailCache,
};

use super::cluster::GROUP;

/// Replicas never agree on the time: each is a second ahead of the one before.
struct SkewedClock {
    ahead_ms: u64,
}

impl Clock for SkewedClock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.ahead_ms
    }
}

/// Opens the log of a replica, or makes it.
pub(crate) fn open_log(dir: &Path, replica_id: u64, cache_bytes: usize) -> (Log, DiskWriter) {
    open_log_on(Arc::new(RealDisk), dir, replica_id, cache_bytes, LogConfig::default())
}

pub(super) fn open_log_on(
    disk: Arc<dyn Disk>,
    dir: &Path,
    replica_id: u64,
    cache_bytes: usize,
    config: LogConfig,
) -> (Log, DiskWriter) {
    let writer = start_writer(disk.clone());
    let open = OpenLog {
        cache: TailCache::new(cache_bytes),
        config,
        ..open_options(disk, dir, replica_id, &writer)
    };
    let log = match dir.exists() {
        true => Log::open(open),
        false => Log::create(open),
    };
    (log.unwrap(), writer)
}

/// A writer whose disk must not fail.
pub(super) fn start_writer(disk: Arc<dyn Disk>) -> DiskWriter {
    DiskWriter::start(disk, Box::new(|err| panic!("the disk failed: {err}"))).unwrap()
}

/// How a replica's log is opened.
pub(super) fn open_options(disk: Arc<dyn Disk>, dir: &Path, replica_id: u64, writer: &DiskWriter) -> OpenLog {
    OpenLog {
        dir: dir.to_owned(),
        identity: Identity {
            cluster_id: ClusterId([1; 16]),
            group_id: GROUP,
            replica_id: ReplicaId(replica_id),
        },
        disk,
        clock: Arc::new(SkewedClock {
            ahead_ms: replica_id * 1_000,
        }),
        writer: writer.clone(),
        cache: TailCache::new(0),
        config: LogConfig::default(),
    }
}

/// Every frame of a log that is not purged, from the disk or the cache.
pub(super) fn all_frames(log: &Log) -> Vec<Frame> {
    let mut frames = Vec::new();
    let Some(last) = log.last() else {
        return frames;
    };
    let first = log.floor().map_or(0, |floor| floor.index + 1);
    while first + (frames.len() as u64) <= last.index {
        let Ok(more) = log.read(first + frames.len() as u64, last.index + 1, 1 << 20) else {
            break;
        };
        if more.is_empty() {
            break;
        }
        frames.extend(more);
    }
    frames
}
