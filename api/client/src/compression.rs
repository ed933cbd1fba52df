//! Compression of whole batches, by the producer before a batch gets its sequence. The consumer undoes it
//! (`highwater_proto::batches`).
//!
//! Both methods are frames of their official formats, with one batch's encoded records inside; any language's library
//! can make and read them (`docs/batches.md`).

use std::io::Write;

use bytes::{Bytes, BytesMut};
use highwater_proto::v1;
use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use prost::encoding::{WireType, encode_key, encode_varint};

/// Batches below this size are sent as they are, bytes: what could be saved is less than what every batch costs anyway.
const COMPRESSED_FROM_BYTES: usize = 512;
/// Zstandard's level: the fastest of its ordinary ones, twice as small as LZ4 on text.
const ZSTD_LEVEL: i32 = 1;
/// The number of the field `compressed_records` in `RecordBatch`.
const COMPRESSED_TAG: u32 = 2;

/// How a producer compresses its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// LZ4: costs little time, saves about half on text.
    Lz4,
    /// Zstandard: costs more time and saves more.
    Zstd,
}

impl Compression {
    pub(crate) fn wire(self) -> v1::Compression {
        match self {
            Compression::None => v1::Compression::None,
            Compression::Lz4 => v1::Compression::Lz4,
            Compression::Zstd => v1::Compression::Zstd,
        }
    }
}

/// A batch that holds `records`, an encoded batch, in compressed form; `None` if that would not be smaller.
pub(crate) fn compress(method: Compression, records: &[u8]) -> Option<Bytes> {
    if records.len() < COMPRESSED_FROM_BYTES {
        return None;
    }
    let frame = match method {
        Compression::None => return None,
        Compression::Lz4 => lz4_frame(records),
        Compression::Zstd => zstd::bulk::compress(records, ZSTD_LEVEL).ok(),
    }?;
    let mut batch = BytesMut::with_capacity(frame.len() + 8);
    encode_key(COMPRESSED_TAG, WireType::LengthDelimited, &mut batch);
    encode_varint(frame.len() as u64, &mut batch);
    batch.extend_from_slice(&frame);
    (batch.len() < records.len()).then(|| batch.freeze())
}

fn lz4_frame(records: &[u8]) -> Option<Vec<u8>> {
    let info = FrameInfo::new()
        .block_size(BlockSize::Max1MB)
        .block_mode(BlockMode::Independent)
        .content_size(Some(records.len() as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(records.len() / 2));
    // Writing into memory cannot fail; if it did, the batch would go as it is.
    encoder.write_all(records).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater_proto::batches::inflate;
    use highwater_proto::limits::BATCH_INFLATED_BYTES_MAX;
    use prost::Message;

    use super::*;

    const METHODS: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

    fn text(bytes: usize) -> Vec<u8> {
        b"a line of a log, much like the one before; "
            .iter()
            .copied()
            .cycle()
            .take(bytes)
            .collect()
    }

    fn frame_of(batch: Bytes) -> Bytes {
        let batch = v1::RecordBatch::decode(batch).unwrap();
        assert!(batch.records.is_empty());
        batch.compressed_records
    }

    #[test]
    fn what_goes_in_comes_out_and_is_smaller_meanwhile() {
        for method in METHODS {
            for bytes in [COMPRESSED_FROM_BYTES, 70_000, 1024 * 1024, 3 * 1024 * 1024] {
                let batch = compress(method, &text(bytes)).unwrap();
                assert!(batch.len() < bytes / 2, "{method:?}: {} of {bytes}", batch.len());
                let inflated = inflate(method.wire(), &frame_of(batch)).unwrap();
                assert_eq!(inflated, text(bytes));
            }
        }
    }

    #[test]
    fn what_would_not_get_smaller_stays_as_it_is() {
        let mut seed = 1u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 56) as u8
        })
        .take(50_000)
        .collect();
        for method in METHODS {
            assert_eq!(compress(method, &noise), None);
            assert_eq!(compress(method, &text(COMPRESSED_FROM_BYTES - 1)), None);
        }
        assert_eq!(compress(Compression::None, &text(10_000)), None);
    }

    #[test]
    fn a_bomb_is_not_inflated_beyond_the_limit() {
        for method in METHODS {
            let most = compress(method, &text(BATCH_INFLATED_BYTES_MAX)).unwrap();
            assert_eq!(
                inflate(method.wire(), &frame_of(most)).unwrap().len(),
                BATCH_INFLATED_BYTES_MAX
            );
            let bomb = frame_of(compress(method, &vec![0; 64 * BATCH_INFLATED_BYTES_MAX]).unwrap());
            assert!(bomb.len() < 8 * 1024 * 1024);
            assert!(inflate(method.wire(), &bomb).unwrap_err().0.contains("more than"));
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_changed_is_an_error_and_never_a_panic() {
        for method in METHODS {
            let frame = frame_of(compress(method, &text(5_000)).unwrap());
            for length in 0..frame.len() {
                // An LZ4 frame may lack its end mark; who counts the records finds whether some are missing.
                let cut = inflate(method.wire(), &frame[..length]).unwrap_or_default();
                assert!(text(5_000).starts_with(&cut), "{method:?} cut to {length}");
            }
            for at in 0..frame.len() {
                let mut changed = frame.to_vec();
                changed[at] ^= 0x55;
                let _ = inflate(method.wire(), &changed);
            }
        }
        assert!(inflate(v1::Compression::None, b"").is_err());
    }
}
