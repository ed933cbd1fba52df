//! The disk writer seen through logs: order of callbacks, one answer for each, poison, stopping; and readers beside an appender.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use common::world::{TestClock, entry};
use common::{batch, identity, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{Disk, DiskFile, DiskWriter, Entry, Error, Log, LogConfig, OpenLog, RealDisk, TailCache, Vote};

fn options(disk: Arc<dyn Disk>, writer: &DiskWriter, cache: &Arc<TailCache>, dir: PathBuf) -> OpenLog {
    OpenLog {
        dir,
        identity: identity(),
        disk,
        clock: Arc::new(TestClock::default()),
        writer: writer.clone(),
        cache: cache.clone(),
        config: LogConfig {
            segment_bytes_max: 8_000,
            ..LogConfig::default()
        },
    }
}

struct Rig {
    disk: Arc<SimulatedDisk>,
    writer: DiskWriter,
    cache: Arc<TailCache>,
    answers: Arc<Mutex<Vec<(u32, bool)>>>,
}

impl Rig {
    fn new() -> Rig {
        let disk = SimulatedDisk::new(1);
        let writer = DiskWriter::manual(disk.clone());
        Rig {
            disk,
            writer,
            cache: TailCache::new(0),
            answers: Arc::default(),
        }
    }

    fn log(&self, dir: &str) -> Log {
        Log::create(options(
            self.disk.clone(),
            &self.writer,
            &self.cache,
            PathBuf::from(dir),
        ))
        .unwrap()
    }

    fn answer(&self, number: u32) -> Box<dyn FnOnce(Result<(), Error>) + Send> {
        let answers = self.answers.clone();
        Box::new(move |result| answers.lock().unwrap().push((number, result.is_ok())))
    }

    fn answers(&self) -> Vec<(u32, bool)> {
        std::mem::take(&mut *self.answers.lock().unwrap())
    }
}

#[test]
fn callbacks_of_all_logs_come_once_in_queue_order_after_the_sync() {
    let rig = Rig::new();
    let (one, two) = (rig.log("/1"), rig.log("/2"));
    one.append(vec![entry(ids(1, 0))], rig.answer(0)).unwrap();
    two.append(vec![entry(ids(1, 0))], rig.answer(1)).unwrap();
    one.append(vec![], rig.answer(2)).unwrap();
    one.save_vote(
        Vote {
            term: 2,
            voted_for: None,
            committed: false,
        },
        rig.answer(3),
    )
    .unwrap();
    two.append(vec![entry(ids(1, 1)), entry(ids(1, 2))], rig.answer(4))
        .unwrap();
    one.append(vec![entry(ids(2, 1))], rig.answer(5)).unwrap();
    assert_eq!(rig.answers(), [], "nothing is synced yet");
    assert!(rig.writer.run_round());
    assert_eq!(rig.answers(), (0..6).map(|number| (number, true)).collect::<Vec<_>>());
    assert!(!rig.writer.run_round());
}

#[test]
fn one_round_syncs_each_file_once() {
    let rig = Rig::new();
    let (one, two) = (rig.log("/1"), rig.log("/2"));
    let before = rig.disk.operations();
    for index in 0..9 {
        one.append(vec![batch(1, index, index, 1)], rig.answer(0)).unwrap();
        two.append(vec![batch(1, index, index, 1)], rig.answer(0)).unwrap();
    }
    rig.writer.run_round();
    assert_eq!(
        rig.disk.operations() - before,
        4,
        "a write and a sync for each of two files"
    );
}

#[test]
fn a_failed_sync_poisons_everything() {
    let rig = Rig::new();
    let (one, two) = (rig.log("/1"), rig.log("/2"));
    one.append(vec![entry(ids(1, 0))], rig.answer(0)).unwrap();
    two.append(vec![entry(ids(1, 0))], rig.answer(1)).unwrap();
    rig.disk.fail_syncs(true);
    rig.writer.run_round();
    assert_eq!(rig.answers(), [(0, false), (1, false)]);
    rig.disk.fail_syncs(false);
    assert!(matches!(
        one.append(vec![entry(ids(1, 1))], rig.answer(2)),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(two.truncate_from(0), Err(Error::Poisoned { .. })));
    let vote = Vote {
        term: 2,
        voted_for: None,
        committed: false,
    };
    assert!(matches!(
        two.save_vote(vote, rig.answer(3)),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(rig.writer.failure(), Some(Error::Io { .. })));
    assert_eq!(rig.answers(), [], "what was refused is not answered as well");
    assert_eq!(one.last(), Some(ids(1, 0)), "a refused append leaves the log as it was");
}

#[test]
fn any_failed_operation_poisons_and_answers_everything_once() {
    for operation in 1.. {
        let rig = Rig::new();
        let log = rig.log("/1");
        let before = rig.disk.operations();
        rig.disk.fault_at(before + operation, Fault::Fail);
        for number in 0..40 {
            log.append(vec![entry(ids(1, u64::from(number)))], rig.answer(number))
                .unwrap();
        }
        log.truncate_from(12).unwrap();
        log.append(vec![entry(ids(2, 12))], rig.answer(40)).unwrap();
        log.note_end(rig.answer(41)).unwrap();
        rig.writer.run_round();
        let failed = rig.writer.failure().is_some();
        assert_eq!(
            rig.answers(),
            (0..42).map(|number| (number, !failed)).collect::<Vec<_>>()
        );
        if !failed {
            assert!(operation > 20, "only {operation} operations");
            return;
        }
        rig.disk.crash(Keep::Torn);
        let writer = DiskWriter::manual(rig.disk.clone());
        Log::open(options(rig.disk.clone(), &writer, &rig.cache, PathBuf::from("/1"))).unwrap();
    }
}

#[test]
fn a_fatal_failure_is_reported_once_by_the_thread() {
    let disk = SimulatedDisk::new(1);
    let reports = Arc::new(AtomicUsize::new(0));
    let counted = reports.clone();
    let writer = DiskWriter::start(
        disk.clone(),
        Box::new(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
        }),
    )
    .unwrap();
    let log = Log::create(options(disk.clone(), &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    disk.fail_syncs(true);
    let (sender, receiver) = mpsc::channel();
    let mut accepted = 0;
    for index in 0..100 {
        let sender = sender.clone();
        let done = Box::new(move |result: Result<(), Error>| sender.send(result.is_err()).unwrap());
        accepted += usize::from(log.append(vec![entry(ids(1, index))], done).is_ok());
    }
    drop(sender);
    assert_eq!(receiver.iter().filter(|failed| *failed).count(), accepted);
    writer.stop();
    assert_eq!(reports.load(Ordering::SeqCst), 1);
}

#[test]
fn a_panicking_callback_poisons_instead_of_leaving_others_waiting() {
    let disk = SimulatedDisk::new(1);
    let writer = DiskWriter::start(disk.clone(), Box::new(|_| {})).unwrap();
    let log = Log::create(options(disk, &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    log.append(vec![entry(ids(1, 0))], Box::new(|_| panic!("on purpose")))
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    let queued = log.append(
        vec![entry(ids(1, 1))],
        Box::new(move |result| sender.send(result).unwrap()),
    );
    if queued.is_ok() {
        let _ = receiver.recv(); // Ok, failed or dropped, but not waited for without end
    }
    writer.stop();
    assert!(matches!(writer.failure(), Some(Error::Panicked)));
}

#[test]
fn stopping_finishes_what_is_queued_and_refuses_the_rest() {
    let rig = Rig::new();
    let log = rig.log("/1");
    log.append(vec![entry(ids(1, 0))], rig.answer(0)).unwrap();
    rig.writer.stop();
    assert_eq!(rig.answers(), [(0, true)]);
    assert!(matches!(
        log.append(vec![entry(ids(1, 1))], rig.answer(1)),
        Err(Error::Stopped)
    ));
}

#[test]
fn the_cache_keeps_its_budget_but_never_drops_what_is_not_written() {
    let disk = SimulatedDisk::new(1);
    let writer = DiskWriter::manual(disk.clone());
    let cache = TailCache::new(2_000);
    let logs = ["/1", "/2"].map(|dir| Log::create(options(disk.clone(), &writer, &cache, PathBuf::from(dir))).unwrap());
    for index in 0..50 {
        for log in &logs {
            log.append(vec![entry(ids(1, index))], Box::new(|_| {})).unwrap();
            assert!(log.read_cached(0, u64::MAX, 1).is_some(), "entry 0 is not on disk yet");
        }
    }
    assert!(cache.bytes() > 2_000);
    writer.run_round();
    assert!(cache.bytes() <= 2_000);
    assert!(logs.iter().all(|log| log.read_cached(0, 1, 1).is_none()));
    drop(logs);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn an_append_with_a_bad_entry_appends_nothing() {
    let rig = Rig::new();
    let log = rig.log("/1");
    let mut bad = common::batch_of(1, 0, bytes::Bytes::from("payload"));
    bad.payload_crc ^= 1;
    let bad = Entry::Proposed {
        id: ids(1, 1),
        body: highwater_log::Body::Batch(bad),
    };
    assert!(matches!(
        log.append(vec![entry(ids(1, 0)), bad], rig.answer(0)),
        Err(Error::Format(_))
    ));
    assert!(matches!(
        log.append(vec![entry(ids(1, 0)), entry(ids(0, 1))], rig.answer(0)),
        Err(Error::NotContiguous { .. })
    ));
    assert_eq!((log.last(), log.log_end()), (None, 0));
    log.append(vec![entry(ids(1, 0))], rig.answer(1)).unwrap();
    rig.writer.run_round();
    assert_eq!(rig.answers(), [(1, true)]);
}

/// Readers must see prefixes of one version of the log at a time while another thread appends and truncates.
#[test]
fn readers_beside_an_appender_see_no_hole_and_no_mixture() {
    let dir = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let writer = DiskWriter::start(disk.clone(), Box::new(|error| panic!("{error}"))).unwrap();
    let cache = TailCache::new(3_000);
    let log = Log::create(options(disk, &writer, &cache, dir.path().join("1"))).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..3_u64 {
            let (log, done) = (&log, &done);
            scope.spawn(move || {
                let mut start = reader;
                while !done.load(Ordering::Relaxed) {
                    start = read_once(log, start);
                }
            });
        }
        append_and_truncate(&log);
        done.store(true, Ordering::Relaxed);
    });
}

fn read_once(log: &Log, start: u64) -> u64 {
    let frames = match log.read(start, u64::MAX, 2_000) {
        Ok(frames) => frames,
        Err(error) => panic!("{error}"),
    };
    let mut before: Option<highwater_log::Header> = None;
    for (index, frame) in (start..).zip(&frames) {
        assert_eq!(frame.id().index, index);
        if let Some(before) = before {
            assert!(before.id.term <= frame.id().term, "{} behind {}", frame.id(), before.id);
            let end = before.base_offset + u64::from(before.record_count);
            assert_eq!(
                frame.header.base_offset,
                end,
                "offsets of two versions at {}",
                frame.id()
            );
        }
        before = Some(frame.header.clone());
    }
    if frames.is_empty() {
        start / 2
    } else {
        start + frames.len() as u64
    }
}

fn append_and_truncate(log: &Log) {
    let (mut term, mut next) = (1, 0);
    for turn in 0..400_u64 {
        let (sender, receiver) = mpsc::channel();
        let entries = (next..next + 6).map(|index| entry(ids(term, index))).collect();
        log.append(entries, Box::new(move |result| drop(sender.send(result))))
            .unwrap();
        next += 6;
        if turn % 3 == 0 {
            receiver.recv().unwrap().unwrap();
        }
        if turn % 5 == 4 {
            next -= 4 + turn % 20;
            log.truncate_from(next).unwrap();
            term += 1;
        }
        if turn % 50 == 49 {
            log.commit(next - 25).unwrap();
        }
    }
}

#[test]
fn a_small_append_finds_space_prepared_by_the_one_before() {
    let rig = Rig::new();
    let log = rig.log("/1");
    let length = || {
        rig.disk
            .bytes(&PathBuf::from("/1/00000000000000000000.log"))
            .unwrap()
            .len()
    };
    let mut lengths = Vec::new();
    for index in 0..4 {
        log.append(vec![batch(1, index, index, 1)], rig.answer(0)).unwrap();
        rig.writer.run_round();
        lengths.push(length());
    }
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    log.note_end(rig.answer(1)).unwrap();
    rig.writer.run_round();
    assert!(length() < lengths[0], "zeros are cut on close");
}

/// Runs `hook` once, in the middle of a read.
struct HookedDisk {
    disk: Arc<SimulatedDisk>,
    hook: Hook,
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

struct HookedFile {
    file: Arc<dyn DiskFile>,
    hook: Hook,
}

impl Disk for HookedDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HookedFile {
            file: self.disk.create(path)?,
            hook: self.hook.clone(),
        }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HookedFile {
            file: self.disk.open(path)?,
            hook: self.hook.clone(),
        }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

impl DiskFile for HookedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let hook = self.hook.lock().unwrap().take();
        if let Some(hook) = hook {
            hook();
        }
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[bytes::Bytes], position: u64) -> io::Result<()> {
        self.file.write_at(parts, position)
    }
    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

#[test]
fn a_read_overtaken_by_a_truncation_is_done_again() {
    let hook = Hook::default();
    let disk = Arc::new(HookedDisk {
        disk: SimulatedDisk::new(1),
        hook: hook.clone(),
    });
    let writer = DiskWriter::manual(disk.clone());
    let log = Log::create(options(disk, &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    log.append(
        (0..8).map(|index| batch(1, index, index, 1)).collect(),
        Box::new(|_| {}),
    )
    .unwrap();
    writer.run_round();
    let (other, rounds) = (log.clone(), writer.clone());
    *hook.lock().unwrap() = Some(Box::new(move || {
        other.truncate_from(3).unwrap();
        other
            .append(
                (3..8).map(|index| batch(2, index, index, 1)).collect(),
                Box::new(|_| {}),
            )
            .unwrap();
        rounds.run_round();
    }));
    let terms: Vec<u64> = log
        .read(4, 8, 1 << 20)
        .unwrap()
        .iter()
        .map(|frame| frame.id().term)
        .collect();
    assert!(hook.lock().unwrap().is_none(), "the read did not go to the disk");
    assert_eq!(terms, [2, 2, 2, 2]);
    let (other, rounds) = (log.clone(), writer.clone());
    *hook.lock().unwrap() = Some(Box::new(move || {
        other.truncate_from(2).unwrap();
        rounds.run_round();
    }));
    assert_eq!(log.read(4, 8, 1 << 20).unwrap(), [], "the entries are gone");
}

/// First index of each segment in the directory.
fn segments(disk: &SimulatedDisk, dir: &str) -> Vec<u64> {
    let names = disk.list(Path::new(dir)).unwrap();
    let digits = names.iter().filter_map(|name| name.strip_suffix(".log"));
    digits.map(|digits| digits.parse().unwrap()).collect()
}

#[test]
fn a_segment_that_was_just_sealed_is_read_while_its_last_writes_wait() {
    let rig = Rig::new();
    let log = rig.log("/1");
    for index in 0..5 {
        log.append(vec![batch(1, index, index, 1)], rig.answer(0)).unwrap();
    }
    log.commit(4).unwrap();
    log.note_end(rig.answer(1)).unwrap();
    rig.writer.run_round();
    drop(log);
    // The checkpoint lies inside the segment, so what stands before it is not indexed.
    let open = options(rig.disk.clone(), &rig.writer, &rig.cache, PathBuf::from("/1"));
    let log = Log::open(open).unwrap();
    log.append(vec![batch(1, 5, 5, 1)], rig.answer(2)).unwrap();
    rig.writer.run_round(); // with zeros behind it
    assert_eq!(segments(&rig.disk, "/1"), [0]);
    for index in 6..60 {
        log.append(vec![batch(1, index, index, 1)], rig.answer(3)).unwrap();
    }
    let read = |index| log.read(index, index + 1, usize::MAX).map(|frames| frames[0].id());
    assert_eq!(read(0).unwrap(), ids(1, 0), "before the writer has cut the zeros");
    rig.writer.run_round();
    assert!(segments(&rig.disk, "/1").len() > 1, "the first segment was sealed");
    for index in [0, 5, 59] {
        assert_eq!(read(index).unwrap(), ids(1, index));
    }
}
