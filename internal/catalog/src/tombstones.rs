//! Ids of what may be deleted: the groups of deleted partitions, and retired replicas.
//!
//! A node deletes data only when its group or its replica stands here, never because it is unknown. So nothing is ever
//! taken out again; neighbouring ids are kept as one range, which bounds the groups' set by the number of living ones.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// A set of ids, as ranges that neither overlap nor touch: first id to the id behind the last.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Tombstones {
    ranges: BTreeMap<u64, u64>,
}

impl Tombstones {
    /// Adds one id, which must be new.
    pub(crate) fn insert(&mut self, id: u64) {
        assert!(!self.contains(id), "{id} has a tombstone already");
        let before = self.ranges.range(..id).next_back().map(|(&first, &end)| (first, end));
        let first = match before {
            Some((first, end)) if end == id => first,
            _ => id,
        };
        let end = self.ranges.remove(&(id + 1)).unwrap_or(id + 1);
        self.ranges.insert(first, end);
    }

    pub(crate) fn contains(&self, id: u64) -> bool {
        self.ranges.range(..=id).next_back().is_some_and(|(_, &end)| id < end)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// In ascending order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().map(|(&first, &end)| first..end)
    }

    /// The two neighbouring ranges that break the invariant, or the one that is empty, if any.
    pub(crate) fn flaw(&self) -> Option<String> {
        if let Some(empty) = self.ranges().find(Range::is_empty) {
            return Some(format!("the range of tombstones {empty:?} is empty"));
        }
        let pairs = self.ranges().zip(self.ranges().skip(1));
        let (left, right) = pairs.into_iter().find(|(left, right)| left.end >= right.start)?;
        Some(format!("the ranges of tombstones {left:?} and {right:?} are not apart"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_hold_exactly_what_was_inserted(ids in proptest::collection::vec(1u64..40, 0..40)) {
            let mut tombstones = Tombstones::default();
            let mut model = BTreeSet::new();
            for id in ids {
                if model.insert(id) {
                    tombstones.insert(id);
                }
                prop_assert_eq!(tombstones.flaw(), None);
            }
            let listed: Vec<u64> = tombstones.ranges().flatten().collect();
            prop_assert_eq!(listed, model.iter().copied().collect::<Vec<_>>());
            for id in 0..42 {
                prop_assert_eq!(tombstones.contains(id), model.contains(&id));
            }
        }
    }

    #[test]
    fn ranges_that_touch_or_are_empty_are_flaws() {
        let with = |ranges: &[(u64, u64)]| Tombstones {
            ranges: ranges.iter().copied().collect(),
        };
        assert_eq!(with(&[(1, 3), (4, 5)]).flaw(), None);
        assert!(with(&[(1, 3), (3, 5)]).flaw().is_some());
        assert!(with(&[(1, 4), (3, 5)]).flaw().is_some());
        assert!(with(&[(2, 2)]).flaw().is_some());
    }
}
