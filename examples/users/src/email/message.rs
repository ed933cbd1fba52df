//! The welcome message: the same bytes whenever it is made of the same record.
//!
//! So a receiver that gets it twice can know that: the `Message-ID` comes from the topic's id, the record's position and the user's moment
//! of creation.
//! Nothing that a user has chosen stands in a header but the address, which has been checked; the name stands in the body, whose encoding
//! (quoted-printable) leaves only ASCII, short lines, and no line that looks like the beginning of another message of a mailbox.

use std::fmt;

use crate::days;
use crate::proto::UserAdded;
use crate::rules::{self, Problem};

/// The largest message, bytes, its head included: what rules allow for names and addresses, encoded, stays far below.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// The header that says which record a message is about, `PARTITION/OFFSET`.
pub const POSITION: &str = "X-Highwater-Position";
/// The header that says in which topic that is: its id. A topic that is deleted and made again has another one, and the same positions.
pub const TOPIC: &str = "X-Highwater-Topic";

/// How long an encoded line is at most, without the `=` that says that it goes on.
const LINE_BYTES_MAX: usize = 75;

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition of `user-added`.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.partition, self.offset)
    }
}

impl Place {
    /// As it is displayed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (partition, offset) = text.split_once('/')?;
        Some(Self {
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

/// A message. Lines end with a line feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The id of the topic whose record it is about.
    pub topic_id: u64,
    /// The record that it is about.
    pub place: Place,
    /// The sender's address.
    pub from: String,
    /// The receiver's address.
    pub to: String,
    /// When the user was created, milliseconds since 1970-01-01 UTC.
    pub created_ms: i64,
    /// All headers.
    pub head: String,
    /// The encoded text.
    pub body: String,
}

impl Message {
    /// The message that welcomes a user. `from` has been checked.
    ///
    /// # Errors
    /// If the user's address is none that a message can be sent to.
    pub fn welcome(user: &UserAdded, topic_id: u64, place: Place, from: &str) -> Result<Self, Problem> {
        let to = rules::email(&user.email)?;
        let (_, domain) = from.split_once('@').unwrap_or_default();
        let date = days::in_mail(user.created_ms);
        let id = format!(
            "<user-added.{topic_id}.{}.{}.{}@{domain}>",
            place.partition, place.offset, user.created_ms
        );
        let head = format!(
            "From: <{from}>\nTo: <{to}>\nSubject: Welcome\nDate: {date}\nMessage-ID: {id}\n\
             {TOPIC}: {topic_id}\n{POSITION}: {place}\nMIME-Version: 1.0\n\
             Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
        );
        let name = |name: &str| name.chars().take(rules::NAME_LETTERS_MAX).collect::<String>();
        let text = format!(
            "Dear {} {},\n\nwelcome! Your account for {to} was created on {}.\n",
            name(&user.first_name),
            name(&user.last_name),
            days::of_ms(user.created_ms)
        );
        Ok(Self {
            topic_id,
            place,
            from: from.to_owned(),
            created_ms: user.created_ms,
            body: text.lines().map(encoded).collect(),
            head,
            to,
        })
    }
}

/// One line in quoted-printable; several, if it is long.
fn encoded(line: &str) -> String {
    let mut text = String::new();
    let mut length = 0;
    for (place, byte) in line.bytes().enumerate() {
        let is_last = place + 1 == line.len();
        let letter = char::from(byte);
        let is_plain = match byte {
            b'=' => false,
            b'F' => (1..LINE_BYTES_MAX).contains(&length), // "From " at the beginning of a line begins a message of a mailbox
            b' ' => !is_last,
            _ => byte.is_ascii_graphic(),
        };
        let token = if is_plain {
            letter.to_string()
        } else {
            format!("={byte:02X}")
        };
        if length + token.len() > LINE_BYTES_MAX {
            text.push_str("=\n");
            length = 0;
        }
        length += token.len();
        text.push_str(&token);
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn user(name: &str) -> UserAdded {
        UserAdded {
            version: 1,
            email: "ann@users.example".to_owned(),
            first_name: name.to_owned(),
            last_name: "Lee".to_owned(),
            created_ms: 1_767_312_000_000,
        }
    }

    const PLACE: Place = Place {
        partition: 1,
        offset: 17,
    };

    #[test]
    fn a_message_is_the_same_whenever_it_is_made() {
        let welcome = |topic_id| Message::welcome(&user("Zoë"), topic_id, PLACE, "welcome@users.example").unwrap();
        let message = welcome(5);
        assert_eq!(message, welcome(5));
        for line in [
            "To: <ann@users.example>",
            "Date: Fri, 02 Jan 2026 00:00:00 +0000",
            "Message-ID: <user-added.5.1.17.1767312000000@users.example>",
            "X-Highwater-Topic: 5",
            "X-Highwater-Position: 1/17",
        ] {
            assert!(
                message.head.lines().any(|head| head == line),
                "{line}: {}",
                message.head
            );
        }
        assert!(
            message.body.starts_with("Dear Zo=C3=AB Lee,\n\nwelcome!"),
            "{}",
            message.body
        );
    }

    #[test]
    fn no_name_makes_a_long_line_or_another_message() {
        let name = format!("{}\nFrom a@b ü=\r\n.\r\n", "From ".repeat(30));
        for length in 0..name.len() {
            let Some(name) = name.get(length..) else { continue };
            let message = Message::welcome(&user(name), 5, PLACE, "a@b").unwrap();
            assert!(message.body.is_ascii() && !message.body.contains('\r'));
            assert!(
                message
                    .body
                    .lines()
                    .all(|line| line.len() <= LINE_BYTES_MAX + 1 && !line.starts_with("From "))
            );
            assert!(message.head.len() + message.body.len() < MESSAGE_BYTES_MAX);
        }
        let huge = Message::welcome(&user(&"ü".repeat(100_000)), 5, PLACE, "a@b").unwrap();
        assert!(huge.body.len() < MESSAGE_BYTES_MAX / 2);
    }

    #[test]
    fn an_address_that_is_none_gets_no_message() {
        let mut user = user("Ann");
        user.email = "a@b>\r\nBcc: c@d".to_owned();
        assert!(Message::welcome(&user, 5, PLACE, "a@b").is_err());
    }

    #[test]
    fn a_place_is_read_as_it_is_written() {
        assert_eq!(Place::parse(&PLACE.to_string()), Some(PLACE));
        for text in ["", "1", "1/", "/1", "1/2/3", "-1/2"] {
            assert_eq!(Place::parse(text), None, "{text:?}");
        }
    }
}
