//! `make bench-telemetry`: what it costs a cluster to tell about itself, as CPU time of its nodes per produced record.
//!
//! Two clusters of three nodes stand side by side. One is told nothing and asked nothing: no log, no traces. The other writes its log (with a
//! span around every call), tells a collector of one batch in a hundred, and is asked for its metrics once a second. They are given the
//! same load, turn by turn, and what is shown is the median of the ratios. What is noted for metrics is noted by both: it cannot be switched off.
//! `telemetry [--seconds N] [--pairs N]`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use highwater_tests::collector::Collector;
use highwater_tests::{ReservedPort, TestCluster, measured};

type Failure = Box<dyn std::error::Error>;

/// How long each load lasts, seconds.
const SECONDS: u64 = 10;
/// How often the two are beside each other.
const PAIRS: usize = 9;
/// One batch in so many is traced.
const ONE_IN: &str = "100";
/// So many a second: all of those.
const PER_SECOND_MAX: &str = "100000";
/// How often metrics are asked for.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);
/// How much each partition keeps, bytes.
const RETENTION_BYTES: &str = "268435456";
/// Clock ticks a second in what the kernel tells of a process.
const TICKS_PER_SECOND: f64 = 100.0;

const USAGE: &str = "telemetry [--seconds N] [--pairs N]";

/// A load's name, and the arguments of `highwater bench produce` that make it.
const LOADS: [(&str, &[&str]); 3] = [
    ("records of 1 KiB, as fast as they go", &["--record-bytes", "1024"]),
    ("records of 100 bytes, as fast as they go", &["--record-bytes", "100"]),
    (
        "2,000 single records a second",
        &["--record-bytes", "100", "--rate", "2000", "--linger", "0ms"],
    ),
];

struct Arguments {
    seconds: u64,
    pairs: usize,
}

fn main() -> ExitCode {
    measured(USAGE, arguments, measure)
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        seconds: SECONDS,
        pairs: PAIRS,
    };
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number: u64 = value.parse().map_err(|_| format!("{name} {value}: not a number"))?;
        match name.as_str() {
            "--seconds" => arguments.seconds = number,
            "--pairs" => arguments.pairs = number as usize,
            _ => return Err(format!("{name} is not known")),
        }
    }
    Ok(arguments)
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let collector = Collector::start();
    let silent = cluster(&[("--log", "off")], None);
    let ports = [(); 3].map(|()| ReservedPort::take());
    let admin = ports.each_ref().map(|port| format!("127.0.0.1:{}", port.number()));
    let settings = [
        ("--log", "info"),
        ("--traces-endpoint", &collector.endpoint()),
        ("--traces-one-in", ONE_IN),
        ("--traces-per-second-max", PER_SECOND_MAX),
    ];
    let telling = cluster(&settings, Some(&admin));
    println!(
        "CPU time of three nodes per record, microseconds, with {} pairs of {} s\n\n{:<42} {:>8} {:>8} {:>7} {:>16} {:>8}",
        arguments.pairs, arguments.seconds, "LOAD", "SILENT", "TELLING", "RATIO", "RATIOS FROM - TO", "SPANS"
    );
    for (name, load) in LOADS {
        let before = collector.spans().len();
        let mut pairs = Vec::new();
        for pair in 0..arguments.pairs.max(1) {
            let mut both = [0.0; 2];
            for is_telling in [pair % 2 == 1, pair % 2 == 0] {
                let (cluster, asked) = match is_telling {
                    true => (&telling, &admin[..]),
                    false => (&silent, &[][..]),
                };
                both[usize::from(is_telling)] = cost_us(cluster, load, arguments.seconds, asked)?;
            }
            pairs.push(both);
        }
        show(name, pairs, collector.spans().len() - before);
    }
    Ok(())
}

fn cluster(settings: &[(&str, &str)], admin: Option<&[String; 3]>) -> TestCluster {
    let mut cluster = TestCluster::prepare(3);
    for position in 0..3 {
        for (flag, value) in settings {
            cluster.node(position).set(flag, value);
        }
        cluster.node(position).set("--retention-interval-ms", "1000");
        if let Some(admin) = admin {
            cluster.node(position).set("--admin-listen", &admin[position]);
        }
    }
    for position in 0..3 {
        cluster.node(position).start();
    }
    cluster.wait_ready();
    // What was sent is let go of soon: all of it would fill the disk.
    let create = [
        "topic",
        "create",
        "load",
        "--partitions",
        "1",
        "--retention-bytes",
        RETENTION_BYTES,
    ];
    cluster.run(&create).success();
    cluster.wait_acquainted();
    cluster
}

/// What a record of this load costs the nodes of this cluster, while those of them that have an address are asked for their metrics.
fn cost_us(cluster: &TestCluster, load: &[&str], seconds: u64, asked: &[String]) -> Result<f64, Failure> {
    let seconds = seconds.to_string();
    let bench = ["bench", "produce", "load", "--seconds", &seconds, "--output", "json"];
    let over = AtomicBool::new(false);
    let before = cpu_ticks(cluster)?;
    let measured = thread::scope(|scope| {
        scope.spawn(|| scrape(asked, &over));
        let _over = SetAtEnd(&over);
        cluster.json(&[&bench, load].concat())
    });
    let used = cpu_ticks(cluster)? - before;
    let records = measured["acknowledged"].as_f64().filter(|records| *records > 0.0);
    let records = records.ok_or_else(|| format!("nothing was sent: {measured}"))?;
    Ok(used as f64 / TICKS_PER_SECOND * 1e6 / records)
}

/// Ends the asking however the load ends.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Asks nodes for their metrics again and again.
fn scrape(asked: &[String], over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        for address in asked {
            if let Err(error) = metrics(address) {
                eprintln!("no metrics from {address}: {error}");
            }
        }
        thread::sleep(SCRAPE_INTERVAL);
    }
}

fn metrics(address: &str) -> Result<Vec<u8>, std::io::Error> {
    let mut stream = TcpStream::connect(address)?;
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

fn cpu_ticks(cluster: &TestCluster) -> Result<u64, Failure> {
    let mut all = 0;
    for node in cluster.nodes() {
        all += node
            .cpu_ticks()
            .ok_or_else(|| format!("{} does not run", node.name()))?;
    }
    Ok(all)
}

fn show(name: &str, mut pairs: Vec<[f64; 2]>, spans: usize) {
    let ratio = |pair: &[f64; 2]| pair[1] / pair[0];
    pairs.sort_by(|one, other| ratio(one).total_cmp(&ratio(other)));
    let middle = pairs[pairs.len() / 2];
    println!(
        "{name:<42} {:>8.2} {:>8.2} {:>7.3} {:>16} {spans:>8}",
        middle[0],
        middle[1],
        ratio(&middle),
        format!("{:.3} - {:.3}", ratio(&pairs[0]), ratio(&pairs[pairs.len() - 1])),
    );
}
