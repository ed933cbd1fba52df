//! Commands and events, as records: the part that students and courses share.
//!
//! A command is a record whose key is the id of what it is about and whose value is JSON: `{"create":{"name":"Ada"}}`. The event that
//! follows from it has the same key and is in the partition of the same number:
//! `{"command":"1/5","applied":{"created":{"name":"Ada"}}}`, or `{"command":"1/5","rejected":"there is a student ada already"}`. So people
//! can read both with `highwater consume`.
//!
//! Invariants:
//!
//! * everything in the queue gets an event, also what cannot be understood. Who sends a command is told by that what became of it, and a
//!   worker can tell from the events alone which command is the next;
//! * no event is left out: what is made of events is wrong for ever if one is missing. Fields that a newer program has added are passed over;
//!   an event that cannot be understood at all ([`NotUnderstood`]) ends whoever reads it.

use std::fmt;
use std::str::FromStr;

use highwater::{ConsumedRecord, Record};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::limits::{self, Invalid, REASON_LETTERS_MAX};

/// Where a command is in its topic, which is what it is called by: `partition/offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommandId {
    /// The partition.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl From<CommandId> for String {
    fn from(id: CommandId) -> Self {
        id.to_string()
    }
}

impl FromStr for CommandId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parts = text.split_once('/').and_then(|(partition, offset)| {
            Some(Self {
                partition: partition.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        });
        parts.ok_or_else(|| Invalid::new("command", "is not PARTITION/OFFSET"))
    }
}

impl TryFrom<String> for CommandId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event<C> {
    /// The command.
    pub command: CommandId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: Outcome<C>,
}

/// Whether a command was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<C> {
    /// It was, and this has changed.
    Applied(C),
    /// It was not, and for ever will not be, because of this.
    Rejected(String),
}

/// What is known to decide about commands of one kind, and how. No clock and no chance in it: what was decided is in the events.
pub trait Register: Default + Send + Sync + 'static {
    /// What one is told to do.
    type Command: Serialize + DeserializeOwned;
    /// What has changed by that.
    type Change: Serialize + DeserializeOwned;

    /// Whether the command can be done, and what changes by it.
    ///
    /// # Errors
    /// Why it is rejected, in words.
    fn decide(&self, id: &str, command: Self::Command) -> Result<Self::Change, String>;

    /// Something has changed.
    fn take_in(&mut self, id: &str, change: &Self::Change);
}

/// A command, to be sent.
///
/// # Errors
/// That of the JSON, which a command of this program does not have.
pub fn to_record<C: Serialize>(id: &str, command: &C) -> Result<Record, serde_json::Error> {
    Ok(Record::keyed(id.to_owned(), serde_json::to_vec(command)?))
}

/// What a command comes to: exactly one event, whatever the record is.
#[must_use]
pub fn decide<R: Register>(register: &R, record: &ConsumedRecord) -> Event<R::Change> {
    let command = CommandId {
        partition: record.partition,
        offset: record.offset,
    };
    let outcome = match understood::<R>(record).and_then(|(id, told)| register.decide(id, told)) {
        Ok(change) => Outcome::Applied(change),
        Err(reason) => Outcome::Rejected(reason.chars().take(REASON_LETTERS_MAX).collect()),
    };
    Event { command, outcome }
}

/// The event of that command, to be sent.
#[must_use]
pub fn event_record<C: Serialize>(event: &Event<C>, command: &ConsumedRecord) -> Record {
    Record {
        key: command.key.clone(),
        value: json(event).into(),
        ..Record::default()
    }
}

/// Maps of strings and derived types have a JSON form; if one had none, the command would be rejected for it, and not forgotten.
fn json<C: Serialize>(event: &Event<C>) -> Vec<u8> {
    serde_json::to_vec(event).unwrap_or_else(|error| {
        let command = event.command;
        tracing::error!(%command, %error, "the event has no JSON form");
        format!(r#"{{"command":"{command}","rejected":"its event cannot be written"}}"#).into_bytes()
    })
}

fn understood<R: Register>(record: &ConsumedRecord) -> Result<(&str, R::Command), String> {
    let id = id_of(record).ok_or("the key is not an id")?;
    limits::id("id", id).map_err(|invalid| invalid.to_string())?;
    let command = serde_json::from_slice(&record.value).map_err(|error| format!("not understood: {error}"))?;
    Ok((id, command))
}

fn id_of(record: &ConsumedRecord) -> Option<&str> {
    std::str::from_utf8(record.key.as_deref()?).ok()
}

/// An event that this program cannot read. It cannot be passed over, so a newer program has to take this one's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the event at offset {offset} of partition {partition} is not understood, so it is of a newer program than this: {problem}"
)]
pub struct NotUnderstood {
    /// Where it is in its topic.
    pub partition: u32,
    /// Where it is in the partition.
    pub offset: u64,
    /// What is not understood.
    pub problem: String,
}

impl NotUnderstood {
    fn new(record: &ConsumedRecord, problem: impl fmt::Display) -> Self {
        Self {
            partition: record.partition,
            offset: record.offset,
            problem: problem.to_string(),
        }
    }
}

/// What has changed by an event, and of what; `None` if it says that nothing has.
///
/// # Errors
/// [`NotUnderstood`].
pub fn change_in<C: DeserializeOwned>(record: &ConsumedRecord) -> Result<Option<(&str, C)>, NotUnderstood> {
    let event: Event<C> = event_in(record)?;
    let Outcome::Applied(change) = event.outcome else {
        return Ok(None);
    };
    let id = id_of(record).ok_or_else(|| NotUnderstood::new(record, "its key is not an id"))?;
    Ok(Some((id, change)))
}

/// What became of which command, without what has changed.
///
/// # Errors
/// [`NotUnderstood`].
pub fn outcome_in(record: &ConsumedRecord) -> Result<Event<IgnoredAny>, NotUnderstood> {
    event_in(record)
}

fn event_in<C: DeserializeOwned>(record: &ConsumedRecord) -> Result<Event<C>, NotUnderstood> {
    serde_json::from_slice(&record.value).map_err(|error| NotUnderstood::new(record, error))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::student::{StudentChange, StudentDetails, Students};

    pub(crate) fn record(key: Option<&str>, value: &str, offset: u64) -> ConsumedRecord {
        ConsumedRecord {
            partition: 1,
            offset,
            key: key.map(|key| key.to_owned().into()),
            value: value.to_owned().into(),
            headers: Vec::new(),
            timestamp_ms: 0,
            append_time_ms: 0,
        }
    }

    fn handled(register: &Students, key: Option<&str>, value: &str) -> String {
        let command = record(key, value, 5);
        let event = event_record(&decide(register, &command), &command);
        assert_eq!(event.key, command.key);
        String::from_utf8(event.value.to_vec()).unwrap()
    }

    #[test]
    fn a_command_becomes_an_event_that_is_read_back() {
        let command = r#"{"create":{"name":"Ada","email":"ada@example.org"}}"#;
        let text = handled(&Students::default(), Some("ada"), command);
        let wanted = r#"{"command":"1/5","applied":{"created":{"name":"Ada","email":"ada@example.org"}}}"#;
        assert_eq!(text, wanted);
        let event = record(Some("ada"), &text, 0);
        let details = StudentDetails {
            name: "Ada".to_owned(),
            email: "ada@example.org".to_owned(),
        };
        assert_eq!(change_in(&event), Ok(Some(("ada", StudentChange::Created(details)))));
        let read = outcome_in(&event).unwrap();
        assert_eq!((read.command.partition, read.command.offset), (1, 5));
        assert!(matches!(read.outcome, Outcome::Applied(_)));
    }

    #[test]
    fn whatever_is_in_the_queue_gets_an_event() {
        let long = format!(r#""{}""#, "x".repeat(100_000));
        let cases = [
            (None, r#""delete""#, "the key is not an id"),
            (Some("Ada!"), r#""delete""#, "id: 1 to 64"),
            (Some("ada"), "no JSON", "not understood"),
            (Some("ada"), r#"{"promote":{}}"#, "not understood: unknown variant"),
            (Some("ada"), long.as_str(), "not understood"),
            (
                Some("ada"),
                r#"{"enrol":{"course":"x","now":1}}"#,
                "not understood: unknown field",
            ),
            (Some("ada"), r#""delete""#, "there is no student ada"),
        ];
        for (key, value, reason) in cases {
            let text = handled(&Students::default(), key, value);
            assert!(text.len() < 1_000, "{text}");
            let event: Event<IgnoredAny> = serde_json::from_str(&text).unwrap();
            assert!(
                matches!(&event.outcome, Outcome::Rejected(told) if told.starts_with(reason)),
                "{text}"
            );
            assert_eq!(change_in::<StudentChange>(&record(key, &text, 0)), Ok(None));
        }
    }

    #[test]
    fn an_event_of_a_newer_program_is_read_if_that_is_possible_and_never_left_out() {
        let more = r#"{"command":"1/5","by":"worker-9","applied":{"enrolled":{"course":"logic","since":1}}}"#;
        let course = "logic".to_owned();
        assert_eq!(
            change_in(&record(Some("ada"), more, 0)),
            Ok(Some(("ada", StudentChange::Enrolled { course })))
        );
        let other = [
            (
                Some("ada"),
                r#"{"command":"1/5","applied":{"promoted":{}}}"#,
                "unknown variant `promoted`",
            ),
            (Some("ada"), r#"{"command":"1/5","postponed":{}}"#, "no variant"),
            (Some("ada"), "no JSON", "expected"),
            (None, r#"{"command":"1/5","applied":"deleted"}"#, "its key is not an id"),
        ];
        for (key, value, problem) in other {
            let error = change_in::<StudentChange>(&record(key, value, 7)).unwrap_err();
            assert_eq!((error.partition, error.offset), (1, 7));
            assert!(error.to_string().contains(problem), "{error}");
        }
        // What became of the command is known also if it is not what has changed.
        outcome_in(&record(
            Some("ada"),
            r#"{"command":"1/5","applied":{"promoted":{}}}"#,
            7,
        ))
        .unwrap();
        outcome_in(&record(Some("ada"), r#"{"command":"1/5","postponed":{}}"#, 7)).unwrap_err();
    }

    #[test]
    fn a_change_without_more_to_it_is_read_back() {
        let event = record(Some("ada"), r#"{"command":"1/5","applied":"deleted"}"#, 0);
        assert_eq!(change_in(&event), Ok(Some(("ada", StudentChange::Deleted))));
        outcome_in(&event).unwrap();
    }
}
