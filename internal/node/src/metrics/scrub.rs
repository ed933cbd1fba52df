//! How far the scrubber has come with the logs here, which it goes over side by side.

use highwater_partition::ScrubPace;
use highwater_partition::log::Scrubbed;

use super::Families;

/// How much was verified since the node started.
pub(super) fn tell_pace(families: &mut Families, pace: &ScrubPace) {
    families.tell(
        "highwater_scrub_bytes_total",
        "Bytes that were verified in the background.",
        pace.verified_bytes() as f64,
    );
    families.tell(
        "highwater_scrub_passes_total",
        "How often a log was verified from its start to its end.",
        pace.passes() as f64,
    );
}

/// How far it has come with each of these logs, all together.
pub(super) fn tell(families: &mut Families, logs: &[Scrubbed]) {
    let all: u64 = logs.iter().map(|log| log.segments).sum();
    let verified: u64 = logs.iter().map(|log| log.verified_segments).sum();
    let mut segments = families.begin(
        "highwater_scrub_segments",
        "Segments of all logs here, by whether they are verified in the present pass over their log.",
    );
    segments.value(&[("state", "verified")], verified as f64);
    segments.value(&[("state", "waiting")], all.saturating_sub(verified) as f64);
    // The one that waits longest says whether it goes on at all.
    if let Some(oldest_ms) = logs.iter().map(|log| log.since_ms).min() {
        families.tell(
            "highwater_scrub_oldest_pass_timestamp_seconds",
            "When the last whole pass over the log that has waited longest for another ended, or it was opened, seconds since 1970.",
            oldest_ms as f64 / 1e3,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_told_of_together_and_the_one_that_waits_longest_by_its_time() {
        let log = |segments, verified_segments, since_ms| Scrubbed {
            segments,
            verified_segments,
            since_ms,
        };
        let mut families = Families::default();
        tell(&mut families, &[log(5, 2, 9_000), log(1, 1, 7_500), log(3, 0, 8_000)]);
        let text = families.into_text();
        for line in [
            "highwater_scrub_segments{state=\"verified\"} 3",
            "highwater_scrub_segments{state=\"waiting\"} 6",
            "highwater_scrub_oldest_pass_timestamp_seconds 7.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
