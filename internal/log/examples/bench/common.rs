//! Making logs and entries.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use highwater_log::{
    Batch, Body, Clock, ClusterId, Disk, DiskWriter, Entry, EntryId, Error, GroupId, Identity, Log, LogConfig, OpenLog,
    PrincipalDigest, ProducerId, RealDisk, ReplicaId, TailCache, crc32c,
};

pub(crate) const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// The batches of the throughput figures.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;
/// How many of them wait for the disk.
pub(crate) const IN_FLIGHT: u64 = 64;
/// Header and detail of a batch's frame.
pub(crate) const HEAD_BYTES: usize = 124;

/// A clock that is moved by hand.
#[derive(Default)]
pub(crate) struct HandClock(pub(crate) AtomicU64);

impl Clock for HandClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One data directory's worth of what logs share.
pub(crate) struct Room {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) writer: DiskWriter,
    pub(crate) cache: Arc<TailCache>,
    pub(crate) clock: Arc<HandClock>,
    pub(crate) segment_bytes_max: u64,
}

impl Room {
    pub(crate) fn new(cache_bytes: usize) -> Room {
        Room::on(Arc::new(RealDisk), cache_bytes)
    }

    pub(crate) fn on(disk: Arc<dyn Disk>, cache_bytes: usize) -> Room {
        Room {
            writer: DiskWriter::start(disk.clone(), Box::new(|error| panic!("{error}"))).unwrap(),
            disk,
            cache: TailCache::new(cache_bytes),
            clock: Arc::default(),
            segment_bytes_max: LogConfig::default().segment_bytes_max,
        }
    }

    pub(crate) fn options(&self, dir: &Path) -> OpenLog {
        OpenLog {
            dir: dir.to_owned(),
            identity: Identity {
                cluster_id: ClusterId([1; 16]),
                group_id: GroupId(1),
                replica_id: ReplicaId(1),
            },
            disk: self.disk.clone(),
            clock: self.clock.clone(),
            writer: self.writer.clone(),
            cache: self.cache.clone(),
            config: LogConfig {
                segment_bytes_max: self.segment_bytes_max,
                ..LogConfig::default()
            },
        }
    }
}

/// The payload of all batches, with its checksum, which a client would have computed.
pub(crate) struct Payload(Bytes, u32);

impl Payload {
    pub(crate) fn new(bytes: usize) -> Payload {
        let bytes = Bytes::from(vec![7; bytes]);
        let crc = crc32c(&bytes);
        Payload(bytes, crc)
    }

    pub(crate) fn entry(&self, index: u64) -> Entry {
        let batch = Batch {
            producer_id: ProducerId([1; 16]),
            principal: PrincipalDigest([1; 16]),
            sequence: index,
            record_count: 64,
            compression: 0,
            expected_offset: None,
            payload_crc: self.1,
            payload: self.0.clone(),
        };
        Entry::Proposed {
            id: EntryId { term: 1, index },
            body: Body::Batch(batch),
        }
    }
}

/// Appends so many entries, at a time in flight, commits them and returns when the last is synced.
pub(crate) fn append_all(log: &Log, payload: &Payload, count: u64) {
    let (sender, receiver) = mpsc::channel::<Result<(), Error>>();
    let first = log.last().map_or(0, |last| last.index + 1);
    for index in first..first + count {
        if index >= first + IN_FLIGHT {
            receiver.recv().unwrap().unwrap();
            log.commit(index - IN_FLIGHT).unwrap();
        }
        let sender = sender.clone();
        let done = Box::new(move |result| drop(sender.send(result)));
        log.append(vec![payload.entry(index)], done).unwrap();
    }
    drop(sender);
    receiver.iter().for_each(|result| result.unwrap());
    log.commit(first + count - 1).unwrap();
}
