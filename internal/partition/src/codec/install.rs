//! The manifest on its way to a replica behind the floor: a stream of a head, then the manifest's bytes in pieces.
//!
//! ```text
//! head    version u8 | to u64 | vote | bytes u64 | CRC32C of them u32
//! piece   1 to PIECE_BYTES_MAX bytes
//! answer  version u8 | vote
//! ```
//!
//! The manifest's own bytes have a version and a checksum of their own; the head's is there so that a stream that was cut
//! or mixed up is noticed before anything is decoded.

use bytes::{Bytes, BytesMut};
use highwater_log::{MANIFEST_BYTES_MAX, Manifest, crc32c};

use super::{Reader, Writer, bad};
use crate::error::Error;
use crate::types::Vote;

/// Most bytes of one piece.
pub(crate) const PIECE_BYTES_MAX: usize = 256 * 1024;

/// What the stream begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) vote: Vote,
    bytes: u64,
    crc: u32,
}

/// A manifest as the messages that carry it, the head first.
pub(crate) fn encode(to: u64, vote: Vote, manifest: &Manifest) -> Result<Vec<Bytes>, Error> {
    let mut rest = manifest.encode();
    if rest.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(bad(format!("a manifest of {} bytes", rest.len())));
    }
    let head = Head {
        vote,
        bytes: rest.len() as u64,
        crc: crc32c(&rest),
    };
    let mut messages = vec![encode_head(to, &head)];
    while !rest.is_empty() {
        messages.push(rest.split_to(rest.len().min(PIECE_BYTES_MAX)));
    }
    Ok(messages)
}

pub(crate) fn encode_head(to: u64, head: &Head) -> Bytes {
    let mut writer = Writer::request(to);
    writer.vote(&head.vote);
    writer.u64(head.bytes);
    writer.u32(head.crc);
    writer.finish()
}

/// The head, and the replica it is meant for.
pub(crate) fn decode_head(message: Bytes) -> Result<(u64, Head), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let head = Head {
        vote: reader.vote()?,
        bytes: reader.u64("bytes of a manifest")?,
        crc: reader.u32("checksum of a manifest")?,
    };
    reader.end()?;
    if head.bytes == 0 || head.bytes > MANIFEST_BYTES_MAX {
        return Err(bad(format!(
            "a manifest of {} bytes, 1 to {MANIFEST_BYTES_MAX} are possible",
            head.bytes
        )));
    }
    Ok((to, head))
}

pub(crate) fn encode_answer(vote: &Vote) -> Bytes {
    let mut writer = Writer::reply();
    writer.vote(vote);
    writer.finish()
}

pub(crate) fn decode_answer(message: Bytes) -> Result<Vote, Error> {
    let mut reader = Reader::reply(message)?;
    let vote = reader.vote()?;
    reader.end()?;
    Ok(vote)
}

/// Puts the pieces together; holds no more than has arrived.
pub(crate) struct Assembly {
    head: Head,
    bytes: BytesMut,
}

impl Assembly {
    pub(crate) fn new(head: Head) -> Assembly {
        Assembly {
            head,
            bytes: BytesMut::new(),
        }
    }

    /// Whether a further piece is to come.
    pub(crate) fn is_open(&self) -> bool {
        (self.bytes.len() as u64) < self.head.bytes
    }

    pub(crate) fn add(&mut self, piece: &Bytes) -> Result<(), Error> {
        let room = self.head.bytes - self.bytes.len() as u64;
        if piece.is_empty() || piece.len() > PIECE_BYTES_MAX || piece.len() as u64 > room {
            return Err(bad(format!(
                "a piece of {} bytes where {room} are to come",
                piece.len()
            )));
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// The manifest, if all of it has come as it was sent.
    pub(crate) fn finish(self) -> Result<Manifest, Error> {
        let (crc, found) = (self.head.crc, crc32c(&self.bytes));
        if self.is_open() || crc != found {
            let have = self.bytes.len();
            return Err(bad(format!(
                "{have} bytes of a manifest with checksum {found:#x}, not {crc:#x}"
            )));
        }
        Manifest::decode(&self.bytes).map_err(|err| bad(format!("manifest: {err}")))
    }
}
