//! Commands and results as records.
//!
//! Both have the session as key, so that all of a session stay in one partition and in order, and the headers `session` and `number`. The
//! value is text: the command as it was typed, or the answer. A result also says how it went in the header `outcome`, and which record it
//! answers in the header that [`SOURCE`](highwater_service::transform::SOURCE) names.
//!
//! Headers and not only the key name the session, because a record made by hand may have any key or none; such a command has a result too,
//! with as much of this as it brought. Whoever may publish commands can write any session and number into one. So what is shown of a session
//! has hexadecimal digits only, and a session knows its answers by the place of its own commands, which nobody else can take.

use highwater::{ConsumedRecord, Record};

/// Where commands are published.
pub const COMMAND_TOPIC: &str = "command";
/// Where results are published.
pub const RESULT_TOPIC: &str = "result";
/// How many partitions each has: as many back ends can be at work at the same time.
pub const PARTITIONS: u32 = 3;

const SESSION: &str = "session";
const NUMBER: &str = "number";
const OUTCOME: &str = "outcome";
/// How long the name of a session may be, bytes. Longer ones, and those with anything but hexadecimal digits, are not repeated in results.
const SESSION_BYTES_MAX: usize = 64;

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The text is the answer.
    Ok,
    /// The text says what is wrong with the command.
    Error,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// A command, as it is published: of which session, the how many-eth of it, and the text.
#[must_use]
pub fn command(session: &str, number: u64, text: &str) -> Record {
    Record::keyed(session.to_owned(), text.to_owned())
        .with_header(SESSION, session.to_owned())
        .with_header(NUMBER, number.to_string())
}

/// The result of a command.
#[must_use]
pub fn result(command: &ConsumedRecord, outcome: Outcome, text: String) -> Record {
    let mut record = Record::new(text);
    record.key.clone_from(&command.key);
    if let Some(session) = session(command) {
        record = record.with_header(SESSION, session.to_owned());
    }
    if let Some(number) = number(command) {
        record = record.with_header(NUMBER, number.to_string());
    }
    record.with_header(OUTCOME, outcome.name())
}

/// The session of a command or a result.
#[must_use]
pub fn session(record: &ConsumedRecord) -> Option<&str> {
    let is_hexadecimal = |session: &str| session.bytes().all(|letter| letter.is_ascii_hexdigit());
    header(record, SESSION)
        .filter(|session| (1..=SESSION_BYTES_MAX).contains(&session.len()))
        .filter(|session| is_hexadecimal(session))
}

/// The text, for a terminal: what would move its cursor or change its colours is written out.
#[must_use]
pub fn shown(text: &str) -> String {
    let escaped = |letter: char| match letter.is_control() {
        true => letter.escape_default().collect(),
        false => String::from(letter),
    };
    text.chars().map(escaped).collect()
}

/// Which of its session's commands it is, or is the result of.
#[must_use]
pub fn number(record: &ConsumedRecord) -> Option<u64> {
    header(record, NUMBER)?.parse().ok()
}

/// How a command went, by its result.
#[must_use]
pub fn outcome(record: &ConsumedRecord) -> Option<Outcome> {
    match header(record, OUTCOME)? {
        "ok" => Some(Outcome::Ok),
        "error" => Some(Outcome::Error),
        _ => None,
    }
}

/// The text of a command or a result.
#[must_use]
pub fn text(record: &ConsumedRecord) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}

fn header<'a>(record: &'a ConsumedRecord, name: &str) -> Option<&'a str> {
    let header = record.headers.iter().find(|header| header.name == name)?;
    std::str::from_utf8(&header.value).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A record as it comes back.
    pub(crate) fn consumed(record: Record, partition: u32, offset: u64) -> ConsumedRecord {
        ConsumedRecord {
            partition,
            offset,
            key: record.key,
            value: record.value,
            headers: record.headers,
            timestamp_ms: 0,
            append_time_ms: 1_700_000_000_000 + offset,
        }
    }

    #[test]
    fn a_result_names_the_session_and_the_number_of_its_command() {
        let command = consumed(command("a1", 3, "add 2 5"), 0, 9);
        let result = consumed(result(&command, Outcome::Ok, "7".to_owned()), 0, 4);
        assert_eq!((session(&result), number(&result)), (Some("a1"), Some(3)));
        assert_eq!((outcome(&result), text(&result)), (Some(Outcome::Ok), "7".to_owned()));
        assert_eq!(result.key.unwrap(), "a1");
    }

    #[test]
    fn a_command_made_by_hand_has_a_result_too() {
        let long = "a".repeat(SESSION_BYTES_MAX + 1);
        for name in [long.as_str(), "", "a1\u{1b}[2J", "a1\na2", "a1 a2", "sess", "ä1"] {
            let command = Record::new("what")
                .with_header(SESSION, name.to_owned())
                .with_header(NUMBER, "one");
            let command = consumed(command, 0, 0);
            let result = consumed(result(&command, Outcome::Error, String::new()), 0, 0);
            assert_eq!((session(&result), number(&result), &result.key), (None, None, &None));
            assert_eq!(outcome(&result), Some(Outcome::Error));
        }
    }

    #[test]
    fn nothing_that_is_shown_can_move_the_cursor() {
        assert_eq!(shown("3 37"), "3 37");
        assert_eq!(
            shown("\"fïve\" is no\u{1b}[2Jinteger\r\n"),
            "\"fïve\" is no\\u{1b}[2Jinteger\\r\\n"
        );
    }
}
