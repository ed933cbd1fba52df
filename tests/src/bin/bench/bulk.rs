//! Many records in flight, beside streams that move and sync the same bytes; and reading them again.

use highwater_tests::TestCluster;
use serde_json::{Map, Value, json};

use crate::command::{json, number, number_if_known, produce};
use crate::processes::Written;
use crate::table::figure;
use crate::tls::Tls;
use crate::{CHUNK_BYTES, Effort, Failure, Shape, disk, median, stream, table};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// Enough that the client's buffer is the bound, also with small records.
const WINDOW: &str = "300000";

/// The figures of one run, in the order of [`NAMES`].
type Run = [f64; 16];

/// What the figures are called in the JSON.
const NAMES: [&str; 16] = [
    "records_per_second",
    "mib_per_second",
    "p50_us",
    "p99_us",
    "stream_mib_per_second",
    "disk_mib_per_second",
    "ratio_to_lower_floor",
    "client_cpu_ns_per_byte",
    "server_cpu_ns_per_byte",
    "server_cpu_us_per_batch",
    "records_per_batch",
    "file_bytes_per_byte",
    "write_call_bytes_per_byte",
    "consume_mib_per_second",
    "read_stream_mib_per_second",
    "consume_ratio_to_stream",
];

/// Figures of one shape; medians of the runs.
#[derive(Debug)]
pub(crate) struct Row {
    shape: Shape,
    medians: Run,
}

pub(crate) fn measure(cluster: &TestCluster, shape: Shape, effort: Effort) -> Result<Row, Failure> {
    let tls = Tls::load(cluster.certificates().as_ref())?;
    let mut runs = Vec::new();
    for _ in 0..effort.runs {
        runs.push(measure_once(cluster, shape, effort, &tls)?);
    }
    let medians = std::array::from_fn(|figure| median(runs.iter().map(|run: &Run| run[figure]).collect()));
    Ok(Row { shape, medians })
}

fn measure_once(cluster: &TestCluster, shape: Shape, effort: Effort, tls: &Tls) -> Result<Run, Failure> {
    let seconds = effort.seconds.to_string();
    let before = Written::by_now(cluster)?;
    let told = produce(
        cluster,
        shape,
        &["--seconds", &seconds, "--window", WINDOW, "--keep-topic"],
    )?;
    let written = Written::by_now(cluster)?.since(before);
    let topic = told["topic"].as_str().ok_or("the topic is not told")?;
    let read = json(cluster, &["bench", "consume", topic])?;
    json(cluster, &["topic", "delete", topic])?;
    let sent = number(&told, "acknowledged")?;
    if number(&read, "records")? != sent {
        return Err(format!("{sent} records were acknowledged, and {} read", read["records"]).into());
    }
    let bytes = number(&told, "payload_bytes")?;
    let chunks = (bytes as usize).div_ceil(CHUNK_BYTES).max(1);
    let replicated = stream::replicated_bytes_per_second(tls, cluster.directory(), chunks)? / MEBIBYTE;
    let synced = disk::synced_bytes_per_second(cluster.directory(), chunks)? / MEBIBYTE;
    let plain = stream::read_bytes_per_second(tls, chunks)? / MEBIBYTE;
    let (produced, consumed) = (number(&told, "mib_per_second")?, number(&read, "mib_per_second")?);
    let latency = &told["acknowledgement_us"];
    Ok([
        number(&told, "records_per_second")?,
        produced,
        number(latency, "p50")?,
        number(latency, "p99")?,
        replicated,
        synced,
        produced / replicated.min(synced),
        number(&told, "client_cpu_us")? * 1e3 / bytes,
        number_if_known(&told, "server_cpu_us") * 1e3 / bytes,
        number_if_known(&told, "server_cpu_us_per_batch"),
        sent / number(&told, "batches")?,
        written.files / bytes,
        written.calls / bytes,
        consumed,
        plain,
        consumed / plain,
    ])
}

impl Row {
    fn figure(&self, name: &str) -> f64 {
        let place = NAMES.iter().position(|known| *known == name);
        place.map_or(f64::NAN, |place| self.medians[place])
    }

    pub(crate) fn document(&self) -> Value {
        let figures: Map<String, Value> = NAMES
            .iter()
            .zip(self.medians)
            .map(|(name, median)| ((*name).to_owned(), json!(median)))
            .collect();
        let mut document = json!({
            "record_bytes": self.shape.record_bytes,
            "partitions": self.shape.partitions,
            "compression": self.shape.compression,
            "payload": self.shape.payload(),
        });
        if let Value::Object(fields) = &mut document {
            fields.extend(figures);
        }
        document
    }

    fn produced(&self) -> [String; 10] {
        let [record, partitions, compression] = self.shape.cells();
        [
            record,
            partitions,
            compression,
            figure(self.figure("records_per_second"), 0, ""),
            figure(self.figure("mib_per_second"), 1, ""),
            figure(self.figure("stream_mib_per_second"), 1, ""),
            figure(self.figure("disk_mib_per_second"), 1, ""),
            figure(self.figure("ratio_to_lower_floor"), 2, ""),
            figure(self.figure("p50_us") / 1e3, 1, " ms"),
            figure(self.figure("p99_us") / 1e3, 1, " ms"),
        ]
    }

    fn cost(&self) -> [String; 9] {
        let [record, partitions, compression] = self.shape.cells();
        [
            record,
            partitions,
            compression,
            figure(self.figure("client_cpu_ns_per_byte"), 2, " ns"),
            figure(self.figure("server_cpu_ns_per_byte"), 2, " ns"),
            figure(self.figure("server_cpu_us_per_batch"), 0, " µs"),
            figure(self.figure("records_per_batch"), 0, ""),
            figure(self.figure("file_bytes_per_byte"), 2, ""),
            figure(self.figure("write_call_bytes_per_byte"), 2, ""),
        ]
    }

    fn consumed(&self) -> [String; 6] {
        let [record, partitions, compression] = self.shape.cells();
        [
            record,
            partitions,
            compression,
            figure(self.figure("consume_mib_per_second"), 1, ""),
            figure(self.figure("read_stream_mib_per_second"), 1, ""),
            figure(self.figure("consume_ratio_to_stream"), 2, ""),
        ]
    }
}

pub(crate) fn print(rows: &[Row]) {
    let produced = [
        "RECORD",
        "PARTITIONS",
        "COMPRESSION",
        "RECORDS/S",
        "MIB/S",
        "STREAM",
        "DISK",
        "RATIO",
        "P50",
        "P99",
    ];
    let cells: Vec<_> = rows.iter().map(Row::produced).collect();
    table::print(
        "Produce, many in flight; beside the replicated TLS stream and the disk alone, MiB/s; ratio to the lower one",
        produced,
        &cells,
    );
    let cost = [
        "RECORD",
        "PARTITIONS",
        "COMPRESSION",
        "CLIENT CPU/B",
        "SERVER CPU/B",
        "SERVER CPU/BATCH",
        "RECORDS/BATCH",
        "FILES B/B",
        "WRITE CALLS B/B",
    ];
    let cells: Vec<_> = rows.iter().map(Row::cost).collect();
    table::print(
        "What that costs: CPU of all nodes; bytes that all nodes wrote, of three replicas, per byte of payload",
        cost,
        &cells,
    );
    let consumed = ["RECORD", "PARTITIONS", "COMPRESSION", "MIB/S", "STREAM", "RATIO"];
    let cells: Vec<_> = rows.iter().map(Row::consumed).collect();
    table::print(
        "Consume from the beginning; beside a plain TLS stream, MiB/s",
        consumed,
        &cells,
    );
}
