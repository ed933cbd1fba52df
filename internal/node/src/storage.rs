//! What all logs of a node share: disk, writer, cache and clock.

use std::path::PathBuf;
use std::sync::Arc;

use highwater_partition::log::{
    ClusterId, Disk, DiskWriter, Error, GroupId, Identity, Log, LogConfig, OpenLog, RealDisk, ReplicaId, SystemClock,
    TailCache,
};

use crate::config::Config;
use crate::error::Failure;
use crate::failures::Failures;

/// Makes and opens logs.
pub(crate) struct Storage {
    disk: Arc<dyn Disk>,
    writer: DiskWriter,
    cache: Arc<TailCache>,
    config: LogConfig,
}

impl Storage {
    /// Starts the writer. A failed write or sync is the end of the node: what is on the disk is not known any more.
    pub(crate) fn start(config: &Config, failures: Failures) -> Result<Storage, Error> {
        Storage::start_on(Arc::new(RealDisk), config, failures)
    }

    pub(crate) fn start_on(disk: Arc<dyn Disk>, config: &Config, failures: Failures) -> Result<Storage, Error> {
        let on_fatal = Box::new(move |error: &Error| failures.report(Failure::Disk(error.to_string())));
        let log_config = LogConfig {
            segment_bytes_max: config.segment_bytes_max,
            ..LogConfig::default()
        };
        Ok(Storage {
            writer: DiskWriter::start(disk.clone(), on_fatal)?,
            disk,
            cache: TailCache::new(config.tail_cache_bytes),
            config: log_config,
        })
    }

    /// Makes a new, empty log. Blocking.
    pub(crate) fn create(&self, dir: PathBuf, cluster: ClusterId, group: GroupId, id: ReplicaId) -> Result<Log, Error> {
        Log::create(self.open_log(dir, cluster, group, id))
    }

    /// Opens and recovers a log. Blocking, and long for a large unclean one.
    pub(crate) fn open(&self, dir: PathBuf, cluster: ClusterId, group: GroupId, id: ReplicaId) -> Result<Log, Error> {
        Log::open(self.open_log(dir, cluster, group, id))
    }

    /// Ends the writer, once everything queued is done. Blocking.
    pub(crate) fn stop(&self) {
        self.writer.stop();
    }

    fn open_log(&self, dir: PathBuf, cluster_id: ClusterId, group_id: GroupId, replica_id: ReplicaId) -> OpenLog {
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
