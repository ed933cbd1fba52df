//! Appends: many in flight, and one at a time.

use std::fs::{File, OpenOptions};
use std::io::{IoSlice, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use highwater_log::Log;

use crate::common::{BATCH_BYTES, HEAD_BYTES, IN_FLIGHT, MEBIBYTE, Payload, Room, append_all};
use crate::recorded::{Recorded, Step, replay_path};
use crate::table::{Goal, RUNS, Table, median};

const BULK_APPENDS: u64 = 8_000;
const BULK_SHARE: f64 = 0.8;
/// The tail cache of a node, by default.
const CACHE_BYTES: usize = 256 * 1024 * 1024;

const LONE_APPENDS: usize = 2_000;
const LONE_BYTES: usize = 1_024;
const LONE_FACTOR: f64 = 1.2;
const LONE_ADDED_US: f64 = 30.0;

/// Batches with group commit, beside plain code that writes the same bytes to the same places and syncs at the same moments.
pub(crate) fn bulk(dir: &Path, table: &mut Table) {
    let payload = Payload::new(BATCH_BYTES);
    let (mut ours, mut floors, mut shares, mut batches) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let disk = Arc::new(Recorded::default());
        let room = Room::on(disk.clone(), CACHE_BYTES);
        let log = Log::create(room.options(&dir.join("bulk"))).unwrap();
        let start = Instant::now();
        append_all(&log, &payload, BULK_APPENDS);
        let log_time = start.elapsed();
        log.close().unwrap();
        room.writer.stop();
        drop(log);
        std::fs::remove_dir_all(dir.join("bulk")).unwrap();
        let files = disk.take();
        let plain_time = replay(dir, &files);
        if run == 0 {
            continue; // the first run finds cold memory
        }
        let mebibytes = (BULK_APPENDS as usize * BATCH_BYTES) as f64 / MEBIBYTE;
        ours.push(mebibytes / log_time.as_secs_f64());
        floors.push(mebibytes / plain_time.as_secs_f64());
        shares.push(plain_time.as_secs_f64() / log_time.as_secs_f64());
        let syncs = files.iter().flatten().filter(|step| matches!(step, Step::Sync)).count();
        batches.push(BULK_APPENDS as f64 / syncs as f64);
    }
    let share = median(shares);
    table.row(
        &format!(
            "append 64 KiB batches, {IN_FLIGHT} in flight ({:.0} a sync)",
            median(batches)
        ),
        format!("{:.0} MiB/s", median(ours)),
        format!("{:.0} MiB/s; share {:.0} %", median(floors), share * 100.0),
        Goal::Aim {
            met: share >= BULK_SHARE,
            what: format!("at least {:.0} % of the floor", BULK_SHARE * 100.0),
        },
    );
}

/// Does the noted steps again, to files of the same mode: new and growing. Vectored, as the log writes, of one batch in memory.
fn replay(dir: &Path, files: &[Vec<Step>]) -> Duration {
    let head = [7; HEAD_BYTES];
    let batch = vec![7; BATCH_BYTES];
    let start = Instant::now();
    for (number, steps) in files.iter().enumerate() {
        let mut file = create(&replay_path(dir, number));
        for step in steps {
            match *step {
                Step::Sync => file.sync_data().unwrap(),
                Step::Write { position, bytes } => {
                    std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(position)).unwrap();
                    write_vectored(&mut file, &head, &batch, bytes);
                }
            }
        }
    }
    let time = start.elapsed();
    for number in 0..files.len() {
        std::fs::remove_file(replay_path(dir, number)).unwrap();
    }
    time
}

/// Writes so many bytes, by turns a head and a batch.
fn write_vectored(file: &mut File, head: &[u8], batch: &[u8], bytes: usize) {
    let mut left = bytes;
    let mut parts = Vec::new();
    for part in [head, batch].into_iter().cycle() {
        if left == 0 {
            break;
        }
        let part = &part[..part.len().min(left)];
        left -= part.len();
        parts.push(IoSlice::new(part));
    }
    let mut parts = &mut parts[..];
    while !parts.is_empty() {
        let count = file.write_vectored(parts).unwrap();
        IoSlice::advance_slices(&mut parts, count);
    }
}

/// One append at a time, beside a bare write and fdatasync of the same size into a file of the same mode: written with zeros before.
pub(crate) fn lone(dir: &Path, table: &mut Table) {
    let (mut ours, mut floors, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let floor = bare(&dir.join("bare"));
        let room = Room::new(CACHE_BYTES);
        let log = Log::create(room.options(&dir.join("lone"))).unwrap();
        let time = one_at_a_time(&log);
        log.close().unwrap();
        room.writer.stop();
        drop(log);
        std::fs::remove_dir_all(dir.join("lone")).unwrap();
        over.push(time - (LONE_FACTOR * floor + LONE_ADDED_US));
        ours.push(time);
        floors.push(floor);
    }
    table.row(
        "append 1 KiB, one at a time, median wait",
        format!("{:.0} µs", median(ours)),
        format!("{:.0} µs", median(floors)),
        Goal::Aim {
            met: median(over) <= 0.0,
            what: format!("at most {LONE_FACTOR} × floor + {LONE_ADDED_US} µs"),
        },
    );
}

fn create(path: &Path) -> File {
    OpenOptions::new().create_new(true).write(true).open(path).unwrap()
}

/// Median, µs.
fn bare(path: &Path) -> f64 {
    let size = LONE_BYTES + HEAD_BYTES;
    let file = create(path);
    file.write_all_at(&vec![0; LONE_APPENDS * size], 0).unwrap();
    file.sync_all().unwrap();
    let bytes = vec![7; size];
    let times = (0..LONE_APPENDS).map(|number| {
        let start = Instant::now();
        file.write_all_at(&bytes, (number * size) as u64).unwrap();
        file.sync_data().unwrap();
        micros(start.elapsed())
    });
    let times = times.collect();
    std::fs::remove_file(path).unwrap();
    median(times)
}

/// Median, µs.
fn one_at_a_time(log: &Log) -> f64 {
    let payload = Payload::new(LONE_BYTES);
    let (sender, receiver) = mpsc::channel();
    let times = (0..LONE_APPENDS as u64).map(|index| {
        let sender = sender.clone();
        let start = Instant::now();
        let done = Box::new(move |result| sender.send(result).unwrap());
        log.append(vec![payload.entry(index)], done).unwrap();
        receiver.recv().unwrap().unwrap();
        micros(start.elapsed())
    });
    median(times.collect())
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
