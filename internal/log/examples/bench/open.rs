//! Opening a log after SIGKILL: it must take as long as what lies behind the mark, not as long as the log.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use highwater_log::Log;

use crate::common::{BATCH_BYTES, HEAD_BYTES, Payload, Room, append_all};
use crate::table::{Goal, RUNS, Table, median};

/// The argument with which this program starts itself, to be killed.
pub(crate) const FILL: &str = "--fill";

const SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// What is appended before each further kill.
const MORE_BATCHES: u64 = 8;
const LIMIT: Duration = Duration::from_millis(200);

/// Fills a log with so many segments and a half, or appends a little to what is there, says so and waits to be killed.
pub(crate) fn fill(dir: &Path, segments: u64) -> ! {
    let room = small_segments();
    let payload = Payload::new(BATCH_BYTES);
    let frames_a_segment = SEGMENT_BYTES / (BATCH_BYTES + HEAD_BYTES) as u64;
    if dir.exists() {
        append_all(&Log::open(room.options(dir)).unwrap(), &payload, MORE_BATCHES);
    } else {
        let batches = segments * frames_a_segment + frames_a_segment / 2;
        append_all(&Log::create(room.options(dir)).unwrap(), &payload, batches);
    }
    println!("full");
    loop {
        std::thread::park();
    }
}

pub(crate) fn after_kill(dir: &Path, table: &mut Table) {
    let times = [80, 160].map(|segments| {
        let dir = dir.join(format!("segments-{segments}"));
        let times = (0..RUNS).map(|_| killed_and_opened(&dir, segments)).collect::<Vec<_>>();
        std::fs::remove_dir_all(&dir).unwrap();
        let worst = times.iter().max().unwrap();
        let middle = median(times.iter().map(Duration::as_secs_f64).collect());
        table.row(
            &format!("open after SIGKILL, {segments} sealed segments of 16 MiB"),
            format!("{:.1} ms, worst {:.1} ms", middle * 1e3, worst.as_secs_f64() * 1e3),
            "–".to_owned(),
            Goal::Limit {
                met: *worst < LIMIT,
                what: format!("worst below {LIMIT:?}"),
            },
        );
        middle
    });
    println!("twice the segments: {:+.1} ms", (times[1] - times[0]) * 1e3);
}

fn small_segments() -> Room {
    Room {
        segment_bytes_max: SEGMENT_BYTES,
        ..Room::new(1 << 20)
    }
}

fn killed_and_opened(dir: &Path, segments: u64) -> Duration {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([FILL, &dir.to_string_lossy(), &segments.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(line.trim(), "full");
    let names = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    let data = names.filter(|path| path.extension().is_some_and(|end| end == "log"));
    assert_eq!(data.count() as u64, segments + 1);
    let room = small_segments();
    let start = Instant::now();
    let log = Log::open(room.options(dir)).unwrap();
    let time = start.elapsed();
    assert_eq!(log.damage(), []);
    room.writer.stop(); // not closed: the mark stays where it is
    time
}
