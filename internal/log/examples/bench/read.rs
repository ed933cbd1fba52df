//! Reading a log from its start to its end, out of the page cache.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use highwater_log::{Frame, Log, crc32c};

use crate::common::{BATCH_BYTES, MEBIBYTE, Payload, Room, append_all};
use crate::table::{Goal, RUNS, Table, median};

const BATCHES: u64 = 8_000;
/// What one read asks for: a few batches, as a consumer's or a follower's request does.
const READ_BYTES: usize = 1024 * 1024;
const SHARE: f64 = 0.7;

/// Every frame, checked, beside plain reads of the same files with the same checksum.
pub(crate) fn sequential(dir: &Path, table: &mut Table) {
    let dir = dir.join("read");
    let room = Room::new(0); // no cache: everything comes from the files
    let log = Log::create(room.options(&dir)).unwrap();
    append_all(&log, &Payload::new(BATCH_BYTES), BATCHES);
    let (mut ours, mut floors, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..=RUNS {
        let floor = plain(&dir);
        let speed = through(&log);
        if run == 0 {
            continue; // the first run finds cold memory
        }
        floors.push(floor);
        ours.push(speed);
        shares.push(speed / floor);
    }
    log.close().unwrap();
    room.writer.stop();
    std::fs::remove_dir_all(&dir).unwrap();
    let share = median(shares);
    table.row(
        "read all, 64 KiB batches, from page cache",
        format!("{:.0} MiB/s", median(ours)),
        format!("{:.0} MiB/s; share {:.0} %", median(floors), share * 100.0),
        Goal::Aim {
            met: share >= SHARE,
            what: format!("at least {:.0} % of the floor", SHARE * 100.0),
        },
    );
}

/// MiB/s through the log.
fn through(log: &Log) -> f64 {
    let (mut next, mut bytes) = (0, 0);
    let start = Instant::now();
    while next < BATCHES {
        let frames = log.read(next, BATCHES, READ_BYTES).unwrap();
        bytes += frames.iter().map(Frame::len_bytes).sum::<usize>();
        next += frames.len() as u64;
    }
    bytes as f64 / MEBIBYTE / start.elapsed().as_secs_f64()
}

/// MiB/s of plain reads into one buffer, each with its checksum.
fn plain(dir: &Path) -> f64 {
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "log"));
    let mut buffer = vec![0; READ_BYTES];
    let (mut bytes, mut sum) = (0, 0);
    let start = Instant::now();
    for path in paths {
        let file = File::open(path).unwrap();
        let mut position = 0;
        loop {
            let count = file.read_at(&mut buffer, position).unwrap();
            if count == 0 {
                break;
            }
            sum ^= crc32c(&buffer[..count]);
            position += count as u64;
        }
        bytes += position;
    }
    let time = start.elapsed();
    std::hint::black_box(sum);
    bytes as f64 / MEBIBYTE / time.as_secs_f64()
}
