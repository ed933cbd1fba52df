//! The checkpoint: the committed state at an entry, and where the log goes on behind it.
//!
//! ```text
//!  0 magic u64  8 crc u32 (of bytes 12 to the end)  12 version u32  16 cluster_id (16)  32 group_id u64
//! 40 segment first index u64  48 position u64 (of the next frame)
//! 56 next_index u64  64 last_term u64  72 last_index u64  80 chain u64
//! 88 log_start u64  96 log_end u64  104 append_time_ms u64
//!  … membership: flag u32 (0 or 1), then term u64, index u64, length u32, bytes
//!  … group count u32, then each: name, claim u64, member, flag u32, offset u64, append_time_ms u64
//!  … producer count u32, then each: producer_id (16), principal (16), next_sequence u64, used append_time_ms u64, used index u64,
//!    batch count u32, then each: sequence u64, verdict u8, base_offset u64, record_count u32, append_time_ms u64, payload_crc u32
//! ```
//! Byte strings stand behind their length (u32). Groups are ordered by name, producers by their last use.

use bytes::{BufMut, Bytes};

use super::{Fields, check_crc, crc32c, frame, limit, put_bytes};
use crate::error::FormatError;
use crate::fold::producers::{BATCHES_REMEMBERED, Decided, PRODUCERS_MAX, Producer, Use};
use crate::fold::{GROUPS_MAX, GroupState, State};
use crate::ids::{ClusterId, EntryId, GroupId, PrincipalDigest, ProducerId};

const VERSION: u32 = 1;
const MAGIC: u64 = u64::from_le_bytes(*b"HWCHKPNT");
const CRC_START: usize = 12;

/// The committed state, and the place behind its last entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) cluster_id: ClusterId,
    pub(crate) group_id: GroupId,
    pub(crate) segment_first_index: u64,
    pub(crate) position: u64,
    pub(crate) state: State,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u64_le(MAGIC);
        out.put_u32_le(0);
        out.put_u32_le(VERSION);
        out.extend_from_slice(&self.cluster_id.0);
        out.put_u64_le(self.group_id.0);
        out.put_u64_le(self.segment_first_index);
        out.put_u64_le(self.position);
        encode_state(&mut out, &self.state);
        let crc = crc32c(&out[CRC_START..]);
        out[CRC_START - 4..CRC_START].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Checkpoint, FormatError> {
        let mut fields = Fields::new("checkpoint", bytes);
        fields.expect_u64("magic", MAGIC)?;
        let crc = fields.u32()?;
        check_crc("checkpoint", &bytes[CRC_START..], crc)?;
        fields.expect_u32("version", VERSION)?;
        let checkpoint = Checkpoint {
            cluster_id: ClusterId(fields.id()?),
            group_id: GroupId(fields.u64()?),
            segment_first_index: fields.u64()?,
            position: fields.u64()?,
            state: decode_state(&mut fields)?,
        };
        fields.finish()?;
        Ok(checkpoint)
    }
}

pub(super) fn encode_state(out: &mut Vec<u8>, state: &State) {
    out.put_u64_le(state.next_index);
    out.put_u64_le(state.last.term);
    out.put_u64_le(state.last.index);
    out.put_u64_le(state.chain);
    out.put_u64_le(state.log_start);
    out.put_u64_le(state.log_end);
    out.put_u64_le(state.append_time_ms);
    out.put_u32_le(state.membership.is_some().into());
    if let Some((id, bytes)) = &state.membership {
        out.put_u64_le(id.term);
        out.put_u64_le(id.index);
        put_bytes(out, bytes);
    }
    out.put_u32_le(count(state.groups.len()));
    for (name, group) in &state.groups {
        put_bytes(out, name);
        encode_group(out, group);
    }
    out.put_u32_le(count(state.producers.len()));
    for (id, producer) in state.producers.by_use() {
        out.extend_from_slice(&id.0);
        encode_producer(out, producer);
    }
}

pub(super) fn decode_state(fields: &mut Fields<'_>) -> Result<State, FormatError> {
    let mut state = State {
        next_index: fields.u64()?,
        last: EntryId {
            term: fields.u64()?,
            index: fields.u64()?,
        },
        chain: fields.u64()?,
        log_start: fields.u64()?,
        log_end: fields.u64()?,
        append_time_ms: fields.u64()?,
        ..State::default()
    };
    if fields.u32()? == 1 {
        let id = EntryId {
            term: fields.u64()?,
            index: fields.u64()?,
        };
        state.membership = Some((id, fields.bytes()?));
    }
    for _ in 0..counted(fields, "groups", GROUPS_MAX)? {
        let (name, group) = decode_group(fields)?;
        state.groups.insert(name, group);
    }
    for _ in 0..counted(fields, "producers", PRODUCERS_MAX)? {
        let (id, producer) = decode_producer(fields)?;
        state.producers.restore(id, producer);
    }
    check_state(&state)?;
    Ok(state)
}

fn check_state(state: &State) -> Result<(), FormatError> {
    let last = if state.next_index == 0 { 0 } else { state.next_index - 1 };
    if state.last.index != last {
        return Err(FormatError::Invalid {
            field: "last index",
            value: state.last.index,
        });
    }
    limit("log start", state.log_start, state.log_end)
}

fn encode_group(out: &mut Vec<u8>, group: &GroupState) {
    out.put_u64_le(group.claim);
    put_bytes(out, &group.member);
    out.put_u32_le(group.offset.is_some().into());
    out.put_u64_le(group.offset.unwrap_or(0));
    out.put_u64_le(group.append_time_ms);
}

fn decode_group(fields: &mut Fields<'_>) -> Result<(Bytes, GroupState), FormatError> {
    let name = fields.bytes()?;
    let (claim, member) = (fields.u64()?, fields.bytes()?);
    let (has_offset, offset) = (fields.u32()? == 1, fields.u64()?);
    let append_time_ms = fields.u64()?;
    Ok((
        name,
        GroupState {
            claim,
            member,
            offset: has_offset.then_some(offset),
            append_time_ms,
        },
    ))
}

fn encode_producer(out: &mut Vec<u8>, producer: &Producer) {
    out.extend_from_slice(&producer.principal.0);
    out.put_u64_le(producer.next_sequence);
    out.put_u64_le(producer.used.append_time_ms);
    out.put_u64_le(producer.used.index);
    out.put_u32_le(count(producer.batches.len()));
    for batch in &producer.batches {
        out.put_u64_le(batch.sequence);
        out.put_u8(frame::verdict_code(batch.verdict));
        out.put_u64_le(batch.base_offset);
        out.put_u32_le(batch.record_count);
        out.put_u64_le(batch.append_time_ms);
        out.put_u32_le(batch.payload_crc);
    }
}

fn decode_producer(fields: &mut Fields<'_>) -> Result<(ProducerId, Producer), FormatError> {
    let id = ProducerId(fields.id()?);
    let mut producer = Producer {
        principal: PrincipalDigest(fields.id()?),
        next_sequence: fields.u64()?,
        used: Use {
            append_time_ms: fields.u64()?,
            index: fields.u64()?,
        },
        batches: Default::default(),
    };
    for _ in 0..counted(fields, "remembered batches", BATCHES_REMEMBERED)? {
        producer.batches.push_back(Decided {
            sequence: fields.u64()?,
            verdict: frame::verdict_from(fields.u8()?)?,
            base_offset: fields.u64()?,
            record_count: fields.u32()?,
            append_time_ms: fields.u64()?,
            payload_crc: fields.u32()?,
        });
    }
    Ok((id, producer))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

fn counted(fields: &mut Fields<'_>, what: &'static str, max: usize) -> Result<u32, FormatError> {
    let count = fields.u32()?;
    limit(what, count.into(), max as u64)?;
    Ok(count)
}
