//! The sparse index of a segment: about one known place per 64 KiB. It only shortens the way to a frame; frames are always
//! checked where they are read. The active segment's index is in memory; a sealed segment's is a file, which can be rebuilt.

use crate::format::files::{Point, SEGMENT_HEADER_BYTES};

/// Bytes of a segment from one point to the next.
pub(crate) const POINT_DISTANCE_BYTES: u64 = 64 * 1024;

/// What is looked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// The entry with this index.
    Index(u64),
    /// The frame that holds this offset.
    Offset(u64),
    /// The first frame with this append time or a later one.
    Time(u64),
}

/// Known places of one segment, in order.
#[derive(Debug, Clone)]
pub(crate) struct SparseIndex {
    pub(crate) points: Vec<Point>,
    /// From this position on the points are complete. After a start, the part before the checkpoint is not known until it is read.
    pub(crate) covered_from: u64,
}

impl SparseIndex {
    pub(crate) fn covering_from(position: u64) -> SparseIndex {
        SparseIndex {
            points: Vec::new(),
            covered_from: position,
        }
    }

    /// Takes note of a frame at the end.
    pub(crate) fn add(&mut self, point: Point) {
        let far = |last: &Point| point.position >= last.position + POINT_DISTANCE_BYTES;
        if self.points.last().is_none_or(far) {
            self.points.push(point);
        }
    }

    /// The last known place at or before the target.
    pub(crate) fn find(&self, target: Target) -> Option<Point> {
        let before = |point: &Point| match target {
            Target::Index(index) => point.index <= index,
            Target::Offset(offset) => point.base_offset <= offset,
            Target::Time(time_ms) => point.append_time_ms < time_ms,
        };
        let count = self.points.partition_point(before);
        self.points[..count].last().copied()
    }

    /// Whether what lies before the first point is known to be nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.covered_from <= SEGMENT_HEADER_BYTES
    }

    /// Drops everything from `first` on, which stands at `position`.
    pub(crate) fn truncate(&mut self, first: u64, position: u64) {
        self.points.retain(|point| point.index < first);
        self.covered_from = self.covered_from.min(position);
    }
}
