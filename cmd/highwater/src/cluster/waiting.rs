//! Waiting until the cluster has moved something: on a terminal one line that tells how fast that goes and how long it still takes,
//! elsewhere, and beside JSON, a note for each change.

use crate::output::{self, Format};
use crate::progress::{End, Progress, Unit};

/// How far the cluster is.
#[derive(Debug)]
pub(super) struct Waiting {
    line: Progress,
    /// How much was left when the waiting began, or later if that was more.
    total: u32,
    told: String,
}

impl Waiting {
    /// So much is left at the beginning.
    pub(super) fn new(format: Format, left: u32) -> Waiting {
        Waiting {
            line: Progress::beside(format, Unit::Moved, End::At(left.into())),
            total: left,
            told: String::new(),
        }
    }

    /// So much is left, or in words.
    pub(super) fn tell(&mut self, left: u32, state: String) {
        if !self.line.is_shown() {
            return self.note(state);
        }
        let moved = self.moved(left);
        self.line.tell(state, moved.into());
    }

    /// What has come in the meantime is not counted as moved.
    fn moved(&mut self, left: u32) -> u32 {
        self.total = self.total.max(left);
        self.total - left
    }

    fn note(&mut self, state: String) {
        if self.told != state {
            output::note(&state);
            self.told = state;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_others_go_is_not_counted_as_moved() {
        let mut waiting = Waiting::new(Format::Json, 5);
        let moved = [5, 3, 4, 7, 6, 0].map(|left| waiting.moved(left));
        assert_eq!(moved, [0, 2, 1, 0, 1, 7]);
    }
}
