//! The head of a segment, a sealed segment's sparse index, and the slots of the hard state.
//!
//! ```text
//! segment header  0 magic u64  8 crc u32 (of bytes 12 to 80)  12 version u32  16 cluster_id (16)  32 group_id u64
//!                40 first_index u64  48 base_offset u64
//!                   and of the entry before: 56 term u64  64 chain u64  72 append_time_ms u64      (80 bytes)
//!
//! sparse index    0 magic u64  8 crc u32 (of bytes 12 to the end)  12 version u32  16 group_id u64  24 first_index u64
//!                32 point count u64  40 points: {index u64, base_offset u64, append_time_ms u64, position u64} …
//!                 … last_term u64, last_index u64, log_end u64, chain u64, data_bytes u64
//!
//! hard-state slot 0 magic u64  8 crc u32 (of bytes 12 to 512)  12 version u32  16 slot sequence u64
//!                24 cluster_id (16)  40 group_id u64  48 replica_id u64
//!                56 vote flags u32 (bit 0 = a vote is there, 1 = for somebody, 2 = committed)  60 zero u32
//!                64 term u64  72 voted_for u64
//!                   mark: 80 segment first index u64  88 position u64  96 last_term u64  104 index_end u64  112 chain u64
//!                  120 commit_end u64
//!               128 zeros                                            (512 bytes, at 0 and at 4096 of the file)
//! ```

use bytes::BufMut;

use super::{Fields, check_crc, crc32c, limit};
use crate::entry::Vote;
use crate::error::FormatError;
use crate::ids::{ClusterId, EntryId, GroupId, Identity, ReplicaId};

/// Bytes of a segment before its first frame.
pub(crate) const SEGMENT_HEADER_BYTES: u64 = 80;
/// Bytes of one hard-state slot.
pub(crate) const SLOT_BYTES: usize = 512;
/// Most points of a sparse index that is read back.
const POINTS_MAX: u64 = 1 << 20;

const VERSION: u32 = 1;
const CRC_START: usize = 12;
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"HWSEGMNT");
const INDEX_MAGIC: u64 = u64::from_le_bytes(*b"HWSPARSE");
const SLOT_MAGIC: u64 = u64::from_le_bytes(*b"HWHSTATE");

/// What stands at the head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) cluster_id: ClusterId,
    pub(crate) group_id: GroupId,
    /// Index of the segment's first entry.
    pub(crate) first_index: u64,
    /// Log end before the segment.
    pub(crate) base_offset: u64,
    /// Term, chain and append time of the entry before.
    pub(crate) term_before: u64,
    pub(crate) chain_before: u64,
    pub(crate) append_time_before_ms: u64,
}

/// A known place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) index: u64,
    pub(crate) base_offset: u64,
    pub(crate) append_time_ms: u64,
    pub(crate) position: u64,
}

/// The end of a sealed segment, as its index notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IndexFooter {
    pub(crate) last: EntryId,
    pub(crate) log_end: u64,
    pub(crate) chain: u64,
    pub(crate) data_bytes: u64,
}

/// A synced position of the log: what lies before it must be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) segment_first_index: u64,
    pub(crate) position: u64,
    pub(crate) last_term: u64,
    /// Index behind the last entry; 0 for an empty log.
    pub(crate) index_end: u64,
    pub(crate) chain: u64,
    /// Index behind the last entry known to be committed; at most `index_end`.
    pub(crate) commit_end: u64,
}

/// One slot of the hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The higher one of two slots holds.
    pub(crate) sequence: u64,
    pub(crate) identity: Identity,
    pub(crate) vote: Option<Vote>,
    pub(crate) mark: Mark,
}

fn start(magic: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_BYTES);
    out.put_u64_le(magic);
    out.put_u32_le(0);
    out.put_u32_le(VERSION);
    out
}

fn finish(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&out[CRC_START..]);
    out[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Checks magic, checksum and version, in this order; leaves the fields behind them.
fn open<'a>(what: &'static str, magic: u64, bytes: &'a [u8]) -> Result<Fields<'a>, FormatError> {
    let mut fields = Fields::new(what, bytes);
    fields.expect_u64("magic", magic)?;
    let crc = fields.u32()?;
    check_crc(what, &bytes[CRC_START..], crc)?;
    fields.expect_u32("version", VERSION)?;
    Ok(fields)
}

impl SegmentHeader {
    /// Whether a segment with the header `next` can stand somewhere behind this one.
    pub(crate) fn is_before(&self, next: &SegmentHeader) -> bool {
        self.first_index < next.first_index
            && self.base_offset <= next.base_offset
            && self.term_before <= next.term_before
            && self.append_time_before_ms <= next.append_time_before_ms
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = start(SEGMENT_MAGIC);
        out.extend_from_slice(&self.cluster_id.0);
        out.put_u64_le(self.group_id.0);
        out.put_u64_le(self.first_index);
        out.put_u64_le(self.base_offset);
        out.put_u64_le(self.term_before);
        out.put_u64_le(self.chain_before);
        out.put_u64_le(self.append_time_before_ms);
        finish(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHeader, FormatError> {
        let mut fields = open("segment header", SEGMENT_MAGIC, bytes)?;
        let header = SegmentHeader {
            cluster_id: ClusterId(fields.id()?),
            group_id: GroupId(fields.u64()?),
            first_index: fields.u64()?,
            base_offset: fields.u64()?,
            term_before: fields.u64()?,
            chain_before: fields.u64()?,
            append_time_before_ms: fields.u64()?,
        };
        fields.finish()?;
        Ok(header)
    }
}

/// Encodes a sealed segment's sparse index.
pub(crate) fn encode_index(group_id: GroupId, first_index: u64, points: &[Point], footer: &IndexFooter) -> Vec<u8> {
    let mut out = start(INDEX_MAGIC);
    out.put_u64_le(group_id.0);
    out.put_u64_le(first_index);
    out.put_u64_le(points.len() as u64);
    for point in points {
        out.put_u64_le(point.index);
        out.put_u64_le(point.base_offset);
        out.put_u64_le(point.append_time_ms);
        out.put_u64_le(point.position);
    }
    out.put_u64_le(footer.last.term);
    out.put_u64_le(footer.last.index);
    out.put_u64_le(footer.log_end);
    out.put_u64_le(footer.chain);
    out.put_u64_le(footer.data_bytes);
    finish(out)
}

/// Decodes a sparse index; refuses one of another group or segment.
pub(crate) fn decode_index(
    group_id: GroupId,
    first_index: u64,
    bytes: &[u8],
) -> Result<(Vec<Point>, IndexFooter), FormatError> {
    let mut fields = open("sparse index", INDEX_MAGIC, bytes)?;
    fields.expect_u64("group id", group_id.0)?;
    fields.expect_u64("first index", first_index)?;
    let count = fields.u64()?;
    limit("point count", count, POINTS_MAX)?;
    let mut points = Vec::new();
    for _ in 0..count {
        points.push(Point {
            index: fields.u64()?,
            base_offset: fields.u64()?,
            append_time_ms: fields.u64()?,
            position: fields.u64()?,
        });
    }
    let footer = IndexFooter {
        last: EntryId {
            term: fields.u64()?,
            index: fields.u64()?,
        },
        log_end: fields.u64()?,
        chain: fields.u64()?,
        data_bytes: fields.u64()?,
    };
    fields.finish()?;
    Ok((points, footer))
}

impl Slot {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = start(SLOT_MAGIC);
        out.put_u64_le(self.sequence);
        out.extend_from_slice(&self.identity.cluster_id.0);
        out.put_u64_le(self.identity.group_id.0);
        out.put_u64_le(self.identity.replica_id.0);
        let voted_for = self.vote.and_then(|vote| vote.voted_for);
        let committed = self.vote.is_some_and(|vote| vote.committed);
        let flags = u32::from(self.vote.is_some()) | u32::from(voted_for.is_some()) << 1 | u32::from(committed) << 2;
        out.put_u32_le(flags);
        out.put_u32_le(0);
        out.put_u64_le(self.vote.map_or(0, |vote| vote.term));
        out.put_u64_le(voted_for.unwrap_or(0));
        out.put_u64_le(self.mark.segment_first_index);
        out.put_u64_le(self.mark.position);
        out.put_u64_le(self.mark.last_term);
        out.put_u64_le(self.mark.index_end);
        out.put_u64_le(self.mark.chain);
        out.put_u64_le(self.mark.commit_end);
        out.resize(SLOT_BYTES, 0);
        finish(out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Slot, FormatError> {
        let mut fields = open("hard-state slot", SLOT_MAGIC, bytes)?;
        let sequence = fields.u64()?;
        let identity = Identity {
            cluster_id: ClusterId(fields.id()?),
            group_id: GroupId(fields.u64()?),
            replica_id: ReplicaId(fields.u64()?),
        };
        let flags = fields.u32()?;
        if !matches!(flags, 0 | 1 | 3 | 5 | 7) {
            return Err(FormatError::Invalid {
                field: "vote flags",
                value: flags.into(),
            });
        }
        fields.expect_u32("reserved", 0)?;
        let (term, voted_for) = (fields.u64()?, fields.u64()?);
        let voted_for = (flags & 2 != 0).then_some(voted_for);
        let vote = (flags & 1 != 0).then_some(Vote {
            term,
            voted_for,
            committed: flags & 4 != 0,
        });
        let mark = Mark {
            segment_first_index: fields.u64()?,
            position: fields.u64()?,
            last_term: fields.u64()?,
            index_end: fields.u64()?,
            chain: fields.u64()?,
            commit_end: fields.u64()?,
        };
        Ok(Slot {
            sequence,
            identity,
            vote,
            mark,
        })
    }
}
