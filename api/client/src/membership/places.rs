//! What a member has of its topic, partition by partition; pure, without clock and network.
//!
//! ```text
//!            told                claimed              told otherwise              let go of and committed
//! (nothing) ──────► Claiming ──────────────► Held ────────────────────► Leaving ─────────────────────────► (nothing)
//!            ◄────── told otherwise ──┘        └───────────── lost: another has claimed it ─────────────────────┘
//! ```
//!
//! Invariant: what is told to the coordinator is exactly what is here, so nothing is given to another member that this one may
//! still work on.

use std::collections::{BTreeMap, BTreeSet};

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its claim is on the way.
    Claiming,
    /// The application gets its records.
    Held,
    /// The application has been asked to finish with it.
    Leaving,
}

/// What to do about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Claim(u32),
    /// The claim that is on the way is not wanted any more.
    Drop(u32),
    /// The application is to finish with it.
    Leave(u32),
}

/// The partitions of one member.
#[derive(Debug, Default)]
pub(super) struct Places {
    wanted: BTreeSet<u32>,
    places: BTreeMap<u32, Place>,
}

impl Places {
    /// What the coordinator is told.
    pub(super) fn partitions(&self) -> Vec<u32> {
        self.places.keys().copied().collect()
    }

    /// Takes in what the member should have.
    pub(super) fn want(&mut self, wanted: impl IntoIterator<Item = u32>) -> Vec<Step> {
        self.wanted = wanted.into_iter().collect();
        self.steps()
    }

    /// What is to be done now. Each step is named once, as it changes the place.
    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        self.places
            .retain(|partition, place| match (*place, self.wanted.contains(partition)) {
                (Place::Claiming, false) => {
                    steps.push(Step::Drop(*partition));
                    false
                }
                (Place::Held, false) => {
                    steps.push(Step::Leave(*partition));
                    *place = Place::Leaving;
                    true
                }
                _ => true,
            });
        for partition in &self.wanted {
            if !self.places.contains_key(partition) {
                self.places.insert(*partition, Place::Claiming);
                steps.push(Step::Claim(*partition));
            }
        }
        steps
    }

    /// A claim is there; false if it is not wanted any more.
    pub(super) fn claimed(&mut self, partition: u32) -> bool {
        match self.places.get_mut(&partition) {
            Some(place @ Place::Claiming) => {
                *place = Place::Held;
                true
            }
            _ => false,
        }
    }

    /// The application is done with a partition: it is nobody's now, or is claimed anew if it is wanted again.
    pub(super) fn let_go(&mut self, partition: u32) -> Vec<Step> {
        if self
            .places
            .get(&partition)
            .is_some_and(|place| *place != Place::Claiming)
        {
            self.places.remove(&partition);
        }
        self.steps()
    }

    /// Everything is lost, and nothing is wanted.
    pub(super) fn clear(&mut self) -> Vec<u32> {
        self.wanted.clear();
        let all = self.partitions();
        self.places.clear();
        all
    }

    pub(super) fn is_held(&self, partition: u32) -> bool {
        self.places.get(&partition) == Some(&Place::Held)
    }

    /// Whether all that is wanted is held.
    pub(super) fn is_settled(&self) -> bool {
        self.wanted.iter().all(|partition| self.is_held(*partition))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_claimed_held_and_let_go_of() {
        let mut places = Places::default();
        assert_eq!(places.want([1, 2]), [Step::Claim(1), Step::Claim(2)]);
        assert_eq!(places.partitions(), [1, 2], "what is about to be claimed counts");
        assert!(places.claimed(1) && places.claimed(2) && places.is_settled());
        assert_eq!(places.want([2, 3]), [Step::Leave(1), Step::Claim(3)]);
        assert_eq!(
            places.partitions(),
            [1, 2, 3],
            "1 until the application is done with it"
        );
        assert!(!places.is_settled());
        assert_eq!(places.let_go(1), []);
        assert_eq!(places.partitions(), [2, 3]);
    }

    #[test]
    fn a_claim_that_comes_too_late_is_not_held() {
        let mut places = Places::default();
        places.want([1]);
        assert_eq!(places.want([]), [Step::Drop(1)]);
        assert!(!places.claimed(1));
        assert!(places.partitions().is_empty());
    }

    #[test]
    fn what_is_wanted_again_while_it_is_left_is_claimed_anew_once_it_is_let_go_of() {
        let mut places = Places::default();
        places.want([1]);
        places.claimed(1);
        places.want([]);
        assert_eq!(places.want([1]), [], "the application is just finishing with it");
        assert_eq!(places.let_go(1), [Step::Claim(1)]);
    }

    #[test]
    fn what_another_has_claimed_is_claimed_back_as_long_as_it_is_wanted() {
        let mut places = Places::default();
        places.want([1]);
        places.claimed(1);
        assert_eq!(places.let_go(1), [Step::Claim(1)]);
        assert_eq!(places.let_go(1), [], "it is claimed already");
    }
}
