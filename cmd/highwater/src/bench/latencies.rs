//! Latencies: noted at once in a histogram of a fixed size, told as percentiles.
//!
//! A percentile is told only if enough samples lie above it: of 500 records the p99.9 would be the slowest one, whatever
//! it was.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::exit::{Code, Failure, Result};

/// The longest that is told apart from longer ones: longer than any delivery deadline.
const LONGEST: Duration = Duration::from_secs(3_600);
/// Digits that are kept of each latency.
const DIGITS: u8 = 3;
/// How many samples must lie above a percentile.
const SAMPLES_ABOVE_MIN: u64 = 10;

/// The percentiles that are told, thousandths.
pub(super) const PERCENTILES: [(&str, u64); 4] = [("p50", 500), ("p90", 900), ("p99", 990), ("p99_9", 999)];

/// How long things took.
#[derive(Debug)]
pub(super) struct Latencies {
    nanoseconds: Histogram<u64>,
}

impl Latencies {
    pub(super) fn new() -> Result<Self> {
        let nanoseconds = Histogram::new_with_bounds(1, LONGEST.as_nanos() as u64, DIGITS)
            .map_err(|error| Failure::new(Code::Failure, format!("cannot make a histogram: {error}")))?;
        Ok(Self { nanoseconds })
    }

    pub(super) fn note(&mut self, latency: Duration) {
        let nanoseconds = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.saturating_record(nanoseconds);
    }

    pub(super) fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// The latency below which so many thousandths lie, if there are enough samples to say so.
    pub(super) fn percentile(&self, thousandths: u64) -> Option<Duration> {
        let above = self.count() * (1_000 - thousandths) / 1_000;
        let value = self.nanoseconds.value_at_quantile(thousandths as f64 / 1_000.0);
        (above >= SAMPLES_ABOVE_MIN).then(|| Duration::from_nanos(value))
    }

    /// The longest, if there is any.
    pub(super) fn max(&self) -> Option<Duration> {
        (self.count() > 0).then(|| Duration::from_nanos(self.nanoseconds.max()))
    }

    /// As JSON, microseconds; what cannot be told is null.
    pub(super) fn document(&self) -> Value {
        let us = |latency: Option<Duration>| latency.map(micros);
        let mut document = json!({
            "count": self.count(),
            "mean": (self.count() > 0).then(|| round(self.nanoseconds.mean() / 1e3)),
            "max": us(self.max()),
        });
        for (name, thousandths) in PERCENTILES {
            document[name] = json!(us(self.percentile(thousandths)));
        }
        document
    }
}

fn micros(latency: Duration) -> f64 {
    round(latency.as_secs_f64() * 1e6)
}

/// To a tenth: more digits than were measured mislead.
pub(super) fn round(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(count: u64) -> Latencies {
        let mut latencies = Latencies::new().unwrap();
        (1..=count).for_each(|ms| latencies.note(Duration::from_millis(ms)));
        latencies
    }

    #[test]
    fn percentiles_are_right_to_three_digits_and_in_order() {
        let latencies = of(10_000);
        let told: Vec<f64> = PERCENTILES
            .iter()
            .map(|(_, thousandths)| latencies.percentile(*thousandths).unwrap().as_secs_f64())
            .collect();
        for (told, expected) in told.iter().zip([5.0, 9.0, 9.9, 9.99]) {
            assert!((told / expected - 1.0).abs() < 0.002, "{told} for {expected}");
        }
        assert!(told.is_sorted() && told[3] <= latencies.max().unwrap().as_secs_f64());
    }

    #[test]
    fn a_percentile_with_too_few_samples_above_it_is_not_told() {
        assert_eq!(of(9_999).percentile(999), None);
        assert!(of(9_999).percentile(990).is_some());
        assert_eq!(of(19).percentile(500), None);
        let none = of(0).document();
        assert_eq!(
            (&none["max"], &none["p50"], &none["count"]),
            (&json!(null), &json!(null), &json!(0))
        );
    }

    #[test]
    fn what_is_longer_than_the_longest_counts_as_that() {
        let mut latencies = of(1);
        latencies.note(Duration::MAX);
        let max = latencies.max().unwrap().as_secs_f64();
        assert!((max / LONGEST.as_secs_f64() - 1.0).abs() < 0.002, "{max}");
    }
}
