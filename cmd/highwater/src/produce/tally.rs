//! The lines of one run, counted by what became of them.

use highwater::{Outcome, ProduceError};

/// What became of the lines that the producer took.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) acknowledged: u64,
    not_applied: u64,
    unknown: u64,
    /// The first line that was not acknowledged, and why.
    pub(super) failure: Option<(u64, ProduceError)>,
}

impl Tally {
    pub(super) fn fail(&mut self, error: ProduceError) {
        if self.failure.is_none() {
            self.failure = Some((self.acknowledged + 1, error.clone()));
        }
        match error.outcome() {
            Outcome::NotApplied => self.not_applied += 1,
            // A line that is in the log without an acknowledgement counts as unknown: nothing was promised.
            Outcome::Unknown | Outcome::Applied => self.unknown += 1,
        }
    }

    pub(super) fn sentence(&self) -> String {
        let Self {
            acknowledged,
            not_applied,
            unknown,
            ..
        } = self;
        match (not_applied, unknown) {
            (0, 0) => format!("{acknowledged} lines acknowledged"),
            _ => format!("{acknowledged} lines acknowledged, {not_applied} not applied, {unknown} unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_run_says_only_what_was_acknowledged() {
        let mut tally = Tally {
            acknowledged: 3,
            ..Tally::default()
        };
        assert_eq!(tally.sentence(), "3 lines acknowledged");
        tally.unknown = 2;
        assert_eq!(tally.sentence(), "3 lines acknowledged, 0 not applied, 2 unknown");
    }
}
