//! A scrubber, readers, purges and refills beside an appender that commits, truncates and rolls, on the operating system's files: nothing that
//! is whole is ever taken for damaged, and what is damaged comes back meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use common::ids;
use common::rig::options;
use common::world::entry;
use highwater_log::{DamagedRange, DiskWriter, Entry, Error, Log, RealDisk, TailCache};

fn writer() -> DiskWriter {
    DiskWriter::start(Arc::new(RealDisk), Box::new(|error| panic!("{error}"))).unwrap()
}

fn create(dir: &Path, writer: &DiskWriter) -> Log {
    Log::create(options(
        Arc::new(RealDisk),
        writer,
        &TailCache::new(2_000),
        dir.to_owned(),
    ))
    .unwrap()
}

/// Appends in rounds of six, drops some uncommitted ones now and then, commits up to some way behind.
fn append_and_commit(log: &Log, committed: &AtomicU64) {
    let (mut term, mut next) = (1, 0);
    for turn in 0..300_u64 {
        let (sender, receiver) = mpsc::channel();
        let entries = (next..next + 6).map(|index| entry(ids(term, index))).collect();
        log.append(entries, Box::new(move |result| drop(sender.send(result))))
            .unwrap();
        next += 6;
        if turn % 3 == 0 {
            receiver.recv().unwrap().unwrap();
        }
        if turn % 7 == 6 {
            next -= 5;
            log.truncate_from(next).unwrap();
            term += 1;
        }
        let commit = next.saturating_sub(turn % 9 + 1);
        log.commit(commit).unwrap();
        committed.store(commit, Ordering::Relaxed);
    }
}

#[test]
fn what_is_whole_is_never_taken_for_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer();
    let log = create(&dir.path().join("1"), &writer);
    let (done, committed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut passes = 0;
            while !done.load(Ordering::Relaxed) || passes == 0 {
                let verified = log.verify_step(5_000).unwrap();
                assert_eq!(verified.found, []);
                passes += u64::from(verified.finished);
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let log_start = log.committed(|state| state.log_start);
                if let Some(floor) = log.floor_for(log_start).unwrap() {
                    let manifest = log.fold_manifest(floor).unwrap();
                    log.purge(manifest, Box::new(|result| result.unwrap())).unwrap();
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let start = log.floor().map_or(0, |floor| floor.index + 1);
                for index in (start..committed.load(Ordering::Relaxed)).step_by(5) {
                    match log.read(index, index + 9, 3_000) {
                        Ok(frames) => assert_eq!(frames[0].id().index, index),
                        Err(error) => assert!(matches!(error, Error::Purged { .. }), "{error}"),
                    }
                }
            }
        });
        append_and_commit(&log, &committed);
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(log.damage(), []);
    assert!(log.floor().is_some(), "nothing was purged");
}

#[test]
fn damage_comes_back_while_the_log_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer();
    let (log, peer) = (
        create(&dir.path().join("1"), &writer),
        create(&dir.path().join("2"), &writer),
    );
    let entries: Vec<Entry> = (0..300).map(|index| entry(ids(1, index))).collect();
    let (sender, receiver) = mpsc::channel();
    log.append(entries, Box::new(move |result| sender.send(result).unwrap()))
        .unwrap();
    let frames = log.read(0, 300, usize::MAX).unwrap();
    let whole: Vec<_> = frames.clone();
    let mut next = 0;
    while next < 300 {
        let frames = log.read(next, 300, 1 << 20).unwrap();
        next += frames.len() as u64;
        peer.append(
            frames.into_iter().map(Entry::Replicated).collect(),
            Box::new(|result| result.unwrap()),
        )
        .unwrap();
    }
    receiver.recv().unwrap().unwrap();
    for log in [&log, &peer] {
        log.commit(299).unwrap();
        log.close().unwrap();
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path().join("1"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "log"));
    names.sort();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (number, path) in names.iter().enumerate().take(6) {
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(b"rot", 1_000 + 37 * number as u64).unwrap();
            }
            // Until a whole pass finds nothing.
            let mut clean = false;
            while !clean {
                clean = log.damage().is_empty();
                while !log.verify_step(10_000).unwrap().finished {}
                for DamagedRange { first_index, end_index } in log.damage() {
                    let frames = peer.read_for_refill(first_index, end_index, 1 << 20).unwrap();
                    let (sender, receiver) = mpsc::channel();
                    log.refill(frames, Box::new(move |result| sender.send(result).unwrap()))
                        .unwrap();
                    receiver.recv().unwrap().unwrap();
                    clean = false;
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        for index in 300.. {
            if done.load(Ordering::Relaxed) {
                break;
            }
            let (sender, synced) = mpsc::channel();
            let done = Box::new(move |result| sender.send(result).unwrap());
            log.append(vec![entry(ids(1, index))], done).unwrap();
            synced.recv().unwrap().unwrap(); // slower than the scrubber, which comes to an end only so
            log.commit(index).unwrap();
        }
    });
    assert_eq!(log.damage(), []);
    for frame in whole {
        let index = frame.id().index;
        assert_eq!(log.read(index, index + 1, 0).unwrap(), [frame]);
    }
}
