//! What openraft has cut off, and what a start knows to be committed.

use std::sync::Arc;

use bytes::Bytes;
use highwater_log::{Body, DiskWriter, Entry, EntryId, Log};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use tempfile::TempDir;

use super::logs::open_log;
use crate::mending::Mending;
use crate::progress::Progress;
use crate::snapshot::Snapshots;
use crate::stages::ReplicaStages;
use crate::storage::GroupStorage;
use crate::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, log_id};

/// A log of blanks with a storage over it.
struct Stored {
    log: Log,
    storage: GroupStorage,
    snapshots: Arc<Snapshots>,
    _writer: DiskWriter,
    _dir: TempDir,
}

impl Stored {
    fn new(bodies: impl IntoIterator<Item = Body>) -> Stored {
        let dir = tempfile::tempdir().unwrap();
        let (log, writer) = open_log(&dir.path().join("log"), 1, 1 << 20);
        let progress = Arc::new(Progress::new(log.clone()));
        let snapshots = Snapshots::new(log.clone());
        let storage = GroupStorage::new(
            log.clone(),
            progress,
            snapshots.clone(),
            Mending::new(log.clone()),
            ReplicaStages::default(),
        );
        let stored = Stored {
            log,
            storage,
            snapshots,
            _writer: writer,
            _dir: dir,
        };
        stored.append(1, 0, bodies);
        stored
    }

    fn append(&self, term: u64, first: u64, bodies: impl IntoIterator<Item = Body>) {
        let entries = bodies.into_iter().zip(first..).map(|(body, index)| Entry::Proposed {
            id: EntryId { term, index },
            body,
        });
        self.log.append(entries.collect(), Box::new(|_| {})).unwrap();
    }

    fn last(&self) -> Option<LogId> {
        self.log.last().map(log_id)
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term), index)
}

fn blanks(count: usize) -> impl Iterator<Item = Body> {
    std::iter::repeat_n(Body::Blank, count)
}

#[tokio::test]
async fn a_conflict_is_cut_off_at_once() {
    let mut stored = Stored::new(blanks(10));
    stored.storage.truncate_after(Some(id(1, 4))).await.unwrap();
    assert_eq!(stored.last(), Some(id(1, 4)));
}

/// What the replica has promised must be there until the manifest is that stands for it.
#[tokio::test]
async fn nothing_is_cut_off_while_a_manifest_is_on_its_way_in() {
    let mut stored = Stored::new(blanks(10));
    let installing = stored.snapshots.truncations().installing();
    stored.storage.truncate_after(Some(id(1, 4))).await.unwrap();
    assert_eq!(stored.last(), Some(id(1, 9)));
    drop(installing);
    stored.storage.truncate_after(Some(id(1, 6))).await.unwrap();
    assert_eq!(stored.last(), Some(id(1, 6)), "none is on its way any more");
}

#[tokio::test]
async fn what_was_only_noted_is_cut_off_before_anything_is_appended() {
    let mut stored = Stored::new(blanks(10));
    let installing = stored.snapshots.truncations().installing();
    stored.storage.truncate_after(Some(id(1, 4))).await.unwrap();
    drop(installing); // it was refused
    let entry = LogEntry::new(id(2, 5), LogPayload::Blank);
    stored.storage.append([entry], IOFlushed::noop()).await.unwrap();
    assert_eq!(stored.last(), Some(id(2, 5)));
}

/// openraft does not wait for a manifest that it has ordered before it hands over what another leader appends behind it.
#[tokio::test]
async fn what_stands_behind_a_manifest_is_appended_once_that_is_in() {
    let source = Stored::new(blanks(20));
    source.log.commit(19).unwrap();
    let manifest = source.log.fold_manifest(19).unwrap();
    let mut stored = Stored::new(blanks(10));
    let truncations = stored.snapshots.truncations().clone();
    let _installing = truncations.installing();
    stored.storage.truncate_after(Some(id(1, 4))).await.unwrap();
    let append = stored
        .storage
        .append([LogEntry::new(id(2, 20), LogPayload::Blank)], IOFlushed::noop());
    let log = stored.log.clone();
    let install = async {
        tokio::task::yield_now().await; // the append comes first
        log.install(manifest, Box::new(|_| {})).unwrap();
        truncations.replaced(true);
    };
    let (appended, ()) = tokio::join!(append, install);
    appended.unwrap();
    assert_eq!(stored.last(), Some(id(2, 20)));
}

/// The core ends over it, which it cannot while it waits.
#[tokio::test]
async fn nothing_waits_for_a_manifest_that_could_not_be_put_in() {
    let mut stored = Stored::new(blanks(10));
    let truncations = stored.snapshots.truncations().clone();
    let _installing = truncations.installing();
    let append = stored
        .storage
        .append([LogEntry::new(id(2, 20), LogPayload::Blank)], IOFlushed::noop());
    let fail = async {
        tokio::task::yield_now().await;
        truncations.replaced(false);
    };
    let (appended, ()) = tokio::join!(append, fail);
    appended.unwrap_err();
    assert_eq!(stored.last(), Some(id(1, 9)));
}

/// openraft takes the one for committed too, and must not find the commit point below it.
#[tokio::test]
async fn a_start_knows_that_a_membership_is_committed_once_another_follows() {
    let membership = |name: &'static str| Body::Membership(Bytes::from_static(name.as_bytes()));
    let bodies = [membership("one"), Body::Blank, membership("two"), Body::Blank];
    let mut stored = Stored::new(bodies);
    assert_eq!(stored.storage.read_committed().await.unwrap(), Some(id(1, 0)));
    stored.append(1, 4, [Body::Blank, membership("three")]);
    assert_eq!(stored.storage.read_committed().await.unwrap(), Some(id(1, 2)));
    assert_eq!(stored.log.committed(|state| state.next_index), 3);
    stored.append(1, 6, blanks(3));
    assert_eq!(stored.storage.read_committed().await.unwrap(), Some(id(1, 2)));
}
