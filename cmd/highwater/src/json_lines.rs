//! Records as lines of JSON: `consume --format json` writes them, `produce --format json` reads them, and nothing is lost in between.
//!
//! ```text
//! {"partition":0,"offset":7,"append_time_ms":…,"timestamp_ms":…,"key":"k","value":"text","headers":[{"name":"n","value":"v"}]}
//! ```
//!
//! A key, value or header that is not text (UTF-8) is written as `{"base64":"…"}`, and may always be given so. What the cluster
//! decides, `offset` and `append_time_ms`, is ignored when a record is read, so what was consumed can be produced again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use highwater::proto::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use highwater::{ConsumedRecord, Header, Record};
use serde::{Deserialize, Serialize};

/// The longest line, bytes: every record has room in one. At worst each of its bytes is a control character, which JSON writes as
/// `\u0000`; base64 takes less.
pub(crate) const LINE_BYTES_MAX: usize =
    RECORD_BYTES_MAX * ESCAPED_BYTES_MAX + (RECORD_HEADERS_MAX + FIELDS) * FIELD_BYTES_MAX;
/// How many bytes of JSON a byte of text takes at most.
const ESCAPED_BYTES_MAX: usize = 6;
/// The fields of a line beside its headers.
const FIELDS: usize = 7;
/// The most bytes that a field or a header takes beside its content: names, braces, the longest number, the padding of base64.
const FIELD_BYTES_MAX: usize = 64;

/// A record as it stands in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    append_time_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<Content>,
    value: Content,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
    value: Content,
}

/// Bytes, as text where they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Binary { base64: String },
}

impl Content {
    fn of(bytes: &Bytes) -> Content {
        match std::str::from_utf8(bytes) {
            Ok(text) => Content::Text(text.to_owned()),
            Err(_) => Content::Binary {
                base64: STANDARD.encode(bytes),
            },
        }
    }

    fn into_bytes(self, field: &str) -> Result<Bytes, String> {
        match self {
            Content::Text(text) => Ok(text.into()),
            Content::Binary { base64 } => match STANDARD.decode(base64) {
                Ok(bytes) => Ok(bytes.into()),
                Err(error) => Err(format!("`{field}` is not base64: {error}")),
            },
        }
    }
}

/// Appends a record's line.
pub(crate) fn write(record: &ConsumedRecord, output: &mut Vec<u8>) {
    let named = |header: &Header| Named {
        name: header.name.clone(),
        value: Content::of(&header.value),
    };
    let line = Line {
        partition: Some(record.partition),
        offset: Some(record.offset),
        append_time_ms: Some(record.append_time_ms),
        timestamp_ms: Some(record.timestamp_ms),
        key: record.key.as_ref().map(Content::of),
        value: Content::of(&record.value),
        headers: record.headers.iter().map(named).collect(),
    };
    // Text and numbers always have a JSON form, and writing into memory does not fail.
    let _ = serde_json::to_writer(&mut *output, &line);
    output.push(b'\n');
}

/// The record in a line; or what is wrong with it.
pub(crate) fn read(line: &[u8]) -> Result<Record, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let header = |named: Named| {
        Ok(Header {
            name: named.name,
            value: named.value.into_bytes("headers")?,
        })
    };
    Ok(Record {
        key: line.key.map(|key| key.into_bytes("key")).transpose()?,
        value: line.value.into_bytes("value")?,
        headers: line.headers.into_iter().map(header).collect::<Result<_, String>>()?,
        timestamp_ms: line.timestamp_ms,
        partition: line.partition,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn consumed(key: Option<&'static [u8]>, value: &'static [u8]) -> ConsumedRecord {
        ConsumedRecord {
            partition: 2,
            offset: 7,
            key: key.map(Bytes::from_static),
            value: Bytes::from_static(value),
            headers: Vec::new(),
            timestamp_ms: -5,
            append_time_ms: 9,
        }
    }

    fn line(record: &ConsumedRecord) -> String {
        let mut output = Vec::new();
        write(record, &mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn text_stays_text_and_one_record_is_one_line() {
        let written = line(&consumed(Some(b"k"), "a \"b\"\nc ä".as_bytes()));
        let expected =
            r#"{"partition":2,"offset":7,"append_time_ms":9,"timestamp_ms":-5,"key":"k","value":"a \"b\"\nc ä"}"#;
        assert_eq!(written, format!("{expected}\n"));
    }

    #[test]
    fn what_was_consumed_can_be_produced_again_byte_by_byte() {
        for (key, value) in [
            (None, &b""[..]),
            (Some(&b""[..]), &b"\xff\x00\n"[..]),
            (Some(&b"\xfe"[..]), &b"text"[..]),
        ] {
            let record = consumed(key, value);
            let read = read(line(&record).trim_end().as_bytes()).unwrap();
            assert_eq!((&read.key, &read.value), (&record.key, &record.value));
            assert_eq!((read.partition, read.timestamp_ms), (Some(2), Some(-5)));
        }
    }

    #[test]
    fn the_largest_record_has_room_in_a_line_whatever_it_holds() {
        for byte in [b'\0', b'\x1f', b'"', b'x', b'\xff'] {
            // No record is so large: its fields take room, too.
            let each = RECORD_BYTES_MAX / RECORD_HEADERS_MAX - 8;
            let bytes = Bytes::from(vec![byte; each]);
            let header = || Header {
                name: String::from_utf8_lossy(&[byte.min(b'x'); 8]).into_owned(),
                value: bytes.clone(),
            };
            let many = ConsumedRecord {
                headers: (0..RECORD_HEADERS_MAX).map(|_| header()).collect(),
                offset: u64::MAX,
                append_time_ms: u64::MAX,
                timestamp_ms: i64::MIN,
                partition: u32::MAX,
                ..consumed(Some(b"\xff"), b"\xff")
            };
            let lone = ConsumedRecord {
                headers: Vec::new(),
                value: vec![byte; RECORD_BYTES_MAX].into(),
                ..many.clone()
            };
            for record in [many, lone] {
                let written = line(&record);
                assert!(written.len() <= LINE_BYTES_MAX, "{byte}: {}", written.len());
                let read = read(written.trim_end().as_bytes()).unwrap();
                assert!(read.value == record.value && read.headers == record.headers, "{byte}");
            }
        }
    }

    #[test]
    fn headers_keep_their_order_and_their_doubles() {
        let text = r#"{"value":"v","headers":[{"name":"b","value":"1"},{"name":"a","value":{"base64":"/w=="}},{"name":"b","value":""}]}"#;
        let record = read(text.as_bytes()).unwrap();
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|it| (it.name.as_str(), &it.value[..]))
            .collect();
        assert_eq!(headers, [("b", &b"1"[..]), ("a", &b"\xff"[..]), ("b", &b""[..])]);
        assert_eq!(record.partition, None);
    }

    #[test]
    fn a_line_that_is_no_record_says_what_is_wrong() {
        for (text, word) in [
            ("", "EOF"),
            ("[1]", "invalid"),
            (r#"{"key":"k"}"#, "value"),
            (r#"{"value":"v","ofset":1}"#, "ofset"),
            (r#"{"value":{"base64":"?"}}"#, "`value` is not base64"),
            (r#"{"value":"v","partition":-1}"#, "-1"),
        ] {
            let error = read(text.as_bytes()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
