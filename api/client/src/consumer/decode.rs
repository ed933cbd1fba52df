//! From the bytes of a batch to its records, by slicing: keys and values are not copied.

use bytes::{Buf, Bytes};
use highwater_proto::v1;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The number of the field `records` in `RecordBatch`.
const RECORDS_TAG: u32 = 1;

/// Takes the next record's bytes off the front of an encoded batch; `None` at its end. Fields that this version does
/// not know are passed over.
pub(crate) fn next_record(batch: &mut Bytes) -> Result<Option<Bytes>, String> {
    while batch.has_remaining() {
        let (tag, wire_type) = decode_key(batch).map_err(|error| error.to_string())?;
        if tag != RECORDS_TAG {
            skip_field(wire_type, tag, batch, DecodeContext::default()).map_err(|error| error.to_string())?;
            continue;
        }
        if wire_type != WireType::LengthDelimited {
            return Err(format!("a record has the wire type {wire_type:?}"));
        }
        let length = decode_varint(batch).map_err(|error| error.to_string())?;
        let length = usize::try_from(length).ok().filter(|length| *length <= batch.len());
        let length = length.ok_or("a record reaches beyond the end of the batch")?;
        return Ok(Some(batch.split_to(length)));
    }
    Ok(None)
}

/// Checks a stored batch: its checksum, and that it holds as many records as it says.
pub(crate) fn check(batch: &v1::StoredBatch) -> Result<(), String> {
    let checksum = crc_fast::crc32_iscsi(&batch.batch);
    if checksum != batch.crc32c {
        return Err(format!(
            "the checksum is {checksum:08x}, but {:08x} was stored",
            batch.crc32c
        ));
    }
    let mut rest = batch.batch.clone();
    let mut record_count = 0;
    while next_record(&mut rest)?.is_some() {
        record_count += 1;
    }
    if record_count != batch.record_count {
        return Err(format!(
            "it holds {record_count} records, but says {}",
            batch.record_count
        ));
    }
    Ok(())
}

/// One record from its bytes.
pub(crate) fn record(bytes: Bytes) -> Result<v1::Record, String> {
    v1::Record::decode(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn records() -> Vec<v1::Record> {
        let record = |value: &'static [u8]| v1::Record {
            key: Some(Bytes::from_static(b"k")),
            value: Bytes::from_static(value),
            ..Default::default()
        };
        vec![record(b"one"), v1::Record::default(), record(b"three")]
    }

    fn stored(batch: Vec<u8>, record_count: u32) -> v1::StoredBatch {
        v1::StoredBatch {
            record_count,
            crc32c: crc_fast::crc32_iscsi(&batch),
            batch: batch.into(),
            ..Default::default()
        }
    }

    fn encoded() -> Vec<u8> {
        let batch = v1::RecordBatch {
            records: records(),
            compressed_records: Bytes::new(),
        };
        batch.encode_to_vec()
    }

    #[test]
    fn records_come_back_as_slices_of_the_batch() {
        let batch = Bytes::from(encoded());
        let range = batch.as_ptr_range();
        let mut rest = batch.clone();
        let mut found = Vec::new();
        while let Some(bytes) = next_record(&mut rest).unwrap() {
            found.push(record(bytes).unwrap());
        }
        assert_eq!(found, records());
        assert!(
            range.contains(&found[0].value.as_ptr()),
            "the value is a slice, not a copy"
        );
    }

    #[test]
    fn a_changed_byte_a_wrong_count_and_a_cut_are_found() {
        check(&stored(encoded(), 3)).unwrap();
        let mut changed = stored(encoded(), 3);
        let mut bytes = changed.batch.to_vec();
        bytes[5] ^= 1;
        changed.batch = bytes.into();
        assert!(check(&changed).unwrap_err().contains("checksum"));
        assert!(check(&stored(encoded(), 4)).unwrap_err().contains("3 records"));
        let mut cut = encoded();
        cut.pop();
        assert!(check(&stored(cut, 3)).unwrap_err().contains("beyond the end"));
    }

    #[test]
    fn any_bytes_are_an_error_or_records_but_never_a_panic() {
        let mut seed = 1u64;
        for length in 0..2_000usize {
            let bytes: Vec<u8> = (0..length % 40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 56) as u8
                })
                .collect();
            let mut rest = Bytes::from(bytes);
            while let Ok(Some(bytes)) = next_record(&mut rest) {
                let _ = record(bytes);
            }
        }
    }
}
