//! How much the log adds to the disk's own floor: appends one at a time, and many in flight, beside bare writes and syncs of the same
//! bytes on the same disk in the same run. `cargo run --release --example append -p highwater-log [DIR]`
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_log::{
    Batch, Body, ClusterId, DiskWriter, Entry, EntryId, Error, GroupId, Identity, Log, LogConfig, OpenLog,
    PrincipalDigest, ProducerId, RealDisk, ReplicaId, SystemClock, TailCache, crc32c,
};

const LONE_APPENDS: usize = 2_000;
const LONE_BYTES: usize = 1_024;
const BULK_APPENDS: u64 = 8_000;
const BULK_BYTES: usize = 64 * 1024;
const BULK_IN_FLIGHT: usize = 64;
const FRAME_BYTES: usize = 124;

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("highwater-append-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    for round in 1..=3 {
        println!("round {round}");
        report("  bare write + fdatasync, growing file", bare(&dir.join("bare"), false));
        report(
            "  bare write + fdatasync, zeroed file ",
            bare(&dir.join("zeroed"), true),
        );
        let writer = DiskWriter::start(Arc::new(RealDisk), Box::new(|error| panic!("{error}"))).unwrap();
        let log = create(&dir.join(format!("log-{round}")), &writer);
        report("  log, one append at a time           ", lone(&log));
        bulk(&log);
        log.close().unwrap();
        writer.stop();
        drop(log);
        std::fs::remove_dir_all(dir.join(format!("log-{round}"))).unwrap();
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

fn create(dir: &Path, writer: &DiskWriter) -> Log {
    let identity = Identity {
        cluster_id: ClusterId([1; 16]),
        group_id: GroupId(1),
        replica_id: ReplicaId(1),
    };
    Log::create(OpenLog {
        dir: dir.to_owned(),
        identity,
        disk: Arc::new(RealDisk),
        clock: Arc::new(SystemClock),
        writer: writer.clone(),
        cache: TailCache::new(64 << 20),
        config: LogConfig::default(),
    })
    .unwrap()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| times[(times.len() as f64 * share) as usize].as_micros();
    println!("{what}: p50 {:>5} µs, p99 {:>6} µs", at(0.5), at(0.99));
}

fn bare(path: &Path, zeroed: bool) -> Vec<Duration> {
    let size = LONE_BYTES + FRAME_BYTES;
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(path)
        .unwrap();
    if zeroed {
        file.write_all_at(&vec![0; LONE_APPENDS * size], 0).unwrap();
        file.sync_all().unwrap();
    }
    let bytes = vec![7; size];
    let times = (0..LONE_APPENDS).map(|number| {
        let start = Instant::now();
        file.write_all_at(&bytes, (number * size) as u64).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    });
    let times = times.collect();
    std::fs::remove_file(path).unwrap();
    times
}

fn entry(index: u64, payload: &Bytes, payload_crc: u32) -> Entry {
    let batch = Batch {
        producer_id: ProducerId([1; 16]),
        principal: PrincipalDigest([1; 16]),
        sequence: index,
        record_count: 64,
        compression: 0,
        expected_offset: None,
        payload_crc,
        payload: payload.clone(),
    };
    Entry::Proposed {
        id: EntryId { term: 1, index },
        body: Body::Batch(batch),
    }
}

fn lone(log: &Log) -> Vec<Duration> {
    let payload = Bytes::from(vec![7; LONE_BYTES]);
    let crc = crc32c(&payload);
    let (sender, receiver) = mpsc::channel();
    let times = (0..LONE_APPENDS as u64).map(|index| {
        let sender = sender.clone();
        let start = Instant::now();
        log.append(
            vec![entry(index, &payload, crc)],
            Box::new(move |result| sender.send(result).unwrap()),
        )
        .unwrap();
        receiver.recv().unwrap().unwrap();
        start.elapsed()
    });
    times.collect()
}

fn bulk(log: &Log) {
    let payload = Bytes::from(vec![7; BULK_BYTES]);
    let crc = crc32c(&payload);
    let (sender, receiver) = mpsc::channel::<Result<(), Error>>();
    let first = LONE_APPENDS as u64;
    let start = Instant::now();
    for number in 0..BULK_APPENDS {
        if number >= BULK_IN_FLIGHT as u64 {
            receiver.recv().unwrap().unwrap();
        }
        let sender = sender.clone();
        let entry = entry(first + number, &payload, crc);
        log.append(vec![entry], Box::new(move |result| drop(sender.send(result))))
            .unwrap();
        log.commit((first + number).saturating_sub(BULK_IN_FLIGHT as u64))
            .unwrap();
    }
    drop(sender);
    receiver.iter().for_each(|result| result.unwrap());
    let mebibytes = (BULK_APPENDS as usize * BULK_BYTES) as f64 / f64::from(1 << 20);
    println!(
        "  log, {BULK_IN_FLIGHT} appends of 64 KiB in flight: {:.0} MiB/s",
        mebibytes / start.elapsed().as_secs_f64()
    );
}
