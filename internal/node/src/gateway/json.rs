//! What an append says, as JSON.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use highwater_proto::limits::{BATCH_RECORDS_MAX, RECORD_HEADERS_MAX};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::hex::Id;
use crate::status::Problem;

/// The body of an append.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AppendBody {
    pub(super) partition: Option<u32>,
    #[serde(deserialize_with = "records")]
    pub(super) records: List<JsonRecord>,
    pub(super) producer_id: Option<Id>,
    pub(super) sequence: Option<u64>,
    pub(super) expected_offset: Option<u64>,
}

/// A record; its bytes are base64 and not decoded yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonRecord {
    pub(super) key: Option<String>,
    pub(super) value: String,
    #[serde(default, deserialize_with = "headers")]
    pub(super) headers: List<JsonHeader>,
    pub(super) timestamp_ms: Option<i64>,
}

/// A list of which no more than is allowed is kept: what is small as text can be large in memory.
#[derive(Debug)]
pub(super) struct List<T> {
    kept: Vec<T>,
    /// How many there were.
    found: usize,
}

/// A header. They are a list, for their order counts and a name may come twice.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JsonHeader {
    pub(super) name: String,
    pub(super) value: String,
}

/// Which batch of which producer an append is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: Id,
    pub(super) sequence: u64,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List {
            kept: Vec::new(),
            found: 0,
        }
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.kept
    }
}

impl AppendBody {
    /// Reads a body, and checks what belongs together.
    pub(super) fn read(body: &[u8]) -> Result<AppendBody, Problem> {
        let body: AppendBody = serde_json::from_slice(body)
            .map_err(|error| Problem::Unreadable(format!("its body is no such JSON: {error}")))?;
        check_count("records", body.records.found, BATCH_RECORDS_MAX as usize)?;
        for record in body.records.iter() {
            check_count("headers", record.headers.found, RECORD_HEADERS_MAX)?;
        }
        let producer = body.producer()?;
        let is_retried = producer.is_some() || body.expected_offset.is_some();
        if is_retried && body.partition.is_none() {
            let why = "is needed beside `producer_id` and `expected_offset`, which count in one partition";
            return Err(invalid("partition", why));
        }
        Ok(body)
    }

    pub(super) fn producer(&self) -> Result<Option<Producer>, Problem> {
        match (self.producer_id, self.sequence) {
            (Some(id), Some(sequence)) => Ok(Some(Producer { id, sequence })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(invalid("sequence", "is needed beside `producer_id`")),
            (None, Some(_)) => Err(invalid("producer_id", "is needed beside `sequence`")),
        }
    }
}

fn check_count(field: &'static str, found: usize, limit: usize) -> Result<(), Problem> {
    if found <= limit {
        return Ok(());
    }
    Err(Problem::TooLarge {
        field,
        found: found as u64,
        limit: limit as u64,
    })
}

fn invalid(field: &'static str, why: &str) -> Problem {
    Problem::Invalid {
        field,
        why: why.to_owned(),
    }
}

fn records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List<JsonRecord>, D::Error> {
    deserializer.deserialize_seq(Few::new(BATCH_RECORDS_MAX as usize))
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<List<JsonHeader>, D::Error> {
    deserializer.deserialize_seq(Few::new(RECORD_HEADERS_MAX))
}

/// Reads a list, and keeps as many as are allowed.
struct Few<T> {
    allowed: usize,
    kind: PhantomData<T>,
}

impl<T> Few<T> {
    fn new(allowed: usize) -> Few<T> {
        Few {
            allowed,
            kind: PhantomData,
        }
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
    type Value = List<T>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.allowed {
            match list.next_element()? {
                Some(element) => kept.push(element),
                None => break,
            }
        }
        let mut found = kept.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            found += 1;
        }
        Ok(List { kept, found })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refused(body: &str) -> String {
        AppendBody::read(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_least_and_the_most_are_read() {
        let least = AppendBody::read(br#"{"records":[{"value":""}]}"#).unwrap();
        assert_eq!((least.partition, least.producer()), (None, Ok(None)));
        let most = br#"{"partition":3,"producer_id":"00112233445566778899aabbccddeeff","sequence":7,"expected_offset":9,
            "records":[{"key":null,"value":"","headers":[{"name":"a","value":""},{"name":"a","value":""}],"timestamp_ms":-1}]}"#;
        let most = AppendBody::read(most).unwrap();
        assert_eq!(most.producer().unwrap().unwrap().sequence, 7);
        assert_eq!(most.records[0].headers.len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (body, expected) in [
            ("", "line 1 column 0"),
            ("{\n \"records\": [1]}", "line 2 column 14"),
            (r#"{"records":[{"value":""}"#, "EOF"),
            (r#"{"records":[{"value":"","valeu":""}]}"#, "unknown field `valeu`"),
            (r#"{"records":[{"key":""}]}"#, "missing field `value`"),
            (r#"{"records":{}}"#, "expected a list"),
            (r#"{"partition":-1,"records":[]}"#, "expected u32"),
            (r#"{"producer_id":"x","records":[]}"#, "32 hexadecimal digits"),
            (r#"{"sequence":0,"records":[]}"#, "`producer_id`: is needed"),
            (
                r#"{"producer_id":"00112233445566778899aabbccddeeff","records":[]}"#,
                "`sequence`: is needed",
            ),
            (r#"{"expected_offset":0,"records":[]}"#, "`partition`: is needed"),
            (r#"{"records":[]} x"#, "trailing characters"),
        ] {
            let why = refused(body);
            assert!(why.contains(expected), "{body}: {why}");
        }
    }

    #[test]
    fn long_lists_are_refused_with_their_length_and_not_kept() {
        let many = |count: usize, element: &str| vec![element; count].join(",");
        let limit = BATCH_RECORDS_MAX as usize;
        let why = refused(&format!(r#"{{"records":[{}]}}"#, many(limit + 2, r#"{"value":""}"#)));
        assert_eq!(why, format!("`records` is {}, at most {limit} is accepted", limit + 2));
        let headers = many(RECORD_HEADERS_MAX + 9, r#"{"name":"","value":""}"#);
        let why = refused(&format!(r#"{{"records":[{{"value":"","headers":[{headers}]}}]}}"#));
        assert!(why.contains("`headers` is 73, at most 64"), "{why}");
        let nested = format!(r#"{{"records":[{}"#, "[".repeat(100_000));
        assert!(
            refused(&nested).contains("invalid type"),
            "nesting is no way to take memory"
        );
    }
}
