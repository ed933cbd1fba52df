//! What the checker found.
//!
//! A verdict stands on its own: names, figures, the seed, and for each violation the events that prove it, in words.

use serde::Serialize;

use crate::history::{EventRef, FaultKind};

/// What must hold. The numbers are those of the project's list and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Invariant {
    /// Every acknowledged record is in the final scan at its offset, on every replica (unless trimmed).
    I1,
    /// An offset of a partition has one value: in all answers, reads, scans, on all replicas, for ever.
    I2,
    /// A record is at one offset at most; at none if it was refused; only in the partition it was sent to.
    I3,
    /// Offsets are dense: no holes.
    I4,
    /// What was acknowledged before another send began has the lower offset.
    I5,
    /// Only committed records are served; fresh reads are fresh; what is told as committed never shrinks, in real time for
    /// confirmed answers, in its own order for each client.
    I6,
    /// A producer's order is the order of offsets; on the wire none of its batches is skipped.
    I7,
    /// A reader's next record is at the offset where it is due to go on.
    I8,
    /// All records of a batch are there, next to each other, or none.
    I9,
    /// A consumer group's claims and positions never go back, in real time, and everything below a position is done.
    I10,
    /// The log start only rises, never past what retention allows; reads below it are told so, reads above are not refused.
    I11,
    /// What is read is, byte for byte, what was sent.
    I12,
    /// A replica comes back with everything that it said it holds.
    I13,
    /// One leader a term; one vote a replica and term; terms and votes never go back; the dead do not speak.
    I14,
    /// Logs match: same index and term, same log up to there; what is committed never changes, and was on a quorum.
    I15,
    /// At rest after the last fault: soon, one leader, one membership, equal logs, writes and reads served.
    I16,
    /// No panic, no unexplained storage error or restart, nothing left behind.
    I17,
    /// The run could have shown a violation: enough operations, and faults that bit. Broken, it makes a run void.
    I18,
}

impl Invariant {
    /// All, in order.
    pub const ALL: [Invariant; 18] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I10,
        Self::I11,
        Self::I12,
        Self::I13,
        Self::I14,
        Self::I15,
        Self::I16,
        Self::I17,
        Self::I18,
    ];

    /// A few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "acknowledged is kept",
            Self::I2 => "one value an offset",
            Self::I3 => "no duplicates",
            Self::I4 => "dense offsets",
            Self::I5 => "order in real time",
            Self::I6 => "committed only, fresh if asked",
            Self::I7 => "order of a producer",
            Self::I8 => "readers skip nothing",
            Self::I9 => "whole batches",
            Self::I10 => "consumer groups",
            Self::I11 => "trimmed only as allowed",
            Self::I12 => "bytes as sent",
            Self::I13 => "replicas keep what they acknowledge",
            Self::I14 => "one leader, one vote",
            Self::I15 => "logs match",
            Self::I16 => "heals",
            Self::I17 => "no incidents",
            Self::I18 => "a run that proves something",
        }
    }

    pub(crate) fn place(self) -> usize {
        self as usize
    }
}

/// The result in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nothing was violated, and it could have been.
    Pass,
    /// Something was violated.
    Fail,
    /// Nothing was violated, but that proves nothing.
    Void,
}

/// Where a violation is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The partition's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The Raft index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u64>,
    /// The replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replica: Option<u64>,
}

/// An event that proves a violation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// Which row of the history.
    pub event: EventRef,
    /// The row in words.
    pub line: String,
}

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What it violates.
    pub invariant: Invariant,
    /// What kind of violation it is, in two or three fixed words: `lost write`, `stale read`.
    pub what: &'static str,
    /// Where it is.
    pub place: Place,
    /// What is wrong, with the values.
    pub message: String,
    /// The events that show it.
    pub events: Vec<Proof>,
}

/// How much there was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Sends: batches, or calls.
    pub sends: u64,
    /// Records in them.
    pub records_sent: u64,
    /// Records acknowledged.
    pub records_acknowledged: u64,
    /// Records certainly not applied.
    pub records_refused: u64,
    /// Records of unknown outcome.
    pub records_unknown: u64,
    /// Of those, how many were found in the log.
    pub records_unknown_found: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Records seen by them.
    pub records_read: u64,
    /// Reads that failed.
    pub reads_failed: u64,
    /// Confirmed offsets.
    pub offsets: u64,
    /// Final scans.
    pub scans: u64,
    /// Records seen by them.
    pub records_scanned: u64,
    /// Dumps of replicas.
    pub dumps: u64,
    /// Entries in them.
    pub entries: u64,
    /// Promises of replicas, and leaders seen.
    pub promises: u64,
}

/// The faults of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultFigure {
    /// The kind.
    pub kind: FaultKind,
    /// How many there were.
    pub count: u64,
    /// How many of them did something.
    pub bit: u64,
    /// What they did in all, in the words of their evidence.
    pub effects: Vec<(String, u64)>,
}

/// What was done about one invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Which.
    pub invariant: Invariant,
    /// How many facts were held against it; 0: it was not judged.
    pub checked: u64,
    /// How many violated it, also those that are not listed.
    pub violated: u64,
}

/// The checker's judgement of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The result.
    pub outcome: Outcome,
    /// The run's title.
    pub title: String,
    /// The run's seed.
    pub seed: u64,
    /// From the first event to the last, nanoseconds.
    pub duration_ns: u64,
    /// How much there was.
    pub counts: Counts,
    /// The faults, by kind.
    pub faults: Vec<FaultFigure>,
    /// What was judged, one for each invariant.
    pub judged: Vec<Judged>,
    /// What is wrong, the first few of each invariant.
    pub violations: Vec<Violation>,
    /// Why the run proves nothing, if it does not.
    pub void: Vec<String>,
}

impl Verdict {
    /// Whether nothing was violated and the run was valid.
    pub fn passed(&self) -> bool {
        self.outcome == Outcome::Pass
    }

    /// How many violations there are, also those that are not listed.
    pub fn violation_count(&self) -> u64 {
        self.judged.iter().map(|judged| judged.violated).sum()
    }

    /// The invariants that are violated, in order.
    pub fn violated(&self) -> Vec<Invariant> {
        let violated = self.judged.iter().filter(|judged| judged.violated > 0);
        violated.map(|judged| judged.invariant).collect()
    }

    /// How many facts were held against an invariant.
    pub fn checked(&self, invariant: Invariant) -> u64 {
        let judged = self.judged.iter().find(|judged| judged.invariant == invariant);
        judged.map_or(0, |judged| judged.checked)
    }
}
