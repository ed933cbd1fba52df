//! A survey finds out exactly which entries of a segment are bad, once it is known that some are.
//!
//! It reads frame after frame. Behind a bad one it looks for the next good one: if the bad one's header is good, right behind it; else
//! byte by byte, for a header whose checksum fits, whose index lies in the range that is missing, whose payload is whole, and which the
//! frame behind it follows on by chain. The segment behind, or the mark, says where it must end and with which chain.

use std::sync::Arc;

use crate::damage::{Behind, Gap, Proof};
use crate::disk::{Disk, DiskFile};
use crate::entry::{Frame, Header};
use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::format::frame::{self, HEADER_BYTES};
use crate::scan::{Scanned, Scanner};
use crate::segment::{Join, Place, Segment};
use crate::tail::LogState;

/// Bytes searched at once.
const WINDOW_BYTES: usize = 256 * 1024;

/// Where a survey begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct From {
    pub(crate) position: u64,
    pub(crate) index: u64,
    /// What the frame there follows on, if that is known.
    pub(crate) join: Option<Join>,
}

/// Where a survey ends.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    /// Index behind the last entry of the segment, or of the part looked at.
    pub(crate) index: u64,
    /// What stands there, if that is known.
    pub(crate) behind: Option<Behind>,
}

impl Bound {
    /// Where the segment `next` begins.
    pub(crate) fn segment(next: &Segment) -> Bound {
        let first_index = next.header.first_index;
        let place = Place {
            segment_first_index: first_index,
            position: SEGMENT_HEADER_BYTES,
        };
        Bound {
            index: first_index,
            behind: (!next.headless).then_some(Behind {
                place,
                proof: Proof::Chain(next.header.chain_before),
            }),
        }
    }

    /// The end of what is committed.
    pub(crate) fn committed(state: &LogState) -> Bound {
        Bound {
            index: state.committed.next_index,
            behind: Some(Behind {
                place: state.committed_at,
                proof: Proof::Chain(state.committed.chain),
            }),
        }
    }

    fn chain(&self) -> Option<u64> {
        match &self.behind {
            Some(Behind {
                proof: Proof::Chain(chain),
                ..
            }) => Some(*chain),
            _ => None,
        }
    }
}

impl From {
    /// The segment's first frame.
    pub(crate) fn start_of(segment: &Segment) -> From {
        From {
            position: SEGMENT_HEADER_BYTES,
            index: segment.header.first_index,
            join: (!segment.headless).then(|| Join::before(&segment.header)),
        }
    }
}

/// The gaps of a segment between two places, in order.
pub(crate) fn survey(disk: &dyn Disk, segment: &Segment, from: From, bound: &Bound) -> Result<Vec<Gap>, Error> {
    let file = segment.file.open(disk)?;
    let length = file
        .len()
        .map_err(|error| Error::io("read", &segment.file.path, error))?;
    let mut survey = Survey {
        disk,
        file,
        length,
        segment,
        bound,
        gaps: Vec::new(),
    };
    let surveyed = survey.run(from);
    segment.file.release();
    surveyed.map(|()| survey.gaps)
}

struct Survey<'a> {
    disk: &'a dyn Disk,
    file: Arc<dyn DiskFile>,
    length: u64,
    segment: &'a Segment,
    bound: &'a Bound,
    gaps: Vec<Gap>,
}

impl Survey<'_> {
    fn run(&mut self, from: From) -> Result<(), Error> {
        let mut here = from;
        if from.index >= self.bound.index {
            return Ok(());
        }
        if self.segment.headless && from.position == SEGMENT_HEADER_BYTES {
            // A segment's header and its first frame are mended together.
            match self.gap_at(here)? {
                Some(next) => here = next,
                None => return Ok(()),
            }
        }
        loop {
            let run = here;
            here = self.follow(here)?;
            if here.index == self.bound.index {
                let chain = here.join.map(|join| join.chain);
                if self
                    .bound
                    .chain()
                    .is_some_and(|known| chain.is_some_and(|chain| chain != known))
                {
                    // A stale run, of another time.
                    self.push(
                        self.place(run.position),
                        run,
                        self.bound.index,
                        self.bound.behind.clone(),
                    );
                }
                return Ok(());
            }
            match self.gap_at(here)? {
                Some(next) => here = next,
                None => return Ok(()),
            }
        }
    }

    /// Goes over good frames, up to the bound or the first that is not.
    fn follow(&self, from: From) -> Result<From, Error> {
        let mut scanner = self.scanner(from)?;
        let mut here = from;
        while here.index < self.bound.index
            && let Scanned::Frame(frame) = scanner.next()?
        {
            here = From {
                position: scanner.position,
                index: scanner.next_index,
                join: Some(Join::behind(&frame.header)),
            };
        }
        Ok(here)
    }

    fn scanner(&self, from: From) -> Result<Scanner, Error> {
        let chain = from.join.map(|join| join.chain);
        Scanner::at(self.file.clone(), self.segment, from.position, from.index, chain)
    }

    /// Notes the gap that begins here; returns where good frames go on, if they do in this segment.
    fn gap_at(&mut self, here: From) -> Result<Option<From>, Error> {
        let Some((next, frame)) = self.resume(here)? else {
            self.push(
                self.end_of_segment(here),
                here,
                self.bound.index,
                self.bound.behind.clone(),
            );
            return Ok(None);
        };
        let proof = Proof::of(&frame);
        let place = self.place(next.position);
        self.push(
            self.place(here.position),
            here,
            next.index,
            Some(Behind { place, proof }),
        );
        Ok(Some(next))
    }

    fn place(&self, position: u64) -> Place {
        Place {
            segment_first_index: self.segment.header.first_index,
            position,
        }
    }

    /// Where the entry behind the last good one stands: here, or in the next file if the segment was sealed just here.
    fn end_of_segment(&self, here: From) -> Place {
        let footer = self.segment.footer(self.disk);
        match footer.filter(|footer| footer.data_bytes == here.position && footer.last.index + 1 == here.index) {
            Some(_) => Place {
                segment_first_index: here.index,
                position: SEGMENT_HEADER_BYTES,
            },
            None => self.place(here.position),
        }
    }

    fn push(&mut self, at: Place, from: From, end: u64, behind: Option<Behind>) {
        self.gaps.push(Gap {
            first: from.index,
            end,
            at,
            before: from.join,
            behind,
        });
    }

    /// The next good frame behind a bad one.
    fn resume(&self, bad: From) -> Result<Option<(From, Frame)>, Error> {
        if let Some(header) = self.header_at(bad)? {
            let next = From {
                position: bad.position + header.frame_bytes(),
                index: bad.index + 1,
                join: Some(Join::behind(&header)),
            };
            if let Some(frame) = self.accept(next)? {
                return Ok(Some((From { join: None, ..next }, frame)));
            }
        }
        let mut start = bad.position + 1;
        while start + HEADER_BYTES as u64 <= self.length {
            let mut window = vec![0; WINDOW_BYTES];
            let count = self
                .file
                .read_at(&mut window, start)
                .map_err(|error| Error::io("read", &self.segment.file.path, error))?;
            let places = count.saturating_sub(HEADER_BYTES - 1);
            for place in 0..places {
                let Some(index) = frame::claimed_index(&window[place..]) else {
                    continue;
                };
                let next = From {
                    position: start + place as u64,
                    index,
                    join: None,
                };
                if (bad.index + 1..self.bound.index).contains(&index)
                    && let Some(frame) = self.accept(next)?
                {
                    return Ok(Some((next, frame)));
                }
            }
            if places == 0 {
                break;
            }
            start += places as u64;
        }
        Ok(None)
    }

    /// The header of the frame here, if it is good and follows on: only the payload is bad then.
    fn header_at(&self, here: From) -> Result<Option<Header>, Error> {
        match self.scanner(here)?.expect_header() {
            Ok(found) => Ok(found.map(|(header, _)| header)),
            Err(Error::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The frame here, if it is whole and what stands behind it follows on, or is bad itself.
    fn accept(&self, here: From) -> Result<Option<Frame>, Error> {
        let mut scanner = self.scanner(here)?;
        let Scanned::Frame(frame) = scanner.next()? else {
            return Ok(None);
        };
        let join = Join::behind(&frame.header);
        let fits = if join.next_index == self.bound.index {
            self.bound.chain().is_none_or(|chain| chain == join.chain)
        } else {
            let unchained = From {
                position: scanner.position,
                index: join.next_index,
                join: None,
            };
            let chained = From {
                join: Some(join),
                ..unchained
            };
            self.header_at(unchained)?.is_none() || self.header_at(chained)?.is_some()
        };
        Ok(fits.then_some(frame))
    }
}
