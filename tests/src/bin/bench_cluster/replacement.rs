//! A node loses its disk and gets everything again: how long that takes, what is moved, and what producers feel of it.

use std::path::Path;
use std::time::{Duration, Instant};

use highwater::{Client, Profile, Record};
use highwater_tests::{TestCluster, eventually};
use serde_json::Value;

use crate::open_loop::{Latencies, OpenLoop};
use crate::{Failure, table};

const TOPIC: &str = "replaced";
const PARTITIONS: u32 = 3;
const NODES: usize = 3;
/// What the node holds before it is replaced.
const FILL_BYTES: usize = 1 << 30;
const FILL_VALUE_BYTES: usize = 64 * 1024;
/// How long producers are watched before anything happens.
const BEFORE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(900);

pub(crate) fn measure() -> Result<(), Failure> {
    let mut cluster = TestCluster::start(NODES);
    cluster.wait_acquainted();
    cluster.create_topic(TOPIC, PARTITIONS);
    let runtime = tokio::runtime::Runtime::new()?;
    let client = runtime.block_on(Client::from_profile(&Profile::load(cluster.profile())?))?;
    runtime.block_on(fill(&client))?;
    let load = runtime.block_on(OpenLoop::start(&client, TOPIC))?;
    let watched = Instant::now();
    std::thread::sleep(BEFORE); // Not to wait for something: this is the time over which is measured.
    let before = runtime.block_on(load.between(watched, Instant::now()));

    // In order, so that what is measured is the replacement and not a failover.
    let replaced = NODES - 1;
    cluster.node(replaced).stop();
    cluster.node(replaced).wipe();
    let started = Instant::now();
    cluster.node(replaced).start();
    eventually("all replicas are there again", DEADLINE, || {
        is_complete(&cluster.describe()).then_some(())
    });
    let (took, end) = (started.elapsed(), Instant::now());
    let during = runtime.block_on(load.between(started, end));
    let moved = bytes_in(cluster.nodes()[replaced].data_dir());
    println!(
        "\na node with {} MiB replaced (target: p99 during it at most twice the one before)",
        FILL_BYTES >> 20
    );
    table::number(
        "until every replica votes again",
        format!("{:.1} s", took.as_secs_f64()),
    );
    table::number("on its disk afterwards", format!("{} MiB", moved >> 20));
    let ratio = p99(&during) / p99(&before);
    table::number("failed produces", before.failed + during.failed);
    table::times("produce to answer, before", before.times);
    table::times("produce to answer, during", during.times);
    table::number("p99 during / before", format!("{ratio:.2}"));
    Ok(())
}

async fn fill(client: &Client) -> Result<(), Failure> {
    let producer = client.producer(TOPIC).build().await?;
    let mut deliveries = Vec::new();
    for number in 0..FILL_BYTES / FILL_VALUE_BYTES {
        let partition = number as u32 % PARTITIONS;
        let record = Record::new(vec![number as u8; FILL_VALUE_BYTES]).with_partition(partition);
        deliveries.push(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close().await;
    Ok(())
}

/// Whether every node votes in the catalog and every replica is whole and takes part.
fn is_complete(described: &Value) -> bool {
    let list = |name: &str| described[name].as_array().cloned().unwrap_or_default();
    let (nodes, replicas) = (list("nodes"), list("replicas"));
    let takes_part = |replica: &Value| matches!(replica["role"].as_str(), Some("leader" | "follower"));
    nodes.iter().all(|node| node["catalog_role"] == "voter")
        && replicas.len() == PARTITIONS as usize * NODES
        && replicas.iter().all(takes_part)
}

fn p99(latencies: &Latencies) -> f64 {
    let mut times = latencies.times.clone();
    times.sort();
    table::quantile(&times, 0.99).as_secs_f64()
}

fn bytes_in(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_in(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}
