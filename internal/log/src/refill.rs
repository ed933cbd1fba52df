//! Refilling: good frames of another replica take the place of bad ones, in the same bytes of the same files.
//!
//! Frames are taken only if the first follows on the entry before the gap, each follows on the one before it, and what stands behind the
//! gap follows on the last. Within a file they must also fit the space exactly. Files that are gone are made anew, with the header that the
//! entry before gives, and end where an append would have ended them.
//!
//! A refill may be interrupted anywhere and done again: until its frames are whole they are found to be bad, as before.

use std::path::Path;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::damage::Gap;
use crate::entry::Frame;
use crate::error::Error;
use crate::format::crc32c;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::format::frame::{chain_of, decode_header};
use crate::ids::Identity;
use crate::round::Op;
use crate::segment::{Join, Place, Segment};

/// What a refill writes into.
pub(crate) struct Files<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) identity: &'a Identity,
    pub(crate) segment_bytes_max: u64,
    /// All segments that are there, in order.
    pub(crate) segments: &'a [Arc<Segment>],
}

/// What a refill does.
pub(crate) struct Refill {
    pub(crate) ops: Vec<Op>,
    /// What of the gap is left.
    pub(crate) left: Option<Gap>,
    /// Segments that are made, or whose header is put right.
    pub(crate) mended: Vec<Arc<Segment>>,
    /// First indexes of all segments written to.
    pub(crate) touched: Vec<u64>,
}

/// Why a refill is not done.
pub(crate) enum Unfit {
    /// The frames are not those that follow on here.
    Frames(Error),
    /// They follow on, up to the end of the gap, but what stands behind it does not follow on them. What was taken for good frames there
    /// only looks like it: the gap is wider.
    Behind(Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Unfit {
        Unfit::Frames(error)
    }
}

struct Plan<'a> {
    files: &'a Files<'a>,
    gap: &'a Gap,
    /// Behind the frames taken so far.
    join: Join,
    place: Place,
    /// Frames for the present segment, not yet turned into an operation, and where they begin.
    run: BytesMut,
    run_start: u64,
    result: Refill,
}

/// Plans how `frames`, which begin with the gap's first entry, fill the gap or its beginning. `before` is what they follow on.
pub(crate) fn plan(files: &Files<'_>, gap: &Gap, before: Join, frames: &[Frame]) -> Result<Refill, Unfit> {
    let mut plan = Plan {
        files,
        gap,
        join: before,
        place: gap.at,
        run: BytesMut::new(),
        run_start: gap.at.position,
        result: Refill {
            ops: Vec::new(),
            left: None,
            mended: Vec::new(),
            touched: Vec::new(),
        },
    };
    for frame in frames.iter().take_while(|frame| frame.header.id.index < gap.end) {
        check(frame, &plan.join)?;
        plan.add(frame)?;
    }
    plan.finish()
}

/// A frame must be whole in itself and follow on.
fn check(frame: &Frame, join: &Join) -> Result<(), Error> {
    let index = frame.header.id.index;
    let refused = |why: String| Err(Error::refill(index, why));
    match decode_header(&frame.head) {
        Ok(header) if header == frame.header => {}
        Ok(_) => return refused("its header is not the one encoded".into()),
        Err(error) => return refused(error.to_string()),
    }
    let header = &frame.header;
    if frame.payload.len() as u64 != u64::from(header.payload_bytes) || crc32c(&frame.payload) != header.payload_crc {
        return refused("its payload is not the one of its header".into());
    }
    let follows = index == join.next_index
        && header.base_offset == join.log_end
        && header.id.term >= join.term
        && header.append_time_ms >= join.append_time_ms
        && chain_of(join.chain, header, frame.detail_bytes()) == header.chain;
    if !follows {
        return refused(format!(
            "it does not follow on entry {}",
            i128::from(join.next_index) - 1
        ));
    }
    Ok(())
}

impl Plan<'_> {
    fn segment(&self, first_index: u64) -> Option<&Arc<Segment>> {
        let mended = self.result.mended.iter();
        let mut all = mended.chain(self.files.segments);
        all.find(|segment| segment.header.first_index == first_index)
    }

    /// First index of the segment behind the present one.
    fn next_segment(&self) -> Option<u64> {
        let first_indexes = self.files.segments.iter().map(|segment| segment.header.first_index);
        first_indexes
            .filter(|first| *first > self.place.segment_first_index)
            .min()
    }

    fn add(&mut self, frame: &Frame) -> Result<(), Error> {
        let index = frame.header.id.index;
        let bytes = frame.len_bytes() as u64;
        let next = self.next_segment();
        // Behind the gap's end this file goes on: nothing may be moved to another.
        let last_of_file = next.is_some_and(|next| next <= self.gap.end);
        let full = last_of_file && self.place.position + bytes > self.files.segment_bytes_max;
        if next == Some(index) || (full && self.place.position > SEGMENT_HEADER_BYTES) {
            self.leave();
            self.place = Place {
                segment_first_index: index,
                position: SEGMENT_HEADER_BYTES,
            };
            self.run_start = SEGMENT_HEADER_BYTES;
        }
        if self.place.position == SEGMENT_HEADER_BYTES {
            self.enter()?;
        }
        self.run.put(frame.head.clone());
        self.run.put(frame.payload.clone());
        self.place.position += bytes;
        self.join = Join::behind(&frame.header);
        Ok(())
    }

    /// Sees to the present segment's file and its header.
    fn enter(&mut self) -> Result<(), Error> {
        let header = self.join.header(self.files.identity);
        match self.segment(self.place.segment_first_index) {
            Some(segment) if !segment.headless && segment.header == header => {}
            Some(segment) if !segment.headless => {
                let index = self.join.next_index;
                let why = "it does not follow on as the header of its segment says";
                return Err(Error::refill(index, why));
            }
            Some(segment) => {
                let mended = segment.mended(header);
                self.result.mended.push(mended);
                self.run.put(Bytes::from(header.encode()));
                self.run_start = 0;
            }
            None => {
                let segment = Segment::new(self.files.dir, header);
                self.result.ops.push(Op::Create {
                    file: segment.file.clone(),
                    head: Bytes::from(header.encode()),
                });
                self.result.mended.push(segment);
            }
        }
        Ok(())
    }

    /// Writes the run into the present segment.
    fn flush(&mut self) {
        let first_index = self.place.segment_first_index;
        let bytes = std::mem::take(&mut self.run).freeze();
        let file = self.segment(first_index).map(|segment| segment.file.clone());
        if let Some(file) = file.filter(|_| !bytes.is_empty()) {
            self.result.touched.push(first_index);
            self.result.ops.push(Op::Overwrite {
                file,
                position: self.run_start,
                bytes,
            });
        }
    }

    /// Writes the run and leaves the present segment for good: nothing belongs behind it.
    fn leave(&mut self) {
        self.flush();
        if let Some(file) = self
            .segment(self.place.segment_first_index)
            .map(|segment| segment.file.clone())
        {
            self.result.ops.push(Op::Cut {
                file,
                bytes: self.place.position,
            });
        }
    }

    fn finish(mut self) -> Result<Refill, Unfit> {
        let (index, position) = (self.join.next_index, self.place.position);
        let unfit = |why: &str| Err(Unfit::Behind(Error::refill(index.saturating_sub(1), why)));
        let Some(behind) = self.gap.behind.as_ref() else {
            return Err(Error::refill(index, "what stands behind the gap is not known").into());
        };
        let same_file = behind.place.segment_first_index == self.place.segment_first_index;
        if same_file && position > behind.place.position {
            return unfit("it reaches over what stands behind the gap");
        }
        if index < self.gap.end {
            self.flush();
            self.result.left = Some(Gap {
                first: index,
                at: self.place,
                before: Some(self.join),
                ..self.gap.clone()
            });
            return Ok(self.result);
        }
        if !behind.proof.follows_on(&self.join) {
            return unfit("what stands behind the gap does not follow on it");
        }
        if same_file && position < behind.place.position {
            return unfit("it does not reach what stands behind the gap");
        }
        match same_file {
            true => self.flush(),
            false => self.leave(),
        }
        Ok(self.result)
    }
}
