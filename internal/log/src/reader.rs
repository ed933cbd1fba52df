//! Reading: from the tail cache, or else from the segment files through their sparse indexes.
//!
//! A disk read takes the lock only to learn where to look, and again to see whether a truncation happened meanwhile; then what it
//! read may be mixed and is read again. Everything read from disk is checked; what is not as it should be is `Error::Damaged`.

use std::sync::Arc;

use crate::cache::Budget;
use crate::entry::{Frame, Kind};
use crate::error::Error;
use crate::format::files::Point;
use crate::ids::EntryId;
use crate::index::{SparseIndex, Target};
use crate::log::Log;
use crate::mutant;
use crate::round::Op;
use crate::scan::Scanner;
use crate::sealed::scan_points;
use crate::segment::{Segment, segment_path};
use crate::tail::LogState;

/// How often a read is tried again because of truncations.
const ATTEMPTS_MAX: usize = 16;
/// Bytes read at once while looking for the first record.
const SEARCH_BYTES: usize = 256 * 1024;

/// What a disk read must know; taken under the lock.
pub(crate) struct Plan {
    pub(crate) segment: Arc<Segment>,
    /// The segment behind; None for the active one.
    next: Option<Arc<Segment>>,
    /// Where the active segment ended.
    end: u64,
    /// A known place at or before the target, if the index was at hand.
    point: Option<Point>,
    /// Where frames go on behind the last damage before the target: index and position.
    resume: Option<(u64, u64)>,
    /// From where on the active segment's index was complete.
    covered_from: Option<u64>,
    /// Where to stop reading: entries from here on may not be on disk, or were not asked for.
    pub(crate) stop: u64,
    pub(crate) generation: u64,
}

impl Log {
    /// Frames `start..end` from cache or disk: a contiguous checked prefix, at least one (if start exists), at most
    /// `bytes_max` unless the first alone is larger. Never empty unless start is beyond the tail, never a hole.
    pub fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        let bytes_max = bytes_max.min(self.inner.open.config.read_bytes_max);
        for _ in 0..ATTEMPTS_MAX {
            if let Some(frames) = self.read_once(start, end, bytes_max)? {
                return Ok(frames);
            }
        }
        Err(Error::Truncated { index: start })
    }

    /// Like `read` but only if it can be served from memory: None means "ask the disk" (call `read` off the async threads).
    pub fn read_cached(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        let (floor_end, tail_end) = {
            let state = self.lock();
            (state.floor_end(), state.tail.next_index)
        };
        if start >= end || start >= tail_end {
            return Some(Vec::new());
        }
        if start < floor_end {
            return None; // `read` says so
        }
        self.inner
            .cached
            .read(start, end, bytes_max.min(self.inner.open.config.read_bytes_max))
    }

    /// None if the log was truncated meanwhile.
    fn read_once(&self, start: u64, end: u64, bytes_max: usize) -> Result<Option<Vec<Frame>>, Error> {
        if let Some(frames) = self.read_cached(start, end, bytes_max) {
            return Ok(Some(frames));
        }
        let Some(plan) = self.plan_read(start, end)? else {
            return Ok(None);
        };
        if plan.stop <= start {
            return Ok(Some(Vec::new())); // beyond the tail
        }
        let frames = self
            .scan_from(&plan, Target::Index(start))
            .and_then(|scanner| collect(scanner, start, plan.stop, bytes_max));
        if self.lock().generation != plan.generation {
            return Ok(None);
        }
        match frames {
            Err(error @ Error::Damaged { .. }) => self.on_bad_frame(&plan, start, error).map(|()| None),
            frames => frames.map(Some),
        }
    }

    /// Finds out what a bad frame means. Ok: look again; the damage is known now, or was the index's.
    pub(crate) fn on_bad_frame(&self, plan: &Plan, start: u64, error: Error) -> Result<(), Error> {
        if self.examine(&plan.segment, None)? || plan.segment.distrust() {
            return Ok(());
        }
        match error {
            Error::Damaged {
                path,
                position,
                index,
                why,
            } if start >= self.lock().committed.next_index => Err(Error::dead(&path, position, index, why)),
            error => Err(error),
        }
    }

    /// How to read entry `start` from the disk, and what follows it in the same segment, at most up to `end`. None: it has come into the
    /// cache meanwhile. A plan that stops at `start` says that the log ends before it.
    pub(crate) fn plan_read(&self, start: u64, end: u64) -> Result<Option<Plan>, Error> {
        let mut state = self.lock();
        if start < state.floor_end() {
            return Err(Error::Purged {
                index: start,
                first_index: state.floor_end(),
            });
        }
        if let Some(gap) = state.gaps.holding(start) {
            let path = segment_path(&self.inner.open.dir, gap.at.segment_first_index);
            let why = format!("entries up to {} wait for a refill", gap.end - 1);
            return Err(Error::damaged(&path, gap.at.position, gap.first, why));
        }
        state.was_read = true;
        let mut plan = plan(&state, Target::Index(start), state.segment_of(start));
        if start >= state.tail.next_index {
            plan.stop = start;
            return Ok(Some(plan));
        }
        // Everything below the first cached frame is on disk; the rest may not be.
        let on_disk = self.inner.cached.first_index().unwrap_or(state.tail.next_index);
        let segment_end = plan.next.as_ref().map_or(u64::MAX, |next| next.header.first_index);
        let gap = state.gaps.after(start).map_or(u64::MAX, |gap| gap.first);
        plan.stop = end.min(on_disk).min(segment_end).min(gap);
        Ok((plan.stop > start).then_some(plan))
    }

    /// A scanner that stands at or before the target.
    pub(crate) fn scan_from(&self, plan: &Plan, target: Target) -> Result<Scanner, Error> {
        let point = self.locate(plan, target)?;
        self.scanner(plan, point)
    }

    fn scanner(&self, plan: &Plan, point: Option<Point>) -> Result<Scanner, Error> {
        let file = plan.segment.file.open(&*self.inner.open.disk)?;
        match point {
            Some(point) => Ok(Scanner::at(file, &plan.segment, point.position, point.index, None)?.up_to(plan.end)),
            None => Scanner::from_start(file, &plan.segment, plan.end),
        }
    }

    /// The known place in the plan's segment from which to look for the target; None for its start.
    fn locate(&self, plan: &Plan, target: Target) -> Result<Option<Point>, Error> {
        let found = match &plan.next {
            Some(next) => self.locate_sealed(plan, next, target)?,
            None => self.locate_active(plan, target)?,
        };
        let beyond = plan
            .resume
            .filter(|(index, _)| found.is_none_or(|point| point.index < *index));
        match (beyond, target) {
            (Some((index, position)), Target::Index(_)) => Ok(Some(Point {
                index,
                position,
                base_offset: 0,
                append_time_ms: 0,
            })),
            _ => Ok(found),
        }
    }

    fn locate_sealed(&self, plan: &Plan, next: &Segment, target: Target) -> Result<Option<Point>, Error> {
        if plan.segment.loaded().is_none() && self.inner.cached.written_end() < next.header.first_index {
            return Ok(None); // its files may not be there yet; the cache holds what is not written
        }
        let fresh = plan.segment.loaded().is_none();
        let loaded = plan.segment.load(&*self.inner.open.disk, next)?;
        if fresh {
            let mut state = self.lock();
            state.note_loaded(plan.segment.clone());
            if let Some(bytes) = loaded.rebuilt.filter(|_| state.generation == plan.generation) {
                let path = plan.segment.index_path();
                let rewrite = vec![Op::Replace { path, bytes }];
                let _ = self.inner.open.writer.submit(rewrite, Box::new(|_| {})); // refused: the writer has failed
            }
        }
        Ok(loaded.sparse.find(target))
    }

    fn locate_active(&self, plan: &Plan, target: Target) -> Result<Option<Point>, Error> {
        let Some(covered_from) = plan.covered_from.filter(|_| plan.point.is_none()) else {
            return Ok(plan.point);
        };
        let mut points = match scan_points(&*self.inner.open.disk, &plan.segment, covered_from) {
            Err(Error::Damaged { .. }) => return Ok(None), // who reads there will find out more
            points => points?,
        };
        let mut state = self.lock();
        if state.generation == plan.generation && Arc::ptr_eq(&state.active.segment, &plan.segment) {
            let sparse = &mut state.active.sparse;
            if sparse.covered_from == covered_from {
                points.append(&mut sparse.points);
                *sparse = SparseIndex {
                    points,
                    covered_from: 0,
                };
                return Ok(sparse.find(target));
            }
        }
        Ok(SparseIndex {
            points,
            covered_from: 0,
        }
        .find(target))
    }

    /// Term and index of the entry with this index; None if it is not here.
    pub fn entry_id(&self, index: u64) -> Result<Option<EntryId>, Error> {
        {
            let state = self.lock();
            if let Some((id, _)) = state.decided(index) {
                return Ok(Some(id));
            }
            if state.tail.next_index <= index {
                return Ok(None);
            }
        }
        if self.floor().is_some_and(|floor| index <= floor.index) {
            return Ok(self.floor().filter(|floor| floor.index == index));
        }
        Ok(self.read(index, index.saturating_add(1), 0)?.first().map(Frame::id))
    }

    /// Batch frames with records, from the one that holds `offset` on, all below the committed high watermark.
    /// Empty if `offset` is the high watermark. Error::BelowStart / Error::AboveEnd otherwise.
    pub fn read_records(&self, offset: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        let (log_start, high_watermark) = self.readable();
        if offset < log_start {
            return Err(Error::BelowStart {
                offset,
                log_start,
                high_watermark,
            });
        }
        if offset > high_watermark {
            return Err(Error::AboveEnd { offset, high_watermark });
        }
        if let Some(frames) = self.read_records_cached(offset, bytes_max) {
            return Ok(frames);
        }
        let bytes_max = bytes_max.min(self.inner.open.config.read_bytes_max);
        let mut budget = Budget::new(bytes_max);
        let mut found: Vec<Frame> = Vec::new();
        let mut start = self.find_start(Target::Offset(offset))?;
        while found.is_empty() {
            let frames = match self.read(start, u64::MAX, bytes_max.max(SEARCH_BYTES)) {
                Err(error @ Error::Damaged { .. }) => {
                    let skipped = self.skip_damage(start, |header| header.base_offset <= offset)?;
                    start = skipped.ok_or(error)?;
                    continue;
                }
                frames => frames?,
            };
            let Some(last) = frames.last() else {
                return Ok(found);
            };
            start = last.header.id.index + 1;
            if frames[0].header.base_offset > offset {
                let path = &self.inner.open.dir;
                return Err(Error::damaged(
                    path,
                    0,
                    frames[0].id().index,
                    format!("offset {offset} is missing before it"),
                ));
            }
            let wanted = frames.into_iter().filter(|frame| {
                has_records(frame) && frame.offset_end() > offset && frame.offset_end() <= high_watermark
            });
            found.extend(wanted.take_while(|frame| budget.take(frame.len_bytes())));
        }
        Ok(found)
    }

    /// Like `read_records` but only if it can be served from memory; None also for offsets out of range.
    pub fn read_records_cached(&self, offset: u64, bytes_max: usize) -> Option<Vec<Frame>> {
        let (log_start, high_watermark) = self.readable();
        if offset < log_start || offset > high_watermark {
            return None;
        }
        if offset == high_watermark {
            return Some(Vec::new());
        }
        let bytes_max = bytes_max.min(self.inner.open.config.read_bytes_max);
        self.inner.cached.read_records(offset, high_watermark, bytes_max)
    }

    /// What may be read of what is committed: the first offset that is here, and the exclusive end. What is purged is below the start, also
    /// on a replica that has a manifest but not yet the trim that it was made for.
    pub fn readable(&self) -> (u64, u64) {
        let state = self.lock();
        let purged_end = state.manifest.as_ref().map_or(0, |manifest| manifest.state.log_end);
        let committed = &state.committed;
        let end = if mutant!("serve above commit") {
            state.tail.log_end
        } else {
            committed.log_end
        };
        (committed.log_start.max(purged_end), end)
    }

    /// First offset whose append time is at or after `time_ms`, among committed ones; the high watermark if none.
    pub fn offset_at(&self, time_ms: u64) -> Result<u64, Error> {
        let (log_start, high_watermark) = self.readable();
        let mut start = self.find_start(Target::Time(time_ms))?;
        loop {
            let frames = match self.read(start, u64::MAX, SEARCH_BYTES) {
                Err(error @ Error::Damaged { .. }) => {
                    let skipped = self.skip_damage(start, |header| header.append_time_ms < time_ms)?;
                    start = skipped.ok_or(error)?;
                    continue;
                }
                frames => frames?,
            };
            let Some(last) = frames.last() else {
                return Ok(high_watermark);
            };
            start = last.header.id.index + 1;
            let late = |frame: &&Frame| has_records(frame) && frame.header.append_time_ms >= time_ms;
            if let Some(frame) = frames.iter().filter(|frame| frame.offset_end() > log_start).find(late) {
                return Ok(frame.header.base_offset.clamp(log_start, high_watermark));
            }
            if last.header.base_offset >= high_watermark {
                return Ok(high_watermark);
            }
        }
    }

    /// An index at or before the target, not far from it.
    fn find_start(&self, target: Target) -> Result<u64, Error> {
        for _ in 0..ATTEMPTS_MAX {
            let plan = {
                let state = self.lock();
                let before = state.segments.partition_point(|segment| match target {
                    Target::Index(index) => segment.header.first_index <= index,
                    Target::Offset(offset) => segment.header.base_offset <= offset,
                    Target::Time(time_ms) => segment.header.append_time_before_ms < time_ms,
                });
                if before == 0 {
                    return Ok(state.floor_end()); // what is looked for stands before the first segment that is there
                }
                plan(&state, target, before - 1)
            };
            let point = self.locate(&plan, target);
            let state = self.lock();
            if state.generation == plan.generation {
                let index = point?.map_or(plan.segment.header.first_index, |point| point.index);
                return Ok(index.max(state.floor_end()));
            }
        }
        Err(Error::Truncated { index: 0 })
    }
}

fn plan(state: &LogState, target: Target, segment: usize) -> Plan {
    let next = state.segments.get(segment + 1).cloned();
    let active = next.is_none();
    let sparse = &state.active.sparse;
    let segment = state.segments[segment].clone();
    let resume = match target {
        Target::Index(index) => state
            .gaps
            .before(index)
            .and_then(|gap| gap.behind.as_ref().map(|behind| (gap.end, behind.place))),
        _ => None,
    };
    let resume = resume.filter(|(_, place)| place.segment_first_index == segment.header.first_index);
    Plan {
        segment,
        resume: resume.map(|(index, place)| (index, place.position)),
        next,
        end: if active { state.active.end } else { u64::MAX },
        point: if active { sparse.find(target) } else { None },
        covered_from: (active && !sparse.is_complete()).then_some(sparse.covered_from),
        stop: u64::MAX,
        generation: state.generation,
    }
}

/// Frames `start..stop` from the scanner, which stands at or before `start`.
fn collect(scanner: Scanner, start: u64, stop: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
    let mut scanner = scanner.wanting(bytes_max);
    while scanner.next_index < start {
        if scanner.expect_header()?.is_none() {
            return Err(scanner.damaged("the file ends too early"));
        }
    }
    let mut budget = Budget::new(bytes_max);
    let mut frames = Vec::new();
    while scanner.next_index < stop {
        let frame = match scanner.expect_within(&mut budget) {
            Ok(Some(frame)) => frame,
            Ok(None) => break, // also when the next one would be too much
            Err(Error::Damaged { .. }) if !frames.is_empty() => break, // whoever reads on from there is told
            Err(error) => return Err(error),
        };
        frames.push(frame);
    }
    if frames.is_empty() {
        return Err(scanner.damaged("the file ends too early"));
    }
    Ok(frames)
}

fn has_records(frame: &Frame) -> bool {
    frame.header.kind == Kind::Batch && frame.header.record_count > 0
}
