//! Segments: the files of a log, named by the index of their first entry. All but the last are sealed and never change, unless
//! a truncation makes one of them the active one again.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Disk;
use crate::entry::Header;
use crate::error::Error;
use crate::fold::State;
use crate::format::files::{self, IndexFooter, Point, SegmentHeader};
use crate::ids::{EntryId, Identity};
use crate::index::SparseIndex;
use crate::round::{LogFile, Op};

/// A segment file and what its header says.
pub(crate) struct Segment {
    pub(crate) file: Arc<LogFile>,
    /// What its header says, or what is assumed of it.
    pub(crate) header: SegmentHeader,
    /// Its header is bad: only `first_index` is known, the rest stands for lookups and is that of a segment behind it.
    pub(crate) headless: bool,
    /// A sealed segment's index, while loaded.
    pub(crate) sparse: Mutex<Option<Arc<SparseIndex>>>,
    /// The index file led to a wrong place: it is not read again.
    pub(crate) distrusted: AtomicBool,
}

/// The segment that is appended to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    pub(crate) sparse: SparseIndex,
    /// The last entry of the log, which the next segment's header will name.
    pub(crate) before: Join,
}

/// What an entry leaves behind for the next one to follow on: all that a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Join {
    pub(crate) next_index: u64,
    pub(crate) term: u64,
    pub(crate) chain: u64,
    pub(crate) append_time_ms: u64,
    pub(crate) log_end: u64,
}

/// A place in the log's files; in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment_first_index: u64,
    pub(crate) position: u64,
}

/// Path of a segment.
pub(crate) fn segment_path(dir: &Path, first_index: u64) -> PathBuf {
    dir.join(format!("{first_index:020}.log"))
}

/// What removes the segment with this path, and its index.
pub(crate) fn removal(path: &Path) -> [Op; 2] {
    [path.to_owned(), path.with_extension("index")].map(|path| Op::Remove { path })
}

/// First index of the segment with this file name; None if it is not a segment's.
pub(crate) fn segment_first_index(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The place of a frame, for a sparse index.
pub(crate) fn point_of(header: &Header, position: u64) -> Point {
    Point {
        index: header.id.index,
        base_offset: header.base_offset,
        append_time_ms: header.append_time_ms,
        position,
    }
}

impl Join {
    pub(crate) fn at(state: &State) -> Join {
        Join {
            next_index: state.next_index,
            term: state.last.term,
            chain: state.chain,
            append_time_ms: state.append_time_ms,
            log_end: state.log_end,
        }
    }

    /// Behind the entry with this header.
    pub(crate) fn behind(header: &Header) -> Join {
        Join {
            next_index: header.id.index + 1,
            term: header.id.term,
            chain: header.chain,
            append_time_ms: header.append_time_ms,
            log_end: header.base_offset + u64::from(header.record_count),
        }
    }

    /// Before a segment's first entry.
    pub(crate) fn before(header: &SegmentHeader) -> Join {
        Join {
            next_index: header.first_index,
            term: header.term_before,
            chain: header.chain_before,
            append_time_ms: header.append_time_before_ms,
            log_end: header.base_offset,
        }
    }

    /// The header of a segment that begins here.
    pub(crate) fn header(&self, identity: &Identity) -> SegmentHeader {
        SegmentHeader {
            cluster_id: identity.cluster_id,
            group_id: identity.group_id,
            first_index: self.next_index,
            base_offset: self.log_end,
            term_before: self.term,
            chain_before: self.chain,
            append_time_before_ms: self.append_time_ms,
        }
    }
}

impl Segment {
    pub(crate) fn new(dir: &Path, header: SegmentHeader) -> Arc<Segment> {
        Segment::of(LogFile::new(segment_path(dir, header.first_index)), header, false)
    }

    /// A segment whose header is bad; `header` is assumed.
    pub(crate) fn headless(dir: &Path, header: SegmentHeader) -> Arc<Segment> {
        Segment::of(LogFile::new(segment_path(dir, header.first_index)), header, true)
    }

    /// The same file with a header that was put right.
    pub(crate) fn mended(&self, header: SegmentHeader) -> Arc<Segment> {
        Segment::of(self.file.clone(), header, false)
    }

    fn of(file: Arc<LogFile>, header: SegmentHeader, headless: bool) -> Arc<Segment> {
        Arc::new(Segment {
            file,
            header,
            headless,
            sparse: Mutex::default(),
            distrusted: AtomicBool::new(false),
        })
    }

    /// The same segment sealed: without the open file, with its index loaded if it is complete.
    pub(crate) fn sealed(&self, sparse: SparseIndex) -> Arc<Segment> {
        let file = LogFile::new(self.file.path.clone());
        let sparse = sparse.is_complete().then(|| Arc::new(sparse));
        Arc::new(Segment {
            file,
            header: self.header,
            headless: self.headless,
            sparse: Mutex::new(sparse),
            distrusted: AtomicBool::new(false),
        })
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.file.path.with_extension("index")
    }

    /// The index, if loaded.
    pub(crate) fn loaded(&self) -> Option<Arc<SparseIndex>> {
        self.sparse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets go of the index and of the open file.
    pub(crate) fn unload(&self) {
        self.file.release();
        *self.sparse.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Active {
    /// Encodes the index file of this segment, about to be sealed with `last` as its last entry.
    pub(crate) fn encode_index(&self, last: EntryId, log_end: u64) -> Vec<u8> {
        let footer = IndexFooter {
            last,
            log_end,
            chain: self.before.chain,
            data_bytes: self.end,
        };
        let header = &self.segment.header;
        files::encode_index(header.group_id, header.first_index, &self.sparse.points, &footer)
    }
}

/// Reads a small file.
pub(crate) fn read_whole(disk: &dyn Disk, path: &Path, bytes_max: u64) -> Result<Vec<u8>, Error> {
    let file = disk.open(path).map_err(|error| Error::io("open", path, error))?;
    let length = file.len().map_err(|error| Error::io("read", path, error))?;
    crate::format::limit("file", length, bytes_max)?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let count = file
        .read_at(&mut bytes, 0)
        .map_err(|error| Error::io("read", path, error))?;
    bytes.truncate(count);
    Ok(bytes)
}
