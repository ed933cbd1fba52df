//! What an event is, what is allowed of it, and how it is stored.
//!
//! A record's key is the deployment, in digits; its value is `{"id":1,"deployment_id":1,"message":"…"}`, so that `highwater consume activity`
//! shows the feed. The two times are those that every record has: the producer's (sent) and the leader's (received).

use highwater::{ConsumedRecord, KeyHash, Partitioner, Record};
use serde::{Deserialize, Serialize};

use crate::limits::{ID_MAX, MESSAGE_BYTES_MAX, SENT_AT_MS_MAX};

/// An event that is to be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Of which deployment, 1 to [`ID_MAX`].
    pub deployment_id: u64,
    /// Which one of the deployment, 1 to [`ID_MAX`].
    pub id: u64,
    /// 1 to [`MESSAGE_BYTES_MAX`] bytes.
    pub message: String,
    /// When it was sent, by the sender's clock, milliseconds since 1970-01-01 UTC.
    pub sent_at_ms: u64,
}

/// An event as it was stored. As JSON it is what the command line and the web page are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Of which deployment.
    pub deployment_id: u64,
    /// Which one of the deployment.
    pub id: u64,
    /// What happened.
    pub message: String,
    /// When it was sent, milliseconds since 1970-01-01 UTC.
    pub sent_at_ms: u64,
    /// When it was received, milliseconds since 1970-01-01 UTC.
    pub received_at_ms: u64,
    /// Its offset in the partition of its deployment.
    pub position: u64,
}

/// Something in a request is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// What.
    pub field: &'static str,
    /// Why, with the limit.
    pub problem: String,
}

impl Invalid {
    /// A field, and what is wrong with it.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self {
            field,
            problem: problem.into(),
        }
    }
}

/// The value of a record.
#[derive(Serialize, Deserialize)]
struct Stored {
    id: u64,
    deployment_id: u64,
    message: String,
}

/// What a line of input looks like.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: u64,
    deployment_id: u64,
    message: String,
    sent_at_ms: Option<u64>,
}

impl Posted {
    /// Reads `{"id":1,"deployment_id":1,"message":"…"}`, which may also have `sent_at_ms`; otherwise it is sent now.
    ///
    /// # Errors
    /// What is wrong with the text, or with a field.
    pub fn from_json(text: &str, now_ms: u64) -> Result<Self, Invalid> {
        let line: Line = serde_json::from_str(text).map_err(|error| Invalid::new("event", error.to_string()))?;
        let posted = Self {
            deployment_id: line.deployment_id,
            id: line.id,
            message: line.message,
            sent_at_ms: line.sent_at_ms.unwrap_or(now_ms),
        };
        posted.check()?;
        Ok(posted)
    }

    /// Whether everything is within its limits.
    ///
    /// # Errors
    /// The first field that is not.
    pub fn check(&self) -> Result<(), Invalid> {
        check_id("deployment_id", self.deployment_id)?;
        check_id("id", self.id)?;
        let bytes = self.message.len();
        if !(1..=MESSAGE_BYTES_MAX).contains(&bytes) {
            let problem = format!("it has {bytes} bytes; 1 to {MESSAGE_BYTES_MAX} are allowed");
            return Err(Invalid::new("message", problem));
        }
        if !(1..=SENT_AT_MS_MAX).contains(&self.sent_at_ms) {
            let problem = format!(
                "{} is not a time in milliseconds, 1 to {SENT_AT_MS_MAX}",
                self.sent_at_ms
            );
            return Err(Invalid::new("sent_at_ms", problem));
        }
        Ok(())
    }

    /// The record that stores it.
    ///
    /// # Errors
    /// Those of JSON, which cannot happen with such a value.
    pub fn to_record(&self) -> Result<Record, serde_json::Error> {
        let value = serde_json::to_vec(&Stored {
            id: self.id,
            deployment_id: self.deployment_id,
            message: self.message.clone(),
        })?;
        let record = Record::keyed(self.deployment_id.to_string(), value);
        Ok(record.with_timestamp_ms(i64::try_from(self.sent_at_ms).unwrap_or(i64::MAX)))
    }

    /// What a record stores.
    ///
    /// # Errors
    /// Why it is no event: something else writes to the topic.
    pub fn from_record(record: &ConsumedRecord) -> Result<Self, Invalid> {
        let stored: Stored =
            serde_json::from_slice(&record.value).map_err(|error| Invalid::new("value", error.to_string()))?;
        let posted = Self {
            deployment_id: stored.deployment_id,
            id: stored.id,
            message: stored.message,
            sent_at_ms: u64::try_from(record.timestamp_ms).unwrap_or_default(),
        };
        posted.check()?;
        Ok(posted)
    }
}

/// Whether an id of a deployment or an event is allowed.
///
/// # Errors
/// The field, with the limit.
pub fn check_id(field: &'static str, id: u64) -> Result<(), Invalid> {
    match id {
        1..=ID_MAX => Ok(()),
        _ => Err(Invalid::new(field, format!("{id} is not allowed; 1 to {ID_MAX} are"))),
    }
}

/// The partition that decides about a deployment: the one where `highwater produce` would put its key.
#[must_use]
pub fn partition_of(deployment_id: u64, partitions: u32) -> u32 {
    let key = deployment_id.to_string();
    KeyHash.partition(Some(key.as_bytes()), partitions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn consumed(record: Record) -> ConsumedRecord {
        ConsumedRecord {
            partition: 0,
            offset: 0,
            key: record.key,
            value: record.value,
            headers: Vec::new(),
            timestamp_ms: record.timestamp_ms.unwrap(),
            append_time_ms: 0,
        }
    }

    #[test]
    fn what_is_stored_is_what_comes_back() {
        let posted = Posted::from_json(r#"{"id":7,"deployment_id":3,"message":"\u0000 <b> é"}"#, 99).unwrap();
        assert_eq!((posted.id, posted.deployment_id, posted.sent_at_ms), (7, 3, 99));
        let record = posted.to_record().unwrap();
        assert_eq!(record.key.as_deref(), Some(&b"3"[..]));
        assert_eq!(Posted::from_record(&consumed(record)).unwrap(), posted);
    }

    #[test]
    fn what_is_not_allowed_is_named_with_its_limit() {
        let long = format!(r#"{{"id":1,"deployment_id":1,"message":"{}"}}"#, "é".repeat(4097));
        for (line, words) in [
            (
                r#"{"id":0,"deployment_id":1,"message":"m"}"#,
                "id: 0 is not allowed; 1 to 9007199254740991 are",
            ),
            (
                r#"{"id":1,"deployment_id":9007199254740992,"message":"m"}"#,
                "deployment_id: 9007199254740992",
            ),
            (
                r#"{"id":1,"deployment_id":1,"message":""}"#,
                "message: it has 0 bytes; 1 to 8192",
            ),
            (long.as_str(), "message: it has 8194 bytes"),
            (
                r#"{"id":1,"deployment_id":1,"message":"m","sent_at_ms":0}"#,
                "sent_at_ms: 0",
            ),
            (r#"{"id":1,"message":"m"}"#, "missing field `deployment_id`"),
            (
                r#"{"id":1,"deployment_id":1,"message":"m","mesage":"m"}"#,
                "unknown field `mesage`",
            ),
            (
                r#"{"id":-1,"deployment_id":1,"message":"m"}"#,
                "invalid value: integer `-1`",
            ),
            ("", "event: EOF"),
        ] {
            let error = Posted::from_json(line, 1).unwrap_err().to_string();
            assert!(error.contains(words), "{error} does not say {words}");
        }
    }

    #[test]
    fn a_deployment_is_where_its_key_is() {
        let record = Posted::from_json(r#"{"id":1,"deployment_id":21,"message":"m"}"#, 1)
            .unwrap()
            .to_record()
            .unwrap();
        assert_eq!(KeyHash.partition(record.key.as_deref(), 12), Some(partition_of(21, 12)));
        assert_eq!(partition_of(21, 12), 1_173_551_340 % 12); // as Kafka has it
    }
}
