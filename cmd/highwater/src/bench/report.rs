//! How results are shown: tables worth pasting, and JSON whose names `docs/benchmarking.md` lists.

use std::time::Duration;

use serde_json::{Value, json};

use super::cpu::Cost;
use super::latencies::{Latencies, PERCENTILES, round};
use super::load::{LoadArgs, Measured, name_of};
use super::target::Target;
use crate::exit::Result;
use crate::output::{self, Table};

/// How much went through, and what it took.
#[derive(Debug)]
pub(super) struct Throughput {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) elapsed: Duration,
    pub(super) cost: Cost,
}

impl Throughput {
    fn records_per_second(&self) -> f64 {
        per(self.records as f64, self.elapsed.as_secs_f64())
    }

    fn mib_per_second(&self) -> f64 {
        per(self.bytes as f64 / (1024.0 * 1024.0), self.elapsed.as_secs_f64())
    }

    /// Microseconds of CPU for each record, if there are any.
    fn us_per_record(&self, used: Option<Duration>) -> Option<f64> {
        let used = used.filter(|_| self.records > 0)?;
        Some(used.as_secs_f64() * 1e6 / self.records as f64)
    }

    /// Adds what it says to a document.
    pub(super) fn tell(&self, document: &mut Value) {
        document["seconds"] = json!(self.elapsed.as_secs_f64());
        document["payload_bytes"] = json!(self.bytes);
        document["records_per_second"] = json!(round(self.records_per_second()));
        document["mib_per_second"] = json!(round(self.mib_per_second()));
        document["client_cpu_us"] = json!(micros(self.cost.client));
        document["client_cpu_us_per_record"] = json!(self.us_per_record(Some(self.cost.client)));
        document["server_cpu_us"] = json!(self.cost.servers.map(micros));
        document["server_cpu_us_per_record"] = json!(self.us_per_record(self.cost.servers));
    }

    /// A table of one line.
    pub(super) fn print(&self) -> Result<()> {
        let heading = [
            "RECORDS",
            "SECONDS",
            "RECORDS/S",
            "MIB/S",
            "CLIENT CPU/RECORD",
            "SERVER CPU/RECORD",
        ];
        let cpu = |used| {
            self.us_per_record(used)
                .map_or_else(|| "-".to_owned(), |us| format!("{us:.2} µs"))
        };
        let mut table = Table::new(&heading);
        table.row([
            self.records.to_string(),
            format!("{:.2}", self.elapsed.as_secs_f64()),
            format!("{:.0}", self.records_per_second()),
            format!("{:.1}", self.mib_per_second()),
            cpu(Some(self.cost.client)),
            cpu(self.cost.servers),
        ]);
        table.print()
    }
}

/// What a load was, and what became of it.
pub(super) struct LoadReport<'a> {
    pub(super) bench: &'a str,
    pub(super) args: &'a LoadArgs,
    pub(super) target: &'a Target,
    pub(super) producers: u64,
    pub(super) rate: Option<u64>,
    pub(super) linger: Duration,
    pub(super) measured: &'a Measured,
}

impl LoadReport<'_> {
    pub(super) fn throughput(&self, cost: Cost) -> Throughput {
        Throughput {
            records: self.measured.tally.acknowledged,
            bytes: self.measured.tally.acknowledged * self.args.record_bytes,
            elapsed: self.measured.elapsed,
            cost,
        }
    }

    pub(super) fn document(&self, throughput: &Throughput) -> Value {
        let Self {
            args, target, measured, ..
        } = self;
        let tally = &measured.tally;
        let servers_us = throughput.cost.servers.map(|used| used.as_secs_f64() * 1e6);
        let mut document = json!({
            "bench": self.bench,
            "topic": target.name,
            "partitions": target.partitions,
            "replication": target.replication,
            "producers": self.producers,
            "record_bytes": args.record_bytes,
            "payload": name_of(&args.payload),
            "batch_bytes": args.batch_bytes,
            "linger_ms": self.linger.as_millis() as u64,
            "compression": name_of(&args.compression),
            "window": args.window,
            "rate": self.rate,
            "interrupted": measured.interrupted,
            "sent": tally.sent,
            "unsent": measured.unsent,
            "acknowledged": tally.acknowledged,
            "not_applied": tally.not_applied,
            "unknown": tally.unknown,
            "failure": tally.failure.as_ref().map(ToString::to_string),
            "batches": tally.batches,
            "server_cpu_us_per_batch": servers_us.filter(|_| tally.batches > 0).map(|us| us / tally.batches as f64),
            "latency_from": if self.rate.is_some() { "due" } else { "send" },
            "acknowledgement_us": tally.latencies.document(),
        });
        throughput.tell(&mut document);
        document
    }

    /// What was asked for, in a line.
    pub(super) fn print_heading(&self) -> Result<()> {
        let Self {
            args, target, measured, ..
        } = self;
        let rate = self
            .rate
            .map_or_else(String::new, |rate| format!(" at {rate} records/s"));
        output::line(format!(
            "{} {}{rate}: {} partitions, {} replicas; records of {} B ({}), batches of at most {} B, linger {} ms, \
             compression {}; producers {}, each with {} records in flight",
            self.bench,
            target.name,
            target.partitions,
            target.replication,
            args.record_bytes,
            name_of(&args.payload),
            args.batch_bytes,
            self.linger.as_millis(),
            name_of(&args.compression),
            self.producers,
            args.window,
        ))?;
        if measured.interrupted {
            output::line("Interrupted: these are the figures until then.")?;
        }
        if let Some(error) = &measured.tally.failure {
            let (not_applied, unknown) = (measured.tally.not_applied, measured.tally.unknown);
            output::line(format!(
                "Failed: {} records, {not_applied} not applied and {unknown} unknown; the first: {error}",
                measured.tally.failed()
            ))?;
        }
        if measured.unsent > 0 {
            output::line(format!("{} records were due and not sent any more.", measured.unsent))?;
        }
        output::line("")
    }

    /// How the latency of an answer is called.
    pub(super) fn latency_name(&self) -> &'static str {
        match self.rate {
            Some(_) => "due to acknowledgement",
            None => "send to acknowledgement",
        }
    }
}

/// A table of latencies, one line each.
pub(super) fn print_latencies(latencies: &[(&str, &Latencies)]) -> Result<()> {
    let mut table = Table::new(&["LATENCY", "P50", "P90", "P99", "P99.9", "MAX", "OF"]);
    for (name, latencies) in latencies {
        let [p50, p90, p99, p99_9] = PERCENTILES.map(|(_, thousandths)| show(latencies.percentile(thousandths)));
        let count = latencies.count().to_string();
        table.row([(*name).to_owned(), p50, p90, p99, p99_9, show(latencies.max()), count]);
    }
    output::line("")?;
    table.print()
}

/// In a unit that fits; a dash if there are too few samples to say.
pub(super) fn show(latency: Option<Duration>) -> String {
    let Some(latency) = latency else {
        return "-".to_owned();
    };
    match latency.as_secs_f64() {
        seconds if seconds < 1e-3 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Nothing took no time: no rate then, instead of one without end.
fn per(amount: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { amount / seconds } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_has_no_rate_and_no_cost() {
        let nothing = Throughput {
            records: 0,
            bytes: 0,
            elapsed: Duration::ZERO,
            cost: Cost {
                client: Duration::from_millis(1),
                servers: None,
            },
        };
        let mut document = json!({});
        nothing.tell(&mut document);
        assert_eq!(document["records_per_second"], json!(0.0));
        assert_eq!(document["client_cpu_us_per_record"], json!(null));
        assert_eq!(document["server_cpu_us"], json!(null));
    }

    #[test]
    fn latencies_are_shown_in_a_unit_that_fits() {
        assert_eq!(show(Some(Duration::from_nanos(120_400))), "120 µs");
        assert_eq!(show(Some(Duration::from_micros(2_346))), "2.35 ms");
        assert_eq!(show(Some(Duration::from_millis(1_500))), "1.50 s");
        assert_eq!(show(None), "-");
    }
}
