//! Walks over the frames of a segment file and checks everything that can be checked: header checksum, payload CRC, that indexes
//! are contiguous, and that each frame's chain follows on.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::cache::Budget;
use crate::disk::DiskFile;
use crate::entry::{Frame, Header, Kind};
use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::format::frame::{self, HEADER_BYTES};
use crate::mutant;
use crate::segment::Segment;

/// Bytes read at once, unless one frame needs more.
const CHUNK_BYTES: usize = 128 * 1024;
/// The same for those who want many frames: what is cut off at a chunk's end is read twice, so chunks should be large beside
/// frames. Not larger, for frames keep their whole chunk in memory.
const CHUNK_BYTES_MAX: usize = 1024 * 1024;
/// The same for those who step over the payloads.
const HEAD_CHUNK_BYTES: usize = 8 * 1024;

/// What stands at a position.
pub(crate) enum Scanned {
    /// A whole frame that follows on.
    Frame(Frame),
    /// Nothing: the end of the file, or zeros.
    End,
    /// Something that is not the next frame.
    Bad(String),
}

enum Head {
    Whole(Header),
    End,
    Bad(String),
}

/// Invariant: `chunk` holds the bytes of the file from `position` on.
pub(crate) struct Scanner {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    pub(crate) position: u64,
    end: u64,
    /// Bytes read at once, unless one frame needs more.
    chunk_bytes: usize,
    chunk: Bytes,
    pub(crate) next_index: u64,
    /// The chain before `position`, if known.
    chain: Option<u64>,
}

impl Scanner {
    /// From the segment's first frame to `end`, or to the end of the file if that comes first.
    pub(crate) fn from_start(file: Arc<dyn DiskFile>, segment: &Segment, end: u64) -> Result<Scanner, Error> {
        let header = &segment.header;
        let mut scanner = Scanner::new(file, segment, end)?;
        scanner.position = SEGMENT_HEADER_BYTES;
        scanner.next_index = header.first_index;
        scanner.chain = (!segment.headless).then_some(header.chain_before);
        Ok(scanner)
    }

    /// From a known place; it must follow on this chain, if that is known.
    pub(crate) fn at(
        file: Arc<dyn DiskFile>,
        segment: &Segment,
        position: u64,
        next_index: u64,
        chain: Option<u64>,
    ) -> Result<Scanner, Error> {
        let mut scanner = Scanner::new(file, segment, u64::MAX)?;
        scanner.position = position;
        scanner.next_index = next_index;
        scanner.chain = chain;
        Ok(scanner)
    }

    /// Stops at this position, if the file does not end before it.
    pub(crate) fn up_to(mut self, end: u64) -> Scanner {
        self.end = self.end.min(end);
        self
    }

    fn new(file: Arc<dyn DiskFile>, segment: &Segment, end: u64) -> Result<Scanner, Error> {
        let path = segment.file.path.clone();
        let length = file.len().map_err(|error| Error::io("read", &path, error))?;
        Ok(Scanner {
            file,
            path,
            position: 0,
            end: end.min(length),
            chunk_bytes: CHUNK_BYTES,
            chunk: Bytes::new(),
            next_index: 0,
            chain: None,
        })
    }

    /// The next frame, wholly checked.
    pub(crate) fn next(&mut self) -> Result<Scanned, Error> {
        let header = match self.head()? {
            Head::Whole(header) => header,
            Head::End => return Ok(Scanned::End),
            Head::Bad(why) => return Ok(Scanned::Bad(why)),
        };
        self.whole(&header)
    }

    /// The frame with this header, which is the next.
    fn whole(&mut self, header: &Header) -> Result<Scanned, Error> {
        self.fill(frame_bytes(header))?;
        match Frame::decode(&mut self.chunk) {
            Ok(frame) => {
                self.advance(header);
                Ok(Scanned::Frame(frame))
            }
            Err(error) => Ok(Scanned::Bad(error.to_string())),
        }
    }

    /// The next frame where there must be one or the end; anything else is damage.
    pub(crate) fn expect(&mut self) -> Result<Option<Frame>, Error> {
        let next = self.next()?;
        self.expected(next)
    }

    /// Like `expect`, but also None if the frame is larger than what is left of the budget; then its payload is not read.
    pub(crate) fn expect_within(&mut self, budget: &mut Budget) -> Result<Option<Frame>, Error> {
        let next = match self.head()? {
            Head::Whole(header) if !budget.take(frame_bytes(&header)) => return Ok(None),
            Head::Whole(header) => self.whole(&header)?,
            Head::End => Scanned::End,
            Head::Bad(why) => Scanned::Bad(why),
        };
        self.expected(next)
    }

    fn expected(&self, next: Scanned) -> Result<Option<Frame>, Error> {
        match next {
            Scanned::Frame(frame) => Ok(Some(frame)),
            Scanned::End if self.position >= self.end => Ok(None),
            Scanned::End => Err(self.damaged("zeros instead of a frame")),
            Scanned::Bad(why) => Err(self.damaged(&why)),
        }
    }

    /// Like `expect`, but steps over the payload unread.
    pub(crate) fn expect_header(&mut self) -> Result<Option<(Header, u64)>, Error> {
        let header = match self.head()? {
            Head::Whole(header) => header,
            Head::End if self.position >= self.end => return Ok(None),
            Head::End => return Err(self.damaged("zeros instead of a frame")),
            Head::Bad(why) => return Err(self.damaged(&why)),
        };
        let position = self.position;
        let bytes = frame_bytes(&header);
        if self.end - position < bytes as u64 {
            return Err(self.damaged("the frame is cut off"));
        }
        self.chunk.advance(bytes.min(self.chunk.len()));
        self.advance(&header);
        Ok(Some((header, position)))
    }

    /// From here on the payloads are stepped over: read less ahead.
    pub(crate) fn heads_only(mut self) -> Scanner {
        self.chunk_bytes = HEAD_CHUNK_BYTES;
        self
    }

    /// From here on so many bytes of frames are wanted: read as much ahead.
    pub(crate) fn wanting(mut self, bytes: usize) -> Scanner {
        self.chunk_bytes = bytes.clamp(CHUNK_BYTES, CHUNK_BYTES_MAX);
        self
    }

    /// The next frame with its payload left out unread, unless the fold keeps it (a membership's).
    pub(crate) fn expect_head(&mut self) -> Result<Option<Frame>, Error> {
        let header = match self.head()? {
            Head::Whole(header) if header.kind == Kind::Membership => return self.expect(),
            Head::Whole(header) => header,
            _ => return self.expect(),
        };
        let head = self.chunk.slice(..HEADER_BYTES + usize::from(header.detail_bytes));
        self.expect_header()?;
        Ok(Some(Frame {
            head: Bytes::copy_from_slice(&head),
            payload: Bytes::new(),
            header,
        }))
    }

    pub(crate) fn damaged(&self, why: &str) -> Error {
        Error::damaged(&self.path, self.position, self.next_index, why)
    }

    /// Header and detail of the next frame, checked, and checked to follow on.
    fn head(&mut self) -> Result<Head, Error> {
        self.fill(HEADER_BYTES)?;
        let start = &self.chunk[..HEADER_BYTES.min(self.chunk.len())];
        if start.iter().all(|byte| *byte == 0) {
            return Ok(Head::End);
        }
        let head_bytes = match frame::claimed_head_bytes(start) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(Head::Bad(error.to_string())),
        };
        self.fill(head_bytes)?;
        let header = match frame::decode_header(&self.chunk) {
            Ok(header) => header,
            Err(error) => return Ok(Head::Bad(error.to_string())),
        };
        if header.id.index != self.next_index {
            return Ok(Head::Bad(format!(
                "index is {}, should be {}",
                header.id.index, self.next_index
            )));
        }
        let chain = self
            .chain
            .map(|before| frame::chain_of(before, &header, &self.chunk[HEADER_BYTES..head_bytes]));
        if chain.is_some_and(|chain| chain != header.chain) && !mutant!("stale frame accepted after truncation") {
            return Ok(Head::Bad(format!("chain {:#x} does not follow on", header.chain)));
        }
        Ok(Head::Whole(header))
    }

    /// Moves behind the frame. The chunk has been advanced already.
    fn advance(&mut self, header: &Header) {
        self.position += frame_bytes(header) as u64;
        self.next_index += 1;
        self.chain = Some(header.chain);
    }

    /// Whether nothing but zeros stands from here to the end.
    pub(crate) fn rest_is_zeros(&mut self) -> Result<bool, Error> {
        let position = self.position;
        while self.position < self.end {
            self.chunk = Bytes::new();
            self.fill(CHUNK_BYTES)?;
            if self.chunk.is_empty() || self.chunk.iter().any(|byte| *byte != 0) {
                break;
            }
            self.position += self.chunk.len() as u64;
        }
        let zeros = self.position >= self.end;
        self.chunk = Bytes::new();
        self.position = position;
        Ok(zeros)
    }

    /// Makes the chunk hold at least `bytes`, or all there are up to the end.
    fn fill(&mut self, bytes: usize) -> Result<(), Error> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if self.chunk.len() >= bytes.min(left) {
            return Ok(());
        }
        let read = self.file.read(bytes.max(self.chunk_bytes).min(left), self.position);
        self.chunk = Bytes::from(read.map_err(|error| Error::io("read", &self.path, error))?);
        Ok(())
    }
}

fn frame_bytes(header: &Header) -> usize {
    usize::try_from(header.frame_bytes()).unwrap_or(usize::MAX)
}
