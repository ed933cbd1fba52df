//! How much of a log there is, and how it becomes less.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::store::Store;
use common::world::TestClock;
use common::{batch_of, ids};
use highwater_log::{Body, Entry, Log, LogConfig, OpenLog};

/// A log of 10 batches of 10 kB each, four to a segment.
fn filled(store: &Store, segment_bytes_max: u64) -> Log {
    let options = OpenLog {
        clock: Arc::new(TestClock::default()),
        config: LogConfig {
            segment_bytes_max,
            ..LogConfig::default()
        },
        ..store.options()
    };
    let log = Log::create(options).unwrap();
    for index in 0..10 {
        let payload = Bytes::from(vec![index as u8; 10_000]);
        propose(store, &log, Body::Batch(batch_of(1, index, payload)));
    }
    log
}

fn propose(store: &Store, log: &Log, body: Body) {
    let index = log.last().map_or(0, |last| last.index + 1);
    let id = ids(1, index);
    log.append(vec![Entry::Proposed { id, body }], Box::new(|result| result.unwrap()))
        .unwrap();
    store.rounds();
    log.commit(index).unwrap();
}

#[test]
fn what_is_to_be_kept_begins_with_a_segment_and_is_at_least_that_much() {
    let store = Store::new();
    let log = filled(&store, 45_000);
    let sizes: Vec<u64> = store
        .segments()
        .iter()
        .map(|path| store.disk.bytes(path).unwrap().len() as u64)
        .collect();
    assert_eq!(sizes.len(), 3, "{sizes:?}");
    let all: u64 = log.bytes().unwrap();
    assert!((100_000..110_000).contains(&all), "{all}");
    let records = log.log_end() / 10;
    assert_eq!(log.offset_keeping(all + 1).unwrap(), 0);
    assert_eq!(log.offset_keeping(all).unwrap(), 0);
    assert_eq!(log.offset_keeping(all - sizes[0]).unwrap(), 4 * records);
    assert_eq!(log.offset_keeping(all - sizes[0] + 1).unwrap(), 0);
    assert_eq!(log.offset_keeping(25_000).unwrap(), 4 * records, "rather too much");
    assert_eq!(log.offset_keeping(20_000).unwrap(), 8 * records);
    assert_eq!(log.offset_keeping(1).unwrap(), 8 * records);
    propose(&store, &log, Body::Trim { offset: 5 * records });
    assert_eq!(
        log.offset_keeping(all).unwrap(),
        5 * records,
        "the log start never goes back"
    );
}

#[test]
fn a_segment_whose_records_are_all_trimmed_is_sealed_by_the_next_entry_and_can_go() {
    let store = Store::new();
    let log = filled(&store, 1 << 20);
    assert_eq!(store.segments().len(), 1);
    let end = log.log_end();
    assert!(!log.is_worth_rolling());
    propose(&store, &log, Body::Trim { offset: end - 1 });
    assert!(!log.is_worth_rolling(), "a record is left");
    propose(&store, &log, Body::Trim { offset: end });
    assert!(log.is_worth_rolling());
    assert_eq!(log.floor_for(end).unwrap(), None, "the segment is still appended to");
    propose(&store, &log, Body::Trim { offset: end });
    assert!(!log.is_worth_rolling());
    let floor = log.floor_for(end).unwrap().unwrap();
    let manifest = log.fold_manifest(floor).unwrap();
    store.certain(|done| log.purge(manifest, done));
    assert!(log.bytes().unwrap() < 1_000);
    propose(&store, &log, Body::Batch(batch_of(1, 10, Bytes::from_static(b"more"))));
    assert_eq!(log.read_records(end, 100).unwrap().len(), 1);
}
