//! What clients see, and what is done to the cluster meanwhile.

/// One record among all that are sent: the producer's number, and the record's number at that producer.
///
/// Producers are numbered 0, 1, 2, … over the whole run (a new life of a producer is a new producer), and each numbers
/// its records 0, 1, 2, … over all partitions: dense, so that tables of them are plain vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Who sent it.
    pub producer: u32,
    /// Which of that producer's records it is.
    pub number: u32,
}

impl RecordId {
    /// What stands for a value that names no record.
    pub const UNREADABLE: RecordId = RecordId {
        producer: u32::MAX,
        number: u32::MAX,
    };
}

/// Who asked, and from when to when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// One client in its own order.
    pub process: u32,
    /// Before the first attempt, monotonic nanoseconds.
    pub invoked_ns: u64,
    /// After the answer, or when it was given up, monotonic nanoseconds.
    pub returned_ns: u64,
}

/// A batch that was sent, with what the sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    /// Who and when.
    pub span: Span,
    /// Where to.
    pub partition: u32,
    /// The producer's number.
    pub producer: u32,
    /// What `sequence` counts.
    pub numbering: Numbering,
    /// The place among the producer's sends to this partition: rising.
    pub sequence: u64,
    /// The number of the batch's first record; the others follow.
    pub first_number: u32,
    /// What became of it.
    pub outcome: SendOutcome,
}

/// What a sequence counts, and so how strictly it is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// The batches of one producer id on the wire: none may be skipped, and none may land behind a later one. Not for
    /// producers whose batches can be refused without the producer learning of it (conditional appends).
    Wire,
    /// Calls to the client library, which may give one up and go on: acknowledged ones keep their order.
    Calls,
}

/// What the sender was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendOutcome {
    /// It is in the log: the first record at this offset, the others behind it.
    Appended {
        /// Offset of the first record.
        base_offset: u64,
    },
    /// It is certainly not in the log and never will be.
    Refused,
    /// It may be in the log, or get there, once or never.
    Unknown,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever the replica knows to be committed.
    Committed,
    /// Everything below this offset.
    MinOffset {
        /// Exclusive end of what must be there.
        offset: u64,
    },
    /// Everything committed before the call.
    Linearizable,
}

/// A read from one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// Who and when.
    pub span: Span,
    /// Where from.
    pub partition: u32,
    /// The node that served it, or [`NODE_UNKNOWN`](super::NODE_UNKNOWN).
    pub node: u32,
    /// The offset at which the reader is due to go on: the first record must have it.
    pub from: u64,
    /// How fresh it had to be.
    pub freshness: Freshness,
    /// What came of it.
    pub answer: PollAnswer,
}

/// What a reader was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PollAnswer {
    /// The records seen (perhaps none), and the high watermark by which they were cut, exclusive.
    Records {
        /// The first offset not known to be committed.
        high_watermark: u64,
    },
    /// The offset cannot be read any more.
    OutOfRange {
        /// The first offset that can be read.
        log_start: u64,
        /// The first offset not known to be committed.
        high_watermark: u64,
    },
    /// No answer, or an error that says nothing about the log.
    Failed,
}

/// A record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Its place.
    pub offset: u64,
    /// Which record it says it is.
    pub id: RecordId,
    /// The digest of its value.
    pub digest: u64,
}

/// Which offset was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetKind {
    /// The log start.
    Earliest,
    /// The high watermark.
    Latest,
}

/// An offset as the leader confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// Who and when.
    pub span: Span,
    /// Of which partition.
    pub partition: u32,
    /// Which offset.
    pub kind: OffsetKind,
    /// The answer.
    pub offset: u64,
}

/// A scan of a whole partition on one replica, at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Who and when.
    pub span: Span,
    /// Which partition.
    pub partition: u32,
    /// The node that served it, or [`NODE_UNKNOWN`](super::NODE_UNKNOWN).
    pub node: u32,
    /// The first offset that can be read.
    pub log_start: u64,
    /// The end of the log as this replica has it, exclusive.
    pub end: u64,
}

/// A record that a member of the consumer group was given, and is done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handout {
    /// When it was done with at the latest, monotonic nanoseconds.
    pub at_ns: u64,
    /// The member: a new life of one is a new member.
    pub member: u32,
    /// Of which partition.
    pub partition: u32,
    /// Its place.
    pub offset: u64,
}

/// How far the consumer group is on a partition, as the partition's leader told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Who asked, and when.
    pub span: Span,
    /// Of which partition.
    pub partition: u32,
    /// The last claim; 0 if there was none.
    pub claim: u64,
    /// The next offset to consume; 0 also if none was committed.
    pub offset: u64,
}

/// What retention allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionAllowed {
    /// From when on.
    pub at_ns: u64,
    /// Of which partition.
    pub partition: u32,
    /// Everything below this offset may be trimmed; `u64::MAX` where a harness cannot know.
    pub up_to: u64,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// A process is killed.
    Kill,
    /// A process is stopped and goes on later.
    Pause,
    /// Power is lost: unsynced bytes may be gone.
    PowerCut,
    /// Links carry nothing.
    LinkCut,
    /// Links lose, delay, double or reorder.
    LinkLossy,
    /// The disk is full.
    DiskFull,
    /// A write or sync fails.
    DiskError,
    /// The disk is slow.
    DiskSlow,
    /// Bits of stored data change.
    BitRot,
    /// A data directory is removed or replaced.
    Wipe,
    /// The clock jumps.
    Clock,
    /// Members change.
    Membership,
}

/// A fault, and the proof that it was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What was done.
    pub kind: FaultKind,
    /// To whom, or [`NODE_UNKNOWN`](super::NODE_UNKNOWN) for several.
    pub node: u32,
    /// When it began.
    pub begin_ns: u64,
    /// When it had ended.
    pub end_ns: u64,
    /// How much it did, in the unit of `evidence`. At 0 it did nothing and does not count.
    pub bitten: u64,
    /// What was counted, for people: "unsynced bytes lost", "connections cut".
    pub evidence: String,
}

/// Something that must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IncidentKind {
    /// A thread panicked.
    Panic,
    /// A storage error that no fault explains.
    StorageError,
    /// A process ended or began again, and no fault explains it.
    Restart,
    /// A file or descriptor was left behind.
    Leak,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// When it was noticed.
    pub at_ns: u64,
    /// Where.
    pub node: u32,
    /// What.
    pub kind: IncidentKind,
    /// The line that tells it.
    pub text: String,
}
