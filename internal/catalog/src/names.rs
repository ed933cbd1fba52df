//! The one validator of names: of topics, tenants, nodes, clients and clusters.
//!
//! A name is `[a-z0-9][a-z0-9._-]{0,127}` without `..`. So a name is safe in a certificate's URI, in a log line, in a
//! shell and as part of a path, has exactly one spelling, and compares byte by byte. Directories are ids all the same.
//! Deliberately absent: normalising. A name that is not valid is refused, never repaired.

use std::fmt;

use crate::limits::NAME_BYTES_MAX;

/// The rule in words, for messages to people.
pub const RULE: &str =
    "1 to 128 characters of a-z, 0-9, '.', '_' and '-', starting with a letter or digit, without '..'";

/// The tenant that is the cluster's own. No client can be of it, and nobody makes, suspends or deletes it.
pub const SYSTEM_TENANT: &str = "system";

/// The topic of [`SYSTEM_TENANT`] that holds what was done to the cluster, and what was refused.
pub const AUDIT_TOPIC: &str = "audit";

/// A name that is not valid: which field it was for, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {field} name is not valid: {flaw}; a name is {RULE}")]
pub struct InvalidName {
    /// What the name is for: topic, tenant, node, client, cluster.
    pub field: &'static str,
    /// The first thing found wrong.
    pub flaw: Flaw,
}

/// What is wrong with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// It has no characters.
    Empty,
    /// It is longer than [`NAME_BYTES_MAX`].
    TooLong {
        /// Its length, bytes.
        bytes: usize,
    },
    /// It starts with a character that is allowed, but not in the first place.
    BadStart {
        /// That character.
        found: char,
    },
    /// It holds a character that is not allowed.
    BadCharacter {
        /// That character.
        found: char,
        /// Where it stands, bytes from the start.
        position: usize,
    },
    /// It holds two dots in a row.
    DoubleDot {
        /// Where the first of them stands, bytes from the start.
        position: usize,
    },
}

impl fmt::Display for Flaw {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Empty => write!(out, "it is empty"),
            Flaw::TooLong { bytes } => write!(out, "it is {bytes} bytes long, {NAME_BYTES_MAX} are allowed"),
            Flaw::BadStart { found } => write!(out, "it starts with {found:?}"),
            Flaw::BadCharacter { found, position } => write!(out, "it has {found:?} at position {position}"),
            Flaw::DoubleDot { position } => write!(out, "it has '..' at position {position}"),
        }
    }
}

/// Checks that `name` is a valid name; `field` says what it is for and stands in the error.
pub fn validate(field: &'static str, name: &str) -> Result<(), InvalidName> {
    match flaw_of(name) {
        None => Ok(()),
        Some(flaw) => Err(InvalidName { field, flaw }),
    }
}

/// Whether `name` is a valid name.
pub fn is_valid(name: &str) -> bool {
    flaw_of(name).is_none()
}

fn flaw_of(name: &str) -> Option<Flaw> {
    let first = match name.chars().next() {
        None => return Some(Flaw::Empty),
        Some(first) => first,
    };
    if name.len() > NAME_BYTES_MAX {
        return Some(Flaw::TooLong { bytes: name.len() });
    }
    if let Some((position, found)) = name.char_indices().find(|(_, found)| !is_allowed(*found)) {
        return Some(Flaw::BadCharacter { found, position });
    }
    if !first.is_ascii_alphanumeric() {
        return Some(Flaw::BadStart { found: first });
    }
    name.find("..").map(|position| Flaw::DoubleDot { position })
}

fn is_allowed(found: char) -> bool {
    matches!(found, 'a'..='z' | '0'..='9' | '.' | '_' | '-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_are_valid() {
        let longest = "a".repeat(NAME_BYTES_MAX);
        for name in [
            "a",
            "0",
            "orders",
            "orders.v2",
            "eu-west_1",
            "a.b.c",
            "a-",
            "a.",
            longest.as_str(),
        ] {
            assert_eq!(validate("topic", name), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_flaw_says_what_is_wrong_and_where() {
        let too_long = "a".repeat(NAME_BYTES_MAX + 1);
        let cases = [
            ("", Flaw::Empty),
            (
                too_long.as_str(),
                Flaw::TooLong {
                    bytes: NAME_BYTES_MAX + 1,
                },
            ),
            (".hidden", Flaw::BadStart { found: '.' }),
            ("-v", Flaw::BadStart { found: '-' }),
            ("_x", Flaw::BadStart { found: '_' }),
            ("..", Flaw::BadStart { found: '.' }),
            ("a..b", Flaw::DoubleDot { position: 1 }),
            (
                "Orders",
                Flaw::BadCharacter {
                    found: 'O',
                    position: 0,
                },
            ),
            (
                "a/b",
                Flaw::BadCharacter {
                    found: '/',
                    position: 1,
                },
            ),
            (
                "a b",
                Flaw::BadCharacter {
                    found: ' ',
                    position: 1,
                },
            ),
            (
                "a%2e",
                Flaw::BadCharacter {
                    found: '%',
                    position: 1,
                },
            ),
            (
                "a\n",
                Flaw::BadCharacter {
                    found: '\n',
                    position: 1,
                },
            ),
            (
                "a\0",
                Flaw::BadCharacter {
                    found: '\0',
                    position: 1,
                },
            ),
            (
                "été",
                Flaw::BadCharacter {
                    found: 'é',
                    position: 0,
                },
            ),
            (
                "a\u{ff0e}b",
                Flaw::BadCharacter {
                    found: '\u{ff0e}',
                    position: 1,
                },
            ),
        ];
        for (name, flaw) in cases {
            assert_eq!(
                validate("topic", name),
                Err(InvalidName { field: "topic", flaw }),
                "{name:?}"
            );
        }
    }

    #[test]
    fn the_message_names_field_flaw_and_rule() {
        let message = validate("tenant", "a/b").unwrap_err().to_string();
        assert!(
            message.starts_with("the tenant name is not valid: it has '/' at position 1;"),
            "{message}"
        );
        assert!(message.ends_with(RULE), "{message}");
    }

    proptest! {
        /// The rule once more, written as differently as possible.
        #[test]
        fn validity_is_the_rule(name in "[a-zA-Z0-9._/ é-]{0,6}") {
            let body = name.bytes().all(|byte| b"abcdefghijklmnopqrstuvwxyz0123456789._-".contains(&byte));
            let start = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            prop_assert_eq!(is_valid(&name), body && start && !name.contains(".."));
        }

        #[test]
        fn any_text_gets_an_answer(name in any::<String>()) {
            let _ = validate("topic", &name);
        }
    }
}
