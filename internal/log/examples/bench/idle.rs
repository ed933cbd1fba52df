//! What a thousand logs hold in memory and in open files when nothing happens to them.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use highwater_log::Log;

use crate::common::{Payload, Room};
use crate::table::{Goal, Table};

const LOGS: u64 = 1_000;
const BYTES_MAX: u64 = 64 * 1024;
const FILES_MAX: usize = 64;

/// Logs that have each taken a few batches, and then rest.
pub(crate) fn thousand(dir: &Path, table: &mut Table) {
    let room = Room::new(1 << 20);
    let payload = Payload::new(1_024);
    let before = memory();
    let mut logs = Vec::new();
    for number in 0..LOGS {
        let log = Log::create(room.options(&dir.join(number.to_string()))).unwrap();
        let (sender, receiver) = mpsc::channel();
        let entries = (0..20).map(|index| payload.entry(index)).collect();
        let done = Box::new(move |result| sender.send(result).unwrap());
        log.append(entries, done).unwrap();
        receiver.recv().unwrap().unwrap();
        log.commit(19).unwrap();
        log.read(3, 10, 1 << 20).unwrap();
        room.clock.0.fetch_add(2_000, Ordering::Relaxed);
        log.tick(); // quiet: the mark is noted
        logs.push(log);
    }
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    logs[0].append(Vec::new(), done).unwrap();
    receiver.recv().unwrap().unwrap();
    room.clock.0.fetch_add(11_000, Ordering::Relaxed);
    for _ in 0..2 {
        logs.iter().for_each(Log::tick); // idle for ten seconds, and not read since the last time
    }
    let (bytes, files) = (memory().saturating_sub(before) / LOGS, open_files());
    room.writer.stop();
    drop(logs);
    table.row(
        &format!("{LOGS} idle logs"),
        format!("{:.1} KiB each, {files} open files", bytes as f64 / 1024.0),
        "–".to_owned(),
        Goal::Limit {
            met: bytes < BYTES_MAX && files < FILES_MAX,
            what: format!("below {} KiB each, below {FILES_MAX} files", BYTES_MAX / 1024),
        },
    );
}

/// Anonymous memory of this process, bytes: the heap, and what the allocator does not give back.
fn memory() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
