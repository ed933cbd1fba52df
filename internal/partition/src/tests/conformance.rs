//! openraft's own conformance suite over this crate's storage and machine, on real files.
//!
//! The suite does two things that this product never does: it begins logs in the middle and it purges. The wrapper
//! below supplies just that, and nothing else: what stands before the first entry is filled up with blanks and
//! hidden, and a purge hides entries instead of removing them. Every append, read, truncation, vote and commit still
//! goes through the real storage, and applying goes to the real machine. The suite also applies entries that are in no log,
//! and wants snapshots of them; those are kept in memory here. (What snapshots are in this product is tested in `trims`.)

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Mutex};

use highwater_log::{DiskWriter, Log};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, IOFlushed, RaftLogStorage, RaftSnapshotBuilder, RaftStateMachine, Snapshot};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{LogState, RaftLogReader, StorageError};
use tempfile::TempDir;

use super::logs::open_log;
use crate::machine::GroupMachine;
use crate::mending::Mending;
use crate::progress::Progress;
use crate::snapshot::{SnapshotMeta, Snapshots};
use crate::stages::ReplicaStages;
use crate::storage::{GroupReader, GroupStorage};
use crate::types::{
    CommittedLeaderId, LogEntry, LogId, LogPayload, NodeName, Proposal, StoredMembership, TypeConfig, Vote,
};

/// What the wrapper hides.
#[derive(Default)]
struct Hidden {
    /// Entries below this index are not shown.
    first: u64,
    purged: Option<LogId>,
}

/// The real storage, for logs that begin in the middle.
struct SuiteStorage {
    inner: GroupStorage,
    log: Log,
    hidden: Arc<Mutex<Hidden>>,
}

struct SuiteReader {
    inner: GroupReader,
    hidden: Arc<Mutex<Hidden>>,
}

impl SuiteStorage {
    /// Blank entries of `term` up to and without `end`.
    fn fill(&self, term: u64, end: u64) -> Result<(), io::Error> {
        let next = self.log.last().map_or(0, |id| id.index + 1);
        let blanks = (next..end).map(|index| {
            let id = LogId::new(CommittedLeaderId::new(term), index);
            LogEntry::new(id, LogPayload::Blank).into_log()
        });
        let blanks: Vec<_> = blanks.collect::<Result<_, _>>()?;
        if blanks.is_empty() {
            return Ok(());
        }
        let mut hidden = self.hidden.lock().unwrap();
        hidden.first = hidden.first.max(end);
        self.log.append(blanks, Box::new(|_| {})).map_err(io::Error::other)
    }
}

impl RaftLogStorage<TypeConfig> for SuiteStorage {
    type LogReader = SuiteReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let real = self.inner.get_log_state().await?;
        let last_purged_log_id = self.hidden.lock().unwrap().purged;
        Ok(LogState {
            last_purged_log_id,
            last_log_id: real.last_log_id.max(last_purged_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> SuiteReader {
        SuiteReader {
            inner: self.inner.get_log_reader().await,
            hidden: self.hidden.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.inner.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.inner.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.inner.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<LogEntry> = entries.into_iter().collect();
        let last = self.log.last().map_or(0, |id| id.term);
        self.fill(last, entries[0].index())?;
        self.inner.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.inner.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        assert!(
            self.inner.purge(upto).await.is_err(),
            "the real storage must not pretend to purge"
        );
        let mut hidden = self.hidden.lock().unwrap();
        hidden.purged = hidden.purged.max(Some(upto));
        hidden.first = hidden.first.max(upto.index() + 1);
        Ok(())
    }
}

impl RaftLogReader<TypeConfig> for SuiteStorage {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.get_log_reader().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.inner.read_vote().await
    }
}

impl RaftLogReader<TypeConfig> for SuiteReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.inner.try_get_log_entries(self.shown(&range)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.inner.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        self.inner.limited_get_log_entries(start, end).await
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl futures::Stream<Item = Result<LogEntry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.inner.entries_stream(self.shown(&range)).await
    }

    async fn get_key_log_ids(&mut self, range: std::ops::RangeInclusive<LogId>) -> Result<Vec<LogId>, io::Error> {
        self.inner.get_key_log_ids(range).await
    }
}

impl SuiteReader {
    fn shown(&self, range: &impl RangeBounds<u64>) -> (Bound<u64>, Bound<u64>) {
        let first = self.hidden.lock().unwrap().first;
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        (Bound::Included(start.max(first)), range.end_bound().cloned())
    }
}

/// The real machine, with snapshots of entries that are in no log.
struct SuiteMachine {
    inner: GroupMachine,
    installed: Option<SnapshotMeta>,
    snapshot: Option<SnapshotMeta>,
}

struct SuiteSnapshot(SnapshotMeta);

impl SuiteSnapshot {
    fn of(meta: SnapshotMeta) -> Snapshot<CommittedLeaderId, u64, NodeName, ()> {
        Snapshot { meta, snapshot: () }
    }
}

impl RaftSnapshotBuilder<TypeConfig> for SuiteSnapshot {
    type SnapshotData = ();

    async fn build_snapshot(&mut self) -> Result<Snapshot<CommittedLeaderId, u64, NodeName, ()>, io::Error> {
        Ok(SuiteSnapshot::of(self.0.clone()))
    }
}

impl RaftStateMachine<TypeConfig> for SuiteMachine {
    type SnapshotData = ();
    type SnapshotBuilder = SuiteSnapshot;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let applied = self.inner.applied_state().await?;
        match &self.installed {
            Some(meta) if meta.last_log_id > applied.0 => Ok((meta.last_log_id, meta.last_membership.clone())),
            _ => Ok(applied),
        }
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: futures::Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + Send,
    {
        self.inner.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> SuiteSnapshot {
        let (last_log_id, last_membership) = self.applied_state().await.unwrap();
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        self.snapshot = Some(meta.clone());
        SuiteSnapshot(meta)
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, _: ()) -> Result<(), io::Error> {
        self.installed = Some(meta.clone());
        self.snapshot = Some(meta.clone());
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<Snapshot<CommittedLeaderId, u64, NodeName, ()>>, io::Error> {
        Ok(self.snapshot.clone().map(SuiteSnapshot::of))
    }
}

struct Builder;

type Guard = (TempDir, DiskWriter);

impl StoreBuilder<TypeConfig, SuiteStorage, SuiteMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, SuiteStorage, SuiteMachine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let (log, writer) = open_log(&dir.path().join("log"), 1, 1 << 20);
        let (progress, snapshots) = (Arc::new(Progress::new(log.clone())), Snapshots::new(log.clone()));
        let mending = Mending::new(log.clone());
        let machine = SuiteMachine {
            inner: GroupMachine::recover(log.clone(), None, progress.clone(), snapshots.clone(), &mending)
                .await
                .unwrap(),
            installed: None,
            snapshot: None,
        };
        let storage = SuiteStorage {
            inner: GroupStorage::new(log.clone(), progress, snapshots, mending, ReplicaStages::default()),
            log,
            hidden: Arc::default(),
        };
        Ok(((dir, writer), storage, machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_storage_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).await.unwrap();
}

/// The suite knows one entry at a time; replication asks for stretches, and must get a prefix within the byte limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stretch_is_read_in_pieces_without_a_hole() {
    let ((_dir, _writer), mut storage, _machine) = Builder.build().await.unwrap();
    let payload = bytes::Bytes::from(vec![5u8; 300 * 1024]);
    for index in 0..20 {
        let id = LogId::new(CommittedLeaderId::new(1), index);
        let body = highwater_log::Body::Batch(super::cluster::batch_of(1, index, payload.clone()));
        let stopwatch = ReplicaStages::default().begin(Vec::new());
        let entry = LogEntry::new(id, LogPayload::Proposed(Proposal { body, stopwatch }));
        storage.append([entry], IOFlushed::noop()).await.unwrap();
    }
    let mut reader = storage.get_log_reader().await;
    let mut next = 0;
    while next < 20 {
        let piece = reader.limited_get_log_entries(next, 20).await.unwrap();
        assert!((1..=3).contains(&piece.len()), "{} entries of 300 KiB", piece.len());
        for entry in piece {
            assert_eq!(entry.index(), next);
            next += 1;
        }
    }
}
