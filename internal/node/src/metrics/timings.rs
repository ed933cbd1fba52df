//! How long things take on the way of a batch, and how large the disk's rounds are: what must be noted as it happens.
//!
//! A note costs some tens of nanoseconds and takes no lock.

use std::sync::Arc;
use std::time::Duration;

use highwater_partition::log::RoundDone;
use highwater_partition::{Stage, Stages};
use prometheus::{Histogram, HistogramOpts, HistogramVec, exponential_buckets};

use super::Families;

/// Noted since the node started.
pub(crate) struct Timings {
    produce: HistogramVec,
    admit: Histogram,
    /// In the order of [`Stage::ALL`].
    stages: [Histogram; Stage::ALL.len()],
    answer: Histogram,
    rounds: Histogram,
    syncs: Histogram,
    round_jobs: Histogram,
    round_bytes: Histogram,
}

impl Timings {
    /// Nothing noted yet. An error only if a name or a bound were wrong.
    pub(crate) fn new() -> Result<Timings, prometheus::Error> {
        // each bound twice the one before: from 50 µs to 13 s, and from 1 to 4,096; or four times: from 256 bytes to 64 MiB
        let seconds = exponential_buckets(50e-6, 2.0, 19)?;
        let counts = exponential_buckets(1.0, 2.0, 13)?;
        let bytes = exponential_buckets(256.0, 4.0, 10)?;
        let options = |name: &str, help: &str, bounds: &[f64]| HistogramOpts::new(name, help).buckets(bounds.to_vec());
        let of_rounds = |name, help, bounds| Histogram::with_opts(options(name, help, bounds));
        let produce = HistogramVec::new(
            options(
                "highwater_produce_stage_seconds",
                "How long the stages of batches took.",
                &seconds,
            ),
            &["stage"],
        )?;
        Ok(Timings {
            admit: produce.with_label_values(&["admit"]),
            stages: Stage::ALL.map(|stage| produce.with_label_values(&[stage.name()])),
            answer: produce.with_label_values(&["answer"]),
            produce,
            rounds: of_rounds(
                "highwater_disk_round_seconds",
                "How long rounds of the disk writer took, writing and syncing.",
                &seconds,
            )?,
            syncs: of_rounds(
                "highwater_disk_sync_seconds",
                "How long rounds of the disk writer waited for the disk to make things certain.",
                &seconds,
            )?,
            round_jobs: of_rounds(
                "highwater_disk_round_jobs",
                "Appends, votes and the like that one round of the disk writer made certain together.",
                &counts,
            )?,
            round_bytes: of_rounds(
                "highwater_disk_round_bytes",
                "Bytes that one round of the disk writer wrote.",
                &bytes,
            )?,
        })
    }

    /// From when a batch was read from its connection until it is proposed: the quota's delay, access, checks.
    pub(crate) fn admitted(&self, took: Duration) {
        self.admit.observe(took.as_secs_f64());
    }

    /// From when a batch was read from its connection until its answer is given back to it, whatever it is.
    pub(crate) fn answered(&self, took: Duration) {
        self.answer.observe(took.as_secs_f64());
    }

    /// The disk writer has done a round.
    pub(crate) fn round(&self, done: &RoundDone) {
        self.rounds.observe(done.took.as_secs_f64());
        self.syncs.observe(done.syncs_took.as_secs_f64());
        self.round_jobs.observe(done.jobs as f64);
        self.round_bytes.observe(done.bytes as f64);
    }

    /// What replicas tell of the stages in between.
    pub(crate) fn stages(self: &Arc<Self>) -> Stages {
        let timings = self.clone();
        Stages::watched_by(move |stage, took| {
            for (known, histogram) in Stage::ALL.iter().zip(&timings.stages) {
                if *known == stage {
                    histogram.observe(took.as_secs_f64());
                }
            }
        })
    }

    pub(super) fn tell(&self, families: &mut Families) {
        families.collect(&self.produce);
        for histogram in [&self.rounds, &self.syncs, &self.round_jobs, &self.round_bytes] {
            families.collect(histogram);
        }
    }
}
