//! What is written comes back; whatever else is read is an error, never a panic. The golden block was written by the first version, and
//! must be read for ever.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const PARTITION: u32 = 2;

fn header(name: &str, value: &'static [u8]) -> Header {
    Header {
        name: name.to_owned(),
        value: Bytes::from_static(value),
    }
}

fn records() -> Vec<ConsumedRecord> {
    let record = |offset, key: Option<&'static str>, value: &'static str, headers| ConsumedRecord {
        partition: PARTITION,
        offset,
        key: key.map(Bytes::from),
        value: Bytes::from(value),
        headers,
        timestamp_ms: 1_700_000_000_000 - offset as i64,
        append_time_ms: 1_700_000_000_001,
    };
    vec![
        record(
            1_000,
            Some("alice"),
            "hello",
            vec![header("kind", b"greeting"), header("", b"")],
        ),
        record(1_001, Some(""), "", Vec::new()),
        record(1_002, None, "no key", Vec::new()),
    ]
}

fn closed(records: &[ConsumedRecord]) -> Vec<u8> {
    let mut block = OpenBlock::new(records.first().map_or(0, |record| record.offset));
    records.iter().for_each(|record| block.push(record));
    block.close().unwrap()
}

fn opened(block: &[u8], offsets: Range<u64>) -> Result<Vec<ConsumedRecord>, Broken> {
    let (head, stored) = block.split_at(BLOCK_HEADER_BYTES);
    let header = BlockHeader::read(head.try_into().unwrap())?;
    if header.stored_bytes() != stored.len() {
        return Err(Broken::Torn);
    }
    header.records(stored, PARTITION, offsets)
}

/// The same block with other bytes in it, and a right checksum.
fn forged(block: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut block = block.to_vec();
    change(&mut block);
    let checksum = crc_fast::crc32_iscsi(&block[4..]);
    block[..4].copy_from_slice(&checksum.to_le_bytes());
    block
}

/// With records of ours in place of those that it has.
fn with_records(records: &[u8], count: u32) -> Vec<u8> {
    let frame = zstd::bulk::compress(records, ZSTD_LEVEL).unwrap();
    let head = [0, frame.len() as u32, records.len() as u32, count];
    let head: Vec<u8> = head.into_iter().flat_map(u32::to_le_bytes).collect();
    forged(&[head, 1_000u64.to_le_bytes().to_vec(), frame].concat(), |_| {})
}

#[test]
fn the_golden_file_is_read_as_it_was_written() {
    let golden = include_bytes!("../golden/records");
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backup/golden/records");
        std::fs::write(path, [file_header().as_slice(), &closed(&records())].concat()).unwrap();
        return;
    }
    let (head, block) = golden.split_at(FILE_HEADER_BYTES);
    check_file_header(head.try_into().unwrap()).unwrap();
    assert_eq!(opened(block, 1_000..1_003).unwrap(), records());
    assert_eq!(head, file_header());
    // The frame may be compressed otherwise by another version of Zstandard; what is in it may not.
    let inflate = |block: &[u8]| zstd::bulk::decompress(&block[BLOCK_HEADER_BYTES..], BLOCK_BYTES).unwrap();
    assert_eq!(inflate(block), inflate(&closed(&records())));
    assert_eq!(block[8..BLOCK_HEADER_BYTES], closed(&records())[8..BLOCK_HEADER_BYTES]);
}

#[test]
fn sizes_are_what_is_written() {
    for record in records() {
        let block = closed(std::slice::from_ref(&record));
        let inflated = u32::from_le_bytes(block[8..12].try_into().unwrap());
        assert_eq!(size(&record), inflated as usize, "{record:?}");
    }
}

#[test]
fn another_version_and_another_file_are_refused() {
    let mut header = file_header();
    header[8] = 2;
    assert_eq!(check_file_header(header), Err(Broken::Version(2)));
    header[0] = b'h';
    assert_eq!(check_file_header(header), Err(Broken::Magic));
}

#[test]
fn lengths_beyond_a_limit_are_refused_before_anything_is_read() {
    let block = closed(&records());
    let with = |place: usize, number: u32| {
        let block = forged(&block, |block| {
            block[place..place + 4].copy_from_slice(&number.to_le_bytes())
        });
        opened(&block, 1_000..1_003).unwrap_err()
    };
    for place in [4, 8, 12] {
        let refused = with(place, u32::MAX);
        assert!(matches!(refused, Broken::TooLong { .. }), "{place}: {refused}");
    }
    assert!(matches!(
        with(8, 5_000_000),
        Broken::Inflate(_) | Broken::TooLong { .. }
    ));
    assert!(matches!(with(8, 90), Broken::Inflate(_)), "more than was told");
    assert_eq!(with(12, 2), Broken::Rest);
    assert_eq!(
        with(16, 7),
        Broken::Offset {
            found: 7,
            expected: 1_000
        }
    );
}

#[test]
fn records_that_reach_beyond_the_block_are_refused() {
    let mut record = vec![0; RECORD_BYTES_MIN];
    record[16..20].copy_from_slice(&NO_KEY.to_le_bytes());
    opened(&with_records(&record, 1), 1_000..1_001).unwrap();
    for place in [16, 20, 24] {
        let mut beyond = record.clone();
        beyond[place..place + 4].copy_from_slice(&5u32.to_le_bytes());
        let refused = opened(&with_records(&beyond, 1), 1_000..1_001).unwrap_err();
        assert_eq!(refused, Broken::Record(0), "{place}");
    }
    let beyond_end = opened(&with_records(&record.repeat(2), 2), 1_000..1_001).unwrap_err();
    assert_eq!(beyond_end, Broken::Beyond { found: 2, left: 1 });
    let last = u64::MAX - 1;
    let block = forged(&with_records(&record, 1), |block| {
        block[16..24].copy_from_slice(&last.to_le_bytes())
    });
    assert_eq!(opened(&block, last..u64::MAX).unwrap()[0].offset, last);
}

fn any_record() -> impl Strategy<Value = ConsumedRecord> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let headers = proptest::collection::vec((".{0,6}", bytes()), 0..4);
    let parts = (
        proptest::option::of(bytes()),
        bytes(),
        headers,
        any::<i64>(),
        any::<u64>(),
    );
    parts.prop_map(|(key, value, headers, timestamp_ms, append_time_ms)| ConsumedRecord {
        partition: PARTITION,
        offset: 0,
        key: key.map(Bytes::from),
        value: Bytes::from(value),
        headers: headers
            .into_iter()
            .map(|(name, value)| Header {
                name,
                value: value.into(),
            })
            .collect(),
        timestamp_ms,
        append_time_ms,
    })
}

proptest! {
    #[test]
    fn any_records_come_back(mut records in proptest::collection::vec(any_record(), 1..20), first in 0..u64::MAX - 20) {
        for (record, offset) in records.iter_mut().zip(first..) {
            record.offset = offset;
        }
        let end = first + records.len() as u64;
        prop_assert_eq!(opened(&closed(&records), first..end).unwrap(), records);
    }

    #[test]
    fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), count in 0..9u32) {
        let _ = opened(&with_records(&bytes, count), 1_000..2_000);
        let mut head = [0; BLOCK_HEADER_BYTES];
        let length = bytes.len().min(head.len());
        head[..length].copy_from_slice(&bytes[..length]);
        if let Ok(header) = BlockHeader::read(head) {
            let _ = header.records(&bytes, PARTITION, 0..u64::MAX);
        }
    }

    #[test]
    fn a_changed_bit_never_passes(place in 0..1_000usize, bit in 0..8) {
        let mut block = closed(&records());
        let place = place % block.len();
        block[place] ^= 1u8 << bit;
        prop_assert!(opened(&block, 1_000..1_003).is_err());
    }
}
