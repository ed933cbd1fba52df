//! What members ask each other about the past: promises they remember, and entries that one of them has lost.
//!
//! ```text
//! remember   head | asker u64             answer: version u8 | remembers u8 | if 1: vote | optional last log id
//! refill     head | first u64 | end u64   answer: version u8 | tag u8 | 1: entries u32 | frames …
//!                                                                       2: nothing (not here, or damaged here as well)
//!                                                                       3: first index u64 (what is below was purged)
//! manifest   head | offset u64            answer: version u8 | has one u8 | if 1: floor u64 | bytes u64 | CRC32C of them u32
//!                                                 | those from the offset on, as many as fit
//! ```

use bytes::Bytes;
use highwater_log::{Frame, MANIFEST_BYTES_MAX};

use super::{Reader, Writer, bad};
use crate::error::Error;
use crate::memory::Seen;

/// Most entries in one answer to a refill.
const ENTRIES_MAX: u32 = 65_536;

const TAG_FRAMES: u8 = 1;
const TAG_NOTHING: u8 = 2;
const TAG_PURGED: u8 = 3;

/// What a peer has of the entries asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refill {
    /// Some of them, from the first one on.
    Frames(Vec<Frame>),
    /// Not the first one: it is not committed there, or damaged there as well.
    Nothing,
    /// They were purged; entries from this index on are there.
    Purged(u64),
}

/// A piece of an encoded manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestPiece {
    pub(crate) floor: u64,
    /// Of the whole.
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    pub(crate) piece: Bytes,
}

pub(crate) fn encode_manifest_request(to: u64, offset: u64) -> Bytes {
    let mut writer = Writer::request(to);
    writer.u64(offset);
    writer.finish()
}

pub(crate) fn decode_manifest_request(message: Bytes) -> Result<(u64, u64), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let offset = reader.number("offset")?;
    reader.end()?;
    Ok((to, offset))
}

pub(crate) fn encode_manifest_piece(piece: Option<ManifestPiece>) -> Vec<Bytes> {
    let mut writer = Writer::reply();
    writer.u8(u8::from(piece.is_some()));
    let Some(piece) = piece else {
        return vec![writer.finish()];
    };
    writer.u64(piece.floor);
    writer.u64(piece.bytes);
    writer.u32(piece.crc);
    vec![writer.finish(), piece.piece]
}

pub(crate) fn decode_manifest_piece(message: Bytes) -> Result<Option<ManifestPiece>, Error> {
    let mut reader = Reader::reply(message)?;
    if !reader.flag("manifest")? {
        return reader.end().map(|()| None);
    }
    let (floor, bytes, crc) = (reader.number("index")?, reader.u64("bytes")?, reader.u32("checksum")?);
    if bytes > MANIFEST_BYTES_MAX {
        return Err(bad(format!(
            "a manifest of {bytes} bytes, at most {MANIFEST_BYTES_MAX} are possible"
        )));
    }
    let piece = std::mem::take(reader.rest());
    Ok(Some(ManifestPiece {
        floor,
        bytes,
        crc,
        piece,
    }))
}

pub(crate) fn encode_remember(to: u64, asker: u64) -> Bytes {
    let mut writer = Writer::request(to);
    writer.u64(asker);
    writer.finish()
}

/// The replica that is asked, and the one that asks about itself.
pub(crate) fn decode_remember(message: Bytes) -> Result<(u64, u64), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let asker = reader.number("replica id")?;
    reader.end()?;
    Ok((to, asker))
}

pub(crate) fn encode_seen(seen: Option<&Seen>) -> Bytes {
    let mut writer = Writer::reply();
    writer.u8(u8::from(seen.is_some()));
    if let Some(seen) = seen {
        writer.vote(&seen.vote);
        writer.optional_log_id(seen.last.as_ref());
    }
    writer.finish()
}

pub(crate) fn decode_seen(message: Bytes) -> Result<Option<Seen>, Error> {
    let mut reader = Reader::reply(message)?;
    let seen = match reader.flag("remembers")? {
        true => Some(Seen {
            vote: reader.vote()?,
            last: reader.optional_log_id("last log id")?,
        }),
        false => None,
    };
    reader.end()?;
    Ok(seen)
}

pub(crate) fn encode_refill_request(to: u64, first: u64, end: u64) -> Bytes {
    let mut writer = Writer::request(to);
    writer.u64(first);
    writer.u64(end);
    writer.finish()
}

/// The replica that is asked, and the entries wanted, `first..end`.
pub(crate) fn decode_refill_request(message: Bytes) -> Result<(u64, u64, u64), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let (first, end) = (reader.number("index")?, reader.number("index")?);
    reader.end()?;
    match first < end {
        true => Ok((to, first, end)),
        false => Err(bad(format!("entries {first} to {end} are none"))),
    }
}

/// The parts of an answer; frames as they lie in the cache.
pub(crate) fn encode_refill(refill: Refill) -> Vec<Bytes> {
    let mut writer = Writer::reply();
    let frames = match refill {
        Refill::Frames(frames) => {
            writer.u8(TAG_FRAMES);
            // a read is capped by bytes, far below this
            writer.u32(u32::try_from(frames.len()).unwrap_or(u32::MAX));
            frames
        }
        Refill::Nothing => {
            writer.u8(TAG_NOTHING);
            Vec::new()
        }
        Refill::Purged(first_index) => {
            writer.u8(TAG_PURGED);
            writer.u64(first_index);
            Vec::new()
        }
    };
    let frames = frames.into_iter().flat_map(|frame| [frame.head, frame.payload]);
    let parts = std::iter::once(writer.finish()).chain(frames);
    parts.filter(|part| !part.is_empty()).collect()
}

pub(crate) fn decode_refill(message: Bytes) -> Result<Refill, Error> {
    let mut reader = Reader::reply(message)?;
    let refill = match reader.u8("answer")? {
        TAG_FRAMES => {
            let count = reader.u32("entries")?;
            if count == 0 || count > ENTRIES_MAX {
                return Err(bad(format!("{count} entries, 1 to {ENTRIES_MAX} are possible")));
            }
            let mut frames = Vec::new();
            for _ in 0..count {
                frames.push(Frame::decode(reader.rest()).map_err(|err| bad(format!("frame: {err}")))?);
            }
            Refill::Frames(frames)
        }
        TAG_NOTHING => Refill::Nothing,
        TAG_PURGED => Refill::Purged(reader.number("index")?),
        other => return Err(bad(format!("unknown answer {other}"))),
    };
    reader.end()?;
    Ok(refill)
}
