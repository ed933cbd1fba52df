//! A record of the audit, as far as this program reads it; docs/audit.md has all of it.

use serde::Deserialize;

use crate::log::time;

/// The newest version of the format that this program knows.
pub(super) const FORMAT: u32 = 1;

/// What stands in a record's value. Fields that are not known here are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Record {
    pub(super) v: u32,
    pub(super) node: String,
    pub(super) boot: String,
    pub(super) number: u64,
    pub(super) time_ms: u64,
    pub(super) kind: String,
    pub(super) who: String,
    pub(super) from: Option<String>,
    pub(super) what: String,
    pub(super) target: String,
    pub(super) outcome: String,
    #[serde(default)]
    pub(super) why: String,
    #[serde(default)]
    pub(super) suppressed: u64,
    pub(super) former: Option<Former>,
}

/// Where the chain of the node's start before had come to, as far as that was noted.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Former {
    pub(super) boot: String,
    pub(super) number: u64,
    pub(super) hash: String,
}

impl Record {
    pub(super) fn read(value: &[u8]) -> Result<Record, String> {
        let record: Record = serde_json::from_slice(value).map_err(|error| format!("it cannot be read: {error}"))?;
        match record.v {
            FORMAT => Ok(record),
            other => Err(format!(
                "it is of version {other} of the format, and this program knows {FORMAT}"
            )),
        }
    }

    /// For a person, on one line.
    pub(super) fn line(&self) -> String {
        let Record {
            node,
            kind,
            who,
            what,
            target,
            outcome,
            ..
        } = self;
        let from = self.from.as_ref().map(|from| format!(" ({from})")).unwrap_or_default();
        let mut line = format!(
            "{}  {node}  {kind}  {who}{from}  {what}  {target}: {outcome}",
            time(self.time_ms)
        );
        if !self.why.is_empty() {
            line.push_str(&format!(", {}", self.why));
        }
        if self.suppressed > 0 {
            line.push_str(&format!(
                "  [{} more of the kind not recorded before it]",
                self.suppressed
            ));
        }
        harmless(&line)
    }
}

/// Records repeat what strangers have said. None of that may move a cursor, or look like another line.
fn harmless(text: &str) -> String {
    let is_plain =
        |letter: char| !letter.is_control() && !matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut harmless = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_plain(letter) {
            true => harmless.push(letter),
            false => harmless.extend(letter.escape_unicode()),
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PLAIN: &str = r#"{"v":1,"node":"n1","boot":"ab","number":7,"time_ms":1764465000123,"kind":"act","who":"spiffe://prod/tenant/shop/client/anna","from":"192.0.2.7:50000","what":"CreateTopic","target":"topic shop/orders","outcome":"done","later":[1]}"#;

    #[test]
    fn a_record_is_a_line_and_unknown_fields_do_no_harm() {
        let record = Record::read(PLAIN.as_bytes()).unwrap();
        assert_eq!(
            record.line(),
            "2025-11-30T01:10:00.123Z  n1  act  spiffe://prod/tenant/shop/client/anna (192.0.2.7:50000)  CreateTopic  topic shop/orders: done"
        );
        let more = PLAIN.replace("\"later\":[1]", "\"why\":\"because\",\"suppressed\":3");
        let line = Record::read(more.as_bytes()).unwrap().line();
        assert!(
            line.ends_with("done, because  [3 more of the kind not recorded before it]"),
            "{line}"
        );
    }

    #[test]
    fn what_a_stranger_says_cannot_make_lines_or_move_the_cursor() {
        let nasty = PLAIN.replace("topic shop/orders", "x\\n2026 forged\\u001b[2J\\u202e");
        let line = Record::read(nasty.as_bytes()).unwrap().line();
        assert!(line.contains(r"x\u{a}2026 forged\u{1b}[2J\u{202e}"), "{line}");
    }

    #[test]
    fn newer_formats_and_nonsense_are_told_apart_from_records() {
        assert!(Record::read(b"{}").is_err() && Record::read(b"\xff").is_err());
        let newer = PLAIN.replace("\"v\":1", "\"v\":2");
        assert!(Record::read(newer.as_bytes()).unwrap_err().contains("version 2"));
    }
}
