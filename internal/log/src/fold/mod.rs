//! The fold: one pure function that takes a log's entries in order to the state of its partition, and decides about each.
//!
//! It runs at two places. *At the tail* it decides: base offset, duplicates, conditional appends; the result is the entry's
//! header. *At the commit point* it derives the same again, for everyone to see. A follower runs it at its tail too and must
//! come to the very header that the leader sent. So it depends on nothing but the entries: no clock (time is the entries'
//! append time), no randomness, no setting; its limits are constants of the format version.
//!
//! The tail is a second, whole `State` instead of an overlay over the committed one: both places run the same code on the same
//! type, and a truncation, which is rare, rebuilds the tail from the committed state and the entries that are left. The price is
//! at most one more table of producers.
//!
//! Deliberately absent: payloads (only a membership's is kept, opaque), and any knowledge of files.

pub(crate) mod producers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::entry::{Decision, Header, Kind, Verdict};
use crate::format::chain_origin;
use crate::format::detail::Detail;
use crate::format::frame::chain_of;
use crate::ids::{ClusterId, EntryId, GroupId};
use producers::{Producers, Use};

/// Most consumer groups of a partition.
pub const GROUPS_MAX: usize = 1_024;

/// The fold's state behind one entry. The same on every replica.
///
/// Invariants: `next_index` is 0 or `last.index + 1`; `log_start <= log_end`; neither `log_start`, `log_end`, `append_time_ms`
/// nor a group's `claim` ever goes back.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The last entry; meaningless while `next_index` is 0.
    pub last: EntryId,
    /// Index of the next entry; 0 for an empty log.
    pub next_index: u64,
    /// Digest of the log up to and including `last`.
    pub chain: u64,
    /// First offset there, inclusive.
    pub log_start: u64,
    /// Next offset to be given, exclusive end of the records.
    pub log_end: u64,
    /// Append time of the last entry.
    pub append_time_ms: u64,
    /// The last membership entry, opaque.
    pub membership: Option<(EntryId, Bytes)>,
    /// Consumer groups by name.
    pub groups: BTreeMap<Bytes, GroupState>,
    pub(crate) producers: Producers,
}

/// What the partition knows about a consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupState {
    /// The last claim: the index of its entry, so that no number is ever given twice in a partition, also not to a group that was
    /// forgotten in between.
    pub claim: u64,
    /// To whom.
    pub member: Bytes,
    /// Next offset to consume, if committed.
    pub offset: Option<u64>,
    /// Append time of the last claim or commit.
    pub append_time_ms: u64,
}

/// What the fold is given of an entry.
pub(crate) struct Item<'a> {
    pub(crate) id: EntryId,
    pub(crate) kind: Kind,
    pub(crate) compression: u8,
    pub(crate) append_time_ms: u64,
    pub(crate) detail: &'a Detail,
    pub(crate) detail_bytes: &'a [u8],
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    /// The payload of a membership entry.
    pub(crate) membership: Option<&'a Bytes>,
}

impl State {
    /// The state before the first entry.
    pub(crate) fn empty(cluster_id: ClusterId, group_id: GroupId) -> State {
        State {
            chain: chain_origin(cluster_id, group_id),
            ..State::default()
        }
    }

    /// The last entry, or None for an empty log.
    pub fn last_entry(&self) -> Option<EntryId> {
        (self.next_index > 0).then_some(self.last)
    }

    /// Number of producers remembered.
    pub fn producer_count(&self) -> usize {
        self.producers.len()
    }

    /// Decides about the next entry, takes it in, and says which header it gets.
    /// The caller has checked that it follows on: next index, no lower term, no earlier append time.
    pub(crate) fn fold(&mut self, item: &Item<'_>) -> (Decision, Header) {
        let decision = self.decide(item);
        let stored = item.kind != Kind::Batch || decision.verdict == Verdict::Accepted;
        let records = item.kind == Kind::Batch && stored;
        let mut header = Header {
            kind: item.kind,
            verdict: decision.verdict,
            compression: item.compression,
            id: item.id,
            base_offset: self.log_end,
            record_count: if records { decision.record_count } else { 0 },
            detail_bytes: u16::try_from(item.detail_bytes.len()).unwrap_or(u16::MAX),
            payload_bytes: if stored { item.payload_bytes } else { 0 },
            payload_crc: if stored { item.payload_crc } else { 0 },
            append_time_ms: item.append_time_ms,
            chain: 0,
        };
        header.chain = chain_of(self.chain, &header, item.detail_bytes);
        self.advance(&header, item);
        (decision, header)
    }

    fn advance(&mut self, header: &Header, item: &Item<'_>) {
        assert!(
            header.id.index == self.next_index && header.append_time_ms >= self.append_time_ms,
            "entry {} at {} ms does not follow on: next index {}, time {} ms",
            header.id,
            header.append_time_ms,
            self.next_index,
            self.append_time_ms,
        );
        self.last = header.id;
        self.next_index += 1;
        self.chain = header.chain;
        self.log_end += u64::from(header.record_count);
        self.append_time_ms = header.append_time_ms;
        if let Some(payload) = item.membership {
            self.membership = Some((header.id, detached(payload)));
        }
        assert!(
            self.log_start <= self.log_end,
            "log start {} is above log end {}",
            self.log_start,
            self.log_end
        );
    }

    fn decide(&mut self, item: &Item<'_>) -> Decision {
        let (verdict, number) = match item.detail {
            Detail::Batch(batch) => {
                let at = Use {
                    append_time_ms: item.append_time_ms,
                    index: item.id.index,
                };
                return self.producers.decide(batch, at, self.log_end);
            }
            Detail::Empty => (Verdict::Accepted, 0),
            Detail::Trim { offset } => (self.trim(*offset), 0),
            Detail::Claim { group, member } => self.claim(group, member, item),
            Detail::CommitOffset { group, claim, offset } => {
                (self.commit_offset(group, *claim, *offset, item.append_time_ms), 0)
            }
            Detail::ForgetGroup {
                group,
                claim,
                append_time_ms,
            } => (self.forget_group(group, *claim, *append_time_ms), 0),
        };
        let append_time_ms = item.append_time_ms;
        Decision {
            verdict,
            base_offset: self.log_end,
            record_count: 0,
            append_time_ms,
            number,
        }
    }

    /// A trim below the log start changes nothing and is accepted: it was done already.
    fn trim(&mut self, offset: u64) -> Verdict {
        if offset > self.log_end {
            return Verdict::OutOfRange;
        }
        self.log_start = self.log_start.max(offset);
        Verdict::Accepted
    }

    fn claim(&mut self, name: &Bytes, member: &Bytes, item: &Item<'_>) -> (Verdict, u64) {
        if !self.groups.contains_key(name) && self.groups.len() >= GROUPS_MAX {
            return (Verdict::TooManyGroups, 0);
        }
        let group = self.groups.entry(detached(name)).or_default();
        group.claim = item.id.index;
        group.member = detached(member);
        group.append_time_ms = item.append_time_ms;
        (Verdict::Accepted, group.claim)
    }

    fn commit_offset(&mut self, name: &Bytes, claim: u64, offset: u64, append_time_ms: u64) -> Verdict {
        let Some(group) = self.groups.get_mut(name).filter(|group| group.claim == claim) else {
            return Verdict::StaleClaim;
        };
        if offset > self.log_end {
            return Verdict::OutOfRange;
        }
        group.offset = Some(offset);
        group.append_time_ms = append_time_ms;
        Verdict::Accepted
    }

    /// One that is not there was forgotten already.
    fn forget_group(&mut self, name: &Bytes, claim: u64, append_time_ms: u64) -> Verdict {
        let Some(group) = self.groups.get(name) else {
            return Verdict::Accepted;
        };
        if group.claim != claim || group.append_time_ms > append_time_ms {
            return Verdict::StaleClaim;
        }
        self.groups.remove(name);
        Verdict::Accepted
    }
}

/// A copy that does not keep a whole network buffer alive.
fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
