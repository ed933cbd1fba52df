//! What all logs of a node share: disk, writer, cache and clock, and the room that is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use highwater_partition::log::{
    CacheReads, ClusterId, Disk, DiskWriter, Error, GroupId, Identity, Log, LogConfig, OpenLog, RealDisk, ReplicaId,
    RoundDone, Space, SpaceLimits, SystemClock, TailCache,
};
use highwater_partition::{CatchUpPace, ScrubPace};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::Config;
use crate::error::Failure;
use crate::failures::Failures;
use crate::metrics::Timings;

/// How often the room on the disk is looked at.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// How much room the data directory's disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) space: Space,
    /// Free for this process, the reserve not counted.
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
}

/// Makes and opens logs.
pub(crate) struct Storage {
    data_dir: PathBuf,
    disk: Arc<dyn Disk>,
    writer: DiskWriter,
    cache: Arc<TailCache>,
    config: LogConfig,
    scrub: ScrubPace,
    catch_up: CatchUpPace,
    timings: Arc<Timings>,
    /// Whether records are taken.
    has_room: watch::Sender<bool>,
}

impl Storage {
    /// Starts the writer, with a reserve of room in the data directory, which must exist. A failed write or sync is the end
    /// of the node: what is on the disk is not known any more.
    pub(crate) fn start(config: &Config, failures: Failures, timings: Timings) -> Result<Storage, Error> {
        let mut storage = Storage::start_on(Arc::new(RealDisk), config, failures, timings)?;
        let limits = SpaceLimits::for_disk(&RealDisk, &config.data_dir)?;
        storage.writer = storage.writer.with_reserve(&config.data_dir, limits)?;
        Ok(storage)
    }

    pub(crate) fn start_on(
        disk: Arc<dyn Disk>,
        config: &Config,
        failures: Failures,
        timings: Timings,
    ) -> Result<Storage, Error> {
        let timings = Arc::new(timings);
        let of_rounds = timings.clone();
        let on_round = Box::new(move |done: &RoundDone| of_rounds.round(done));
        let on_fatal = Box::new(move |error: &Error| failures.report(Failure::Disk(error.to_string())));
        let log_config = LogConfig {
            segment_bytes_max: config.segment_bytes_max,
            ..LogConfig::default()
        };
        Ok(Storage {
            data_dir: config.data_dir.clone(),
            writer: DiskWriter::start(disk.clone(), on_fatal)?.watched_by(on_round),
            disk,
            cache: TailCache::new(config.tail_cache_bytes),
            config: log_config,
            scrub: ScrubPace::default(),
            catch_up: CatchUpPace::default(),
            timings,
            has_room: watch::Sender::new(true),
        })
    }

    /// Makes a new, empty log. Blocking.
    pub(crate) fn create(&self, dir: PathBuf, cluster: ClusterId, group: GroupId, id: ReplicaId) -> Result<Log, Error> {
        Log::create(self.open_log(dir, cluster, group, id))
    }

    /// How much memory recent frames may take from now on, bytes.
    pub(crate) fn set_tail_cache_bytes(&self, bytes_max: usize) {
        self.cache.set_bytes_max(bytes_max);
    }

    /// How fast all logs together are verified.
    pub(crate) fn scrub_pace(&self) -> ScrubPace {
        self.scrub.clone()
    }

    /// How fast replicas elsewhere catch up with those that lead here, all together. A cluster setting.
    pub(crate) fn catch_up_pace(&self) -> CatchUpPace {
        self.catch_up.clone()
    }

    /// How long things take.
    pub(crate) fn timings(&self) -> &Arc<Timings> {
        &self.timings
    }

    /// Bytes of recent entries in memory.
    pub(crate) fn cached_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// How often consumers found records there.
    pub(crate) fn cache_reads(&self) -> CacheReads {
        self.cache.reads()
    }

    /// Whether there is room for records. Changes up to a second later than what it tells.
    pub(crate) fn has_room(&self) -> watch::Receiver<bool> {
        self.has_room.subscribe()
    }

    #[cfg(test)]
    pub(crate) fn pretend_room(&self, has_room: bool) {
        self.has_room.send_replace(has_room);
    }

    /// How much room there was when it was last looked at.
    pub(crate) fn room(&self) -> Result<Room, Error> {
        let unknown = |error| Error::Io {
            operation: "size",
            path: self.data_dir.clone(),
            source: Arc::new(error),
        };
        Ok(Room {
            space: self.writer.space(),
            free_bytes: self.disk.free_bytes(&self.data_dir).map_err(unknown)?,
            total_bytes: self.disk.total_bytes(&self.data_dir).map_err(unknown)?,
        })
    }

    /// Looks at the room on the disk again and again, and says when it becomes short or is there again.
    pub(crate) async fn keep_room(self: Arc<Self>) {
        let mut before = Space::Plenty;
        loop {
            let storage = self.clone();
            match tokio::task::spawn_blocking(move || storage.writer.check_space()).await {
                Ok(Ok(space)) if space != before => {
                    self.say(space);
                    self.has_room.send_replace(space != Space::Full);
                    before = space;
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the room on the disk is not known"),
                Err(_) => return, // the runtime ends
            }
            sleep(SPACE_INTERVAL).await;
        }
    }

    fn say(&self, space: Space) {
        let free_bytes = self.room().map_or(0, |room| room.free_bytes);
        match space {
            Space::Full => tracing::error!(
                free_bytes,
                "the disk is nearly full: no records are taken until there is room"
            ),
            Space::Low => tracing::warn!(free_bytes, "the disk is filling up"),
            Space::Plenty => tracing::info!(free_bytes, "the disk has room again"),
        }
    }

    /// Ends the writer, once everything queued is done. Blocking.
    pub(crate) fn stop(&self) {
        self.writer.stop();
    }

    /// How a log is opened.
    pub(crate) fn open_log(
        &self,
        dir: PathBuf,
        cluster_id: ClusterId,
        group_id: GroupId,
        replica_id: ReplicaId,
    ) -> OpenLog {
        OpenLog {
            dir,
            identity: Identity {
                cluster_id,
                group_id,
                replica_id,
            },
            disk: self.disk.clone(),
            clock: Arc::new(SystemClock),
            writer: self.writer.clone(),
            cache: self.cache.clone(),
            config: self.config.clone(),
        }
    }
}
