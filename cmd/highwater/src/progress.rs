//! Progress of long work, for people who watch: one line on standard error, only if that is a terminal, and gone at the end.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often the line is drawn anew.
const DRAWS_PER_SECOND: u8 = 5;
/// Work that is over sooner shows nothing.
const QUIET: Duration = Duration::from_millis(500);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Records,
    Bytes,
}

/// How far some work is.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows nothing.
    pub(crate) fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// With a `total`, what is left is told as well.
    pub(crate) fn new(unit: Unit, total: Option<u64>) -> Progress {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        // A template that does not parse is found by the tests.
        if let Ok(style) = ProgressStyle::with_template(template(unit, total.is_some())) {
            bar.set_style(style.with_key("rate", write_rate));
        }
        Progress(bar)
    }

    /// So much has been done since the beginning.
    pub(crate) fn set(&self, done: u64) {
        if self.0.elapsed() >= QUIET {
            self.0.set_position(done);
        }
    }

    /// Takes the line away.
    pub(crate) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn write_rate(state: &ProgressState, out: &mut dyn Write) {
    // Nobody misses a line of progress.
    let _ = write!(out, "{}/s", HumanCount(state.per_sec() as u64));
}

fn template(unit: Unit, has_total: bool) -> &'static str {
    match (unit, has_total) {
        (Unit::Records, false) => "{human_pos} records, {rate}",
        (Unit::Records, true) => "{human_pos} of {human_len} records ({percent} %), {rate}, {eta} left",
        (Unit::Bytes, false) => "{binary_bytes}, {binary_bytes_per_sec}",
        (Unit::Bytes, true) => {
            "{binary_bytes} of {binary_total_bytes} ({percent} %), {binary_bytes_per_sec}, {eta} left"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for unit in [Unit::Records, Unit::Bytes] {
            for has_total in [true, false] {
                assert!(ProgressStyle::with_template(template(unit, has_total)).is_ok());
            }
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        let progress = Progress::hidden();
        progress.set(5);
        assert!(progress.0.is_hidden());
    }
}
