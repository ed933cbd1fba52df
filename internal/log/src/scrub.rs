//! The scrubber: goes over everything that is committed and on disk, piece by piece, before a reader comes across damage. Its owner paces
//! it; where it stands is kept in memory, so a start begins anew.

use std::sync::Arc;

use crate::damage::DamagedRange;
use crate::disk::DiskFile;
use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::log::Log;
use crate::round::Op;
use crate::scan::{Scanned, Scanner};
use crate::segment::{Join, Segment};
use crate::survey::From;
use crate::tail::LogState;

/// What a step of the scrubber found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Bytes read.
    pub bytes: u64,
    /// Damaged ranges known behind this step and not before it.
    pub found: Vec<DamagedRange>,
    /// This step came to the end of what was committed when the pass began; the next one begins anew at the floor.
    pub finished: bool,
}

/// How far the scrubber has come with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Segments that there are.
    pub segments: u64,
    /// Those of them that it has gone over in this pass; between two passes all.
    pub verified_segments: u64,
    /// When the last pass came to its end, by the clock, milliseconds since 1970; before the end of the first one, when the log was opened.
    pub since_ms: u64,
}

/// Where the scrubber stands, and what lies behind it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scrubbing {
    /// None: at the floor.
    cursor: Option<Cursor>,
    /// A pass has come to its end.
    has_passed: bool,
    /// See [`Scrubbed::since_ms`].
    pub(crate) since_ms: u64,
}

/// Where a pass stands.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    segment_first_index: u64,
    from: From,
    /// Where this pass ends: what was committed when it began. Otherwise it would run behind a busy log without end.
    pass_end: u64,
}

/// What one step looks at: a part of one segment.
struct Step {
    segment: Arc<Segment>,
    next: Option<Arc<Segment>>,
    from: From,
    /// Index behind the last entry to look at.
    end: u64,
    pass_end: u64,
    generation: u64,
}

impl Log {
    /// Verifies the next piece of about `bytes_max` bytes: frames of sealed segments and of the committed part of the active one, and, at
    /// a segment's end, its sparse index, which is rebuilt if it is bad. Damage that it finds is noted (see [`Log::damage`]); finding
    /// out its extent may read the rest of the segment. Blocking.
    pub fn verify_step(&self, bytes_max: usize) -> Result<Verified, Error> {
        let bytes_max = bytes_max.max(1) as u64;
        let before = self.damage();
        let mut bytes = 0;
        let mut finished = false;
        while bytes < bytes_max && !finished {
            let step = self.next_step(&self.lock());
            let Some(step) = step else {
                self.end_pass();
                finished = true;
                continue;
            };
            let (cursor, read) = match self.verify(&step, bytes_max - bytes) {
                Err(_) if self.lock().generation != step.generation => continue, // its file may be gone
                verified => verified?,
            };
            bytes += read;
            let mut state = self.lock();
            if state.generation == step.generation {
                state.scrub.cursor = Some(cursor);
            }
        }
        let mut found = self.damage();
        found.retain(|range| !before.contains(range));
        Ok(Verified { bytes, found, finished })
    }

    /// How far this has come.
    pub fn scrubbed(&self) -> Scrubbed {
        let state = self.lock();
        let Scrubbing {
            cursor,
            has_passed,
            since_ms,
        } = state.scrub;
        let segments = state.segments.len();
        let verified = match cursor {
            Some(cursor) => state
                .segments
                .partition_point(|segment| segment.header.first_index < cursor.segment_first_index),
            None if has_passed => segments,
            None => 0,
        };
        Scrubbed {
            segments: segments as u64,
            verified_segments: verified as u64,
            since_ms,
        }
    }

    fn end_pass(&self) {
        let since_ms = self.inner.open.clock.now_ms();
        self.lock().scrub = Scrubbing {
            cursor: None,
            has_passed: true,
            since_ms,
        };
    }

    /// What to look at next; None at the end.
    fn next_step(&self, state: &LogState) -> Option<Step> {
        let cursor = state.scrub.cursor;
        let begun = cursor.map_or(0, |cursor| cursor.segment_first_index);
        let mut place = state
            .segments
            .partition_point(|segment| segment.header.first_index < begun);
        let segment = state.segments.get(place)?;
        let mut from = match cursor {
            Some(cursor) if segment.header.first_index == begun => cursor.from,
            _ => From::start_of(segment),
        };
        // What is known to be damaged is not looked at again.
        while let Some(gap) = state.gaps.holding(from.index) {
            let behind = gap.behind.as_ref()?.place;
            place = state
                .segments
                .partition_point(|segment| segment.header.first_index <= behind.segment_first_index)
                - 1;
            from = From {
                position: behind.position,
                index: gap.end,
                join: None,
            };
        }
        let segment = state.segments.get(place)?.clone();
        let next = state.segments.get(place + 1).cloned();
        let committed_end = state.committed.next_index;
        let pass_end = cursor.map_or(committed_end, |cursor| cursor.pass_end);
        let certain = self.inner.cached.written_end().min(pass_end);
        let segment_end = next.as_ref().map_or(u64::MAX, |next| next.header.first_index);
        let gap = state.gaps.after(from.index).map_or(u64::MAX, |gap| gap.first);
        let end = certain.min(segment_end).min(gap);
        (from.index < end || segment_end <= certain).then_some(Step {
            segment,
            next,
            from,
            end,
            pass_end,
            generation: state.generation,
        })
    }

    /// Goes over one part; returns where to go on, and the bytes read.
    fn verify(&self, step: &Step, bytes_max: u64) -> Result<(Cursor, u64), Error> {
        let Step { segment, from, .. } = step;
        let file = segment.file.open(&*self.inner.open.disk)?;
        if from.position == SEGMENT_HEADER_BYTES && !segment.headless {
            self.verify_header(step, &*file)?;
        }
        let chain = from.join.map(|join| join.chain);
        let mut scanner = Scanner::at(file, segment, from.position, from.index, chain)?;
        let mut here = *from;
        let mut good = true;
        while good && here.index < step.end && here.position - from.position < bytes_max {
            match scanner.next()? {
                Scanned::Frame(frame) => {
                    here = From {
                        position: scanner.position,
                        index: scanner.next_index,
                        join: Some(Join::behind(&frame.header)),
                    };
                }
                Scanned::End | Scanned::Bad(_) => good = false,
            }
        }
        let bytes = here.position - from.position;
        let stay = Cursor {
            segment_first_index: segment.header.first_index,
            from: here,
            pass_end: step.pass_end,
        };
        let next = step
            .next
            .as_ref()
            .filter(|next| here.index == next.header.first_index || !good);
        let follows =
            |next: &Segment| next.headless || here.join.is_none_or(|join| join.chain == next.header.chain_before);
        let suspicious = !good || next.is_some_and(|next| !follows(next));
        let news = suspicious && self.examine(segment, Some(*from))?;
        let Some(next) = next.filter(|_| !news) else {
            let mut stay = stay; // more to read, or damage to step over
            if !good && !news {
                stay.from.index = step.end; // what is bad here is not committed, or was just written
            }
            return Ok((stay, bytes));
        };
        self.verify_index(step, next)?;
        if segment.loaded().is_none() {
            segment.file.release();
        }
        let on = Cursor {
            segment_first_index: next.header.first_index,
            from: From::start_of(next),
            pass_end: step.pass_end,
        };
        Ok((on, bytes.max(SEGMENT_HEADER_BYTES)))
    }

    /// Writes a segment's header again if it is not what it was. Nobody reads it while the log is open, so nobody else finds out.
    fn verify_header(&self, step: &Step, file: &dyn DiskFile) -> Result<(), Error> {
        let file_path = &step.segment.file.path;
        let header = step.segment.header.encode();
        let mut found = vec![0; header.len()];
        let count = file.read_at(&mut found, 0);
        let count = count.map_err(|error| Error::io("read", file_path, error))?;
        if found[..count] == header[..] {
            return Ok(());
        }
        let state = self.lock();
        if state.generation != step.generation {
            return Ok(());
        }
        tracing::error!(path = %file_path.display(), "the segment's header is damaged; it is written again");
        let again = Op::Overwrite {
            file: step.segment.file.clone(),
            position: 0,
            bytes: header.into(),
        };
        self.inner.open.writer.submit(vec![again], Box::new(|_| {}))
    }

    /// Rebuilds a sealed segment's index if it is missing or bad.
    fn verify_index(&self, step: &Step, next: &Segment) -> Result<(), Error> {
        let disk = &*self.inner.open.disk;
        if step.segment.headless || step.segment.has_good_index(disk, next) {
            return Ok(());
        }
        step.segment.unload();
        let rebuilt = step.segment.load(disk, next)?.rebuilt;
        let mut state = self.lock();
        state.note_loaded(step.segment.clone());
        if let Some(bytes) = rebuilt.filter(|_| state.generation == step.generation) {
            let path = step.segment.index_path();
            return self
                .inner
                .open
                .writer
                .submit(vec![Op::Replace { path, bytes }], Box::new(|_| {}));
        }
        Ok(())
    }
}
