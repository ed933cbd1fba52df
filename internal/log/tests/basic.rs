//! The log from outside, on the operating system's files with a real writer thread.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::mpsc;

use common::{Sent, batch, identity, ids, payloads};
use highwater_log::{
    DiskWriter, Entry, Error, Log, LogConfig, OpenLog, RealDisk, SystemClock, TailCache, Verdict, Vote,
};

struct Node {
    dir: tempfile::TempDir,
    writer: DiskWriter,
    cache: Arc<TailCache>,
    config: LogConfig,
}

impl Node {
    fn new(segment_bytes_max: u64, cache_bytes: usize) -> Node {
        Node {
            dir: tempfile::tempdir().unwrap(),
            writer: DiskWriter::start(Arc::new(RealDisk), Box::new(|error| panic!("{error}"))).unwrap(),
            cache: TailCache::new(cache_bytes),
            config: LogConfig {
                segment_bytes_max,
                ..LogConfig::default()
            },
        }
    }

    fn open_log(&self, name: &str) -> OpenLog {
        OpenLog {
            dir: self.dir.path().join(name),
            identity: identity(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(SystemClock),
            writer: self.writer.clone(),
            cache: self.cache.clone(),
            config: self.config.clone(),
        }
    }
}

/// Appends and waits until it is synced.
fn append(log: &Log, entries: Vec<Entry>) {
    let (sender, receiver) = mpsc::channel();
    log.append(entries, Box::new(move |result| sender.send(result).unwrap()))
        .unwrap();
    receiver.recv().unwrap().unwrap();
}

#[test]
fn what_was_appended_is_read_again_after_a_reopen() {
    let node = Node::new(4096, 0);
    let log = Log::create(node.open_log("1")).unwrap();
    let mut sent = Sent::default();
    for index in 0..200 {
        append(&log, vec![sent.batch(index)]);
    }
    log.commit(149).unwrap();
    assert_eq!(payloads(&log), sent.payloads);
    log.close().unwrap();
    drop(log);

    let log = Log::open(node.open_log("1")).unwrap();
    assert_eq!(log.last(), Some(ids(1, 199)));
    assert_eq!(log.noted_commit(), Some(ids(1, 149)));
    assert_eq!(log.log_end(), 200);
    assert_eq!(payloads(&log), sent.payloads);
    append(&log, vec![sent.batch(200)]);
    assert_eq!(payloads(&log), sent.payloads);
}

#[test]
fn readers_see_entries_before_they_are_synced() {
    let node = Node::new(1 << 20, 0);
    let log = Log::create(node.open_log("1")).unwrap();
    log.append(vec![batch(1, 0, 0, 1)], Box::new(|_| {})).unwrap();
    assert_eq!(log.read(0, 1, 1 << 20).unwrap().len(), 1);
}

#[test]
fn a_vote_is_there_after_a_reopen() {
    let node = Node::new(1 << 20, 1 << 20);
    let log = Log::create(node.open_log("1")).unwrap();
    assert_eq!(log.vote(), None);
    let (sender, receiver) = mpsc::channel();
    let vote = Vote {
        term: 7,
        voted_for: Some(3),
        committed: false,
    };
    log.save_vote(vote, Box::new(move |result| sender.send(result).unwrap()))
        .unwrap();
    receiver.recv().unwrap().unwrap();
    drop(log);
    assert_eq!(Log::open(node.open_log("1")).unwrap().vote(), Some(vote));
}

#[test]
fn a_directory_of_another_replica_is_refused() {
    let node = Node::new(1 << 20, 1 << 20);
    drop(Log::create(node.open_log("1")).unwrap());
    let mut open = node.open_log("1");
    open.identity.replica_id.0 += 1;
    assert!(matches!(Log::open(open), Err(Error::WrongIdentity { .. })));
    assert!(matches!(
        Log::create(node.open_log("1")),
        Err(Error::AlreadyExists { .. })
    ));
}

#[test]
fn truncated_entries_are_replaced_by_others() {
    let node = Node::new(2048, 0);
    let log = Log::create(node.open_log("1")).unwrap();
    let mut sent = Sent::default();
    for index in 0..50 {
        append(&log, vec![sent.batch(index)]);
    }
    log.truncate_after(9).unwrap();
    let mut again = Sent {
        term: 2,
        ..sent.cut(10)
    };
    for index in 10..30 {
        append(&log, vec![again.batch(index)]);
    }
    assert_eq!(payloads(&log), again.payloads);
    drop(log);
    let log = Log::open(node.open_log("1")).unwrap();
    assert_eq!(payloads(&log), again.payloads);
    assert_eq!(log.last(), Some(ids(2, 29)));
}

#[test]
fn a_follower_takes_the_leaders_frames_and_makes_the_same_files() {
    let node = Node::new(2048, 1 << 20);
    let leader = Log::create(node.open_log("1")).unwrap();
    let follower = Log::create(node.open_log("2")).unwrap();
    let mut sent = Sent::default();
    for index in 0..40 {
        append(&leader, vec![sent.batch(index)]);
    }
    let mut start = 0;
    while start < 40 {
        let frames = leader.read(start, 40, 1000).unwrap();
        start += frames.len() as u64;
        append(&follower, frames.into_iter().map(Entry::Replicated).collect());
    }
    for first_index in std::fs::read_dir(node.dir.path().join("1")).unwrap() {
        let name = first_index.unwrap().file_name();
        if name.to_string_lossy().ends_with(".log") {
            let one = std::fs::read(node.dir.path().join("1").join(&name)).unwrap();
            assert_eq!(
                one,
                std::fs::read(node.dir.path().join("2").join(&name)).unwrap(),
                "{name:?}"
            );
        }
    }
    assert_eq!(follower.decision(ids(1, 39)).unwrap().verdict, Verdict::Accepted);
    follower.commit(39).unwrap();
    assert_eq!(follower.decision(ids(1, 39)), None, "nobody here waits for an answer");
}
