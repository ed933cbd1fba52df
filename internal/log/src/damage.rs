//! Damage: which entries' frames are bad or gone on this disk, and all that is needed to put them back.
//!
//! A *gap* is a run of entries that cannot be read here. Frames are the same bytes on every replica, so a gap is filled in place: it is
//! known where its first frame stands, what that frame must follow on, and what must follow on behind its last. Gaps may always be
//! made wider: what is written over good frames then is the same again.

use bytes::Bytes;

use crate::entry::{Frame, Header};
use crate::format::frame::{HEADER_BYTES, chain_of};
use crate::segment::{Join, Place};

/// Most gaps kept apart; beyond, neighbours are taken together.
const GAPS_MAX: usize = 1_024;

/// Entries whose frames are bad or gone here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRange {
    /// The first of them.
    pub first_index: u64,
    /// Index behind the last of them.
    pub end_index: u64,
}

/// A run of entries that cannot be read, and its surroundings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// Where frame `first` stands. Its segment's file may be missing or without a good header; then it is the segment's first.
    pub(crate) at: Place,
    /// What frame `first` follows on; None: the entry before it has to be read.
    pub(crate) before: Option<Join>,
    /// What stands at `end`; None only until the gap is joined with the one that begins there.
    pub(crate) behind: Option<Behind>,
}

/// What stands behind a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Where entry `end` stands, or would stand.
    pub(crate) place: Place,
    pub(crate) proof: Proof,
}

/// By what the last frame of a gap is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// Its chain is known: a segment's header, the mark or a state says it.
    Chain(u64),
    /// The header and detail of the frame behind it, whose chain must follow on.
    Frame(Header, Bytes),
}

impl Proof {
    pub(crate) fn of(frame: &Frame) -> Proof {
        Proof::Frame(frame.header.clone(), Bytes::copy_from_slice(&frame.head))
    }

    /// Whether what stands behind follows on an entry that leaves this.
    pub(crate) fn follows_on(&self, join: &Join) -> bool {
        match self {
            Proof::Chain(chain) => *chain == join.chain,
            Proof::Frame(header, head) => {
                let detail = head.get(HEADER_BYTES..).unwrap_or_default();
                header.base_offset == join.log_end && chain_of(join.chain, header, detail) == header.chain
            }
        }
    }
}

impl Gap {
    pub(crate) fn range(&self) -> DamagedRange {
        DamagedRange {
            first_index: self.first,
            end_index: self.end,
        }
    }

    pub(crate) fn holds(&self, index: u64) -> bool {
        (self.first..self.end).contains(&index)
    }

    /// The same gap up to the bound of its segment.
    pub(crate) fn widened(&self, index: u64, behind: Option<Behind>) -> Gap {
        Gap {
            end: index,
            behind,
            ..self.clone()
        }
    }

    /// Takes in a gap that begins no earlier and at most where this one ends.
    fn join(&mut self, other: Gap) {
        if other.end > self.end {
            self.end = other.end;
            self.behind = other.behind;
        } else if other.end == self.end && self.behind.is_none() {
            self.behind = other.behind;
        }
    }
}

/// All gaps of a log.
///
/// Invariants: in order, disjoint and not adjacent; at most `GAPS_MAX`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Gaps(Vec<Gap>);

impl Gaps {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Gap> {
        self.0.iter()
    }

    pub(crate) fn ranges(&self) -> Vec<DamagedRange> {
        self.0.iter().map(Gap::range).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The gap with this entry.
    pub(crate) fn holding(&self, index: u64) -> Option<&Gap> {
        self.0.iter().find(|gap| gap.holds(index))
    }

    /// The first gap that begins behind this entry.
    pub(crate) fn after(&self, index: u64) -> Option<&Gap> {
        self.0.iter().find(|gap| gap.first > index)
    }

    /// The last gap that ends at this entry or before.
    pub(crate) fn before(&self, index: u64) -> Option<&Gap> {
        self.0.iter().rev().find(|gap| gap.end <= index)
    }

    /// Takes note of gaps; true if that changes what is known to be damaged.
    pub(crate) fn note(&mut self, found: impl IntoIterator<Item = Gap>) -> bool {
        let ranges = self.ranges();
        self.0.extend(found.into_iter().filter(|gap| gap.first < gap.end));
        self.0.sort_by_key(|gap| gap.first);
        let mut joined: Vec<Gap> = Vec::new();
        for gap in self.0.drain(..) {
            match joined.last_mut() {
                Some(last) if gap.first <= last.end => last.join(gap),
                _ => joined.push(gap),
            }
        }
        while joined.len() > GAPS_MAX {
            let distance = |pair: &[Gap]| pair[1].first - pair[0].end;
            let Some(nearest) = (0..joined.len() - 1).min_by_key(|place| distance(&joined[*place..=place + 1])) else {
                break;
            };
            let next = joined.remove(nearest + 1);
            joined[nearest].join(next);
        }
        self.0 = joined;
        self.ranges() != ranges
    }

    /// Forgets what lies wholly below `floor_end`; true if that changes something.
    pub(crate) fn purge(&mut self, floor_end: u64) -> bool {
        let count = self.0.len();
        self.0.retain(|gap| gap.end > floor_end);
        self.0.len() != count
    }

    /// The entries from `first` up to the beginning of `left`, or to the end of their gap, are whole again.
    pub(crate) fn filled(&mut self, first: u64, left: Option<Gap>) {
        if let Some(place) = self.0.iter().position(|gap| gap.first == first) {
            match left {
                Some(left) => self.0[place] = left,
                None => drop(self.0.remove(place)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(first: u64, end: u64) -> Gap {
        let at = |index| Place {
            segment_first_index: 0,
            position: index * 100,
        };
        Gap {
            first,
            end,
            at: at(first),
            before: None,
            behind: Some(Behind {
                place: at(end),
                proof: Proof::Chain(end),
            }),
        }
    }

    fn ranges(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.iter().map(|gap| (gap.first, gap.end)).collect()
    }

    #[test]
    fn gaps_that_touch_are_one_with_the_surroundings_of_both() {
        let mut gaps = Gaps::default();
        assert!(gaps.note([gap(7, 9), gap(2, 4)]));
        assert!(gaps.note([gap(4, 7)]));
        assert_eq!(ranges(&gaps), [(2, 9)]);
        let whole = gaps.holding(5).cloned().unwrap_or(gap(0, 0));
        assert_eq!((whole.at, whole.behind), (gap(2, 9).at, gap(2, 9).behind));
        assert!(!gaps.note([gap(3, 5)]), "known already");
    }

    #[test]
    fn too_many_gaps_become_wider_ones_and_none_is_lost() {
        let mut gaps = Gaps::default();
        gaps.note((0..3_000).map(|number| gap(number * 5, number * 5 + 2)));
        assert_eq!(gaps.iter().count(), GAPS_MAX);
        assert!((0..3_000).all(|number| gaps.holding(number * 5 + 1).is_some()));
    }
}
