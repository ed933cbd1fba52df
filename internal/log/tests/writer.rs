//! The disk writer seen through logs: order of callbacks, one answer for each, poison, prepared space, stopping.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use common::hooked::HookedDisk;
use common::rig::{Rig, options};
use common::world::entry;
use common::{batch, ids};
use highwater_log::disk::simulated::{Fault, Keep, SimulatedDisk};
use highwater_log::{Body, DiskWriter, Entry, Error, Log, TailCache, Vote};

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

/// A refusal in the middle of it would leave a log in memory of which a part never reaches the disk: a hole under what follows.
#[test]
fn an_append_that_finds_the_queue_full_changes_nothing() {
    let rig = Rig::new();
    let log = rig.log("/1"); // with small segments: each append also seals one, which takes more bytes than the entry
    let payload = bytes::Bytes::from(vec![7; highwater_log::PAYLOAD_BYTES_MAX]);
    let (mut next, mut payload_bytes) = (0, payload.len());
    while payload_bytes > 0 {
        let body = Body::Batch(common::batch_of(1, next, payload.slice(..payload_bytes)));
        let id = ids(1, next);
        match log.append(vec![Entry::Proposed { id, body }], rig.answer(0)) {
            Ok(()) => next += 1,
            Err(Error::Overloaded { .. }) => {
                assert!(!log.has_room());
                assert_eq!(log.last(), Some(ids(1, next - 1)), "refused with {payload_bytes} bytes");
                payload_bytes /= 2;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(next > 60, "only {next} appends");
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
    assert!(rig.writer.stop());
    assert_eq!(rig.answers(), [(0, true)]);
    assert!(matches!(
        log.append(vec![entry(ids(1, 1))], rig.answer(1)),
        Err(Error::Stopped)
    ));
}

/// Lets the next sync hang until the first is dropped; the second tells when it does.
fn hang_in_sync(disk: &HookedDisk) -> (mpsc::Sender<()>, mpsc::Receiver<()>) {
    let (release, hanging) = mpsc::channel();
    let (reach, reached) = mpsc::channel();
    disk.on_sync.set(move || {
        drop(reach);
        assert!(hanging.recv().is_err());
    });
    (release, reached)
}

#[test]
fn nobody_waits_for_the_disk_to_append() {
    let disk = HookedDisk::new();
    let writer = DiskWriter::start(disk.clone(), Box::new(|_| {})).unwrap();
    let log = Log::create(options(disk.clone(), &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    let (release, reached) = hang_in_sync(&disk);
    log.append(vec![entry(ids(1, 0))], Box::new(|_| {})).unwrap();
    assert!(reached.recv().is_err(), "the writer is in its sync");
    let (sender, appended) = mpsc::channel();
    let appender = log.clone();
    std::thread::spawn(move || {
        let result = appender.append(vec![entry(ids(1, 1))], Box::new(|_| {}));
        sender.send((result.is_ok(), appender.has_room())).unwrap();
    });
    let appended = appended.recv_timeout(Duration::from_secs(10));
    assert_eq!(appended, Ok((true, true)), "appending waited for the disk");
    drop(release);
    assert!(writer.stop());
}

/// The process must be able to end. What was not synced was not acknowledged.
#[test]
fn neither_closing_nor_stopping_waits_without_end_for_a_disk_that_hangs() {
    let disk = HookedDisk::new();
    let writer = DiskWriter::start(disk.clone(), Box::new(|_| {})).unwrap();
    let log = Log::create(options(disk.clone(), &writer, &TailCache::new(0), PathBuf::from("/1"))).unwrap();
    let (release, _reached) = hang_in_sync(&disk);
    let (sender, answers) = mpsc::channel();
    log.append(
        vec![entry(ids(1, 0))],
        Box::new(move |result| sender.send(result).unwrap()),
    )
    .unwrap();
    let patience = Duration::from_millis(20);
    let closed = log.close_within(patience);
    assert!(matches!(closed, Err(Error::Stalled { .. })), "{closed:?}");
    assert!(!writer.stop_within(patience));
    assert!(answers.try_recv().is_err(), "nothing is answered before it is synced");
    drop(release);
    assert!(writer.stop(), "the disk goes on");
    answers.recv().unwrap().unwrap();
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
