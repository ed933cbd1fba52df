//! Names of things: who a log belongs to, who sent a batch, where an entry stands.

use std::fmt;

/// 16 random bytes, drawn when the cluster is founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub [u8; 16]);

/// A Raft group: 0 is the catalog, each partition has its own; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// One replica's Raft id; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReplicaId(pub u64);

/// 16 random bytes, drawn by a producer when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub [u8; 16]);

/// A digest of the principal that sends; opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrincipalDigest(pub [u8; 16]);

/// Raft's name of an entry. The first entry of a log has index 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// The term whose leader made the entry.
    pub term: u64,
    /// The entry's number in the log.
    pub index: u64,
}

/// Which replica a directory belongs to; stands in its hard state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The Raft group in it.
    pub group_id: GroupId,
    /// The replica of that group.
    pub replica_id: ReplicaId,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            cluster_id,
            group_id,
            replica_id,
        } = self;
        write!(
            f,
            "cluster {cluster_id}, group {}, replica {}",
            group_id.0, replica_id.0
        )
    }
}
