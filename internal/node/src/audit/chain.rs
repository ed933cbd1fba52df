//! The hash chain of one boot of a node.
//!
//! Each record carries, as header `hash`, SHA-256 over the hash of the record before and its own value; the first one over 32 zero
//! bytes. So no record can be changed, left out, doubled or put in between without all that follow being made anew. A boot begins a
//! chain of its own, whose first record names where the former one had come to; that is kept in the data directory, and may be up to a
//! minute old after a crash.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::hex::{self, Id};

/// The hash of a record.
pub(super) type Hash = [u8; 32];

/// How far a chain has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct End {
    /// Whose chain it is.
    pub(super) boot: Id,
    /// Of its last record.
    pub(super) number: u64,
    /// Of its last record, in hexadecimal digits.
    pub(super) hash: String,
}

/// The chain of this boot.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) boot: Id,
    /// Of the next record, from 0.
    pub(super) number_next: u64,
    hash: Hash,
}

impl Chain {
    pub(super) fn new(boot: Id) -> Chain {
        Chain {
            boot,
            number_next: 0,
            hash: [0; 32],
        }
    }

    /// The next record's hash, as its header has it.
    pub(super) fn append(&mut self, value: &[u8]) -> String {
        self.hash = Sha256::new()
            .chain_update(self.hash)
            .chain_update(value)
            .finalize()
            .into();
        self.number_next += 1;
        hex::encode(&self.hash)
    }

    /// Where it is; None before its first record.
    pub(super) fn end(&self) -> Option<End> {
        Some(End {
            boot: self.boot,
            number: self.number_next.checked_sub(1)?,
            hash: hex::encode(&self.hash),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Computed with another program: `(head -c 32 /dev/zero; printf one) | sha256sum`, and the next from that.
    #[test]
    fn each_hash_is_over_the_one_before_and_the_value() {
        let mut chain = Chain::new(Id([7; 16]));
        assert_eq!(chain.end(), None);
        let first = chain.append(b"one");
        assert_eq!(
            first,
            "4e233ba6ac7032d3894ecea5974fd96176e564b024af45747eb46357af8d2401"
        );
        let second = chain.append(b"two");
        assert_eq!(
            second,
            "b9f0cc527d38ea48d83c4c438121181ab01d99e83415306be2ac88792c40a8f3"
        );
        let end = chain.end().unwrap();
        assert_eq!((end.boot, end.number, end.hash), (Id([7; 16]), 1, second));
        assert_eq!(
            Chain::new(Id([8; 16])).append(b"one"),
            first,
            "the boot is in the value"
        );
    }
}
