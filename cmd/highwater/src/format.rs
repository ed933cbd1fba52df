//! The `--format` of `highwater consume`: `%k %v %o %p %t` and backslash escapes, or `json` for whole records; and the `--separator`
//! between records.

use std::io::Write;

use highwater::ConsumedRecord;

use crate::json_lines;

/// One part of a format.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(Vec<u8>),
    Key,
    Value,
    Offset,
    Partition,
    TimestampMs,
}

/// The end of a line.
pub(crate) const NEWLINE: u8 = b'\n';

/// Reads a separator: one byte, as it is or as an escape.
pub(crate) fn parse_separator(text: &str) -> Result<u8, String> {
    let mut rest = text.chars();
    let byte = match rest.next() {
        Some('\\') => escape(&mut rest)?,
        Some(other) if other.is_ascii() => other as u8,
        _ => return Err("one byte is needed: a character, or an escape such as \\0 or \\x1e".to_owned()),
    };
    match rest.next() {
        None => Ok(byte),
        Some(_) => Err(format!("{text:?} is more than one byte")),
    }
}

/// How a record is printed; a separator follows each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RecordFormat {
    /// A line of JSON (`json_lines`).
    Json,
    /// Fields and what stands between them.
    Parts(Parts),
}

/// What a format is made of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts(Vec<Part>);

impl RecordFormat {
    /// Parses a format; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let part = match character {
                '%' => match field(&mut rest)? {
                    Some(part) => part,
                    None => {
                        literal.push(b'%');
                        continue;
                    }
                },
                '\\' => {
                    literal.push(escape(&mut rest)?);
                    continue;
                }
                other => {
                    literal.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            flush(&mut literal, &mut parts);
            parts.push(part);
        }
        flush(&mut literal, &mut parts);
        Ok(Self::Parts(Parts(parts)))
    }

    /// Appends the record and the separator; a line of JSON ends as every line does.
    pub(crate) fn write(&self, record: &ConsumedRecord, separator: u8, output: &mut Vec<u8>) {
        match self {
            Self::Json => json_lines::write(record, output),
            Self::Parts(parts) => {
                parts.write(record, output);
                output.push(separator);
            }
        }
    }
}

impl Parts {
    fn write(&self, record: &ConsumedRecord, output: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Literal(bytes) => output.extend_from_slice(bytes),
                Part::Key => output.extend_from_slice(record.key.as_deref().unwrap_or_default()),
                Part::Value => output.extend_from_slice(&record.value),
                Part::Offset => number(output, record.offset),
                Part::Partition => number(output, record.partition),
                Part::TimestampMs => number(output, record.timestamp_ms),
            }
        }
    }
}

fn number(output: &mut Vec<u8>, number: impl std::fmt::Display) {
    // Writing into memory does not fail.
    let _ = write!(output, "{number}");
}

fn flush(literal: &mut Vec<u8>, parts: &mut Vec<Part>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal)));
    }
}

/// What follows a `%`; nothing for `%%`.
fn field(rest: &mut std::str::Chars<'_>) -> Result<Option<Part>, String> {
    match rest.next() {
        Some('k') => Ok(Some(Part::Key)),
        Some('v') => Ok(Some(Part::Value)),
        Some('o') => Ok(Some(Part::Offset)),
        Some('p') => Ok(Some(Part::Partition)),
        Some('t') => Ok(Some(Part::TimestampMs)),
        Some('%') => Ok(None),
        Some(other) => Err(format!("%{other} is not a field; there are %k %v %o %p %t and %%")),
        None => Err("a lone % at the end; write %% for a percent sign".to_owned()),
    }
}

/// What follows a `\`.
fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let is_hex = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hex);
            byte.ok_or_else(|| format!("\\x{digits} is not a byte; write two hexadecimal digits"))
        }
        Some(other) => Err(format!(
            "\\{other} is not an escape; there are \\n \\r \\t \\0 \\xHH and \\\\"
        )),
        None => Err("a lone \\ at the end; write \\\\ for a backslash".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record() -> ConsumedRecord {
        ConsumedRecord {
            partition: 2,
            offset: 7,
            key: Some("k".into()),
            value: vec![0xff, b'v'].into(),
            headers: Vec::new(),
            timestamp_ms: -1,
            append_time_ms: 0,
        }
    }

    fn shown(format: &str) -> Vec<u8> {
        let mut output = Vec::new();
        RecordFormat::parse(format)
            .unwrap()
            .write(&record(), NEWLINE, &mut output);
        output
    }

    #[test]
    fn fields_and_escapes_are_replaced() {
        assert_eq!(shown("%p/%o\\t%k=%v%% %t\\x00ä"), b"2/7\tk=\xffv% -1\0\xc3\xa4\n");
        assert_eq!(shown(""), b"\n");
    }

    #[test]
    fn the_value_is_shown_unless_told_otherwise() {
        let mut output = Vec::new();
        RecordFormat::parse("%v")
            .unwrap()
            .write(&record(), NEWLINE, &mut output);
        assert_eq!(output, b"\xffv\n");
    }

    #[test]
    fn wrong_formats_are_refused() {
        for wrong in ["%", "%q", "\\", "\\q", "\\x1", "\\xzz", "\\x+1", "\\x€a"] {
            assert!(RecordFormat::parse(wrong).is_err(), "{wrong:?} passed");
        }
    }

    #[test]
    fn a_separator_is_one_byte() {
        for (text, byte) in [("\\n", b'\n'), ("\\0", 0), ("\\x1e", 0x1e), (";", b';'), ("-", b'-')] {
            assert_eq!(parse_separator(text), Ok(byte));
        }
        for wrong in ["", "ab", "\\n\\n", "ß", "\\q"] {
            assert!(parse_separator(wrong).is_err(), "{wrong:?} passed");
        }
    }
}
