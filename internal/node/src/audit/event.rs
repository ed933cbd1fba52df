//! What is recorded: who did what, to what, from where, and what came of it.
//!
//! A record's value is one JSON object on one line, so nothing that a caller says can look like another record. Its fields are
//! described in docs/audit.md and guarded by a test: what was written once must be readable for as long as it is kept. Fields may be
//! added; what a field means changes only with `v`.
//!
//! Every text is bounded. What is cut ends with `…`.

use std::net::SocketAddr;

use serde::Serialize;

use super::chain::End;
use super::limits::{OUTSIDERS_TARGET_BYTES_MAX, TARGET_BYTES_MAX, WHAT_BYTES_MAX, WHO_BYTES_MAX, WHY_BYTES_MAX};
use crate::hex::Id;

/// The version of the format.
const FORMAT: u32 = 1;
/// Stands for somebody who has not proven who he is.
pub(crate) const UNKNOWN: &str = "unknown";
/// The most that an event costs beside its texts, in the queue as well as in a batch: the other fields, their names, key and hash; bytes.
pub(super) const EVENT_BYTES: usize = 768;

/// What kind of thing has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The node has started: the first record of a chain.
    Started,
    /// Somebody has changed the cluster, or tried to.
    Act,
    /// Something was refused to a call.
    Denied,
    /// A connection was refused for what it proved, or did not prove.
    Unauthenticated,
    /// An open stream was cut, as its client may no longer do what it was for.
    Cut,
}

impl Kind {
    /// As records write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Act => "act",
            Kind::Denied => "denied",
            Kind::Unauthenticated => "unauthenticated",
            Kind::Cut => "cut",
        }
    }
}

/// How many kinds there are.
pub(super) const KINDS: [Kind; 5] = [Kind::Started, Kind::Act, Kind::Denied, Kind::Unauthenticated, Kind::Cut];

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Done,
    Refused,
    /// Begun, and nobody knows what became of it.
    Unknown,
}

/// Who can cause an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Anybody, as often as he likes.
    Strangers,
    /// Clients that may do it, and are no operators.
    Tenants,
    /// Operators, and the node itself.
    Operators,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(super) cause: Cause,
    pub(super) kind: Kind,
    pub(super) time_ms: u64,
    pub(super) who: String,
    pub(super) from: Option<SocketAddr>,
    pub(super) what: String,
    pub(super) target: String,
    pub(super) outcome: Outcome,
    pub(super) why: String,
}

impl Event {
    /// With texts that are as long as they may be.
    pub(super) fn bounded(self) -> Event {
        let target_bytes_max = match self.cause {
            Cause::Strangers => OUTSIDERS_TARGET_BYTES_MAX,
            Cause::Tenants | Cause::Operators => TARGET_BYTES_MAX,
        };
        Event {
            who: bounded(self.who, WHO_BYTES_MAX),
            what: bounded(self.what, WHAT_BYTES_MAX),
            target: bounded(self.target, target_bytes_max),
            why: bounded(self.why, WHY_BYTES_MAX),
            ..self
        }
    }

    /// The most that it takes of a batch, and of the queue.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.who, &self.what, &self.target, &self.why];
        let letters = texts.into_iter().flat_map(|text| text.chars());
        EVENT_BYTES + letters.map(json_bytes).sum::<usize>()
    }
}

/// Where a record stands, and what is told with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) node: &'a str,
    pub(super) boot: Id,
    pub(super) number: u64,
    /// Events of the same kind that were not recorded since the last record of it.
    pub(super) suppressed: u64,
    /// In the first record of a boot: where the chain of the boot before has ended, as far as it was noted.
    pub(super) former: Option<&'a End>,
}

/// The record as it is written.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    node: &'a str,
    boot: Id,
    number: u64,
    time_ms: u64,
    kind: Kind,
    who: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    what: &'a str,
    target: &'a str,
    outcome: Outcome,
    #[serde(skip_serializing_if = "str::is_empty")]
    why: &'a str,
    #[serde(skip_serializing_if = "is_none")]
    suppressed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    former: Option<&'a End>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The value of an event's record.
pub(super) fn encode(event: &Event, place: Place<'_>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Line {
        v: FORMAT,
        node: place.node,
        boot: place.boot,
        number: place.number,
        time_ms: event.time_ms,
        kind: event.kind,
        who: &event.who,
        from: event.from.map(|from| from.to_string()),
        what: &event.what,
        target: &event.target,
        outcome: event.outcome,
        why: &event.why,
        suppressed: place.suppressed,
        former: place.former,
    })
}

/// A text that takes no more than so many bytes as JSON.
fn bounded(mut text: String, bytes_max: usize) -> String {
    const CUT: char = '…';
    let mut bytes = 0;
    let mut keep = 0;
    for (at, letter) in text.char_indices() {
        bytes += json_bytes(letter);
        if bytes + CUT.len_utf8() <= bytes_max {
            keep = at + letter.len_utf8();
        }
        if bytes > bytes_max {
            text.truncate(keep);
            text.push(CUT);
            return text;
        }
    }
    text
}

fn json_bytes(letter: char) -> usize {
    match letter {
        '"' | '\\' => 2,
        '\0'..='\u{1f}' => 6,
        letter => letter.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn event() -> Event {
        Event {
            cause: Cause::Operators,
            kind: Kind::Act,
            time_ms: 1_764_465_000_123,
            who: "spiffe://prod/tenant/shop/client/anna".to_owned(),
            from: Some("192.0.2.7:50000".parse().unwrap()),
            what: "CreateTopic".to_owned(),
            target: "topic shop/orders".to_owned(),
            outcome: Outcome::Done,
            why: String::new(),
        }
    }

    fn place() -> Place<'static> {
        Place {
            node: "n1",
            boot: Id([0xab; 16]),
            number: 7,
            suppressed: 0,
            former: None,
        }
    }

    fn line(event: &Event, place: Place<'_>) -> String {
        String::from_utf8(encode(event, place).unwrap()).unwrap()
    }

    #[test]
    fn kinds_are_counted_under_the_names_that_records_give_them() {
        for kind in KINDS {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
    }

    /// Records of each version that was ever released must read as they were written. Change `v` rather than these lines.
    #[test]
    fn records_look_as_they_are_documented() {
        assert_eq!(
            line(&event(), place()),
            r#"{"v":1,"node":"n1","boot":"abababababababababababababababab","number":7,"time_ms":1764465000123,"kind":"act","who":"spiffe://prod/tenant/shop/client/anna","from":"192.0.2.7:50000","what":"CreateTopic","target":"topic shop/orders","outcome":"done"}"#
        );
        let denied = Event {
            kind: Kind::Denied,
            what: "consume".to_owned(),
            outcome: Outcome::Refused,
            why: "no rule allows it".to_owned(),
            from: None,
            ..event()
        };
        let suppressed = Place {
            suppressed: 12,
            ..place()
        };
        assert_eq!(
            line(&denied, suppressed),
            r#"{"v":1,"node":"n1","boot":"abababababababababababababababab","number":7,"time_ms":1764465000123,"kind":"denied","who":"spiffe://prod/tenant/shop/client/anna","what":"consume","target":"topic shop/orders","outcome":"refused","why":"no rule allows it","suppressed":12}"#
        );
        let end = End {
            boot: Id([1; 16]),
            number: 41,
            hash: "00ff".repeat(16),
        };
        let started = Event {
            kind: Kind::Started,
            who: "spiffe://prod/node/n1".to_owned(),
            from: None,
            what: "start".to_owned(),
            target: "node n1".to_owned(),
            ..event()
        };
        let first = Place {
            number: 0,
            former: Some(&end),
            ..place()
        };
        assert_eq!(
            line(&started, first),
            r#"{"v":1,"node":"n1","boot":"abababababababababababababababab","number":0,"time_ms":1764465000123,"kind":"started","who":"spiffe://prod/node/n1","what":"start","target":"node n1","outcome":"done","former":{"boot":"01010101010101010101010101010101","number":41,"hash":"00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff"}}"#
        );
        let names = [Kind::Unauthenticated, Kind::Cut].map(|kind| serde_json::to_string(&kind).unwrap());
        assert_eq!(names, ["\"unauthenticated\"", "\"cut\""]);
        assert_eq!(serde_json::to_string(&Outcome::Unknown).unwrap(), "\"unknown\"");
    }

    #[test]
    fn whatever_a_caller_says_stays_inside_its_field_and_its_length() {
        let nasty = "\"},\n{\"v\":1,\"who\":\"admin\"\u{1b}[2J\\";
        for (letter, times) in [(nasty, 1), (nasty, 100_000), ("é\u{1}", 500_000), ("\0", 1_000_000)] {
            let event = Event {
                who: letter.repeat(times),
                what: letter.repeat(times),
                target: letter.repeat(times),
                why: letter.repeat(times),
                ..event()
            }
            .bounded();
            let line = line(&event, place());
            assert!(!line.contains('\n'), "{}", &line[..200]);
            let most = WHO_BYTES_MAX + WHAT_BYTES_MAX + TARGET_BYTES_MAX + WHY_BYTES_MAX + 512;
            assert!(line.len() <= most, "{} bytes", line.len());
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(read["who"].as_str().unwrap(), event.who);
        }
    }

    #[test]
    fn only_what_is_too_long_is_cut() {
        assert_eq!(bounded("abcdef".to_owned(), 6), "abcdef");
        assert_eq!(bounded("abcdefg".to_owned(), 6), "abc…");
        assert_eq!(bounded("äöü".to_owned(), 5), "ä…");
    }
}
