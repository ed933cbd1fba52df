//! What can go wrong, and what the caller should make of it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::damage::DamagedRange;
use crate::ids::{EntryId, Identity};

/// Bytes that are not what they should be. Says which field, so that a report can be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end too early.
    #[error("{what}: {have} bytes where {need} are needed")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A checksum does not match.
    #[error("{what}: checksum is {found:#x}, should be {expected:#x}")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
        /// The value computed from the bytes.
        expected: u64,
        /// The value that stands there.
        found: u64,
    },
    /// A field has a value it must not have.
    #[error("{field}: {value} is not valid")]
    Invalid {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// Something is larger than its limit.
    #[error("{what}: {size} is above the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// The limit, inclusive.
        limit: u64,
    },
}

/// How bad an [`Error`] is: what the caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// The request cannot be served as it is; the log is fine.
    Request,
    /// The log changed under the call, or its writer is busy: try again.
    Retry,
    /// Committed entries are damaged here: any replica that has them can help, and nothing is lost.
    Inside,
    /// This process cannot go on (divergence, failed disk); the report must reach a person.
    Fatal,
    /// What this replica promised is lost: its id must never vote again. The directory is kept until it has been replaced.
    Dead,
}

/// Cloneable, because one failed sync fails many callbacks.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {operation} failed: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: Arc<io::Error>,
    },
    /// A write or sync failed before; nothing is written any more. The process must end.
    #[error("the disk writer stopped after a failure: {cause}")]
    Poisoned {
        /// The first failure.
        cause: Arc<Error>,
    },
    /// The disk did not answer in time. What was asked may still be done.
    #[error("the disk did not answer within {waited:?}")]
    Stalled {
        /// How long it was waited for.
        waited: Duration,
    },
    /// The disk writer was stopped.
    #[error("the disk writer is stopped")]
    Stopped,
    /// More bytes wait for the disk than allowed.
    #[error("{queued_bytes} bytes wait for the disk, the limit is {queued_bytes_max}")]
    Overloaded {
        /// Bytes that wait.
        queued_bytes: usize,
        /// The limit.
        queued_bytes_max: usize,
    },
    /// The disk writer or one of its callbacks panicked.
    #[error("the disk writer panicked")]
    Panicked,
    /// Bytes that were known to be synced are bad or gone.
    #[error("{path} is damaged at byte {position} (entry {index}): {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Byte position of the first bad frame or field.
        position: u64,
        /// Index of the first entry affected.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Committed entries are bad or gone here, and without them the log cannot be folded; vote, mark and log end are whole. Any replica
    /// that has them can help: see [`crate::Repair`].
    #[error("{path} needs entries from another replica before it can be opened: {ranges:?}")]
    NeedsRefill {
        /// The log's directory.
        path: PathBuf,
        /// The entries that are missing.
        ranges: Vec<DamagedRange>,
    },
    /// The log end, or entries that are not known to be committed, are bad or gone: this replica id is dead.
    #[error("{path}: the replica is dead: entry {index} is lost at byte {position}: {why}")]
    Dead {
        /// The file.
        path: PathBuf,
        /// Byte position of the first bad frame or field.
        position: u64,
        /// Index of the first entry lost.
        index: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A frame offered for a refill does not fit; nothing was changed.
    #[error("entry {index} does not refill what is damaged here: {why}")]
    Refused {
        /// Index of the frame.
        index: u64,
        /// What does not fit.
        why: String,
    },
    /// The hard state (vote and identity) cannot be read; this replica id is dead.
    #[error("{path}: the hard state is lost: {why}")]
    HardStateLost {
        /// The file.
        path: PathBuf,
        /// What is wrong with its slots.
        why: String,
    },
    /// The directory has no hard state and no entry: its creation never completed, so nothing was ever acknowledged from it; or, if
    /// the owner knows that it did complete, its files are gone, and the replica's votes with them. It is never taken for an empty log.
    #[error("{path}: there is no log here; its creation never completed, or its files were removed")]
    NeverCreated {
        /// The directory.
        path: PathBuf,
    },
    /// The directory belongs to another replica.
    #[error("{path} belongs to {found}, not to {expected}")]
    WrongIdentity {
        /// The file that says so.
        path: PathBuf,
        /// Who opened it.
        expected: Box<Identity>,
        /// Who owns it.
        found: Box<Identity>,
    },
    /// `create` found something in its place.
    #[error("{path} exists already")]
    AlreadyExists {
        /// The directory.
        path: PathBuf,
    },
    /// This replica's fold disagrees with a frame, or with its own earlier decision.
    #[error("entry {id} diverges from this replica's log: {why}")]
    Diverged {
        /// The entry.
        id: EntryId,
        /// Which field, and both values.
        why: String,
    },
    /// An entry does not follow on the tail.
    #[error("entry {found} does not follow on: the next index is {next_index}, in term {term_min} or later")]
    NotContiguous {
        /// The index expected.
        next_index: u64,
        /// The lowest term allowed.
        term_min: u64,
        /// The entry given.
        found: EntryId,
    },
    /// A truncation would drop committed entries.
    #[error("cannot drop entries from {first} on: everything below {committed_end} is committed")]
    TruncatesCommitted {
        /// First index to drop.
        first: u64,
        /// Exclusive end of the committed entries.
        committed_end: u64,
    },
    /// Only what is committed can be folded for good or purged.
    #[error("entry {index} is not committed: everything below {committed_end} is")]
    NotCommitted {
        /// The index asked for.
        index: u64,
        /// Exclusive end of the committed entries.
        committed_end: u64,
    },
    /// The offset is trimmed away.
    #[error("offset {offset} is below the log start {log_start} (high watermark {high_watermark})")]
    BelowStart {
        /// The offset asked for.
        offset: u64,
        /// First offset there, inclusive.
        log_start: u64,
        /// First offset not yet committed.
        high_watermark: u64,
    },
    /// The offset is not committed yet.
    #[error("offset {offset} is above the high watermark {high_watermark}")]
    AboveEnd {
        /// The offset asked for.
        offset: u64,
        /// First offset not yet committed.
        high_watermark: u64,
    },
    /// The entry asked for was purged.
    #[error("entry {index} is below the first entry here, {first_index}")]
    Purged {
        /// The index asked for.
        index: u64,
        /// First index here.
        first_index: u64,
    },
    /// Truncations kept changing the log during a read.
    #[error("the log was truncated while entry {index} was being read")]
    Truncated {
        /// The index asked for.
        index: u64,
    },
    /// An entry to append, or bytes to decode, are malformed.
    #[error("malformed: {0}")]
    Format(#[from] FormatError),
}

impl Error {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Error {
        Error::Io {
            operation,
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn damaged(path: &Path, position: u64, index: u64, why: impl Into<String>) -> Error {
        Error::Damaged {
            path: path.to_owned(),
            position,
            index,
            why: why.into(),
        }
    }

    pub(crate) fn dead(path: &Path, position: u64, index: u64, why: impl Into<String>) -> Error {
        Error::Dead {
            path: path.to_owned(),
            position,
            index,
            why: why.into(),
        }
    }

    pub(crate) fn refill(index: u64, why: impl Into<String>) -> Error {
        Error::Refused { index, why: why.into() }
    }

    /// What the caller can do about it.
    pub fn grade(&self) -> Grade {
        match self {
            Error::Overloaded { .. } | Error::Truncated { .. } => Grade::Retry,
            Error::AlreadyExists { .. }
            | Error::NotContiguous { .. }
            | Error::TruncatesCommitted { .. }
            | Error::BelowStart { .. }
            | Error::AboveEnd { .. }
            | Error::Purged { .. }
            | Error::NotCommitted { .. }
            | Error::Refused { .. }
            | Error::Stopped
            | Error::Format(_) => Grade::Request,
            Error::Damaged { .. } | Error::NeedsRefill { .. } => Grade::Inside,
            Error::HardStateLost { .. } | Error::Dead { .. } => Grade::Dead,
            Error::Io { .. }
            | Error::Poisoned { .. }
            | Error::Panicked
            | Error::Stalled { .. }
            | Error::NeverCreated { .. }
            | Error::WrongIdentity { .. }
            | Error::Diverged { .. } => Grade::Fatal,
        }
    }
}
