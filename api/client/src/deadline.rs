//! One deadline for a whole operation, however many calls it takes.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than anybody waits, and short enough for clocks and for the timeout that calls carry.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When an operation is given up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    /// How long the operation was to be tried, as errors tell it.
    pub(crate) after: Duration,
    pub(crate) at: Instant,
}

impl Deadline {
    /// So long from now.
    pub(crate) fn after(after: Duration) -> Self {
        Self {
            after,
            at: Instant::now() + after.min(LONGEST),
        }
    }

    /// How long it still is.
    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }
}
