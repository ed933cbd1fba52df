//! Choosing a partition for a record.

use std::fmt;

use highwater_proto::keys;

/// Chooses the partition of a record that names none.
pub trait Partitioner: fmt::Debug + Send + Sync + 'static {
    /// The partition for this key, below `partitions`, or `None` to let the producer fill its batches as it likes. The
    /// same key must give the same partition for ever, or the order of a key's records is lost.
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> Option<u32>;
}

/// The default: a key goes where Kafka's default partitioner puts it (murmur2), so that keys stay put in a migration.
/// Records without key stay together until a batch is sent, then move on to a less busy partition.
#[derive(Debug, Clone, Copy, Default)]
pub struct KeyHash;

impl Partitioner for KeyHash {
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> Option<u32> {
        Some(keys::partition(key?, partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_chooses_and_no_key_leaves_the_choice() {
        assert_eq!(KeyHash.partition(None, 12), None);
        // -973932308 & 0x7fffffff = 1173551340
        assert_eq!(KeyHash.partition(Some(b"21"), 12), Some(1_173_551_340 % 12));
        assert_eq!(KeyHash.partition(Some(b""), 1), Some(0));
    }
}
