//! What is printed: JSON, an object a line, in which no message can do anything to a terminal.
//!
//! JSON escapes only some of what a terminal obeys. What else it may contain raw is written as its number too: the rest of the control
//! characters, and what turns the direction of text around. So are all of them in errors, which may quote what was posted.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use super::CliError;
use crate::event::Event;
use crate::v1;

/// What `add` prints.
#[derive(Serialize)]
pub(super) struct Outcome {
    pub(super) deployment_id: u64,
    pub(super) id: u64,
    pub(super) already_there: bool,
    pub(super) differs: bool,
    pub(super) sent_at_ms: u64,
    pub(super) received_at_ms: u64,
    pub(super) position: u64,
}

pub(super) fn event(event: Option<v1::Event>) -> Result<(), CliError> {
    json(&Event::from(event.ok_or(CliError::NoEvent)?))
}

pub(super) fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string(value).map_err(std::io::Error::from)?;
    Ok(line(&harmless(&text))?)
}

pub(super) fn line(text: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}")
}

/// The same text, with `\uNNNN` for every letter that does something to a terminal. JSON, which has such letters only in its strings, still
/// means the same.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match does_something(letter) {
            // A text takes everything.
            true => _ = write!(safe, "\\u{:04x}", u32::from(letter)),
            false => safe.push(letter),
        }
    }
    safe
}

fn does_something(letter: char) -> bool {
    let ends_a_line = matches!(letter, '\u{2028}' | '\u{2029}');
    let turns_around = matches!(
        letter,
        '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    letter.is_control() || ends_a_line || turns_around
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn json_means_the_same_and_does_nothing() {
        let message: String = ('\0'..='\u{ffff}').filter(|letter| !letter.is_alphanumeric()).collect();
        let text = harmless(&serde_json::to_string(&message).unwrap());
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), message);
        for letter in
            "\0\u{1b}\n\u{7f}\u{80}\u{9b}\u{9f}\u{61c}\u{200e}\u{200f}\u{2028}\u{202a}\u{202e}\u{2066}\u{2069}".chars()
        {
            assert!(!text.contains(letter), "{letter:?}");
        }
        assert!(text.contains(r"\u009b") && text.contains(r"\u202e"));
        assert_eq!(harmless("é 漢 \u{1f600} <b>\u{200d}"), "é 漢 \u{1f600} <b>\u{200d}");
        assert_eq!(harmless("a\u{1b}[2Jb\n"), r"a\u001b[2Jb\u000a");
    }
}
