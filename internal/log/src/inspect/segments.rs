//! The segments of a log's directory.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use super::{Depth, FrameReport, IndexReport, Inspection, SegmentReport};
use crate::damage::{Behind, Gap, Proof};
use crate::disk::Disk;
use crate::entry::Header;
use crate::error::Error;
use crate::format::files::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::ids::{ClusterId, GroupId};
use crate::scan::Scanner;
use crate::segment::{Join, Place, Segment, segment_path};
use crate::survey::{Bound, From, survey};

/// Reads all segments.
pub(super) fn inspect(disk: &dyn Disk, inspection: &mut Inspection, first_indexes: &[u64]) -> Result<(), Error> {
    let mut segments = Vec::new();
    for first_index in first_indexes {
        segments.extend(read_header(disk, inspection, *first_index)?);
    }
    let floor = inspection.manifest.as_ref().and_then(|manifest| manifest.last);
    let floor_end = floor.map_or(0, |floor| floor.index + 1);
    match segments.first() {
        Some(first) if first.header.first_index > floor_end => {
            let (path, end) = (segment_path(&inspection.dir, floor_end), first.header.first_index);
            inspection.find(&path, 0, Some((floor_end, end)), "the first segments are missing");
        }
        Some(_) => {}
        None => inspection.find(&inspection.dir.clone(), 0, None, "there are no segments"),
    }
    for place in 0..segments.len() {
        let (segment, next) = (&segments[place], segments.get(place + 1));
        match segment_report(disk, inspection, segment, next) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {} // purged meanwhile
            report => {
                let report = report?;
                inspection.segments.push(report);
            }
        }
    }
    check_mark_there(inspection);
    Ok(())
}

/// The segment with what its header says; None if the file is gone meanwhile.
fn read_header(disk: &dyn Disk, inspection: &mut Inspection, first_index: u64) -> Result<Option<Arc<Segment>>, Error> {
    let path = segment_path(&inspection.dir, first_index);
    let file = match disk.open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| Error::io("open", &path, error))?,
    };
    let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
    let count = file
        .read_at(&mut bytes, 0)
        .map_err(|error| Error::io("read", &path, error))?;
    let identity = inspection.hard_state.map(|hard_state| hard_state.identity);
    let ours = |header: &SegmentHeader| {
        identity.is_none_or(|ours| (ours.cluster_id, ours.group_id) == (header.cluster_id, header.group_id))
    };
    let why = match SegmentHeader::decode(&bytes[..count]) {
        Ok(header) if header.first_index == first_index && ours(&header) => {
            return Ok(Some(Segment::new(&inspection.dir, header)));
        }
        Ok(_) => "its header names another group or index".to_owned(),
        Err(error) => error.to_string(),
    };
    let marked = inspection
        .hard_state
        .map_or(u64::MAX, |hard_state| hard_state.mark.end_index);
    let affected = (first_index < marked).then_some((first_index, first_index + 1));
    inspection.find(&path, 0, affected, why);
    let assumed = SegmentHeader {
        cluster_id: identity.map_or(ClusterId([0; 16]), |identity| identity.cluster_id),
        group_id: identity.map_or(GroupId(0), |identity| identity.group_id),
        first_index,
        base_offset: 0,
        term_before: 0,
        chain_before: 0,
        append_time_before_ms: 0,
    };
    Ok(Some(Segment::headless(&inspection.dir, assumed)))
}

fn segment_report(
    disk: &dyn Disk,
    inspection: &mut Inspection,
    segment: &Segment,
    next: Option<&Arc<Segment>>,
) -> Result<SegmentReport, Error> {
    let file = disk
        .open(&segment.file.path)
        .map_err(|error| Error::io("open", &segment.file.path, error))?;
    let mut report = SegmentReport {
        path: segment.file.path.clone(),
        first_index: segment.header.first_index,
        end_index: None,
        base_offset: (!segment.headless).then_some(segment.header.base_offset),
        end_offset: None,
        times_ms: None,
        bytes: file
            .len()
            .map_err(|error| Error::io("read", &segment.file.path, error))?,
        frames: None,
        records: None,
        unfinished_bytes: 0,
        index: IndexReport::Missing,
    };
    inspect_index(disk, inspection, segment, next, &mut report);
    if inspection.depth == Depth::Frames {
        walk(disk, inspection, segment, next, &mut report)?;
    }
    Ok(report)
}

fn inspect_index(
    disk: &dyn Disk,
    inspection: &mut Inspection,
    segment: &Segment,
    next: Option<&Arc<Segment>>,
    report: &mut SegmentReport,
) {
    let path = segment.index_path();
    if disk.open(&path).is_err() {
        return;
    }
    let Some((points, footer)) = segment.read_index(disk) else {
        report.index = IndexReport::Bad;
        inspection.find(
            &path,
            0,
            None,
            "the sparse index is bad; it is rebuilt when it is needed",
        );
        return;
    };
    report.index = IndexReport::Good { points: points.len() };
    let end = footer.last.index + 1;
    report.end_index = Some(end);
    report.end_offset = Some(footer.log_end);
    if inspection.depth == Depth::Frames {
        return; // the frames themselves will tell
    }
    if report.bytes < footer.data_bytes {
        let entries = Some((report.first_index, end));
        inspection.find(
            &report.path,
            report.bytes,
            entries,
            "the file ends too early: some of its entries are missing",
        );
    }
    if let Some(next) = next.filter(|next| next.header.first_index > end) {
        let missing = Some((end, next.header.first_index));
        inspection.find(
            &segment_path(&inspection.dir, end),
            0,
            missing,
            "the segment is missing",
        );
    }
}

/// Goes over all frames of a segment.
fn walk(
    disk: &dyn Disk,
    inspection: &mut Inspection,
    segment: &Segment,
    next: Option<&Arc<Segment>>,
    report: &mut SegmentReport,
) -> Result<(), Error> {
    let bound = match next {
        Some(next) => Bound::segment(next),
        None => end_bound(inspection, segment, report.bytes),
    };
    let gaps = survey(disk, segment, From::start_of(segment), &bound)?;
    for gap in &gaps {
        if segment.headless && gap.end == gap.first + 1 && gap.first == segment.header.first_index {
            continue; // the header: told already
        }
        let path = segment_path(&inspection.dir, gap.at.segment_first_index);
        let entries = Some((gap.first, gap.end));
        inspection.find(&path, gap.at.position, entries, "entries are damaged or missing");
    }
    let (mut frames, mut records, mut times_ms) = (0, 0, None);
    let mut visit = |frame: FrameReport| {
        frames += 1;
        records += u64::from(frame.header.record_count);
        let time_ms = frame.header.append_time_ms;
        times_ms = Some((times_ms.map_or(time_ms, |(first, _)| first), time_ms));
    };
    let last_segment = next.is_none();
    let end = visit_frames(disk, segment, &gaps, bound.index, last_segment, &mut visit)?;
    report.frames = Some(frames);
    report.records = Some(records);
    report.times_ms = times_ms;
    report.end_index = Some(end.index);
    report.end_offset = end.join.map(|join| join.log_end);
    if last_segment {
        report.unfinished_bytes = report.bytes.saturating_sub(end.position);
    }
    Ok(())
}

/// Up to where the last segment must be whole: the mark.
fn end_bound(inspection: &Inspection, segment: &Segment, bytes: u64) -> Bound {
    let first_index = segment.header.first_index;
    let marked = inspection
        .hard_state
        .map(|hard_state| hard_state.mark)
        .filter(|mark| mark.end_index > first_index);
    match marked {
        Some(mark) => {
            let place = Place {
                segment_first_index: mark.segment_first_index,
                position: mark.position,
            };
            let proof = Proof::Chain(mark.chain);
            let there = mark.segment_first_index == first_index && bytes >= mark.position;
            Bound {
                index: mark.end_index,
                behind: there.then_some(Behind { place, proof }),
            }
        }
        None => Bound {
            index: first_index,
            behind: None,
        },
    }
}

/// Visits the good frames of a segment; returns where they end.
fn visit_frames(
    disk: &dyn Disk,
    segment: &Segment,
    gaps: &[Gap],
    bound: u64,
    beyond: bool,
    visit: &mut dyn FnMut(FrameReport),
) -> Result<From, Error> {
    let file = segment.file.open(disk)?;
    let mut here = From::start_of(segment);
    loop {
        if let Some(gap) = gaps.iter().find(|gap| gap.holds(here.index)) {
            let Some(behind) = gap.behind.as_ref().filter(|_| gap.end < bound || beyond) else {
                return Ok(here);
            };
            here = From {
                position: behind.place.position,
                index: gap.end,
                join: None,
            };
            continue;
        }
        let end = gaps.iter().map(|gap| gap.first).find(|first| *first > here.index);
        let end = end.unwrap_or(if beyond { u64::MAX } else { bound });
        if here.index >= end {
            return Ok(here);
        }
        let chain = here.join.map(|join| join.chain);
        let mut scanner = Scanner::at(file.clone(), segment, here.position, here.index, chain)?;
        while scanner.next_index < end {
            let position = scanner.position;
            let frame = match scanner.expect() {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(Error::Damaged { .. }) => return Ok(here), // the unfinished end
                Err(error) => return Err(error),
            };
            here = From {
                position: scanner.position,
                index: scanner.next_index,
                join: Some(Join::behind(&frame.header)),
            };
            let header: Header = frame.header;
            visit(FrameReport { position, header });
        }
    }
}

/// A log whose mark lies beyond its last segment has lost its end.
fn check_mark_there(inspection: &mut Inspection) {
    let (Some(hard_state), Some(last)) = (inspection.hard_state, inspection.segments.last()) else {
        return;
    };
    let (mark, path) = (hard_state.mark, last.path.clone());
    if mark.segment_first_index > last.first_index {
        let lost = Some((last.end_index.unwrap_or(last.first_index), mark.end_index));
        inspection.find(&path, last.bytes, lost, "the log ends here, but was synced further");
    }
}

/// Visits every good frame of one segment, in order.
pub fn inspect_frames(
    disk: &dyn Disk,
    dir: &Path,
    first_index: u64,
    visit: &mut dyn FnMut(FrameReport),
) -> Result<(), Error> {
    let disk = &super::files::ReadOnly(disk);
    let mut scratch = super::inspect(disk, dir, Depth::Headers)?;
    let all: Vec<u64> = scratch.segments.iter().map(|segment| segment.first_index).collect();
    let Some(segment) = read_header(disk, &mut scratch, first_index)? else {
        return Ok(());
    };
    let next = match all.iter().find(|other| **other > first_index) {
        Some(next) => read_header(disk, &mut scratch, *next)?,
        None => None,
    };
    let bound = match &next {
        Some(next) => Bound::segment(next),
        None => end_bound(&scratch, &segment, u64::MAX),
    };
    let gaps = survey(disk, &segment, From::start_of(&segment), &bound)?;
    visit_frames(disk, &segment, &gaps, bound.index, next.is_none(), visit).map(|_| ())
}
