//! Who has caught up with logs that grow and logs that do not.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use highwater_log::{Body, Entry, EntryId};

use super::*;
use crate::tests::logs::open_log;

fn log(cache_bytes: usize) -> (Log, impl Sized) {
    let dir = tempfile::tempdir().unwrap();
    let (log, writer) = open_log(&dir.path().join("log"), 1, cache_bytes);
    (log, (writer, dir))
}

/// Appends commands of so many bytes; answers where the log ends when they are on disk.
fn grow(log: &Log, entries: u64, bytes: usize) -> u64 {
    let first = end_index(log);
    let new = (first..first + entries).map(|index| Entry::Proposed {
        id: EntryId { term: 1, index },
        body: Body::Command(vec![0; bytes].into()),
    });
    let (done, synced) = std::sync::mpsc::channel();
    let done = move |result: Result<(), highwater_log::Error>| done.send(result).unwrap();
    log.append(new.collect(), Box::new(done)).unwrap();
    synced.recv().unwrap().unwrap();
    first + entries
}

#[test]
fn who_has_what_the_log_held_a_moment_ago_has_caught_up_under_load() {
    let (log, _files) = log(16 << 20);
    let former_end = FormerEnd::new(&log);
    let mut acknowledged = grow(&log, 10_000, 10);
    for second in 0..10 {
        former_end.note(&log);
        let end = grow(&log, 10_000, 10);
        assert!(keeps_up(&log, acknowledged, former_end.index()), "in second {second}");
        acknowledged = end;
    }
}

#[test]
fn who_stays_behind_has_not_caught_up() {
    let (log, _files) = log(16 << 20);
    let former_end = FormerEnd::new(&log);
    let end = grow(&log, 1_000, 10);
    assert!(keeps_up(&log, end, former_end.index()));
    grow(&log, 1, 10);
    assert!(keeps_up(&log, end, former_end.index()), "the new entry is on its way");
    former_end.note(&log);
    assert!(keeps_up(&log, end, former_end.index()), "it may have come just before");
    former_end.note(&log);
    assert!(
        !keeps_up(&log, end, former_end.index()),
        "one entry, but it has had its time"
    );
    assert!(keeps_up(&log, end + 1, former_end.index()));
}

#[test]
fn who_lacks_much_or_what_the_cache_has_lost_has_not_caught_up() {
    for (cache_bytes, entries, keeps) in [(16 << 20, 3, true), (16 << 20, 5, false), (0, 3, false)] {
        let (log, _files) = log(cache_bytes);
        let former_end = FormerEnd::new(&log);
        grow(&log, entries, 1 << 20);
        assert_eq!(keeps_up(&log, 0, former_end.index()), keeps, "{entries} MiB");
    }
}
