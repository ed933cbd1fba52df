//! One record at a time, beside the bare fdatasync of the same run.

use highwater_tests::TestCluster;
use serde_json::{Value, json};

use crate::command::{number, number_if_known, produce};
use crate::{Effort, Failure, Shape, disk, median, table};

/// Figures of one shape; medians of the runs.
#[derive(Debug)]
pub(crate) struct Row {
    shape: Shape,
    median_us: f64,
    p99_us: f64,
    fdatasync_us: f64,
    ratio: f64,
    client_cpu_us: f64,
    server_cpu_us: f64,
}

pub(crate) fn measure(cluster: &TestCluster, shape: Shape, effort: Effort) -> Result<Row, Failure> {
    let (mut medians, mut p99s, mut floors, mut ratios) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut client, mut server) = (Vec::new(), Vec::new());
    let records = effort.lone_records.to_string();
    for _ in 0..effort.runs {
        let floor = disk::fdatasync_us(cluster.directory(), shape.record_bytes, effort.lone_records)?;
        let told = produce(cluster, shape, &["--window", "1", "--records", &records])?;
        let latency = &told["acknowledgement_us"];
        let median = number(latency, "p50")?;
        medians.push(median);
        p99s.push(number_if_known(latency, "p99"));
        floors.push(floor);
        ratios.push(median / floor);
        client.push(number(&told, "client_cpu_us_per_record")?);
        server.push(number_if_known(&told, "server_cpu_us_per_record"));
    }
    Ok(Row {
        shape,
        median_us: median(medians),
        p99_us: median(p99s),
        fdatasync_us: median(floors),
        ratio: median(ratios),
        client_cpu_us: median(client),
        server_cpu_us: median(server),
    })
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let [record, partitions, compression] = self.shape.cells();
        let us = |us| table::figure(us, 0, " µs");
        [
            record,
            partitions,
            compression,
            us(self.median_us),
            us(self.p99_us),
            us(self.fdatasync_us),
            table::figure(self.ratio, 2, ""),
            us(self.client_cpu_us),
            us(self.server_cpu_us),
        ]
    }

    pub(crate) fn document(&self) -> Value {
        json!({
            "record_bytes": self.shape.record_bytes,
            "partitions": self.shape.partitions,
            "compression": self.shape.compression,
            "payload": self.shape.payload(),
            "p50_us": self.median_us,
            "p99_us": self.p99_us,
            "fdatasync_us": self.fdatasync_us,
            "ratio": self.ratio,
            "client_cpu_us_per_record": self.client_cpu_us,
            "server_cpu_us_per_record": self.server_cpu_us,
        })
    }
}

pub(crate) fn print(rows: &[Row]) {
    let heading = [
        "RECORD",
        "PARTITIONS",
        "COMPRESSION",
        "P50",
        "P99",
        "FDATASYNC",
        "P50/FDATASYNC",
        "CLIENT CPU",
        "SERVER CPU",
    ];
    let rows: Vec<_> = rows.iter().map(Row::cells).collect();
    table::print("One record at a time, send to acknowledgement", heading, &rows);
}
