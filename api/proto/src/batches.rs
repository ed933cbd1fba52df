//! Opening stored batches: from their bytes to their records, by slicing; keys and values are not copied.
//!
//! The broker never opens a compressed batch when it takes it. So what comes out of one is believed as little as what
//! comes from a stranger: it is inflated up to a limit and no further, and then checked like any other batch.

use std::io::Read;
use std::ops::Range;

use bytes::{Buf, Bytes};
use lz4_flex::frame::FrameDecoder;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::limits::BATCH_INFLATED_BYTES_MAX;
use crate::v1;

/// The largest window of a Zstandard frame that is inflated, as a power of two: as much as a batch may have.
const ZSTD_WINDOW_LOG_MAX: u32 = BATCH_INFLATED_BYTES_MAX.ilog2();
/// The number of the field `records` in `RecordBatch`.
const RECORDS_TAG: u32 = 1;
/// How a field is announced in one byte: its number, and that a length follows (2) or a number (0).
const RECORDS_KEY: u8 = (RECORDS_TAG as u8) << 3 | 2;
const KEY_KEY: u8 = 1 << 3 | 2;
const VALUE_KEY: u8 = 2 << 3 | 2;
const TIMESTAMP_KEY: u8 = 4 << 3;

/// What is wrong with a batch, in words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BrokenBatch(pub String);

fn broken(why: impl ToString) -> BrokenBatch {
    BrokenBatch(why.to_string())
}

/// Takes the next record's bytes off the front of an encoded batch; `None` at its end. Fields that this version does
/// not know are passed over.
pub fn next_record(batch: &mut Bytes) -> Result<Option<Bytes>, BrokenBatch> {
    let Some(place) = first_record(batch)? else {
        batch.clear();
        return Ok(None);
    };
    batch.advance(place.start);
    Ok(Some(batch.split_to(place.len())))
}

/// Where the first record stands in an encoded batch.
fn first_record(batch: &[u8]) -> Result<Option<Range<usize>>, BrokenBatch> {
    let mut rest = batch;
    while let Some(first) = rest.first() {
        if *first == RECORDS_KEY {
            rest = &rest[1..];
        } else {
            let (tag, wire_type) = decode_key(&mut rest).map_err(broken)?;
            if tag != RECORDS_TAG {
                skip_field(wire_type, tag, &mut rest, DecodeContext::default()).map_err(broken)?;
                continue;
            }
            if wire_type != WireType::LengthDelimited {
                return Err(broken(format!("a record has the wire type {wire_type:?}")));
            }
        }
        let length = length_of(&mut rest).ok_or_else(|| broken("a record reaches beyond the end of the batch"))?;
        let start = batch.len() - rest.len();
        return Ok(Some(start..start + length));
    }
    Ok(None)
}

/// Takes a length off the front of what it tells the length of; `None` if that is not all there.
fn length_of(rest: &mut &[u8]) -> Option<usize> {
    let length = varint(rest)?;
    usize::try_from(length).ok().filter(|length| *length <= rest.len())
}

/// Takes a number off the front. Nearly all here have one byte or two.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    match **rest {
        [low @ 0..0x80, ref behind @ ..] => {
            *rest = behind;
            Some(u64::from(low))
        }
        [low, high @ 0..0x80, ref behind @ ..] => {
            *rest = behind;
            Some(u64::from(low & 0x7f) | u64::from(high) << 7)
        }
        _ => decode_varint(rest).ok(),
    }
}

/// The records of a stored batch, encoded one behind the other. Checks its checksum and that it holds as many records
/// as it says, so that whatever a producer has compressed is an error of this batch and of no other.
pub fn open(batch: &v1::StoredBatch) -> Result<Bytes, BrokenBatch> {
    let checksum = crc_fast::crc32_iscsi(&batch.batch);
    if checksum != batch.crc32c {
        return Err(broken(format!(
            "the checksum is {checksum:08x}, but {:08x} was stored",
            batch.crc32c
        )));
    }
    let records = match batch.compression() {
        v1::Compression::None => batch.batch.clone(),
        method => {
            let content = v1::RecordBatch::decode(batch.batch.clone()).map_err(broken)?;
            inflate(method, &content.compressed_records)?
        }
    };
    let mut rest = &records[..];
    let mut record_count = 0;
    while let Some(place) = first_record(rest)? {
        rest = &rest[place.end..];
        record_count += 1;
    }
    if record_count != batch.record_count {
        return Err(broken(format!(
            "it holds {record_count} records, but says {}",
            batch.record_count
        )));
    }
    Ok(records)
}

/// One record from its bytes.
pub fn record(bytes: Bytes) -> Result<v1::Record, BrokenBatch> {
    match Layout::of(&bytes) {
        Some(layout) => Ok(layout.record(bytes)),
        None => v1::Record::decode(bytes).map_err(broken),
    }
}

/// Where the fields of a plain record stand. Nearly all records are plain, and read several times as fast so: key and value share
/// the batch's memory with one count of it each, and nothing else is counted.
#[derive(Default)]
struct Layout {
    key: Option<Range<usize>>,
    value: Range<usize>,
    timestamp_ms: i64,
}

impl Layout {
    /// `None` for a record with headers, with fields that are not known here, or with anything wrong: for the decoder of all messages.
    fn of(record: &[u8]) -> Option<Layout> {
        let mut layout = Layout::default();
        let mut rest = record;
        while let Some((field, behind)) = rest.split_first() {
            rest = behind;
            if *field == TIMESTAMP_KEY {
                layout.timestamp_ms = varint(&mut rest)?.cast_signed();
                continue;
            }
            let length = length_of(&mut rest)?;
            let start = record.len() - rest.len();
            let place = start..start + length;
            rest = &rest[length..];
            match *field {
                KEY_KEY => layout.key = Some(place),
                VALUE_KEY => layout.value = place,
                _ => return None,
            }
        }
        Some(layout)
    }

    fn record(self, bytes: Bytes) -> v1::Record {
        let key = self.key.map(|place| bytes.slice(place));
        let mut value = bytes;
        value.truncate(self.value.end);
        value.advance(self.value.start);
        v1::Record {
            key,
            value,
            headers: Vec::new(),
            timestamp_ms: self.timestamp_ms,
        }
    }
}

/// What a frame holds, at most [`BATCH_INFLATED_BYTES_MAX`] bytes. Of a frame that was cut it may be the beginning.
pub fn inflate(method: v1::Compression, frame: &[u8]) -> Result<Bytes, BrokenBatch> {
    match method {
        v1::Compression::None => Err(broken("it is not compressed")),
        v1::Compression::Lz4 => read_all(FrameDecoder::new(frame)),
        v1::Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(frame).and_then(|mut decoder| {
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Ok(decoder)
            });
            read_all(decoder.map_err(broken)?)
        }
    }
}

fn read_all(decoder: impl Read) -> Result<Bytes, BrokenBatch> {
    let mut content = Vec::new();
    let limit = BATCH_INFLATED_BYTES_MAX as u64;
    let read = decoder.take(limit + 1).read_to_end(&mut content);
    read.map_err(|error| broken(format!("it does not inflate: {error}")))?;
    if content.len() as u64 > limit {
        return Err(broken(format!("it inflates to more than {limit} bytes")));
    }
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What the decoder of all messages makes of the same bytes.
    fn reference(bytes: &[u8]) -> Option<v1::Record> {
        v1::Record::decode(bytes).ok()
    }

    #[test]
    fn records_of_any_form_are_read_as_the_decoder_of_all_messages_reads_them() {
        let header = v1::Header {
            name: "h".to_owned(),
            value: Bytes::from_static(b"v"),
        };
        let plain = v1::Record {
            value: Bytes::from_static(b"value"),
            timestamp_ms: -5,
            ..Default::default()
        };
        let keyed = v1::Record {
            key: Some(Bytes::new()),
            ..plain.clone()
        };
        let full = v1::Record {
            headers: vec![header],
            ..keyed.clone()
        };
        for wanted in [v1::Record::default(), plain.clone(), keyed.clone(), full] {
            let bytes = wanted.encode_to_vec();
            assert_eq!(record(bytes.into()).unwrap(), wanted);
        }
        // Fields twice and in another order, and one that is not known.
        let twice = [keyed.encode_to_vec(), plain.encode_to_vec(), vec![0x7a, 1, 9]].concat();
        assert_eq!(record(twice.clone().into()).ok(), reference(&twice));
    }

    #[test]
    fn damaged_records_are_errors_where_they_were_errors() {
        let mut seed = 3u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % below
        };
        for _ in 0..50_000 {
            let good = v1::Record {
                key: (random(2) == 0).then(|| Bytes::from(vec![7; random(4)])),
                value: Bytes::from(vec![8; random(6)]),
                timestamp_ms: random(300) as i64 - 100,
                ..Default::default()
            };
            let mut bytes = good.encode_to_vec();
            bytes.resize(bytes.len() + random(3), random(256) as u8);
            for _ in 0..random(3) {
                if !bytes.is_empty() {
                    let at = random(bytes.len());
                    bytes[at] = random(256) as u8;
                }
            }
            assert_eq!(record(bytes.clone().into()).ok(), reference(&bytes), "{bytes:?}");
        }
    }
}
