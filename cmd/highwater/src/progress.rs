//! Progress of long work, for people who watch: one line on standard error, only if that is a terminal, and gone at the end.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::time::sleep;

use crate::output::Format;

/// How often the line is drawn anew.
const DRAWS_PER_SECOND: u8 = 5;
/// How often work that tells nothing by itself is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Work that is over sooner shows nothing.
const QUIET: Duration = Duration::from_millis(500);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Records,
    Bytes,
    /// What is to be moved elsewhere; [`Progress::tell`] says what.
    Moved,
}

/// When the work is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nobody knows.
    Open,
    /// When so much is done.
    At(u64),
    /// After so long.
    After(Duration),
}

impl From<Option<u64>> for End {
    fn from(total: Option<u64>) -> End {
        total.map_or(End::Open, End::At)
    }
}

/// How far some work is.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows nothing.
    pub(crate) fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    /// Unless the end is open, what is left is told as well.
    pub(crate) fn new(unit: Unit, end: End) -> Progress {
        let total = match end {
            End::At(total) => Some(total),
            End::Open | End::After(_) => None,
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND));
        // A template that does not parse is found by the tests.
        if let Ok(style) = ProgressStyle::with_template(template(unit, total.is_some())) {
            let write_left = move |state: &ProgressState, out: &mut dyn Write| {
                // Nobody misses a line of progress.
                let _ = write!(out, "{}", left(time_left(state, end)));
            };
            bar.set_style(style.with_key("rate", write_rate).with_key("left", write_left));
        }
        Progress(bar)
    }

    /// The same for a command that prints its answer in a format: nothing is shown beside JSON.
    pub(crate) fn beside(format: Format, unit: Unit, end: End) -> Progress {
        match format {
            Format::Text => Progress::new(unit, end),
            Format::Json => Progress::hidden(),
        }
    }

    /// Whether anybody can see it.
    pub(crate) fn is_shown(&self) -> bool {
        !self.0.is_hidden()
    }

    /// So much has been done since the beginning.
    pub(crate) fn set(&self, done: u64) {
        if self.0.elapsed() >= QUIET {
            self.0.set_position(done);
        }
    }

    /// What is going on, and how much of it has been done since the beginning.
    pub(crate) fn tell(&self, what: String, done: u64) {
        if self.0.elapsed() >= QUIET {
            self.0.set_message(what);
            self.0.set_position(done);
        }
    }

    /// Shows again and again what `done` says; never ready.
    pub(crate) async fn follow(&self, done: impl Fn() -> u64) {
        if !self.is_shown() {
            return std::future::pending().await;
        }
        loop {
            self.set(done());
            sleep(LOOK_INTERVAL).await;
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
    let _ = write!(out, "{}", rate(state.per_sec()));
}

/// Slow work is told with decimals.
fn rate(per_second: f64) -> String {
    match per_second < 10.0 {
        true => format!("{per_second:.1}/s"),
        false => format!("{}/s", HumanCount(per_second as u64)),
    }
}

/// How long it still takes; `None` if that cannot be told.
fn time_left(state: &ProgressState, end: End) -> Option<Duration> {
    match end {
        End::Open => None,
        // As long as nothing is done nobody knows how long it takes.
        End::At(total) => (1..total).contains(&state.pos()).then(|| state.eta()),
        End::After(time) => Some(time.saturating_sub(state.elapsed())),
    }
}

fn left(time: Option<Duration>) -> String {
    time.map_or_else(String::new, |time| format!(", {:#} left", HumanDuration(time)))
}

fn template(unit: Unit, has_total: bool) -> &'static str {
    match (unit, has_total) {
        (Unit::Records, false) => "{human_pos} records, {rate}{left}",
        (Unit::Records, true) => "{human_pos} of {human_len} records ({percent} %), {rate}{left}",
        (Unit::Bytes, false) => "{binary_bytes}, {binary_bytes_per_sec}{left}",
        (Unit::Bytes, true) => "{binary_bytes} of {binary_total_bytes} ({percent} %), {binary_bytes_per_sec}{left}",
        (Unit::Moved, false) => "{msg} ({human_pos} moved, {rate}{left})",
        (Unit::Moved, true) => "{msg} ({human_pos} of {human_len} moved, {rate}{left})",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for unit in [Unit::Records, Unit::Bytes, Unit::Moved] {
            for has_total in [true, false] {
                assert!(ProgressStyle::with_template(template(unit, has_total)).is_ok());
            }
        }
    }

    #[test]
    fn without_a_terminal_nothing_is_drawn() {
        let progress = Progress::hidden();
        progress.set(5);
        assert!(!progress.is_shown());
        for end in [End::Open, End::At(9), End::After(QUIET)] {
            assert!(!Progress::beside(Format::Json, Unit::Records, end).is_shown());
        }
    }

    #[test]
    fn slow_work_has_a_rate_too_and_what_is_not_known_is_not_told() {
        assert_eq!([rate(0.0), rate(0.44), rate(1234.5)], ["0.0/s", "0.4/s", "1,234/s"]);
        assert_eq!(left(None), "");
        assert_eq!(left(Some(Duration::from_secs(30))), ", 30s left");
    }
}
