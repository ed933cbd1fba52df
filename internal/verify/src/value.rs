//! Record values that name themselves.
//!
//! ```text
//! 0        4          8         12                  16
//! | "hwv1" | producer | number  | CRC-32C of these  | filler, a function of producer and number |
//! ```
//!
//! Numbers are little-endian. Whoever reads such a value knows which record it should be, and the digest over all its
//! bytes tells whether it still is. A value whose head does not agree with its checksum is nobody's: it reads as
//! [`RecordId::UNREADABLE`].

use crc_fast::CrcAlgorithm;

use crate::history::RecordId;

/// Bytes at the front of a value that name its record; no value is shorter.
pub const VALUE_BYTES_MIN: usize = 16;

const MAGIC: &[u8; 4] = b"hwv1";

/// The value of a record: `bytes` long, but never shorter than [`VALUE_BYTES_MIN`].
pub fn make_value(id: RecordId, bytes: usize) -> Vec<u8> {
    let mut value = Vec::with_capacity(bytes.max(VALUE_BYTES_MIN) + 8);
    value.extend_from_slice(MAGIC);
    value.extend_from_slice(&id.producer.to_le_bytes());
    value.extend_from_slice(&id.number.to_le_bytes());
    let checksum = head_checksum(&value);
    value.extend_from_slice(&checksum.to_le_bytes());
    let mut state = (u64::from(id.producer) << 32) | u64::from(id.number);
    while value.len() < bytes {
        state = scramble(state);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes.max(VALUE_BYTES_MIN));
    value
}

/// The record that a value names; [`RecordId::UNREADABLE`] if its head is damaged or was never ours.
pub fn read_id(value: &[u8]) -> RecordId {
    let word = |at: usize| -> Option<u32> {
        let bytes = value.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_le_bytes)
    };
    let (Some(producer), Some(number), Some(checksum)) = (word(4), word(8), word(12)) else {
        return RecordId::UNREADABLE;
    };
    if !value.starts_with(MAGIC) || head_checksum(&value[..12]) != checksum {
        return RecordId::UNREADABLE;
    }
    RecordId { producer, number }
}

/// A digest of all bytes of a value (CRC-64/NVME). Two values that differ have the same one with probability 2⁻⁶⁴.
pub fn digest(value: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, value)
}

fn head_checksum(head: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(head)
}

/// The next state of a splitmix generator.
pub(crate) fn scramble(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RecordId = RecordId {
        producer: 7,
        number: 1_234_567,
    };

    #[test]
    fn a_value_names_its_record_whatever_its_size() {
        for bytes in [0, 16, 17, 100, 1_000] {
            let value = make_value(ID, bytes);
            assert_eq!(value.len(), bytes.max(VALUE_BYTES_MIN));
            assert_eq!(read_id(&value), ID);
        }
    }

    #[test]
    fn every_changed_byte_changes_the_digest_and_a_changed_head_is_nobodys() {
        let value = make_value(ID, 40);
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 0x10;
            assert_ne!(digest(&changed), digest(&value), "byte {at}");
            if at < VALUE_BYTES_MIN {
                assert_eq!(read_id(&changed), RecordId::UNREADABLE, "byte {at}");
            }
        }
        assert_eq!(read_id(b"hwv1"), RecordId::UNREADABLE);
    }

    #[test]
    fn different_records_have_different_fillers() {
        let other = RecordId {
            number: ID.number + 1,
            ..ID
        };
        assert_ne!(make_value(ID, 64)[16..], make_value(other, 64)[16..]);
    }
}
