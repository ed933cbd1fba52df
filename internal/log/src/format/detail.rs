//! The detail: what the fold reads of an entry, beside its header.
//!
//! ```text
//! batch          0 producer_id (16)  16 principal (16)  32 sequence u64  40 record_count u32  44 flags u32
//!               48 expected_offset u64  56 payload_crc u32                        (60 bytes; as proposed)
//!                  flags: bit 0 = expected_offset is given; the rest is zero
//! trim           0 offset u64
//! claim          0 group length u32, group, member length u32, member
//! commit offset  0 claim u64  8 offset u64  16 group length u32, group
//! forget group   0 claim u64  8 append_time_ms u64  16 group length u32, group
//! others         empty
//! ```

use bytes::{BufMut, Bytes};

use super::{Fields, limit, put_bytes};
use crate::entry::{Batch, Body, GROUP_NAME_BYTES_MAX, Kind};
use crate::error::FormatError;
use crate::ids::{PrincipalDigest, ProducerId};

const HAS_EXPECTED_OFFSET: u32 = 1;

/// An entry's detail, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Blank, membership and command: nothing, or everything is in the payload.
    Empty,
    Batch(BatchDetail),
    Trim {
        offset: u64,
    },
    Claim {
        group: Bytes,
        member: Bytes,
    },
    CommitOffset {
        group: Bytes,
        claim: u64,
        offset: u64,
    },
    ForgetGroup {
        group: Bytes,
        claim: u64,
        append_time_ms: u64,
    },
}

/// A batch as proposed, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchDetail {
    pub(crate) producer_id: ProducerId,
    pub(crate) principal: PrincipalDigest,
    pub(crate) sequence: u64,
    pub(crate) record_count: u32,
    pub(crate) expected_offset: Option<u64>,
    pub(crate) payload_crc: u32,
}

/// A body taken apart: what the header, the detail and the payload get.
pub(crate) struct Parts {
    pub(crate) kind: Kind,
    pub(crate) compression: u8,
    pub(crate) detail: Detail,
    pub(crate) payload: Bytes,
}

impl Parts {
    pub(crate) fn of(body: Body) -> Parts {
        let (kind, detail, payload) = match body {
            Body::Batch(batch) => return Parts::of_batch(batch),
            Body::Blank => (Kind::Blank, Detail::Empty, Bytes::new()),
            Body::Membership(payload) => (Kind::Membership, Detail::Empty, payload),
            Body::Command(payload) => (Kind::Command, Detail::Empty, payload),
            Body::Trim { offset } => (Kind::Trim, Detail::Trim { offset }, Bytes::new()),
            Body::Claim { group, member } => (Kind::Claim, Detail::Claim { group, member }, Bytes::new()),
            Body::CommitOffset { group, claim, offset } => (
                Kind::CommitOffset,
                Detail::CommitOffset { group, claim, offset },
                Bytes::new(),
            ),
            Body::ForgetGroup {
                group,
                claim,
                append_time_ms,
            } => (
                Kind::ForgetGroup,
                Detail::ForgetGroup {
                    group,
                    claim,
                    append_time_ms,
                },
                Bytes::new(),
            ),
        };
        Parts {
            kind,
            compression: 0,
            detail,
            payload,
        }
    }

    fn of_batch(batch: Batch) -> Parts {
        let detail = BatchDetail {
            producer_id: batch.producer_id,
            principal: batch.principal,
            sequence: batch.sequence,
            record_count: batch.record_count,
            expected_offset: batch.expected_offset,
            payload_crc: batch.payload_crc,
        };
        Parts {
            kind: Kind::Batch,
            compression: batch.compression,
            detail: Detail::Batch(detail),
            payload: batch.payload,
        }
    }
}

impl Detail {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Detail::Empty => {}
            Detail::Batch(batch) => batch.encode(&mut out),
            Detail::Trim { offset } => out.put_u64_le(*offset),
            Detail::Claim { group, member } => {
                put_bytes(&mut out, group);
                put_bytes(&mut out, member);
            }
            Detail::CommitOffset { group, claim, offset } => {
                out.put_u64_le(*claim);
                out.put_u64_le(*offset);
                put_bytes(&mut out, group);
            }
            Detail::ForgetGroup {
                group,
                claim,
                append_time_ms,
            } => {
                out.put_u64_le(*claim);
                out.put_u64_le(*append_time_ms);
                put_bytes(&mut out, group);
            }
        }
        out
    }

    pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Detail, FormatError> {
        let mut fields = Fields::new("detail", bytes);
        let detail = match kind {
            Kind::Blank | Kind::Membership | Kind::Command => Detail::Empty,
            Kind::Batch => Detail::Batch(BatchDetail::decode(&mut fields)?),
            Kind::Trim => Detail::Trim { offset: fields.u64()? },
            Kind::Claim => Detail::Claim {
                group: name(&mut fields)?,
                member: name(&mut fields)?,
            },
            Kind::CommitOffset => {
                let (claim, offset) = (fields.u64()?, fields.u64()?);
                Detail::CommitOffset {
                    group: name(&mut fields)?,
                    claim,
                    offset,
                }
            }
            Kind::ForgetGroup => {
                let (claim, append_time_ms) = (fields.u64()?, fields.u64()?);
                Detail::ForgetGroup {
                    group: name(&mut fields)?,
                    claim,
                    append_time_ms,
                }
            }
        };
        fields.finish()?;
        Ok(detail)
    }

    /// The body again, from a frame's kind, compression, detail and payload.
    pub(crate) fn into_body(self, kind: Kind, compression: u8, payload: Bytes) -> Body {
        match self {
            Detail::Empty if kind == Kind::Membership => Body::Membership(payload),
            Detail::Empty if kind == Kind::Command => Body::Command(payload),
            Detail::Empty => Body::Blank,
            Detail::Batch(batch) => batch.into_body(compression, payload),
            Detail::Trim { offset } => Body::Trim { offset },
            Detail::Claim { group, member } => Body::Claim { group, member },
            Detail::CommitOffset { group, claim, offset } => Body::CommitOffset { group, claim, offset },
            Detail::ForgetGroup {
                group,
                claim,
                append_time_ms,
            } => Body::ForgetGroup {
                group,
                claim,
                append_time_ms,
            },
        }
    }
}

impl BatchDetail {
    fn encode(&self, out: &mut Vec<u8>) {
        out.reserve_exact(60);
        out.extend_from_slice(&self.producer_id.0);
        out.extend_from_slice(&self.principal.0);
        out.put_u64_le(self.sequence);
        out.put_u32_le(self.record_count);
        out.put_u32_le(if self.expected_offset.is_some() {
            HAS_EXPECTED_OFFSET
        } else {
            0
        });
        out.put_u64_le(self.expected_offset.unwrap_or(0));
        out.put_u32_le(self.payload_crc);
    }

    fn decode(fields: &mut Fields<'_>) -> Result<BatchDetail, FormatError> {
        let producer_id = ProducerId(fields.id()?);
        let principal = PrincipalDigest(fields.id()?);
        let sequence = fields.u64()?;
        let record_count = fields.u32()?;
        let flags = fields.u32()?;
        let expected_offset = match (flags, fields.u64()?) {
            (HAS_EXPECTED_OFFSET, offset) => Some(offset),
            (0, 0) => None,
            _ => {
                return Err(FormatError::Invalid {
                    field: "batch flags",
                    value: flags.into(),
                });
            }
        };
        let payload_crc = fields.u32()?;
        Ok(BatchDetail {
            producer_id,
            principal,
            sequence,
            record_count,
            expected_offset,
            payload_crc,
        })
    }

    fn into_body(self, compression: u8, payload: Bytes) -> Body {
        Body::Batch(Batch {
            producer_id: self.producer_id,
            principal: self.principal,
            sequence: self.sequence,
            record_count: self.record_count,
            compression,
            expected_offset: self.expected_offset,
            payload_crc: self.payload_crc,
            payload,
        })
    }
}

fn name(fields: &mut Fields<'_>) -> Result<Bytes, FormatError> {
    let name = fields.bytes()?;
    limit("name", name.len() as u64, GROUP_NAME_BYTES_MAX as u64)?;
    Ok(name)
}
