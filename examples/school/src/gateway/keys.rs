//! API keys: who may ask the gateway at all.
//!
//! Keys come from a file, never from the command line, which others on the machine can read. What is kept and compared are digests, all of
//! them and each to its end, so that the time an answer takes says nothing about a key.

use std::path::Path;

use sha2::{Digest, Sha256};

/// Shorter keys could be guessed.
pub const KEY_LETTERS_MIN: usize = 16;
/// Keys of one file.
pub const KEYS_MAX: usize = 100;
/// The header that the key is in.
pub const HEADER: &str = "x-api-key";

/// The keys that are good.
#[derive(Debug, Clone)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Reads a file: a key a line; empty lines, and those that begin with `#`, are skipped.
    ///
    /// # Errors
    /// The file and what is wrong with it, in words. No key is named.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        let keys = text.and_then(|text| Self::parse(&text));
        keys.map_err(|problem| format!("{}: {problem}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let key = line.trim();
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.len() < KEY_LETTERS_MIN {
                return Err(format!("line {number}: a key has at least {KEY_LETTERS_MIN} letters"));
            }
            keys.push(digest(key.as_bytes()));
        }
        match keys.len() {
            0 => Err("there is no key in it".to_owned()),
            1..=KEYS_MAX => Ok(Self(keys)),
            count => Err(format!("there are {count} keys in it; at most {KEYS_MAX}")),
        }
    }

    /// Whether this is one of the keys.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        let asked = digest(key);
        self.0.iter().fold(false, |found, known| found | is_same(known, &asked))
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter()
        .zip(other)
        .fold(0, |difference, (one, other)| difference | (one ^ other))
        == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_whole_keys_of_the_file_are_good() {
        let keys = ApiKeys::parse("# keys\n\n  0123456789abcdef  \nfedcba9876543210\n").unwrap();
        assert!(keys.has(b"0123456789abcdef") && keys.has(b"fedcba9876543210"));
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "0123456789abcdeg", "# keys"] {
            assert!(!keys.has(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_would_let_nobody_or_anybody_in_is_refused() {
        assert!(ApiKeys::parse("# none\n").unwrap_err().contains("no key"));
        assert!(
            ApiKeys::parse("\nshort\n")
                .unwrap_err()
                .starts_with("line 2: a key has at least 16")
        );
        let many: String = (0..=KEYS_MAX)
            .map(|number| format!("0123456789abcde{number:04}\n"))
            .collect();
        assert!(ApiKeys::parse(&many).unwrap_err().contains("101 keys"));
    }
}
