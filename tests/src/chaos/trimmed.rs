//! A second topic that keeps only a little, so that its logs are trimmed all the time, whatever else happens.
//!
//! It has a load and a history of its own: what was trimmed cannot be read at the end, so its history proves less of each
//! record, but that what is kept is right, and that nobody is told of anything below the log start.

use std::time::Duration;

use highwater::{Client, Profile};
use highwater_verify::history::RetentionAllowed;
use highwater_verify::workload::{Clock, Running, Workload, scan_replicas};
use highwater_verify::{Outcome, Requirements, check};

use super::ending::SCAN_DEADLINE;
use super::stage::{NODES, Result, Stage};
use crate::cluster::TestCluster;

const TOPIC: &str = "chaos-trimmed";
/// Two segments, so that something is trimmed whenever a third is begun.
const RETENTION_BYTES: u64 = 8 << 20;
/// How often nodes look whether something is to be trimmed.
pub(crate) const RETENTION_INTERVAL_MS: u64 = 300;

/// Its load, while it runs.
pub(crate) struct Trimmed {
    running: Running,
}

impl Trimmed {
    pub(crate) fn create(cluster: &TestCluster) {
        let bytes = RETENTION_BYTES.to_string();
        cluster
            .run(&["topic", "create", TOPIC, "--retention-bytes", &bytes])
            .success();
    }

    pub(crate) async fn start(
        client: Client,
        seed: u64,
        clock: Clock,
    ) -> std::result::Result<Trimmed, highwater::Error> {
        let workload = Workload {
            producers: 1,
            readers: 1,
            send_interval: Duration::from_millis(2),
            value_bytes: (2_000, 6_000),
            in_flight_max: 64,
            ..Workload::new(TOPIC, seed)
        };
        let running = workload.start(client, clock).await?;
        Ok(Trimmed { running })
    }
}

impl Stage {
    /// Ends the load of the trimmed topic, reads what is left on every replica, and judges it. Answers its figures in a line.
    pub(crate) fn finish_trimmed(&mut self, problems: &mut Vec<String>) -> Result<Option<String>> {
        let Some(Trimmed { running }) = self.trimmed.take() else {
            return Ok(None);
        };
        let profile = Profile::load(self.cluster.profile()).map_err(|error| error.to_string())?;
        let mut history = self.runtime.block_on(running.stop());
        history.record_retention(RetentionAllowed {
            at_ns: 0,
            partition: 0,
            up_to: u64::MAX,
        });
        let (settings, clock) = (profile.builder(), self.clock);
        let scanning = scan_replicas(&settings, TOPIC, clock, SCAN_DEADLINE, &mut history);
        match self.runtime.block_on(scanning) {
            Ok(scans) => problems.extend(
                scans
                    .problems
                    .into_iter()
                    .map(|why| format!("{TOPIC}: not scanned: {why}")),
            ),
            Err(error) => problems.push(format!("{TOPIC}: the final scan: {error}")),
        }
        let described = self.cluster.json(&["topic", "describe", TOPIC, "--output", "json"]);
        let log_start = described["partitions"][0]["log_start"].as_u64().unwrap_or_default();
        let verdict = check(
            &history,
            &Requirements {
                replicas_min: NODES as u64,
                ..Requirements::default()
            },
        );
        if verdict.outcome == Outcome::Fail {
            problems.push(format!("{TOPIC}: {verdict}"));
        }
        let acknowledged = verdict.counts.records_acknowledged;
        Ok(Some(format!(
            "trimmed   {acknowledged} records acknowledged on {TOPIC}, {log_start} of them trimmed: {:?}",
            verdict.outcome
        )))
    }
}
