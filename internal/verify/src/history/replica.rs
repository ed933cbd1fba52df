//! What replicas promise, and what they hold.
//!
//! The numbers are Raft's, as the log writes them: the first entry has index 0, `index_end` is exclusive.

/// The log of one replica at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dump {
    /// When it was taken.
    pub at_ns: u64,
    /// Of which partition.
    pub partition: u32,
    /// Which replica: its Raft id, never reused.
    pub replica: u64,
    /// On which node.
    pub node: u32,
    /// Entries below this index are known there to be committed.
    pub committed_end: u64,
    /// Whether it was taken at the end of the run, at rest: then all replicas must hold the same.
    pub last: bool,
}

/// One entry of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// Its number.
    pub index: u64,
    /// The term whose leader made it.
    pub term: u64,
    /// The record log's end before it; for a batch the offset of its first record.
    pub base_offset: u64,
    /// The digest of the log up to and including it.
    pub chain: u64,
    /// Records that it adds.
    pub record_count: u32,
    /// Checksum of its payload.
    pub payload_crc: u32,
    /// The kind of entry, as a number.
    pub kind: u8,
    /// What was decided about it, as a number.
    pub verdict: u8,
}

/// Something that a replica said or holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// When.
    pub at_ns: u64,
    /// Of which partition.
    pub partition: u32,
    /// Which replica: its Raft id, never reused.
    pub replica: u64,
    /// What.
    pub kind: PromiseKind,
}

/// What a replica said or holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromiseKind {
    /// It told a leader (or, as leader, counted for itself) that it holds everything below `index_end`, synced.
    Acked {
        /// Exclusive.
        index_end: u64,
        /// The term of the last of those entries.
        term: u64,
    },
    /// It gave its vote.
    Voted {
        /// In which term.
        term: u64,
        /// For which replica.
        candidate: u64,
    },
    /// It cut its log on the word of a leader: promises from `index_end` on are void.
    Truncated {
        /// The log's new end.
        index_end: u64,
        /// The term of the leader that asked for it.
        leader_term: u64,
    },
    /// It started again, and this is what it holds before it answers anybody.
    Restarted {
        /// The log's end.
        index_end: u64,
        /// The term of the last entry; 0 if there is none.
        last_term: u64,
        /// The term of the vote.
        vote_term: u64,
        /// For which replica the vote is, if for any.
        voted_for: Option<u64>,
    },
    /// It is dead: this id never speaks again.
    Died,
    /// It said that everything below `index_end` is committed.
    Published {
        /// Exclusive.
        index_end: u64,
        /// How many replicas must hold that.
        quorum: u32,
    },
}

/// A replica that acts as leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leader {
    /// When it was seen.
    pub at_ns: u64,
    /// Of which partition.
    pub partition: u32,
    /// Which replica.
    pub replica: u64,
    /// In which term.
    pub term: u64,
}

/// How a partition came to rest after the last fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healing {
    /// Which partition.
    pub partition: u32,
    /// When the last fault ended.
    pub healed_ns: u64,
    /// When it served writes and reads again; `None`: it never did.
    pub served_ns: Option<u64>,
    /// How many replicas act as leader now.
    pub leaders: u32,
    /// How many different memberships the replicas have now.
    pub memberships: u32,
}
