//! The stored form of commands, replies and checkpoints: one byte of format version, then JSON.
//!
//! JSON because the catalog is small and a person who inspects a log must be able to read it; the version byte because
//! the form will change. A field that is not known is an error, not something to skip: a replica that applied half of
//! a command would differ from the others for ever.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The first byte of everything that this module writes.
pub(crate) const FORMAT_VERSION: u8 = 1;

/// Why stored bytes are not a command, a reply or a checkpoint. Asking again will not help: the bytes are damaged, or
/// they were written by a newer version. A replica that cannot decode a *committed* command must stop, never skip it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There are no bytes at all.
    #[error("the {what} is empty")]
    Empty {
        /// Command, reply or checkpoint.
        what: &'static str,
    },
    /// There are more bytes than anything of this kind can have.
    #[error("the {what} has {bytes} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Command, reply or checkpoint.
        what: &'static str,
        /// Its size, bytes.
        bytes: usize,
        /// The largest size, bytes.
        limit: usize,
    },
    /// The format version is not one that this program knows.
    #[error("the {what} has format version {found}; this program knows version {FORMAT_VERSION}")]
    UnknownVersion {
        /// Command, reply or checkpoint.
        what: &'static str,
        /// The version found.
        found: u8,
    },
    /// The bytes behind the version are not what that version says.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// Command, reply or checkpoint.
        what: &'static str,
        /// Where and how, from the parser.
        why: String,
    },
    /// The bytes are well formed, but contradict the catalog's invariants.
    #[error("the {what} contradicts itself: {why}")]
    Inconsistent {
        /// Command, reply or checkpoint.
        what: &'static str,
        /// Which invariant does not hold, with values.
        why: String,
    },
}

/// Writes the version byte and `value` as JSON.
pub(crate) fn encode<T: Serialize>(what: &str, value: &T) -> Vec<u8> {
    let mut bytes = vec![FORMAT_VERSION];
    // Writing into memory cannot fail, and the types have neither maps with odd keys nor fallible parts.
    if let Err(error) = serde_json::to_writer(&mut bytes, value) {
        unreachable!("a {what} is always encodable: {error}");
    }
    bytes
}

/// Reads what [`encode`] wrote; at most `limit` bytes.
pub(crate) fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: usize) -> Result<T, Error> {
    if bytes.len() > limit {
        return Err(Error::TooLarge {
            what,
            bytes: bytes.len(),
            limit,
        });
    }
    match bytes.split_first() {
        None => Err(Error::Empty { what }),
        Some((&FORMAT_VERSION, json)) => serde_json::from_slice(json).map_err(|error| Error::Malformed {
            what,
            why: error.to_string(),
        }),
        Some((&found, _)) => Err(Error::UnknownVersion { what, found }),
    }
}

/// 16 random bytes as 32 lower-case hexadecimal digits, for `#[serde(with)]`.
pub(crate) mod hex16 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// The 32 digits.
    pub(crate) fn to_text(bytes: &[u8; 16]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_text(text: &str) -> Option<[u8; 16]> {
        if text.len() != 32 || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        Some(u128::from_str_radix(text, 16).ok()?.to_be_bytes())
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&to_text(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let text = String::deserialize(deserializer)?;
        from_text(&text).ok_or_else(|| D::Error::custom("expected 32 lower-case hexadecimal digits"))
    }
}
