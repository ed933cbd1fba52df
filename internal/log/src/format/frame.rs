//! The frame: header, detail, payload.
//!
//! ```text
//!        0          4    5     6       7           8              12             14
//!   0    header_crc ver  kind  verdict compression payload_bytes  detail_bytes   zero
//!        16                    24                  32
//!  16    term                  index               base_offset
//!        40           44                48              56
//!  40    record_count payload_crc       append_time_ms  chain
//!  64    detail (detail_bytes, at most 16 KiB): what the fold reads
//!   …    payload (payload_bytes): what users read
//! ```
//!
//! `header_crc` is the CRC32C of bytes 4 to 64 and the detail. `payload_crc` is the CRC32C of the payload as stored; for an
//! accepted batch it is the one its client computed. `chain` is the CRC-64/NVME of the previous entry's chain, bytes 4 to 56
//! and the detail. Kind 0 is not valid, so zeros are never a frame.

use bytes::{BufMut, Bytes};

use super::{Fields, chain_next, check_crc, crc32c, limit};
use crate::entry::{Header, Kind, Verdict};
use crate::error::FormatError;
use crate::ids::EntryId;

/// Bytes of a frame before its detail.
pub const HEADER_BYTES: usize = 64;
/// Most bytes of a detail.
pub const DETAIL_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of a payload.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

const VERSION: u8 = 1;
const CRC_END: usize = 4;
const CHAIN_START: usize = 56;

/// Encodes header and detail, with the header's checksum.
pub(crate) fn encode_head(header: &Header, detail: &[u8]) -> Bytes {
    let mut head = Vec::with_capacity(HEADER_BYTES + detail.len());
    head.extend_from_slice(&encode_fields(header));
    head.extend_from_slice(detail);
    let crc = crc32c(&head[CRC_END..]);
    head[..CRC_END].copy_from_slice(&crc.to_le_bytes());
    Bytes::from(head)
}

/// The chain behind the entry with this header, given the chain before it.
pub(crate) fn chain_of(before: u64, header: &Header, detail: &[u8]) -> u64 {
    chain_next(before, &encode_fields(header)[CRC_END..CHAIN_START], detail)
}

/// The header's bytes, its checksum left 0.
fn encode_fields(header: &Header) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut out = &mut bytes[CRC_END..];
    out.put_u8(VERSION);
    out.put_u8(kind_code(header.kind));
    out.put_u8(verdict_code(header.verdict));
    out.put_u8(header.compression);
    out.put_u32_le(header.payload_bytes);
    out.put_u16_le(header.detail_bytes);
    out.put_u16_le(0);
    out.put_u64_le(header.id.term);
    out.put_u64_le(header.id.index);
    out.put_u64_le(header.base_offset);
    out.put_u32_le(header.record_count);
    out.put_u32_le(header.payload_crc);
    out.put_u64_le(header.append_time_ms);
    out.put_u64_le(header.chain);
    bytes
}

/// Bytes of header and detail, read from the header before its checksum was checked; within the limit, but not to be trusted.
pub(crate) fn claimed_head_bytes(header: &[u8]) -> Result<usize, FormatError> {
    let mut fields = Fields::new("header", header);
    fields.take(12)?;
    let detail_bytes = fields.u16()?;
    limit("detail", detail_bytes.into(), DETAIL_BYTES_MAX as u64)?;
    Ok(HEADER_BYTES + usize::from(detail_bytes))
}

/// The index in what may be a header, if a cheap look does not rule that out. For those who search for frames byte by byte.
pub(crate) fn claimed_index(bytes: &[u8]) -> Option<u64> {
    let fixed = bytes.get(..HEADER_BYTES)?;
    let plausible = fixed[4] == VERSION && (1..=7).contains(&fixed[5]) && fixed[6] <= 10 && fixed[14..16] == [0, 0];
    let mut index = [0; 8];
    index.copy_from_slice(&fixed[24..32]);
    plausible.then(|| u64::from_le_bytes(index))
}

/// Decodes a header and checks it, with the detail behind it; does not look at the payload.
pub(crate) fn decode_header(bytes: &[u8]) -> Result<Header, FormatError> {
    let mut fields = Fields::new("header", bytes);
    let crc = fields.u32()?;
    let version = fields.u8()?;
    let kind = fields.u8()?;
    let verdict = fields.u8()?;
    let compression = fields.u8()?;
    let payload_bytes = fields.u32()?;
    let detail_bytes = fields.u16()?;
    let zero = fields.u16()?;
    let id = EntryId {
        term: fields.u64()?,
        index: fields.u64()?,
    };
    let base_offset = fields.u64()?;
    let record_count = fields.u32()?;
    let payload_crc = fields.u32()?;
    let append_time_ms = fields.u64()?;
    let chain = fields.u64()?;
    fields.take(usize::from(detail_bytes))?;
    check_crc("header", &bytes[CRC_END..HEADER_BYTES + usize::from(detail_bytes)], crc)?;
    exactly("version", version, VERSION)?;
    exactly("reserved", zero, 0)?;
    limit("detail", detail_bytes.into(), DETAIL_BYTES_MAX as u64)?;
    limit("payload", payload_bytes.into(), PAYLOAD_BYTES_MAX as u64)?;
    let (kind, verdict) = (kind_from(kind)?, verdict_from(verdict)?);
    Ok(Header {
        kind,
        verdict,
        compression,
        id,
        base_offset,
        record_count,
        detail_bytes,
        payload_bytes,
        payload_crc,
        append_time_ms,
        chain,
    })
}

fn exactly<T: PartialEq + Into<u64>>(field: &'static str, value: T, expected: T) -> Result<(), FormatError> {
    if value == expected {
        return Ok(());
    }
    Err(FormatError::Invalid {
        field,
        value: value.into(),
    })
}

fn kind_code(kind: Kind) -> u8 {
    match kind {
        Kind::Blank => 1,
        Kind::Batch => 2,
        Kind::Membership => 3,
        Kind::Command => 4,
        Kind::Trim => 5,
        Kind::Claim => 6,
        Kind::CommitOffset => 7,
        Kind::ForgetGroup => 8,
    }
}

fn kind_from(code: u8) -> Result<Kind, FormatError> {
    Ok(match code {
        1 => Kind::Blank,
        2 => Kind::Batch,
        3 => Kind::Membership,
        4 => Kind::Command,
        5 => Kind::Trim,
        6 => Kind::Claim,
        7 => Kind::CommitOffset,
        8 => Kind::ForgetGroup,
        _ => {
            return Err(FormatError::Invalid {
                field: "kind",
                value: code.into(),
            });
        }
    })
}

/// Shared with the checkpoint, which keeps verdicts of remembered batches.
pub(crate) fn verdict_code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Accepted => 0,
        Verdict::Duplicate => 1,
        Verdict::OffsetMismatch => 2,
        Verdict::SequenceGap => 3,
        Verdict::UnknownProducer => 4,
        Verdict::Forgotten => 5,
        Verdict::ProducerConflict => 6,
        Verdict::TooManyProducers => 7,
        Verdict::StaleClaim => 8,
        Verdict::OutOfRange => 9,
        Verdict::TooManyGroups => 10,
    }
}

pub(crate) fn verdict_from(code: u8) -> Result<Verdict, FormatError> {
    Ok(match code {
        0 => Verdict::Accepted,
        1 => Verdict::Duplicate,
        2 => Verdict::OffsetMismatch,
        3 => Verdict::SequenceGap,
        4 => Verdict::UnknownProducer,
        5 => Verdict::Forgotten,
        6 => Verdict::ProducerConflict,
        7 => Verdict::TooManyProducers,
        8 => Verdict::StaleClaim,
        9 => Verdict::OutOfRange,
        10 => Verdict::TooManyGroups,
        _ => {
            return Err(FormatError::Invalid {
                field: "verdict",
                value: code.into(),
            });
        }
    })
}
