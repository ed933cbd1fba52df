//! The table of producers: what makes a retry harmless.
//!
//! Sequence numbers count batches, per producer and partition. The last few decided batches of each producer are remembered, so
//! that a retry is answered as its original was. A gap, or an unknown producer that does not start at 0, is refused and not
//! remembered: the same batch may well be accepted later. The table is bounded; the least recently used producer makes room for
//! a new one, unless even that one was used so lately that a retry of its batches may still be under way.
//!
//! Order of use is order of entries: equal on every replica.

use std::collections::{BTreeMap, VecDeque};

use crate::entry::{Decision, Verdict};
use crate::format::detail::BatchDetail;
use crate::ids::{PrincipalDigest, ProducerId};
use crate::mutant;

/// Most producers remembered; a constant of the format version.
pub(crate) const PRODUCERS_MAX: usize = 4_096;
/// Batches remembered of each producer: the client's limit in flight; a constant of the format version.
pub(crate) const BATCHES_REMEMBERED: usize = 8;
/// For how long a producer may retry a batch; a constant of the format version.
pub(crate) const DELIVERY_DEADLINE_MS: u64 = 10 * 60 * 1_000;

/// All remembered producers.
///
/// Invariants: `by_use` has exactly one entry per producer, under the index of its last use; at most `PRODUCERS_MAX` producers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Producers {
    table: BTreeMap<ProducerId, Producer>,
    by_use: BTreeMap<u64, ProducerId>,
}

/// One producer.
///
/// Invariant: `batches` holds at most `BATCHES_REMEMBERED`, with consecutive sequences that end before `next_sequence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Producer {
    /// The principal that used the id first, and the only one that may.
    pub(crate) principal: PrincipalDigest,
    pub(crate) next_sequence: u64,
    pub(crate) used: Use,
    /// Oldest first.
    pub(crate) batches: VecDeque<Decided>,
}

/// When something was used: the entry that did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) append_time_ms: u64,
    pub(crate) index: u64,
}

/// A batch that was decided and is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) sequence: u64,
    /// `Accepted` or `OffsetMismatch`.
    pub(crate) verdict: Verdict,
    pub(crate) base_offset: u64,
    /// As proposed.
    pub(crate) record_count: u32,
    pub(crate) append_time_ms: u64,
    pub(crate) payload_crc: u32,
}

impl Producers {
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Least recently used first.
    pub(crate) fn by_use(&self) -> impl Iterator<Item = (ProducerId, &Producer)> {
        self.by_use.values().filter_map(|id| Some((*id, self.table.get(id)?)))
    }

    /// Puts back a producer read from a checkpoint.
    pub(crate) fn restore(&mut self, id: ProducerId, producer: Producer) {
        self.by_use.insert(producer.used.index, id);
        self.table.insert(id, producer);
    }

    /// Decides about a batch appended `at`, with the log ending at `log_end`.
    pub(crate) fn decide(&mut self, batch: &BatchDetail, at: Use, log_end: u64) -> Decision {
        let refused = |verdict| Decision {
            verdict,
            base_offset: log_end,
            record_count: 0,
            append_time_ms: at.append_time_ms,
            number: 0,
        };
        match self.table.get(&batch.producer_id).map(|known| known.principal) {
            Some(principal) if principal != batch.principal => return refused(Verdict::ProducerConflict),
            Some(_) => {}
            None if batch.sequence != 0 => return refused(Verdict::UnknownProducer),
            None if !self.make_room(at.append_time_ms) => return refused(Verdict::TooManyProducers),
            None => self.restore(batch.producer_id, Producer::new(batch.principal, at)),
        }
        let Some(producer) = self.table.get_mut(&batch.producer_id) else {
            return refused(Verdict::UnknownProducer);
        };
        self.by_use.remove(&producer.used.index);
        self.by_use.insert(at.index, batch.producer_id);
        producer.used = at;
        producer.decide(batch, at, log_end)
    }

    /// Whether there is room for one more producer, after forgetting the least recently used one if that is safe.
    fn make_room(&mut self, now_ms: u64) -> bool {
        if self.table.len() < PRODUCERS_MAX {
            return true;
        }
        let Some((index, id)) = self.by_use.first_key_value().map(|(index, id)| (*index, *id)) else {
            return true;
        };
        let used_ms = self.table.get(&id).map_or(0, |producer| producer.used.append_time_ms);
        if now_ms.saturating_sub(used_ms) <= DELIVERY_DEADLINE_MS {
            return false;
        }
        self.by_use.remove(&index);
        self.table.remove(&id);
        true
    }
}

impl Producer {
    fn new(principal: PrincipalDigest, used: Use) -> Producer {
        Producer {
            principal,
            next_sequence: 0,
            used,
            batches: VecDeque::new(),
        }
    }

    fn decide(&mut self, batch: &BatchDetail, at: Use, log_end: u64) -> Decision {
        let refused = |verdict, number| Decision {
            verdict,
            base_offset: log_end,
            record_count: 0,
            append_time_ms: at.append_time_ms,
            number,
        };
        if batch.sequence > self.next_sequence {
            return refused(Verdict::SequenceGap, self.next_sequence);
        }
        if batch.sequence < self.next_sequence {
            return match self.batches.iter().find(|decided| decided.sequence == batch.sequence) {
                None => refused(Verdict::Forgotten, 0),
                Some(decided) if !decided.is(batch) => refused(Verdict::ProducerConflict, 0),
                Some(decided) => decided.answer_again(),
            };
        }
        if batch.expected_offset.is_some_and(|expected| expected != log_end) {
            if !mutant!("refused batch forgotten") {
                self.remember(batch, Verdict::OffsetMismatch, at, log_end);
            }
            return refused(Verdict::OffsetMismatch, 0);
        }
        self.remember(batch, Verdict::Accepted, at, log_end);
        Decision {
            record_count: batch.record_count,
            ..refused(Verdict::Accepted, 0)
        }
    }

    fn remember(&mut self, batch: &BatchDetail, verdict: Verdict, at: Use, base_offset: u64) {
        if self.batches.len() == BATCHES_REMEMBERED {
            self.batches.pop_front();
        }
        self.batches.push_back(Decided {
            sequence: batch.sequence,
            verdict,
            base_offset,
            record_count: batch.record_count,
            append_time_ms: at.append_time_ms,
            payload_crc: batch.payload_crc,
        });
        self.next_sequence = batch.sequence + 1;
    }
}

impl Decided {
    /// Whether `batch` has the same bytes, as far as its checksum and count tell.
    fn is(&self, batch: &BatchDetail) -> bool {
        self.payload_crc == batch.payload_crc && self.record_count == batch.record_count
    }

    fn answer_again(&self) -> Decision {
        let accepted = self.verdict == Verdict::Accepted;
        Decision {
            verdict: if accepted { Verdict::Duplicate } else { self.verdict },
            base_offset: self.base_offset,
            record_count: if accepted { self.record_count } else { 0 },
            append_time_ms: self.append_time_ms,
            number: 0,
        }
    }
}
