//! Stored batches into records that a page shows: the one file of the console that knows the messages.
//!
//! What a batch holds is a stranger's. It is inflated up to the limit that consumers have, checked, and shown as JSON if it is some, else as
//! text, else as hexadecimal digits; what is long is cut.

use highwater_partition::StoredBatch;
use highwater_proto::batches;
use highwater_proto::v1::{Header, Record};
use serde::Serialize;

use crate::hex;
use crate::services::stored;

/// What is shown of a value, bytes.
const VALUE_BYTES_SHOWN: usize = 4 * 1024;
/// What is shown of a key, or of a header's value, bytes.
const KEY_BYTES_SHOWN: usize = 256;
/// What is shown of values that are not text, bytes.
const HEX_BYTES_SHOWN: usize = 512;
/// Headers of a record that are shown.
const HEADERS_SHOWN: usize = 16;

/// A record as a page shows it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    pub(super) partition: u32,
    pub(super) offset: u64,
    timestamp_ms: i64,
    append_time_ms: u64,
    key: Option<Text>,
    value: Text,
    headers: Vec<(String, Text)>,
}

/// Bytes for people.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Text {
    /// `json`, `text` or `hex`.
    kind: &'static str,
    text: String,
    /// How many bytes there are.
    bytes: usize,
    /// Not all of them are shown.
    cut: bool,
}

/// Which records are wanted of what is read.
pub(super) struct Cut<'a> {
    pub(super) partition: u32,
    /// The first offset.
    pub(super) offset: u64,
    /// What key or value must contain, as bytes of its UTF-8; empty: anything.
    pub(super) contains: &'a [u8],
    pub(super) records_max: usize,
}

/// Records, and where to go on.
pub(super) struct Opened {
    pub(super) records: Vec<Shown>,
    pub(super) next_offset: u64,
    /// What could not be read, and was passed over.
    pub(super) broken: Vec<String>,
}

/// Opens batches; one that is broken is told of, and passed over.
pub(super) fn open(stored: Vec<StoredBatch>, cut: &Cut<'_>) -> Opened {
    let mut opened = Opened {
        records: Vec::new(),
        next_offset: cut.offset,
        broken: Vec::new(),
    };
    for batch in stored {
        if opened.records.len() >= cut.records_max {
            break;
        }
        let (first, end) = (batch.base_offset, batch.base_offset + u64::from(batch.record_count));
        if let Err(broken) = add(&mut opened, batch, cut) {
            let why = format!(
                "records {first} to {} of partition {}: {broken}",
                end - 1,
                cut.partition
            );
            opened.broken.push(why);
            opened.next_offset = end;
        }
    }
    opened
}

fn add(opened: &mut Opened, batch: StoredBatch, cut: &Cut<'_>) -> Result<(), batches::BrokenBatch> {
    let (mut offset, append_time_ms) = (batch.base_offset, batch.append_time_ms);
    let mut rest = batches::open(&stored(batch))?;
    while let Some(bytes) = batches::next_record(&mut rest)? {
        if opened.records.len() >= cut.records_max {
            return Ok(());
        }
        if offset >= cut.offset {
            let record = batches::record(bytes)?;
            if is_wanted(&record, cut.contains) {
                opened
                    .records
                    .push(shown(cut.partition, offset, append_time_ms, &record));
            }
            opened.next_offset = offset + 1;
        }
        offset += 1;
    }
    Ok(())
}

fn is_wanted(record: &Record, contains: &[u8]) -> bool {
    let has = |bytes: &[u8]| bytes.windows(contains.len()).any(|window| window == contains);
    contains.is_empty() || has(&record.value) || record.key.as_deref().is_some_and(has)
}

fn shown(partition: u32, offset: u64, append_time_ms: u64, record: &Record) -> Shown {
    let header = |header: &Header| {
        (
            cut_text(&header.name, KEY_BYTES_SHOWN).to_owned(),
            text(&header.value, KEY_BYTES_SHOWN),
        )
    };
    Shown {
        partition,
        offset,
        timestamp_ms: record.timestamp_ms,
        append_time_ms,
        key: record.key.as_deref().map(|key| text(key, KEY_BYTES_SHOWN)),
        value: text(&record.value, VALUE_BYTES_SHOWN),
        headers: record.headers.iter().take(HEADERS_SHOWN).map(header).collect(),
    }
}

fn text(bytes: &[u8], bytes_max: usize) -> Text {
    let is_shown = |character: char| !character.is_control() || matches!(character, '\n' | '\r' | '\t');
    let (kind, text, shown) = match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(is_shown) => {
            let cut = cut_text(text, bytes_max);
            let is_json = text.trim_start().starts_with(['{', '['])
                && text.len() <= bytes_max
                && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            (if is_json { "json" } else { "text" }, cut.to_owned(), cut.len())
        }
        _ => {
            let cut = &bytes[..bytes.len().min(bytes_max).min(HEX_BYTES_SHOWN)];
            ("hex", hex::encode(cut), cut.len())
        }
    };
    Text {
        kind,
        text,
        bytes: bytes.len(),
        cut: shown < bytes.len(),
    }
}

fn cut_text(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write;

    use bytes::Bytes;
    use highwater_proto::v1::{Compression, RecordBatch};
    use prost::Message;

    use super::*;

    fn batch(base_offset: u64, values: &[&[u8]]) -> StoredBatch {
        let record = |value: &&[u8]| Record {
            key: Some(Bytes::from_static(b"key")),
            value: Bytes::copy_from_slice(value),
            headers: Vec::new(),
            timestamp_ms: 5,
        };
        let records = values.iter().map(record).collect();
        let content = RecordBatch {
            records,
            compressed_records: Bytes::new(),
        };
        stored_batch(
            base_offset,
            values.len() as u32,
            Compression::None,
            content.encode_to_vec(),
        )
    }

    fn stored_batch(base_offset: u64, record_count: u32, compression: Compression, payload: Vec<u8>) -> StoredBatch {
        StoredBatch {
            base_offset,
            record_count,
            compression: compression as u8,
            payload_crc: crc_fast::crc32_iscsi(&payload),
            append_time_ms: 7,
            payload: payload.into(),
        }
    }

    fn cut(offset: u64, contains: &[u8], records_max: usize) -> Cut<'_> {
        Cut {
            partition: 3,
            offset,
            contains,
            records_max,
        }
    }

    fn kinds(opened: &Opened) -> Vec<(u64, &str, &str)> {
        let shown = opened.records.iter();
        shown
            .map(|record| (record.offset, record.value.kind, record.value.text.as_str()))
            .collect()
    }

    #[test]
    fn values_are_shown_as_json_text_or_digits() {
        let opened = open(
            vec![batch(10, &[b"{\"a\": [1]}", b"{no", &[0xff, 0x00]])],
            &cut(0, b"", 9),
        );
        assert_eq!(
            kinds(&opened),
            [(10, "json", "{\"a\": [1]}"), (11, "text", "{no"), (12, "hex", "ff00")]
        );
        assert_eq!(opened.next_offset, 13);
    }

    #[test]
    fn a_batch_is_entered_in_its_middle_and_left_when_there_is_enough() {
        let opened = open(
            vec![batch(10, &[b"a", b"b", b"c", b"d"]), batch(14, &[b"e"])],
            &cut(11, b"", 2),
        );
        assert_eq!(kinds(&opened), [(11, "text", "b"), (12, "text", "c")]);
        assert_eq!(opened.next_offset, 13);
        let filtered = open(vec![batch(10, &[b"a", b"b", b"c"])], &cut(10, b"c", 9));
        assert_eq!((kinds(&filtered), filtered.next_offset), (vec![(12, "text", "c")], 13));
        let by_key = open(vec![batch(10, &[b"a"])], &cut(10, b"ke", 9));
        assert_eq!(by_key.records.len(), 1);
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let long = "ä".repeat(VALUE_BYTES_SHOWN);
        let opened = open(vec![batch(0, &[long.as_bytes(), &vec![0xff; 10_000]])], &cut(0, b"", 9));
        let [text, digits] = opened.records.as_slice() else {
            panic!()
        };
        assert!(text.value.cut && text.value.text.len() == VALUE_BYTES_SHOWN && text.value.bytes == long.len());
        assert!(digits.value.cut && digits.value.text.len() == 2 * HEX_BYTES_SHOWN);
    }

    #[test]
    fn a_compressed_batch_is_opened_and_a_bomb_is_told_of_and_passed_over() {
        let compress = |records: &[u8]| {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records).unwrap();
            let content = RecordBatch {
                records: Vec::new(),
                compressed_records: encoder.finish().unwrap().into(),
            };
            content.encode_to_vec()
        };
        let plain = batch(0, &[b"inside"]).payload;
        let good = stored_batch(0, 1, Compression::Lz4, compress(&plain));
        let bomb = stored_batch(1, 1, Compression::Lz4, compress(&vec![0; 64 * 1024 * 1024]));
        let opened = open(vec![good, bomb, batch(2, &[b"behind"])], &cut(0, b"", 9));
        assert_eq!(kinds(&opened), [(0, "text", "inside"), (2, "text", "behind")]);
        assert_eq!(opened.broken.len(), 1, "{:?}", opened.broken);
        assert!(
            opened.broken[0].starts_with("records 1 to 1 of partition 3: "),
            "{:?}",
            opened.broken
        );
    }
}
