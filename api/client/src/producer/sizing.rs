//! How large the batches of a lane may get at the moment.
//!
//! Large batches save work for whoever sends as much as the cluster can take. A producer that a quota holds back gains nothing by them, and
//! each one keeps nodes that others use too busy for milliseconds at a stretch. So batches begin small, may be twice as large whenever
//! one was full and was taken, and are small again as soon as a node says that it holds back what comes next.

/// What batches begin with, and come back to.
pub(crate) const SMALL_BATCH_BYTES: usize = 32 * 1024;

/// Invariant: `now` is at most `most`, and at least the smaller of that and [`SMALL_BATCH_BYTES`].
#[derive(Debug)]
pub(crate) struct Sizing {
    most: usize,
    now: usize,
    /// A batch was closed because it was full, since the last change.
    was_full: bool,
}

impl Sizing {
    /// Batches of at most `most` bytes, small ones at first.
    pub(crate) fn new(most: usize) -> Sizing {
        Sizing {
            most,
            now: most.min(SMALL_BATCH_BYTES),
            was_full: false,
        }
    }

    /// How many bytes a batch may have now.
    pub(crate) fn limit(&self) -> usize {
        self.now
    }

    /// A batch was closed because it was full.
    pub(crate) fn filled(&mut self) {
        self.was_full = true;
    }

    /// A batch was taken, and what comes next is held back, or is not.
    pub(crate) fn taken(&mut self, held_back: bool) {
        if held_back {
            self.now = self.most.min(SMALL_BATCH_BYTES);
        } else if self.was_full {
            self.now = self.most.min(self.now.saturating_mul(2));
        }
        self.was_full = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 5 * SMALL_BATCH_BYTES;

    #[test]
    fn batches_grow_while_they_are_full_and_taken_at_once_and_shrink_when_held_back() {
        let mut sizing = Sizing::new(MOST);
        let mut limits = Vec::new();
        for (is_full, held_back) in [
            (true, false),
            (false, false),
            (true, false),
            (true, false),
            (true, true),
        ] {
            limits.push(sizing.limit() / SMALL_BATCH_BYTES);
            if is_full {
                sizing.filled();
            }
            sizing.taken(held_back);
        }
        limits.push(sizing.limit() / SMALL_BATCH_BYTES);
        assert_eq!(limits, [1, 2, 2, 4, 5, 1]);
    }

    #[test]
    fn what_is_smaller_than_small_stays_so() {
        let mut sizing = Sizing::new(20);
        assert_eq!(sizing.limit(), 20);
        sizing.filled();
        sizing.taken(false);
        assert_eq!(sizing.limit(), 20);
    }
}
