//! The bytes of bundles: many small calls in one frame, and many answers.
//!
//! ```text
//!   Calls     repeated: u64 id · u64 group · u8 kind · u32 length · body
//!   Answers   repeated: u64 id · u8 outcome (0 answer, 1 failure) · u32 length · body, or the reason
//! ```
//!
//! What arrives is decoded whole or refused whole: a bundle that is broken is a breach of the protocol.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{Frame, FrameType};
use crate::link::Refusal;
use crate::link::limits::{BUNDLE_BYTES_MAX, BUNDLE_CALLS_MAX, REASON_BYTES_MAX};

const ANSWERED: u8 = 0;
const FAILED: u8 = 1;
/// In a bundle only the text of a refusal tells whether the call was begun; nobody sends there what depends on it.
const FAILURE_KIND: u8 = 0;

/// One call of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::link) struct BundledCall {
    pub(in crate::link) id: u64,
    pub(in crate::link) group: u64,
    pub(in crate::link) kind: u8,
    pub(in crate::link) body: Bytes,
}

/// The answer to one call, or the reason for its refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::link) struct BundledAnswer {
    pub(in crate::link) id: u64,
    pub(in crate::link) answer: Result<Bytes, Refusal>,
}

/// Calls or answers that are to become one frame.
#[derive(Debug, Default)]
pub(in crate::link) struct Bundle {
    bytes: BytesMut,
    ids: Vec<u64>,
}

impl Bundle {
    pub(in crate::link) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether nothing more is to be added.
    pub(in crate::link) fn is_full(&self) -> bool {
        self.ids.len() >= BUNDLE_CALLS_MAX || self.bytes.len() >= BUNDLE_BYTES_MAX
    }

    pub(in crate::link) fn add_call(&mut self, call: &BundledCall) {
        self.ids.push(call.id);
        self.bytes.put_u64(call.id);
        self.bytes.put_u64(call.group);
        self.bytes.put_u8(call.kind);
        self.add_body(&call.body);
    }

    /// A longer reason is cut.
    pub(in crate::link) fn add_answer(&mut self, id: u64, answer: Result<&[u8], &str>) {
        self.ids.push(id);
        self.bytes.put_u64(id);
        match answer {
            Ok(body) => {
                self.bytes.put_u8(ANSWERED);
                self.add_body(body);
            }
            Err(why) => {
                self.bytes.put_u8(FAILED);
                self.add_body(&why.as_bytes()[..why.floor_char_boundary(REASON_BYTES_MAX)]);
            }
        }
    }

    fn add_body(&mut self, body: &[u8]) {
        self.bytes.put_u32(body.len() as u32); // far below the limit of a frame
        self.bytes.put_slice(body);
    }

    /// The frame, and the ids of what is in it; the bundle is empty afterwards.
    pub(in crate::link) fn take(&mut self, frame_type: FrameType) -> (Frame, Vec<u64>) {
        let body = self.bytes.split().freeze();
        (Frame::plain(frame_type, vec![body]), std::mem::take(&mut self.ids))
    }
}

/// The calls of a bundle, or what is wrong with it.
pub(in crate::link) fn decode_calls(body: Bytes) -> Result<Vec<BundledCall>, String> {
    decode(body, |reader| {
        Ok(BundledCall {
            id: reader.u64()?,
            group: reader.u64()?,
            kind: reader.u8()?,
            body: reader.body()?,
        })
    })
}

/// The answers of a bundle, or what is wrong with it.
pub(in crate::link) fn decode_answers(body: Bytes) -> Result<Vec<BundledAnswer>, String> {
    decode(body, |reader| {
        let id = reader.u64()?;
        let answer = match reader.u8()? {
            ANSWERED => Ok(reader.body()?),
            FAILED => Err(Refusal::read(FAILURE_KIND, crate::link::reader::text(&reader.body()?))),
            other => return Err(format!("an answer has the unknown outcome {other}")),
        };
        Ok(BundledAnswer { id, answer })
    })
}

fn decode<T>(body: Bytes, mut one: impl FnMut(&mut Reader) -> Result<T, String>) -> Result<Vec<T>, String> {
    let mut reader = Reader(body);
    let mut all = Vec::new();
    while !reader.0.is_empty() {
        if all.len() == BUNDLE_CALLS_MAX {
            return Err(format!("a bundle of more than {BUNDLE_CALLS_MAX}"));
        }
        all.push(one(&mut reader)?);
    }
    Ok(all)
}

struct Reader(Bytes);

impl Reader {
    fn u64(&mut self) -> Result<u64, String> {
        self.0.try_get_u64().map_err(broken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.0.try_get_u8().map_err(broken)
    }

    fn body(&mut self) -> Result<Bytes, String> {
        let length = self.0.try_get_u32().map_err(broken)? as usize;
        if length > self.0.len() {
            return Err(broken(()));
        }
        Ok(self.0.split_to(length))
    }
}

fn broken(_: impl Sized) -> String {
    "a bundle is broken".to_owned()
}
