//! openraft's storage over one log.
//!
//! `append` hands entries to the log and returns; the log's writer reports when they are synced. A vote is a barrier
//! in the same writer, so waiting for it means that everything before it is synced too, as openraft requires.
//! Readers give a contiguous, byte-capped prefix of what was asked, from the cache if it is there and from the disk,
//! off the async threads, if not. An entry that merely left the cache is never an error, because an error from a
//! reader ends the core. For the same reason a damaged entry is waited for until it is refilled (see `mending`).
//!
//! A purge is the log taking over the manifest that was pinned for it (see `trim`); it is queued here, and done behind
//! everything else by the writer.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use highwater_log::{EntryId, Frame, Grade, Kind, Log};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, RaftLogReader};
use tokio::sync::oneshot;

use crate::error::Error;
use crate::mending::Mending;
use crate::progress::Progress;
use crate::runtime;
use crate::snapshot::Snapshots;
use crate::stages::{ReplicaStages, Stage};
use crate::types::{LogEntry, LogId, LogPayload, TypeConfig, Vote, entry_id, log_id};

/// Most bytes that one read for replication or for applying takes from the log, unless one entry alone is larger.
pub(crate) const READ_BYTES_MAX: usize = 1024 * 1024;

/// How soon to look again for room in the disk's queue. Many groups of one node can together bring more than their disk
/// takes; an append that finds no room would end the core, so it waits.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// The storage of one replica.
pub(crate) struct GroupStorage {
    log: Log,
    progress: Arc<Progress>,
    snapshots: Arc<Snapshots>,
    mending: Arc<Mending>,
    stages: ReplicaStages,
}

impl GroupStorage {
    pub(crate) fn new(
        log: Log,
        progress: Arc<Progress>,
        snapshots: Arc<Snapshots>,
        mending: Arc<Mending>,
        stages: ReplicaStages,
    ) -> GroupStorage {
        GroupStorage {
            log,
            progress,
            snapshots,
            mending,
            stages,
        }
    }
}

impl GroupStorage {
    /// The last membership behind the commit point that another one follows. A leader appends a membership only when the one before is
    /// committed, so all up to that one is. openraft infers the same, and must not find the commit point below it.
    async fn settled_membership(&self) -> Result<Option<LogId>, io::Error> {
        let mut next = self.log.committed(|state| state.next_index);
        let end = self.log.last().map_or(0, |last| last.index + 1);
        let (mut settled, mut last) = (None, None);
        while next < end {
            let frames = read_frames(&self.log, &self.mending, next, end).await?;
            if frames.is_empty() {
                break;
            }
            next += frames.len() as u64;
            for frame in frames.iter().filter(|frame| frame.header.kind == Kind::Membership) {
                settled = last.replace(log_id(frame.id()));
            }
        }
        Ok(settled)
    }
}

impl RaftLogStorage<TypeConfig> for GroupStorage {
    type LogReader = GroupReader;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.log.floor().map(log_id);
        let last_log_id = self.log.last().map(log_id).or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> GroupReader {
        GroupReader {
            log: self.log.clone(),
            mending: self.mending.clone(),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let stored = highwater_log::Vote {
            term: vote.leader_id.term,
            voted_for: Some(vote.leader_id.voted_for),
            committed: vote.committed,
        };
        let (done, synced) = oneshot::channel();
        self.log
            .save_vote(stored, Box::new(move |result| drop(done.send(result))))
            .map_err(io::Error::other)?;
        match synced.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log dropped a vote without syncing it")),
        }
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        match committed {
            Some(id) => self.progress.commit(id.index()).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        if let Some(settled) = self.settled_membership().await? {
            self.progress.commit(settled.index()).map_err(io::Error::other)?;
        }
        Ok(self.log.committed(|state| state.last_entry()).map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = LogEntry> + Send,
        I::IntoIter: Send,
    {
        let mut traces = Vec::new();
        let entries = entries.into_iter().map(|entry| {
            if let LogPayload::Proposed(proposal) = &entry.payload {
                proposal.stopwatch.done(Stage::Queue);
                self.stages.note(entry_id(&entry.log_id()), &proposal.stopwatch);
                traces.extend_from_slice(proposal.stopwatch.traces());
            }
            entry.into_log()
        });
        let entries: Result<Vec<_>, Error> = entries.collect();
        let entries = entries?;
        if let Some(first) = entries.first() {
            let next = || self.log.last().map_or(0, |last| last.index + 1);
            self.snapshots.truncations().make_way(first.id().index, next).await;
        }
        while !self.log.has_room() {
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        if let Some(first) = self.snapshots.truncations().take() {
            self.log.truncate_from(first).map_err(io::Error::other)?;
        }
        let stopwatch = self.stages.begin(traces);
        let done = Box::new(move |result: Result<(), highwater_log::Error>| {
            stopwatch.done(Stage::Sync);
            callback.io_completed(result.map_err(io::Error::other));
        });
        self.log.append(entries, done).map_err(io::Error::other)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let first = last.map_or(0, |id| id.index() + 1);
        if self.snapshots.truncations().note(first) {
            return Ok(());
        }
        self.log.truncate_from(first).map_err(io::Error::other)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let floor = entry_id(&upto);
        if self.log.floor() >= Some(floor) {
            return Ok(()); // an installed manifest brought it
        }
        let Some(manifest) = self.snapshots.pinned_at(floor.index) else {
            return Err(io::Error::other(format!(
                "there is no manifest to purge up to {floor} with"
            )));
        };
        let (log, snapshots) = (self.log.clone(), self.snapshots.clone());
        let purge = move || {
            let done = Box::new(move |result: Result<(), highwater_log::Error>| match result {
                Ok(()) => tracing::info!(%floor, "the log is purged"),
                Err(error) => tracing::error!(%floor, %error, "the log could not be purged"),
            });
            let purged = log.purge(Arc::unwrap_or_clone(manifest), done);
            snapshots.unpin(floor);
            purged
        };
        let purged = runtime::blocking(purge).await.map_err(io::Error::other)?;
        purged.map_err(io::Error::other)
    }
}

/// Reads the log for openraft; one for each follower, one for applying.
#[derive(Clone)]
pub(crate) struct GroupReader {
    log: Log,
    mending: Arc<Mending>,
}

impl GroupReader {
    /// The id of an entry that is damaged here, if it is known all the same.
    async fn id_of_damaged(&self, index: u64) -> Result<Option<LogId>, io::Error> {
        let log = self.log.clone();
        let look = move || match log.read(index, index + 1, 0) {
            Err(error) if error.grade() == Grade::Inside => id_at(&log, index).ok(),
            _ => None,
        };
        runtime::blocking(look).await.map_err(io::Error::other)
    }
}

impl RaftLogReader<TypeConfig> for GroupReader {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (mut next, end) = bounds(&range);
        if next.checked_add(1) == Some(end)
            && let Some(id) = self.id_of_damaged(next).await?
        {
            return Ok(vec![LogEntry::new(id, LogPayload::Elided)]); // openraft asks for one entry to learn its id
        }
        let mut entries = Vec::new();
        while next < end {
            let frames = read_frames(&self.log, &self.mending, next, end).await?;
            if frames.is_empty() {
                break;
            }
            next += frames.len() as u64;
            for frame in frames {
                entries.push(LogEntry::stored(frame)?);
            }
        }
        Ok(entries)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        let Some(vote) = self.log.vote() else {
            return Ok(None);
        };
        let Some(replica) = vote.voted_for else {
            return Err(io::Error::other(format!(
                "the stored vote of term {} is for nobody",
                vote.term
            )));
        };
        Ok(Some(match vote.committed {
            true => Vote::new_committed(vote.term, replica),
            false => Vote::new(vote.term, replica),
        }))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<LogEntry>, io::Error> {
        let frames = read_frames(&self.log, &self.mending, start, end).await?;
        let entries: Result<Vec<_>, Error> = frames.into_iter().map(LogEntry::stored).collect();
        Ok(entries?)
    }

    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<LogEntry, io::Error>> + Send
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        let (next, end) = bounds(&range);
        let state = ApplyRead {
            log: self.log.clone(),
            mending: self.mending.clone(),
            next,
            end,
            frames: Vec::new().into_iter(),
        };
        Box::pin(futures::stream::try_unfold(state, ApplyRead::advance))
    }

    async fn get_key_log_ids(&mut self, range: RangeInclusive<LogId>) -> Result<Vec<LogId>, io::Error> {
        let (first, last) = range.into_inner();
        self.mending.read(move |log| key_log_ids(log, first, last)).await
    }
}

impl openraft::RaftLogReader<TypeConfig> for GroupStorage {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<LogEntry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + Send,
    {
        self.get_log_reader().await.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.get_log_reader().await.read_vote().await
    }
}

/// The reading of entries to apply, piece by piece.
struct ApplyRead {
    log: Log,
    mending: Arc<Mending>,
    next: u64,
    end: u64,
    frames: std::vec::IntoIter<Frame>,
}

impl ApplyRead {
    async fn advance(mut self) -> Result<Option<(LogEntry, ApplyRead)>, io::Error> {
        if self.frames.len() == 0 && self.next < self.end {
            let frames = read_frames(&self.log, &self.mending, self.next, self.end).await?;
            if frames.is_empty() && self.log.last().is_some_and(|last| last.index >= self.next) {
                return Err(io::Error::other(format!("entry {} to apply cannot be read", self.next)));
            }
            self.next += frames.len() as u64;
            self.frames = frames.into_iter();
        }
        match self.frames.next() {
            Some(frame) => Ok(Some((LogEntry::to_apply(frame)?, self))),
            None => Ok(None),
        }
    }
}

/// A contiguous prefix of the entries `start..end`; empty only if there is nothing from `start` on. Waits for what is damaged.
pub(crate) async fn read_frames(log: &Log, mending: &Mending, start: u64, end: u64) -> Result<Vec<Frame>, io::Error> {
    if start >= end {
        return Ok(Vec::new());
    }
    let frames = match log.read_cached(start, end, READ_BYTES_MAX) {
        Some(frames) => frames,
        None => mending.read(move |log| log.read(start, end, READ_BYTES_MAX)).await?,
    };
    for (frame, expected) in frames.iter().zip(start..) {
        if frame.header.id.index != expected {
            let found = frame.header.id.index;
            return Err(io::Error::other(format!(
                "the log gave entry {found} where {expected} stands"
            )));
        }
    }
    Ok(frames)
}

/// Reads all that the core reads when it starts to learn the terms of the log.
pub(crate) fn terms_of(log: &Log) -> Result<(), highwater_log::Error> {
    let Some(last) = log.last() else { return Ok(()) };
    let first = log.floor().map_or(0, |floor| floor.index + 1);
    if first > last.index {
        return Ok(());
    }
    key_log_ids(log, id_at(log, first)?, log_id(last)).map(drop)
}

/// The last entry of each term from `first` to `last`, both inclusive. Terms never go down, so each is found by
/// halving.
fn key_log_ids(log: &Log, first: LogId, last: LogId) -> Result<Vec<LogId>, highwater_log::Error> {
    let mut ids = Vec::new();
    let mut start = first;
    while start.committed_leader_id() != last.committed_leader_id() {
        let end_of_term = last_of_term(log, start, last)?;
        ids.push(end_of_term);
        start = id_at(log, end_of_term.index() + 1)?;
    }
    ids.push(last);
    Ok(ids)
}

/// The last entry with the term of `start`, knowing that `beyond` has a later one.
fn last_of_term(log: &Log, start: LogId, beyond: LogId) -> Result<LogId, highwater_log::Error> {
    let (mut inside, mut outside) = (start, beyond.index());
    while inside.index() + 1 < outside {
        let middle = id_at(log, inside.index() + (outside - inside.index()) / 2)?;
        match middle.committed_leader_id() == start.committed_leader_id() {
            true => inside = middle,
            false => outside = middle.index(),
        }
    }
    Ok(inside)
}

/// Term and index of an entry. That of a damaged one is known if its head is whole, or if the terms before and behind the damage are the
/// same: a record that no member has any more must not keep its group from starting.
pub(crate) fn id_at(log: &Log, index: u64) -> Result<LogId, highwater_log::Error> {
    let known = |index: u64| {
        let id = log.entry_id(index)?;
        id.ok_or(highwater_log::Error::Truncated { index })
    };
    let error = match known(index) {
        Err(error) if error.grade() == Grade::Inside => error,
        id => return id.map(log_id),
    };
    if let Some(id) = log.damaged_entry_id(index)? {
        return Ok(log_id(id));
    }
    let damage = log.damage();
    let range = damage
        .iter()
        .find(|range| (range.first_index..range.end_index).contains(&index));
    let Some((range, before)) = range.and_then(|range| Some((range, range.first_index.checked_sub(1)?))) else {
        return Err(error);
    };
    let (before, behind) = (known(before)?, known(range.end_index)?);
    match before.term == behind.term {
        true => Ok(log_id(EntryId { index, ..before })),
        false => Err(error),
    }
}

/// The half-open range that `range` means.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
