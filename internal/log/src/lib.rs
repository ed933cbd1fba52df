//! The segmented log (stub of the public surface; to be replaced file by file).
#![allow(missing_docs, unused, clippy::todo)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

// ---------------------------------------------------------------- ids (ids.rs)

/// 16 random bytes, drawn at founding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);
/// A Raft group: 0 is the catalog, each partition has its own; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);
/// One replica's Raft id; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 16]);
/// A digest of the principal that sends; opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalDigest(pub [u8; 16]);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    pub term: u64,
    pub index: u64,
}
/// Which replica a directory belongs to; stands in its hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: ClusterId,
    pub group_id: GroupId,
    pub replica_id: ReplicaId,
}

// ---------------------------------------------------------------- entries (entry.rs)

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Blank,
    Batch(Batch),
    /// Opaque here; `State::membership` keeps the last one.
    Membership(Bytes),
    /// A command for the group's machine (the catalog); opaque here.
    Command(Bytes),
    Trim {
        offset: u64,
    },
    Claim {
        group: Bytes,
        member: Bytes,
    },
    CommitOffset {
        group: Bytes,
        claim: u64,
        offset: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub producer_id: ProducerId,
    pub principal: PrincipalDigest,
    /// Number of the batch among its producer's batches for this partition: 0, 1, 2, …
    pub sequence: u64,
    pub record_count: u32,
    /// 0 none, 1 lz4, 2 zstd; opaque here.
    pub compression: u8,
    pub expected_offset: Option<u64>,
    pub payload_crc: u32,
    pub payload: Bytes,
}

/// What the fold decided about an entry. Everything but batches is `Accepted`, or `Refused…` for claims and commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Accepted,
    /// The batch had been accepted before.
    Duplicate,
    OffsetMismatch,
    SequenceGap,
    UnknownProducer,
    /// An older batch than the ones remembered: decided once, but how is forgotten.
    Forgotten,
    /// Producer id bound to another principal, or sequence used for other bytes.
    ProducerConflict,
    TooManyProducers,
    StaleClaim,
    OutOfRange,
    TooManyGroups,
}

/// The full answer for one entry; equal on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// Accepted: where the batch stands. Duplicate: where the original stands. Otherwise the log end at that time.
    pub base_offset: u64,
    pub record_count: u32,
    /// Of the original, for a duplicate.
    pub append_time_ms: u64,
    /// SequenceGap: the next sequence. Claim: the claim number.
    pub number: u64,
}

/// An entry as stored: decoded header, encoded header with detail, payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub header: Header,
    /// Encoded header and detail, as on disk and on the wire.
    pub head: Bytes,
    pub payload: Bytes,
}
impl Frame {
    /// Decodes and checks one frame at the start of `bytes` (header checksum, payload CRC); slices, no copy.
    pub fn decode(bytes: &mut Bytes) -> Result<Frame, FormatError> {
        todo!()
    }
    pub fn id(&self) -> EntryId {
        todo!()
    }
    /// The detail decoded, with the payload where the body has one.
    pub fn body(&self) -> Result<Body, FormatError> {
        todo!()
    }
    /// Encoded length: head and payload.
    pub fn len_bytes(&self) -> usize {
        todo!()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Blank,
    Batch,
    Membership,
    Command,
    Trim,
    Claim,
    CommitOffset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    pub verdict: Verdict,
    pub compression: u8,
    pub id: EntryId,
    pub base_offset: u64,
    pub record_count: u32,
    pub detail_bytes: u16,
    pub payload_bytes: u32,
    pub payload_crc: u32,
    pub append_time_ms: u64,
    pub chain: u64,
}

/// An entry to append: new on the leader, or replicated with its frame.
#[derive(Debug, Clone)]
pub enum Entry {
    Proposed { id: EntryId, body: Body },
    Replicated(Frame),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vote {
    pub term: u64,
    pub voted_for: Option<u64>,
    pub committed: bool,
}

// ---------------------------------------------------------------- state (fold/)

/// The fold's state at one index. The same on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub last: EntryId,
    pub chain: u64,
    pub log_start: u64,
    pub log_end: u64,
    pub append_time_ms: u64,
    /// The last membership entry, opaque.
    pub membership: Option<(EntryId, Bytes)>,
    pub groups: BTreeMap<Bytes, GroupState>,
    // producers: private
}
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    pub claim: u64,
    pub member: Bytes,
    pub offset: Option<u64>,
    pub append_time_ms: u64,
}

// ---------------------------------------------------------------- disk, clock (disk/, clock.rs)

pub trait Clock: Send + Sync {
    fn now_ms(&self) -> u64;
}
pub struct SystemClock;
impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        todo!()
    }
}

pub trait DiskFile: Send + Sync {}
pub trait Disk: Send + Sync {}
#[derive(Debug, Default)]
pub struct RealDisk;
impl Disk for RealDisk {}

// ---------------------------------------------------------------- writer, cache

/// One per data directory: drains what all logs queued, writes, syncs each touched file once, completes callbacks in order.
#[derive(Clone)]
pub struct DiskWriter {}
impl DiskWriter {
    /// Starts the writer thread. `on_fatal` is called once, when a write or sync failed: the process must end.
    pub fn start(disk: Arc<dyn Disk>, on_fatal: Box<dyn Fn(&Error) + Send + Sync>) -> Result<DiskWriter, Error> {
        todo!()
    }
    /// A writer without a thread, for simulation: work is done by `run_round`.
    pub fn manual(disk: Arc<dyn Disk>) -> DiskWriter {
        todo!()
    }
    /// One round; false if there was nothing to do.
    pub fn run_round(&self) -> bool {
        todo!()
    }
    /// Waits until everything queued is done, and ends the thread.
    pub fn stop(&self) {
        todo!()
    }
}

/// Recent frames of all logs of a node, bounded in bytes.
pub struct TailCache {}
impl TailCache {
    pub fn new(bytes_max: usize) -> Arc<TailCache> {
        todo!()
    }
}

// ---------------------------------------------------------------- log (log.rs)

#[derive(Debug, Clone)]
pub struct LogConfig {
    pub segment_bytes_max: u64,
    pub read_bytes_max: usize,
}
impl Default for LogConfig {
    fn default() -> Self {
        todo!()
    }
}

pub struct OpenLog {
    pub dir: PathBuf,
    pub identity: Identity,
    pub disk: Arc<dyn Disk>,
    pub clock: Arc<dyn Clock>,
    pub writer: DiskWriter,
    pub cache: Arc<TailCache>,
    pub config: LogConfig,
}

pub type Callback = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A log; cheap to clone.
#[derive(Clone)]
pub struct Log {}
impl Log {
    /// Makes a new, empty log; `dir` must not exist. Synced, with its directory entry, before it returns.
    pub fn create(open: OpenLog) -> Result<Log, Error> {
        todo!()
    }
    /// Opens an existing one and recovers it; refuses another identity.
    pub fn open(open: OpenLog) -> Result<Log, Error> {
        todo!()
    }

    /// Appends at the tail. On return the entries can be read by every clone; `done` is called when they are synced.
    /// Callbacks of one log come in order. Entries must follow on contiguously (else Error::NotContiguous).
    /// Replicated frames whose verdict, base offset or chain differ from this replica's own fold: Error::Diverged.
    pub fn append(&self, entries: Vec<Entry>, done: Callback) -> Result<(), Error> {
        todo!()
    }
    /// Drops all entries after `index`; ordered before every later append; synced before them.
    pub fn truncate_after(&self, index: u64) -> Result<(), Error> {
        todo!()
    }
    /// Durable, with all earlier appends of this log, when `done` is called.
    pub fn save_vote(&self, vote: Vote, done: Callback) -> Result<(), Error> {
        todo!()
    }
    pub fn vote(&self) -> Option<Vote> {
        todo!()
    }

    /// Moves the commit point to `index` (never back; clamped to the tail). Folds what lies between into the committed state.
    pub fn commit(&self, index: u64) -> Result<(), Error> {
        todo!()
    }
    /// The decision about an entry above the floor of memory (uncommitted, or among the last few thousand committed);
    /// None if the term differs or it is forgotten.
    pub fn decision(&self, id: EntryId) -> Option<Decision> {
        todo!()
    }

    /// The committed state.
    pub fn committed<R>(&self, read: impl FnOnce(&State) -> R) -> R {
        todo!()
    }
    /// The commit index noted by the last mark, at open; for openraft's read_committed.
    pub fn noted_commit(&self) -> Option<EntryId> {
        todo!()
    }
    /// Last entry, or None for an empty log.
    pub fn last(&self) -> Option<EntryId> {
        todo!()
    }
    /// First index still here minus one (purged), or None.
    pub fn floor(&self) -> Option<EntryId> {
        todo!()
    }
    pub fn entry_id(&self, index: u64) -> Result<Option<EntryId>, Error> {
        todo!()
    }
    /// Exclusive end of the records appended here, committed or not.
    pub fn log_end(&self) -> u64 {
        todo!()
    }

    /// Frames `start..end` from cache or disk: a contiguous checked prefix, at least one (if start exists), at most
    /// `bytes_max` unless the first alone is larger. Never empty unless start is beyond the tail, never a hole.
    pub fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        todo!()
    }
    /// Like `read` but only if it can be served from memory: None means "ask the disk" (call `read` off the async threads).
    pub fn read_cached(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        todo!()
    }
    /// Batch frames with records, from the one that holds `offset` on, all below the committed high watermark.
    /// Empty if `offset` is the high watermark. Error::BelowStart / Error::AboveEnd otherwise.
    pub fn read_records(&self, offset: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        todo!()
    }
    pub fn read_records_cached(&self, offset: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        todo!()
    }
    /// First offset whose append time is at or after `time_ms`, among committed ones; the high watermark if none.
    pub fn offset_at(&self, time_ms: u64) -> Result<u64, Error> {
        todo!()
    }

    /// Called about once a second by the owner: notes the mark when the log has been quiet for a second, and the checkpoint when due.
    pub fn tick(&self) {
        todo!()
    }
    /// Notes mark and checkpoint, waits for the writer. Not for simulation.
    pub fn close(&self) -> Result<(), Error> {
        todo!()
    }
}

// ---------------------------------------------------------------- errors

#[derive(Debug, Clone, thiserror::Error)]
pub enum FormatError {
    #[error("short")]
    Short,
}

/// Cloneable, because one failed sync fails many callbacks.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    #[error("poisoned")]
    Poisoned,
}
