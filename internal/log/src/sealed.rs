//! The sparse index of a sealed segment: read, checked against the segment behind, or rebuilt from the frames' headers.
//!
//! The index is derived: nothing is ever believed because it says so. Where it leads is checked there, and an index that leads to
//! a wrong place is distrusted and rebuilt.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::Error;
use crate::format::files::{self, IndexFooter, Point, SEGMENT_HEADER_BYTES};
use crate::ids::EntryId;
use crate::index::SparseIndex;
use crate::scan::Scanner;
use crate::segment::{Join, Segment, point_of, read_whole};

/// Most bytes of an index file that is read.
const INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A sealed segment's index.
pub(crate) struct Loaded {
    pub(crate) sparse: Arc<SparseIndex>,
    /// The bytes of its file, if that was missing or bad and should be written.
    pub(crate) rebuilt: Option<Bytes>,
}

impl Segment {
    /// The index of a sealed segment, from memory, from its file, or rebuilt from the frames. `next` is the segment behind.
    ///
    /// Just after the seal the writer may not be done with the file, and a damaged one cannot be walked over: then what can be read makes
    /// an index for this once.
    pub(crate) fn load(&self, disk: &dyn Disk, next: &Segment) -> Result<Loaded, Error> {
        if let Some(sparse) = self.loaded() {
            return Ok(Loaded { sparse, rebuilt: None });
        }
        let trusted = !self.distrusted.load(Ordering::Relaxed);
        if let Some((points, _)) = self
            .read_index(disk)
            .filter(|(_, footer)| trusted && follows(footer, next))
        {
            return Ok(self.keep(points, None));
        }
        let (points, footer) = self.walk(disk, next.header.first_index)?;
        let Some(footer) = footer.filter(|footer| follows(footer, next)) else {
            let sparse = Arc::new(whole(points));
            return Ok(Loaded { sparse, rebuilt: None });
        };
        tracing::warn!(path = %self.index_path().display(), "the sparse index was missing or bad; it is rebuilt");
        let header = &self.header;
        let bytes = files::encode_index(header.group_id, header.first_index, &points, &footer);
        Ok(self.keep(points, Some(Bytes::from(bytes))))
    }

    fn keep(&self, points: Vec<Point>, rebuilt: Option<Bytes>) -> Loaded {
        let sparse = Arc::new(whole(points));
        *self.sparse.lock().unwrap_or_else(PoisonError::into_inner) = Some(sparse.clone());
        Loaded { sparse, rebuilt }
    }

    /// Whether the index file is whole and of this content; reads it again.
    pub(crate) fn has_good_index(&self, disk: &dyn Disk, next: &Segment) -> bool {
        self.read_index(disk).is_some_and(|(_, footer)| follows(&footer, next))
    }

    /// The index led to a place where it should not: from now on it is rebuilt. False if it was already.
    pub(crate) fn distrust(&self) -> bool {
        self.unload();
        !self.distrusted.swap(true, Ordering::Relaxed)
    }

    /// What the index file says of the segment's end.
    pub(crate) fn footer(&self, disk: &dyn Disk) -> Option<IndexFooter> {
        self.read_index(disk).map(|(_, footer)| footer)
    }

    /// The points of the index file and its footer, if it is whole.
    pub(crate) fn read_index(&self, disk: &dyn Disk) -> Option<(Vec<Point>, IndexFooter)> {
        let bytes = read_whole(disk, &self.index_path(), INDEX_BYTES_MAX).ok()?;
        let (points, footer) = files::decode_index(self.header.group_id, self.header.first_index, &bytes).ok()?;
        let ordered = points
            .windows(2)
            .all(|pair| pair[0].index < pair[1].index && pair[0].position < pair[1].position);
        let first = points.first()?;
        let complete = first.position == SEGMENT_HEADER_BYTES && first.index == self.header.first_index;
        (ordered && complete).then_some((points, footer))
    }

    /// The points up to `end_index` or the first thing that is not a frame; and the footer, if `end_index` was reached.
    fn walk(&self, disk: &dyn Disk, end_index: u64) -> Result<(Vec<Point>, Option<IndexFooter>), Error> {
        let mut scanner = Scanner::from_start(self.file.open(disk)?, self, u64::MAX)?.heads_only();
        let mut sparse = SparseIndex::covering_from(SEGMENT_HEADER_BYTES);
        let mut join = None;
        while scanner.next_index < end_index {
            match scanner.expect_header() {
                Ok(Some((header, position))) => {
                    sparse.add(point_of(&header, position));
                    join = Some(Join::behind(&header));
                }
                Ok(None) | Err(Error::Damaged { .. }) => return Ok((sparse.points, None)),
                Err(error) => return Err(error),
            }
        }
        let footer = join.map(|join| IndexFooter {
            last: EntryId {
                term: join.term,
                index: join.next_index - 1,
            },
            log_end: join.log_end,
            chain: join.chain,
            data_bytes: scanner.position,
        });
        Ok((sparse.points, footer))
    }
}

fn whole(points: Vec<Point>) -> SparseIndex {
    SparseIndex {
        points,
        covered_from: SEGMENT_HEADER_BYTES,
    }
}

/// Whether the segment `next` can begin where the footer says that this one ends, or behind a gap.
fn follows(footer: &IndexFooter, next: &Segment) -> bool {
    let first_index = next.header.first_index;
    let end = footer.last.index.saturating_add(1);
    end < first_index || (end == first_index && (next.headless || footer.chain == next.header.chain_before))
}

/// The points of a segment up to position `end`, found by walking over its frames' headers.
pub(crate) fn scan_points(disk: &dyn Disk, segment: &Segment, end: u64) -> Result<Vec<Point>, Error> {
    let file = segment.file.open(disk)?;
    let mut scanner = Scanner::from_start(file, segment, end)?.heads_only();
    let mut sparse = SparseIndex::covering_from(SEGMENT_HEADER_BYTES);
    while let Some((header, position)) = scanner.expect_header()? {
        sparse.add(point_of(&header, position));
    }
    Ok(sparse.points)
}
