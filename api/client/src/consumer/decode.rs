//! From the bytes of a batch to its records, by slicing: keys and values are not copied.

use bytes::Bytes;
use highwater_proto::{batches, v1};

/// Takes the next record's bytes off the front of an encoded batch; `None` at its end.
pub(crate) fn next_record(batch: &mut Bytes) -> Result<Option<Bytes>, String> {
    batches::next_record(batch).map_err(|broken| broken.0)
}

/// The records of a stored batch, encoded one behind the other and checked.
pub(crate) fn open(batch: &v1::StoredBatch) -> Result<Bytes, String> {
    batches::open(batch).map_err(|broken| broken.0)
}

/// One record from its bytes.
pub(crate) fn record(bytes: Bytes) -> Result<v1::Record, String> {
    batches::record(bytes).map_err(|broken| broken.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use prost::Message;

    use super::*;
    use crate::{Compression, compression};

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
        open(&stored(encoded(), 3)).unwrap();
        let mut changed = stored(encoded(), 3);
        let mut bytes = changed.batch.to_vec();
        bytes[5] ^= 1;
        changed.batch = bytes.into();
        assert!(open(&changed).unwrap_err().contains("checksum"));
        assert!(open(&stored(encoded(), 4)).unwrap_err().contains("3 records"));
        let mut cut = encoded();
        cut.pop();
        assert!(open(&stored(cut, 3)).unwrap_err().contains("beyond the end"));
    }

    fn compressed(method: Compression, record_count: u32) -> v1::StoredBatch {
        let many: Vec<u8> = encoded().repeat(100);
        let batch = compression::compress(method, &many).unwrap();
        v1::StoredBatch {
            compression: method.wire() as i32,
            ..stored(batch.to_vec(), record_count)
        }
    }

    #[test]
    fn a_compressed_batch_is_opened_and_checked_like_any_other() {
        for method in [Compression::Lz4, Compression::Zstd] {
            let mut rest = open(&compressed(method, 300)).unwrap();
            assert_eq!(record(next_record(&mut rest).unwrap().unwrap()).unwrap(), records()[0]);
            assert!(open(&compressed(method, 299)).unwrap_err().contains("300 records"));
            let mut wrong = compressed(method, 300);
            wrong.compression = v1::Compression::Lz4 as i32 + v1::Compression::Zstd as i32 - wrong.compression;
            assert!(
                open(&wrong).unwrap_err().contains("inflate"),
                "the other method's frame"
            );
        }
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
