//! The figures of one run on this machine, each beside a floor measured in the same run by plain code.
//!
//! `make bench` builds the release binaries and runs this. It measures and asserts nothing but that the records came
//! back; quote medians, and the ratio to the floor rather than the absolute number, for machines differ and are shared.

use std::fs::File;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater::{Client, Profile, Record};
use highwater_tests::{TestCluster, binary, eventually};

type Failure = Box<dyn std::error::Error>;

/// How many times each throughput is measured; the median is printed.
const RUNS: usize = 5;
/// The lines of the throughput runs.
const LINES: u64 = 1_000_000;
/// The records sent one at a time, and the syncs beside them.
const LONE_RECORDS: usize = 2_000;
/// What the floor writes between two syncs: as much as one full batch.
const FLOOR_CHUNK_BYTES: usize = 1024 * 1024;

fn main() -> Result<(), Failure> {
    println!(
        "binary: {:.1} MiB",
        std::fs::metadata(binary())?.len() as f64 / (1024.0 * 1024.0)
    );
    let mut cluster = TestCluster::start(3);
    let short: Vec<u8> = (1..=LINES)
        .flat_map(|number| format!("{number}\n").into_bytes())
        .collect();
    lines(&cluster, "numbers, 1,000,000 lines of 1 to 7 bytes", &short)?;
    let long = [vec![b'x'; 1024], vec![b'\n']].concat().repeat(LINES as usize / 4);
    lines(&cluster, "250,000 lines of 1 KiB", &long)?;
    lone_records(&cluster)?;
    first_answer(&mut cluster)
}

/// Through the command line: produce and consume, beside writing and syncing the same bytes.
fn lines(cluster: &TestCluster, what: &str, input: &[u8]) -> Result<(), Failure> {
    let path = cluster.directory().join("input");
    std::fs::write(&path, input)?;
    let count = input.iter().filter(|byte| **byte == b'\n').count() as f64;
    let (mut floors, mut produced, mut consumed) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        floors.push(write_and_sync(cluster, input)?);
        let topic = format!("bench-{}-{run}", input.len());
        cluster.create_topic(&topic, 1);
        let started = Instant::now();
        let status = cluster
            .command(&["produce", &topic])
            .stdin(File::open(&path)?)
            .stderr(Stdio::null())
            .status()?;
        produced.push(started.elapsed());
        if !status.success() {
            return Err(format!("produce ended with {status}").into());
        }
        let started = Instant::now();
        let output = cluster
            .command(&["consume", &topic, "--from", "beginning", "--exit-at-end"])
            .stderr(Stdio::inherit())
            .output()?;
        consumed.push(started.elapsed());
        if output.stdout != input {
            return Err("what was consumed is not what was produced".into());
        }
    }
    println!("\n{what}; median of {RUNS} [min .. max]");
    for (name, times) in [
        ("write and sync, plain", &mut floors),
        ("produce", &mut produced),
        ("consume", &mut consumed),
    ] {
        times.sort();
        let median = times[RUNS / 2].as_secs_f64();
        println!(
            "  {name:<22} {median:>7.3} s [{:.3} .. {:.3}]  {:>9.0} lines/s  {:>7.1} MB/s",
            times[0].as_secs_f64(),
            times[RUNS - 1].as_secs_f64(),
            count / median,
            input.len() as f64 / 1e6 / median,
        );
    }
    Ok(())
}

fn write_and_sync(cluster: &TestCluster, bytes: &[u8]) -> Result<Duration, Failure> {
    let path = cluster.directory().join("floor");
    let started = Instant::now();
    let mut file = File::create(&path)?;
    for chunk in bytes.chunks(FLOOR_CHUNK_BYTES) {
        file.write_all(chunk)?;
        file.sync_data()?;
    }
    let elapsed = started.elapsed();
    std::fs::remove_file(path)?;
    Ok(elapsed)
}

/// One record of 1 KiB at a time, beside appending 1 KiB to a file and syncing it.
fn lone_records(cluster: &TestCluster) -> Result<(), Failure> {
    cluster.create_topic("lone", 1);
    let mut floors = Vec::new();
    let mut file = File::create(cluster.directory().join("floor"))?;
    for _ in 0..LONE_RECORDS {
        let started = Instant::now();
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
        floors.push(started.elapsed());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let profile = Profile::load(cluster.profile())?;
    let mut records = runtime.block_on(async {
        let client = Client::from_profile(&profile).await?;
        let producer = client.producer("lone").linger(Duration::ZERO).build().await?;
        let mut times = Vec::new();
        for _ in 0..LONE_RECORDS {
            let started = Instant::now();
            producer.send(Record::new(vec![b'x'; 1024])).await?.await?;
            times.push(started.elapsed());
        }
        producer.close().await;
        Ok::<_, Failure>(times)
    })?;
    println!("\none record of 1 KiB at a time, {LONE_RECORDS} times");
    for (name, times) in [
        ("append and fdatasync, plain", &mut floors),
        ("produce to answer", &mut records),
    ] {
        times.sort();
        let at = |share: f64| times[(times.len() as f64 * share) as usize].as_micros();
        println!("  {name:<28} p50 {:>6} µs   p99 {:>6} µs", at(0.50), at(0.99));
    }
    Ok(())
}

/// From starting the process on a directory with data: to its first answer over gRPC, and until it is ready.
fn first_answer(cluster: &mut TestCluster) -> Result<(), Failure> {
    let (mut answers, mut readies) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        cluster.node(0).stop();
        let started = Instant::now();
        cluster.node(0).start();
        answers.push(time_until(cluster, started, |_, state| !state.contains("unreachable")));
        readies.push(time_until(cluster, started, |serves, _| serves));
    }
    println!("\nrestart of one node; median of {RUNS} (asked every 20 ms)");
    for (name, times) in [("first answer", &mut answers), ("ready", &mut readies)] {
        times.sort();
        println!("  {name:<14} {:>6} ms", times[RUNS / 2].as_millis());
    }
    Ok(())
}

/// How long since `started` until what `health` says about the first node is what is waited for.
fn time_until(cluster: &TestCluster, started: Instant, reached: impl Fn(bool, &str) -> bool) -> Duration {
    let address = cluster.nodes()[0].address();
    eventually("the node answers", Duration::from_secs(20), || {
        let asked = cluster.command(&["health", "--address", &address]).output().ok()?;
        let state = String::from_utf8_lossy(&asked.stdout).into_owned();
        (!state.is_empty() && reached(asked.status.success(), &state)).then(|| started.elapsed())
    })
}
