//! Opening stored batches: from their bytes to their records, by slicing; keys and values are not copied.
//!
//! The broker never opens a compressed batch when it takes it. So what comes out of one is believed as little as what
//! comes from a stranger: it is inflated up to a limit and no further, and then checked like any other batch.

use std::io::Read;

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
    while batch.has_remaining() {
        let (tag, wire_type) = decode_key(batch).map_err(broken)?;
        if tag != RECORDS_TAG {
            skip_field(wire_type, tag, batch, DecodeContext::default()).map_err(broken)?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return Err(broken(format!("a record has the wire type {wire_type:?}")));
        }
        let length = decode_varint(batch).map_err(broken)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= batch.len());
        let length = length.ok_or_else(|| broken("a record reaches beyond the end of the batch"))?;
        return Ok(Some(batch.split_to(length)));
    }
    Ok(None)
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
    let mut rest = records.clone();
    let mut record_count = 0;
    while next_record(&mut rest)?.is_some() {
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
    v1::Record::decode(bytes).map_err(broken)
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
