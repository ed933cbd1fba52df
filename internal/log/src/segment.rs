//! Segments: the files of a log, named by the index of their first entry. All but the last are sealed and never change, unless
//! a truncation makes one of them the active one again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::disk::Disk;
use crate::entry::Header;
use crate::error::Error;
use crate::fold::State;
use crate::format::files::{self, IndexFooter, Point, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{EntryId, Identity};
use crate::index::SparseIndex;
use crate::round::{LogFile, Op};
use crate::scan::Scanner;

/// Most bytes of an index file that is read.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A segment file and what its header says.
pub(crate) struct Segment {
    pub(crate) file: Arc<LogFile>,
    pub(crate) header: SegmentHeader,
    /// A sealed segment's index, while loaded.
    sparse: Mutex<Option<Arc<SparseIndex>>>,
}

/// The segment that is appended to.
pub(crate) struct Active {
    pub(crate) segment: Arc<Segment>,
    /// Where the next frame goes.
    pub(crate) end: u64,
    pub(crate) sparse: SparseIndex,
    /// The last entry of the log, which the next segment's header will name.
    pub(crate) before: Before,
}

/// What a segment's header says of the entry before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Before {
    pub(crate) term: u64,
    pub(crate) chain: u64,
    pub(crate) append_time_ms: u64,
}

/// A place in the log's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) segment_first_index: u64,
    pub(crate) position: u64,
}

/// Path of a segment.
pub(crate) fn segment_path(dir: &Path, first_index: u64) -> PathBuf {
    dir.join(format!("{first_index:020}.log"))
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

impl Before {
    pub(crate) fn at(state: &State) -> Before {
        Before {
            term: state.last.term,
            chain: state.chain,
            append_time_ms: state.append_time_ms,
        }
    }

    pub(crate) fn of(header: &Header) -> Before {
        Before {
            term: header.id.term,
            chain: header.chain,
            append_time_ms: header.append_time_ms,
        }
    }
}

impl Segment {
    pub(crate) fn new(dir: &Path, header: SegmentHeader) -> Arc<Segment> {
        let file = LogFile::new(segment_path(dir, header.first_index));
        Arc::new(Segment {
            file,
            header,
            sparse: Mutex::default(),
        })
    }

    /// A segment without a readable header, to be removed.
    pub(crate) fn unreadable(dir: &Path, identity: &Identity, first_index: u64) -> Arc<Segment> {
        let header = SegmentHeader {
            cluster_id: identity.cluster_id,
            group_id: identity.group_id,
            first_index,
            base_offset: 0,
            term_before: 0,
            chain_before: 0,
            append_time_before_ms: 0,
        };
        Segment::new(dir, header)
    }

    /// The same segment sealed: without the open file, with its index loaded if it is complete.
    pub(crate) fn sealed(&self, sparse: SparseIndex) -> Arc<Segment> {
        let file = LogFile::new(self.file.path.clone());
        let sparse = sparse.is_complete().then(|| Arc::new(sparse));
        Arc::new(Segment {
            file,
            header: self.header,
            sparse: Mutex::new(sparse),
        })
    }

    pub(crate) fn index_path(&self) -> PathBuf {
        self.file.path.with_extension("index")
    }

    /// What removes the segment's files.
    pub(crate) fn removal(&self) -> [Op; 2] {
        [self.file.path.clone(), self.index_path()].map(|path| Op::Remove { path })
    }

    /// The index, if loaded.
    pub(crate) fn loaded(&self) -> Option<Arc<SparseIndex>> {
        self.sparse.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn unload(&self) {
        *self.sparse.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The index of a sealed segment, from memory, from its file, or rebuilt from the segment. `next` is the header of the segment behind.
    ///
    /// Just after the seal the writer may not be done with the file: then what is there already makes an index for this once.
    pub(crate) fn load(&self, disk: &dyn Disk, next: &SegmentHeader) -> Result<Arc<SparseIndex>, Error> {
        if let Some(sparse) = self.loaded() {
            return Ok(sparse);
        }
        let (points, whole) = match self.read_index(disk, next) {
            Some(points) => (points, true),
            None => {
                tracing::warn!(path = %self.index_path().display(), "sparse index is missing or bad; rebuilding it in memory");
                self.rebuild_index(disk, next)?
            }
        };
        let sparse = Arc::new(SparseIndex {
            points,
            covered_from: SEGMENT_HEADER_BYTES,
        });
        if whole {
            *self.sparse.lock().unwrap_or_else(PoisonError::into_inner) = Some(sparse.clone());
        }
        Ok(sparse)
    }

    /// The points up to the first thing that is not a frame, and whether that is the segment's end. Damage is for those to report who
    /// read the frames themselves.
    fn rebuild_index(&self, disk: &dyn Disk, next: &SegmentHeader) -> Result<(Vec<Point>, bool), Error> {
        let mut scanner = Scanner::from_start(self.file.open(disk)?, self, u64::MAX)?;
        let mut sparse = SparseIndex::covering_from(SEGMENT_HEADER_BYTES);
        while scanner.next_index < next.first_index {
            match scanner.expect_header() {
                Ok(Some((header, position))) => sparse.add(point_of(&header, position)),
                Ok(None) | Err(Error::Damaged { .. }) => return Ok((sparse.points, false)),
                Err(error) => return Err(error),
            }
        }
        Ok((sparse.points, true))
    }

    /// The points of the index file, if it is whole and belongs to exactly this content.
    fn read_index(&self, disk: &dyn Disk, next: &SegmentHeader) -> Option<Vec<Point>> {
        let bytes = read_whole(disk, &self.index_path(), INDEX_BYTES_MAX).ok()?;
        let (points, footer) = files::decode_index(self.header.group_id, self.header.first_index, &bytes).ok()?;
        let follows = footer.chain == next.chain_before && footer.last.index + 1 == next.first_index;
        let ordered = points
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index && pair[0].position < pair[1].position);
        let first = points.first()?;
        let complete = first.position == SEGMENT_HEADER_BYTES && first.index == self.header.first_index;
        (follows && ordered && complete).then_some(points)
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

/// The points of a segment up to `end`, found by walking over its frames' headers.
pub(crate) fn scan_points(disk: &dyn Disk, segment: &Segment, end: u64) -> Result<Vec<Point>, Error> {
    let file = segment.file.open(disk)?;
    let mut scanner = Scanner::from_start(file, segment, end)?;
    let mut sparse = SparseIndex::covering_from(SEGMENT_HEADER_BYTES);
    while let Some((header, position)) = scanner.expect_header()? {
        sparse.add(point_of(&header, position));
    }
    Ok(sparse.points)
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
