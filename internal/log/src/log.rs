//! The log's handle: appends, truncations, votes, commits. Reading is in `reader`, opening in `recovery`.
//!
//! Every change happens in two steps: in memory, under the lock, and as a job for the disk writer, queued under the same lock; so the
//! order on disk is the order in memory. Nothing here waits for the disk, except `close`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use bytes::Bytes;

use crate::cache::{CacheKey, TailCache};
use crate::checkpoint::CHECKPOINT;
use crate::clock::Clock;
use crate::create;
use crate::disk::Disk;
use crate::entry::{Body, Decision, Entry, Frame, Header, Vote};
use crate::error::Error;
use crate::fold::State;
use crate::format::checkpoint::Checkpoint;
use crate::format::detail::Parts;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES};
use crate::format::frame::HEADER_BYTES;
use crate::ids::{EntryId, Identity};
use crate::mend::OnDamage;
use crate::mutant;
use crate::recovery::{self, Recovered};
use crate::repair::Repair;
use crate::round::Op;
use crate::segment::Segment;
use crate::space::Space;
use crate::tail::{CheckpointNote, LogState};
use crate::writer::{Callback, DiskWriter};

/// For how long nothing must have changed before the mark is noted.
const QUIET_MS: u64 = 1_000;
/// How often the checkpoint is renewed while entries are committed.
const CHECKPOINT_INTERVAL_MS: u64 = 30_000;

/// A log that did not change for so long lets go of what it can make again: open files, indexes, decisions that were asked for.
const IDLE_MS: u64 = 10_000;

/// Decisions kept of committed batches. Whoever has at most so many proposals unanswered finds the decision about each, in however
/// few steps they are committed, unless the log has been idle for ten seconds since.
pub const DECISIONS_KEPT: usize = 8 * 1024;

/// For how long `close` waits for the disk.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Sizes of a log; they may differ between replicas and between starts.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// A segment that would grow beyond this is sealed (a single larger frame still gets its own).
    pub segment_bytes_max: u64,
    /// No read returns more than this, unless a single frame is larger.
    pub read_bytes_max: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes_max: 128 * 1024 * 1024,
            read_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// What a log needs; cheap to clone.
#[derive(Clone)]
pub struct OpenLog {
    /// The log's own directory.
    pub dir: PathBuf,
    /// Whose log it is.
    pub identity: Identity,
    /// Where it lies.
    pub disk: Arc<dyn Disk>,
    /// Stamps proposed entries.
    pub clock: Arc<dyn Clock>,
    /// The data directory's writer.
    pub writer: DiskWriter,
    /// The node's cache.
    pub cache: Arc<TailCache>,
    /// Sizes.
    pub config: LogConfig,
}

/// What an opening comes to.
pub enum Opened {
    /// It is open, maybe with damage inside that it refills while it runs ([`Log::damage`]).
    Log(Log),
    /// Entries are damaged that have to be folded: it opens once they are put back, see [`Repair::take_log`].
    Repair(Box<Repair>),
}

/// A log; cheap to clone.
#[derive(Clone)]
pub struct Log {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) open: OpenLog,
    pub(crate) cached: Arc<CacheKey>,
    pub(crate) on_damage: Mutex<Option<OnDamage>>,
    state: Mutex<LogState>,
}

impl Log {
    /// Makes a new, empty log; `dir` must not exist, its parent must. Synced, with its directory entry, before it returns.
    pub fn create(open: OpenLog) -> Result<Log, Error> {
        create::create(&open)?;
        Log::open(open)
    }

    /// Opens an existing one and recovers it; refuses another identity. What it finds at the end is synced before it returns.
    /// There are three results: a log, maybe with damage inside that it refills while it runs ([`Log::damage`]); `Error::NeedsRefill`: see
    /// [`crate::Repair`]; and an error of [`crate::Grade::Dead`].
    pub fn open(open: OpenLog) -> Result<Log, Error> {
        match recovery::recover(&open)? {
            Recovered::Open(state) => Ok(Log::with_state(open, *state)),
            Recovered::Damaged(damaged) => Err(damaged.error),
        }
    }

    /// The same, but what `Error::NeedsRefill` stands for is ready to be mended: everything has been read once, which takes long in a large
    /// log, and need not be read again for that.
    pub fn open_or_repair(open: OpenLog) -> Result<Opened, Error> {
        match recovery::recover(&open)? {
            Recovered::Open(state) => Ok(Opened::Log(Log::with_state(open, *state))),
            Recovered::Damaged(damaged) => Ok(Opened::Repair(Box::new(Repair::of(open, *damaged)?))),
        }
    }

    /// The log that a recovery has come to.
    pub(crate) fn with_state(open: OpenLog, state: LogState) -> Log {
        let cached = open.cache.join(state.tail.next_index);
        Log {
            inner: Arc::new(Inner {
                open,
                cached,
                on_damage: Mutex::default(),
                state: Mutex::new(state),
            }),
        }
    }

    /// Whose log it is.
    pub fn identity(&self) -> Identity {
        self.inner.open.identity
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, LogState> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends at the tail. On return the entries can be read by every clone; `done` is called when they are synced.
    /// Callbacks of one log come in order. Entries must follow on contiguously (else Error::NotContiguous).
    /// Replicated frames whose verdict, base offset or chain differ from this replica's own fold: Error::Diverged.
    /// All or nothing; on an error `done` is not called. What is proposed must pass [`Body::check`].
    pub fn append(&self, entries: Vec<Entry>, done: Callback) -> Result<(), Error> {
        let open = &self.inner.open;
        let mut state = self.lock();
        open.writer.admit(entries.iter().map(entry_bytes).sum())?;
        let now_ms = open.clock.now_ms();
        let mut folded = Vec::with_capacity(entries.len());
        for entry in entries {
            match state.fold_entry(entry, now_ms) {
                Ok(entry) => folded.push(entry),
                Err(error) => {
                    state.rebuild_tail();
                    return Err(error);
                }
            }
        }
        let mut ops = Vec::new();
        let mut frames = Vec::with_capacity(folded.len());
        for entry in folded {
            self.roll_if_due(&mut state, &entry.frame, &mut ops);
            let (frame, position) = state.place(entry);
            push_write(&mut ops, &state.active.segment, position, &frame);
            frames.push(frame);
        }
        state.changed_ms = now_ms;
        let generation = self.inner.cached.push(frames);
        let index_end = state.tail.next_index;
        self.submit(ops, generation, index_end, done)
    }

    /// Bytes of all entries appended since the log was opened, also of those that were truncated again. Never goes down.
    pub fn appended_bytes(&self) -> u64 {
        self.lock().appended_bytes
    }

    /// Whether the disk keeps up. Appending without room goes well until the queue is full, and is an error then; an owner
    /// of many logs, whose appends together can be more than the disk takes, waits for room before each.
    pub fn has_room(&self) -> bool {
        self.inner.open.writer.has_room()
    }

    /// How much room there is on the disk, see [`DiskWriter::space`].
    pub fn space(&self) -> Space {
        self.inner.open.writer.space()
    }

    /// Queues a job; when it is done, everything below `index_end` is on disk.
    pub(crate) fn submit(&self, ops: Vec<Op>, generation: u64, index_end: u64, done: Callback) -> Result<(), Error> {
        let cached = self.inner.cached.clone();
        let reported = move |result: Result<(), Error>| {
            if result.is_ok() {
                cached.written(generation, index_end);
            }
            done(result);
        };
        self.inner.open.writer.submit(ops, Box::new(reported))
    }

    fn roll_if_due(&self, state: &mut LogState, frame: &Frame, ops: &mut Vec<Op>) {
        let open = &self.inner.open;
        let full = state.active.end + frame.len_bytes() as u64 > open.config.segment_bytes_max;
        let due = full || state.is_trimmed_up_to(frame.header.base_offset);
        if !due || state.active.end == SEGMENT_HEADER_BYTES {
            return;
        }
        self.seal(state, &frame.header, ops);
        let mark = Mark {
            segment_first_index: state.active.segment.header.first_index,
            position: state.active.end,
            last_term: state.active.before.term,
            index_end: frame.header.id.index,
            chain: state.active.before.chain,
            commit_end: state.committed.next_index.min(frame.header.id.index),
        };
        if !mutant!("checkpoint ahead of the log") {
            ops.push(Op::Sync);
        }
        ops.push(state.hard.set_mark(mark));
        self.push_checkpoint(state, ops);
    }

    /// Seals the active segment and starts the one that begins with `first`.
    fn seal(&self, state: &mut LogState, first: &Header, ops: &mut Vec<Op>) {
        let open = &self.inner.open;
        let last = EntryId {
            term: state.active.before.term,
            index: first.id.index - 1,
        };
        if state.active.sparse.is_complete() {
            let bytes = Bytes::from(state.active.encode_index(last, first.base_offset));
            ops.push(Op::Replace {
                path: state.active.segment.index_path(),
                bytes,
            });
        }
        ops.push(cut_prepared(state));
        state.roll(&open.dir, &open.identity, first);
        let segment = &state.active.segment;
        ops.push(Op::Create {
            file: segment.file.clone(),
            head: Bytes::from(segment.header.encode()),
        });
    }

    /// Must stand behind an `Op::Sync`: a checkpoint must never be ahead of the synced log.
    pub(crate) fn push_checkpoint(&self, state: &mut LogState, ops: &mut Vec<Op>) {
        if state.committed.next_index == state.checkpoint.next_index {
            return;
        }
        let open = &self.inner.open;
        let checkpoint = Checkpoint {
            cluster_id: open.identity.cluster_id,
            group_id: open.identity.group_id,
            segment_first_index: state.committed_at.segment_first_index,
            position: state.committed_at.position,
            state: state.committed.clone(),
        };
        ops.push(Op::Replace {
            path: open.dir.join(CHECKPOINT),
            bytes: Bytes::from(checkpoint.encode()),
        });
        state.checkpoint = CheckpointNote {
            next_index: state.committed.next_index,
            noted_ms: open.clock.now_ms(),
        };
    }

    /// Drops all entries after `index`; ordered before every later append; synced before them.
    pub fn truncate_after(&self, index: u64) -> Result<(), Error> {
        self.truncate_from(index.saturating_add(1))
    }

    /// Drops all entries from `first` on; `truncate_from(0)` empties the log. Committed entries cannot be dropped.
    pub fn truncate_from(&self, first: u64) -> Result<(), Error> {
        let open = &self.inner.open;
        let mut state = self.lock();
        if first >= state.tail.next_index {
            return Ok(());
        }
        let Some(position) = state.pending(first).map(|pending| pending.position) else {
            return Err(Error::TruncatesCommitted {
                first,
                committed_end: state.committed.next_index,
            });
        };
        open.writer.admit(0)?;
        let was_active = state.active.segment.clone();
        let gone = state.drop_from(first, position);
        let mut ops = Vec::new();
        let mark = state.hard.mark();
        if mark.index_end > first {
            // Lowered and synced before anything is cut: what lies below the mark must be whole at every moment.
            let lowered = Mark {
                commit_end: mark.commit_end.min(first),
                ..state.mark_here()
            };
            ops.extend([state.hard.set_mark(lowered), Op::Sync]);
        }
        for segment in gone {
            ops.push(Op::Remove {
                path: segment.file.path.clone(),
            });
            ops.push(Op::Remove {
                path: segment.index_path(),
            });
        }
        let segment = &state.active.segment;
        if !Arc::ptr_eq(segment, &was_active) {
            ops.push(Op::Remove {
                path: segment.index_path(),
            });
        }
        ops.extend([
            Op::Cut {
                file: segment.file.clone(),
                bytes: position,
            },
            Op::Sync,
        ]);
        if mutant!("stale frame accepted after truncation") {
            ops.clear();
        }
        if mutant!("vote lost by truncation") {
            ops.push(state.hard.forget_vote());
        }
        state.changed_ms = open.clock.now_ms();
        let generation = self.inner.cached.truncate(first);
        self.submit(ops, generation, first, Box::new(|_| {}))
    }

    /// Durable, with all earlier appends of this log, when `done` is called. On an error `done` is not called.
    pub fn save_vote(&self, vote: Vote, done: Callback) -> Result<(), Error> {
        let mut state = self.lock();
        self.inner.open.writer.admit(0)?;
        state.changed_ms = self.inner.open.clock.now_ms();
        let op = state.hard.set_vote(vote);
        self.inner.open.writer.submit(vec![op], done)
    }

    /// The last vote saved.
    pub fn vote(&self) -> Option<Vote> {
        self.lock().hard.vote()
    }

    /// Moves the commit point to `index` (never back; clamped to the tail). Folds what lies between into the committed state.
    pub fn commit(&self, index: u64) -> Result<(), Error> {
        self.lock().commit_to(index.saturating_add(1))
    }

    /// The decision about an entry: any that is uncommitted, and of the committed ones the last [`DECISIONS_KEPT`] batches that were
    /// proposed here. None if the term differs or it is not kept.
    pub fn decision(&self, id: EntryId) -> Option<Decision> {
        self.lock()
            .decided(id.index)
            .filter(|(found, _)| *found == id)
            .map(|(_, decision)| decision)
    }

    /// The committed state. `read` runs under the log's lock: it must be quick and must not call the log.
    pub fn committed<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        read(&self.lock().committed)
    }

    /// The last entry known to be committed when the log was opened; for Raft to start from.
    pub fn noted_commit(&self) -> Option<EntryId> {
        self.lock().noted_commit
    }

    /// Last entry, or None for an empty log.
    pub fn last(&self) -> Option<EntryId> {
        self.lock().tail.last_entry()
    }

    /// An entry of which it is certain that it and all before it are on the disk, the last such one if it is at hand; None
    /// if none is.
    pub fn certain_last(&self) -> Option<EntryId> {
        let state = self.lock(); // held, so that nothing is truncated in between
        let index = self.inner.cached.written_end().checked_sub(1)?;
        let last = state.tail.last_entry().filter(|last| last.index == index);
        last.or_else(|| self.inner.cached.id_at(index))
    }

    /// The last entry that was purged, or None.
    pub fn floor(&self) -> Option<EntryId> {
        self.manifest().map(|manifest| manifest.last())
    }

    /// Exclusive end of the records appended here, committed or not.
    pub fn log_end(&self) -> u64 {
        self.lock().tail.log_end
    }

    /// Called about once a second by the owner: notes the mark when the log has been quiet for a second, and the checkpoint when due.
    pub fn tick(&self) {
        if self.inner.open.writer.admit(0).is_err() {
            return; // it has failed or is full; nobody waits for the mark
        }
        let now_ms = self.inner.open.clock.now_ms();
        let mut state = self.lock();
        let quiet = now_ms.saturating_sub(state.changed_ms) >= QUIET_MS;
        if now_ms.saturating_sub(state.changed_ms) >= IDLE_MS {
            state.rest();
        }
        let due = now_ms.saturating_sub(state.checkpoint.noted_ms) >= CHECKPOINT_INTERVAL_MS;
        let mut ops = vec![Op::Sync];
        if quiet && (state.hard.mark() != state.mark_here() || !state.hard.is_doubled()) {
            let mark = state.mark_here();
            ops.push(state.hard.set_mark(mark));
        }
        if due {
            self.push_checkpoint(&mut state, &mut ops);
        }
        if ops.len() > 1 {
            if mutant!("checkpoint ahead of the log") {
                ops.remove(0);
            }
            // A refusal means that the writer has failed meanwhile.
            let _ = self.inner.open.writer.submit(ops, Box::new(|_| {}));
        }
    }

    /// Notes mark and checkpoint, waits for the writer; a few seconds at most (`Error::Stalled`), then the next start recovers as after
    /// a crash. Not for simulation.
    pub fn close(&self) -> Result<(), Error> {
        self.close_within(CLOSE_PATIENCE)
    }

    /// Like `close`, with the time to wait.
    pub fn close_within(&self, patience: Duration) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel();
        self.note_end(Box::new(move |result| drop(sender.send(result))))?;
        receiver.recv_timeout(patience).unwrap_or_else(|error| match error {
            mpsc::RecvTimeoutError::Timeout => Err(Error::Stalled { waited: patience }),
            mpsc::RecvTimeoutError::Disconnected => Err(Error::Stopped),
        })
    }

    /// Like `close`, but does not wait: `done` is called when mark and checkpoint are synced.
    pub fn note_end(&self, done: Callback) -> Result<(), Error> {
        let mut state = self.lock();
        let mark = state.mark_here();
        let mut ops = vec![cut_prepared(&state), Op::Sync, state.hard.set_mark(mark)];
        self.push_checkpoint(&mut state, &mut ops);
        self.inner.open.writer.submit(ops, done)
    }
}

/// Cuts the prepared space behind the last frame.
fn cut_prepared(state: &LogState) -> Op {
    Op::Cut {
        file: state.active.segment.file.clone(),
        bytes: state.active.end,
    }
}

/// About the bytes an entry takes in the queue.
fn entry_bytes(entry: &Entry) -> usize {
    match entry {
        Entry::Replicated(frame) => frame.len_bytes(),
        Entry::Proposed {
            body: Body::Batch(batch),
            ..
        } => 2 * HEADER_BYTES + batch.payload.len(),
        Entry::Proposed { body, .. } => 2 * HEADER_BYTES + Parts::of(body.clone()).payload.len(),
    }
}

/// Adds a frame to the last write, if it goes right behind it, or starts another.
fn push_write(ops: &mut Vec<Op>, segment: &Arc<Segment>, position: u64, frame: &Frame) {
    let mut new = [frame.head.clone(), frame.payload.clone()]
        .into_iter()
        .filter(|part| !part.is_empty());
    if let Some(Op::Write { parts, .. }) = ops.last_mut() {
        parts.extend(new); // a roll would stand between them
        return;
    }
    ops.push(Op::Write {
        file: segment.file.clone(),
        position,
        parts: new.by_ref().collect(),
    });
}
