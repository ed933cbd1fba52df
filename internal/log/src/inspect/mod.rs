//! Looking at a log's directory without opening the log: for people, offline or beside a running node.
//!
//! Nothing is changed, no lock is taken, files are opened for reading only. Beside a running node the picture may mix two moments;
//! [`Inspection::changed`] says so.

mod files;
mod segments;

use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::entry::{Header, Vote};
use crate::error::Error;
use crate::ids::{EntryId, Identity};

pub use segments::inspect_frames;

/// How closely to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Files, headers and indexes; no frames.
    Headers,
    /// Every frame: checksums, payloads, order, chain.
    Frames,
}

/// What stands in a log's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// How closely it was looked at.
    pub depth: Depth,
    /// The hard state, if it can be read.
    pub hard_state: Option<HardStateReport>,
    /// The checkpoint, if there is a good one.
    pub checkpoint: Option<StateReport>,
    /// The manifest, if there is a good one.
    pub manifest: Option<StateReport>,
    /// The segments, in order.
    pub segments: Vec<SegmentReport>,
    /// Everything that is not as it should be.
    pub damage: Vec<Finding>,
    /// The log was changed meanwhile: what was found may be of two moments. Look again.
    pub changed: bool,
}

/// The hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HardStateReport {
    /// Whose log it is.
    pub identity: Identity,
    /// Counts its writes.
    pub sequence: u64,
    /// How many of its two slots are good.
    pub good_slots: usize,
    /// The vote.
    pub vote: Option<Vote>,
    /// The mark: what lies below it was synced.
    pub mark: MarkReport,
}

/// The mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkReport {
    /// First index of the marked segment.
    pub segment_first_index: u64,
    /// Byte position in it.
    pub position: u64,
    /// Term of the last entry before it.
    pub last_term: u64,
    /// Index behind that entry.
    pub end_index: u64,
    /// Chain up to there.
    pub chain: u64,
    /// Index behind the last entry that was known to be committed.
    pub commit_end: u64,
}

/// A folded state: the checkpoint's or the manifest's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateReport {
    /// Bytes of the file.
    pub bytes: u64,
    /// The last entry folded in; None before the first.
    pub last: Option<EntryId>,
    /// First offset there, inclusive.
    pub log_start: u64,
    /// Exclusive end of the records.
    pub log_end: u64,
    /// Chain up to there.
    pub chain: u64,
    /// Append time of the last entry.
    pub append_time_ms: u64,
    /// Producers remembered.
    pub producers: usize,
    /// Consumer groups.
    pub groups: usize,
    /// Bytes of the machine's checkpoint; of a manifest only.
    pub machine_bytes: usize,
}

/// State of a sealed segment's index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexReport {
    /// It is whole.
    Good {
        /// Its points.
        points: usize,
    },
    /// There is none; the last segment never has one. It is rebuilt when it is needed.
    Missing,
    /// It is bad; it is rebuilt when it is needed.
    Bad,
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file.
    pub path: PathBuf,
    /// Index of its first entry, from its name.
    pub first_index: u64,
    /// Index behind its last good entry; None if nobody looked.
    pub end_index: Option<u64>,
    /// Log end before it; None if its header is bad.
    pub base_offset: Option<u64>,
    /// Log end behind it; None if nobody looked.
    pub end_offset: Option<u64>,
    /// Append times of its first and last good entry; None if nobody looked, or there is none.
    pub times_ms: Option<(u64, u64)>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Good frames; None if nobody looked.
    pub frames: Option<u64>,
    /// Records in them; None if nobody looked.
    pub records: Option<u64>,
    /// Bytes behind the last frame of the last segment that are not synced yet, or prepared space.
    pub unfinished_bytes: u64,
    /// Its sparse index.
    pub index: IndexReport,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// Byte position of the first bad field or frame.
    pub position: u64,
    /// The entries affected, from the first to behind the last; None if none are.
    pub entries: Option<(u64, u64)>,
    /// What is wrong.
    pub why: String,
}

/// A frame as it stands in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameReport {
    /// Byte position.
    pub position: u64,
    /// Its header.
    pub header: Header,
}

/// Looks at a log's directory.
pub fn inspect(disk: &dyn Disk, dir: &Path, depth: Depth) -> Result<Inspection, Error> {
    let disk = &files::ReadOnly(disk);
    let mut inspection = Inspection {
        dir: dir.to_owned(),
        depth,
        hard_state: None,
        checkpoint: None,
        manifest: None,
        segments: Vec::new(),
        damage: Vec::new(),
        changed: false,
    };
    let before = files::moment(disk, dir)?;
    files::inspect(disk, &mut inspection)?;
    segments::inspect(disk, &mut inspection, &before.segments)?;
    inspection.changed = files::moment(disk, dir)? != before;
    Ok(inspection)
}

impl Inspection {
    fn find(&mut self, path: &Path, position: u64, entries: Option<(u64, u64)>, why: impl Into<String>) {
        self.damage.push(Finding {
            path: path.to_owned(),
            position,
            entries,
            why: why.into(),
        });
    }
}
