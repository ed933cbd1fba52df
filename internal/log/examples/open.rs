//! How long a log takes to open after SIGKILL, with 80 and with 160 segments of 16 MiB, and what 1,000 idle logs hold in memory and open
//! files. `cargo run --release --example open -p highwater-log [DIR]`. Ends with an error if a limit is missed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use highwater_log::{
    Batch, Body, Clock, ClusterId, DiskWriter, Entry, EntryId, Error, GroupId, Identity, Log, LogConfig, OpenLog,
    PrincipalDigest, ProducerId, RealDisk, ReplicaId, TailCache, crc32c,
};

const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
const BATCH_BYTES: usize = 64 * 1024;
const OPEN_LIMIT: Duration = Duration::from_millis(200);
const IDLE_LOGS: u64 = 1_000;
const IDLE_BYTES_MAX: u64 = 64 * 1024;
const IDLE_FILES_MAX: usize = 64;

/// A clock that the idle part moves by hand.
#[derive(Default)]
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, dir, segments] = &arguments[..]
        && verb == "fill"
    {
        fill(Path::new(dir), segments.parse().unwrap());
    }
    let base = arguments.first().map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("highwater-open-{}", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let mut good = idle(&dir);
    for segments in [80, 160] {
        good &= open_after_kill(&dir.join(format!("segments-{segments}")), segments);
    }
    std::fs::remove_dir_all(&dir).unwrap();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options(dir: &Path, writer: &DiskWriter, clock: &Arc<HandClock>, segment_bytes_max: u64) -> OpenLog {
    OpenLog {
        dir: dir.to_owned(),
        identity: Identity {
            cluster_id: ClusterId([1; 16]),
            group_id: GroupId(1),
            replica_id: ReplicaId(1),
        },
        disk: Arc::new(RealDisk),
        clock: clock.clone(),
        writer: writer.clone(),
        cache: TailCache::new(1 << 20),
        config: LogConfig {
            segment_bytes_max,
            ..LogConfig::default()
        },
    }
}

fn writer() -> DiskWriter {
    DiskWriter::start(Arc::new(RealDisk), Box::new(|error| panic!("{error}"))).unwrap()
}

fn entry(index: u64, payload: &Bytes) -> Entry {
    let batch = Batch {
        producer_id: ProducerId([1; 16]),
        principal: PrincipalDigest([1; 16]),
        sequence: index,
        record_count: 64,
        compression: 0,
        expected_offset: None,
        payload_crc: crc32c(payload),
        payload: payload.clone(),
    };
    Entry::Proposed {
        id: EntryId { term: 1, index },
        body: Body::Batch(batch),
    }
}

/// Fills a log with so many segments and a half, says so and waits to be killed.
fn fill(dir: &Path, segments: u64) -> ! {
    let writer = writer();
    let log = Log::create(options(dir, &writer, &Arc::default(), SEGMENT_BYTES)).unwrap();
    let payload = Bytes::from(vec![7; BATCH_BYTES]);
    let entries = (segments * 2 + 1) * SEGMENT_BYTES / (BATCH_BYTES as u64 + 128) / 2;
    let (sender, receiver) = mpsc::channel::<Result<(), Error>>();
    for index in 0..entries {
        if index >= 64 {
            receiver.recv().unwrap().unwrap();
            log.commit(index - 64).unwrap();
        }
        let sender = sender.clone();
        log.append(
            vec![entry(index, &payload)],
            Box::new(move |result| drop(sender.send(result))),
        )
        .unwrap();
    }
    drop(sender);
    receiver.iter().for_each(|result| result.unwrap());
    log.commit(entries - 1).unwrap();
    println!("full");
    loop {
        std::thread::park();
    }
}

fn open_after_kill(dir: &Path, segments: u64) -> bool {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this)
        .args(["fill", &dir.to_string_lossy(), &segments.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line.trim(), "full");
    child.kill().unwrap();
    child.wait().unwrap();
    let files = std::fs::read_dir(dir).unwrap();
    let data = files.filter(|file| {
        file.as_ref()
            .is_ok_and(|file| file.path().extension().is_some_and(|end| end == "log"))
    });
    let count = data.count();
    let mut times = Vec::new();
    for _ in 0..5 {
        let writer = writer();
        let start = Instant::now();
        let log = Log::open(options(dir, &writer, &Arc::default(), SEGMENT_BYTES)).unwrap();
        times.push(start.elapsed());
        assert_eq!(log.damage(), []);
    }
    std::fs::remove_dir_all(dir).unwrap();
    let (first, worst) = (times[0], *times.iter().max().unwrap());
    println!(
        "open after SIGKILL, {count} segments of 16 MiB: first {first:?}, worst of five {worst:?}, limit {OPEN_LIMIT:?}"
    );
    worst < OPEN_LIMIT
}

/// Anonymous memory of this process, bytes.
fn memory() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Logs that have each taken a few batches, and then rest.
fn idle(dir: &Path) -> bool {
    let (writer, clock) = (writer(), Arc::new(HandClock::default()));
    let cache = TailCache::new(1 << 20);
    let payload = Bytes::from(vec![7; 1_024]);
    let before = memory();
    let mut logs = Vec::new();
    for number in 0..IDLE_LOGS {
        let mut open = options(&dir.join(number.to_string()), &writer, &clock, 128 << 20);
        open.cache = cache.clone();
        let log = Log::create(open).unwrap();
        let (sender, receiver) = mpsc::channel();
        let entries = (0..20).map(|index| entry(index, &payload)).collect();
        log.append(entries, Box::new(move |result| sender.send(result).unwrap()))
            .unwrap();
        receiver.recv().unwrap().unwrap();
        log.commit(19).unwrap();
        log.read(3, 10, 1 << 20).unwrap();
        clock.0.fetch_add(2_000, Ordering::Relaxed);
        log.tick(); // quiet: the mark is noted
        logs.push(log);
    }
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    logs[0].append(Vec::new(), done).unwrap();
    receiver.recv().unwrap().unwrap();
    clock.0.fetch_add(11_000, Ordering::Relaxed);
    for _ in 0..2 {
        logs.iter().for_each(Log::tick); // idle for ten seconds, and not read since the last time
    }
    let (bytes, files) = (memory().saturating_sub(before) / IDLE_LOGS, open_files());
    println!(
        "{IDLE_LOGS} idle logs: {bytes} bytes of memory each, limit {IDLE_BYTES_MAX}; {files} open files, limit {IDLE_FILES_MAX}"
    );
    let good = bytes < IDLE_BYTES_MAX && files < IDLE_FILES_MAX;
    drop(logs);
    good
}
