//! `highwater bench` on tiny runs: what it tells is there, and agrees with itself. No time is judged.

use std::process::Stdio;
use std::time::Duration;

use highwater_tests::{TestCluster, eventually, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::PATIENCE;

const PERCENTILES: [&str; 5] = ["p50", "p90", "p99", "p99_9", "max"];

#[track_caller]
fn count(document: &Value, name: &str) -> u64 {
    let found = document[name].as_u64();
    found.unwrap_or_else(|| panic!("no count {name}: {document}"))
}

/// So many samples, and percentiles that rise as far as they are told.
#[track_caller]
fn assert_latencies(latencies: &Value, samples: u64) {
    assert_eq!(count(latencies, "count"), samples, "{latencies}");
    let told: Vec<f64> = PERCENTILES.iter().filter_map(|name| latencies[name].as_f64()).collect();
    assert!(told.is_sorted() && told.iter().all(|us| *us > 0.0), "{latencies}");
    assert!(latencies["max"].is_number(), "{latencies}");
    assert_eq!(latencies["p99"].is_number(), samples >= 1_000, "{latencies}");
    assert_eq!(latencies["p99_9"].is_number(), samples >= 10_000, "{latencies}");
}

#[track_caller]
fn assert_all_acknowledged(told: &Value, records: u64, record_bytes: u64) {
    for (name, expected) in [
        ("sent", records),
        ("acknowledged", records),
        ("unsent", 0),
        ("not_applied", 0),
        ("unknown", 0),
        ("payload_bytes", records * record_bytes),
    ] {
        assert_eq!(count(told, name), expected, "{name}: {told}");
    }
    assert_eq!(
        (&told["failure"], &told["interrupted"]),
        (&Value::Null, &Value::Bool(false))
    );
    let batches = count(told, "batches");
    assert!((1..=records).contains(&batches), "{batches} batches");
    assert_latencies(&told["acknowledgement_us"], records);
    for name in [
        "seconds",
        "records_per_second",
        "client_cpu_us",
        "server_cpu_us",
        "server_cpu_us_per_batch",
    ] {
        assert!(told[name].is_number(), "{name}: {told}");
    }
}

#[test]
fn what_was_produced_is_counted_and_can_be_consumed() {
    let cluster = TestCluster::start(3);
    let arguments = ["bench", "produce", "--output", "json", "--records"];
    let run = |more: &[&str]| cluster.json(&[&arguments[..], more].concat());
    let many = run(&[
        "12000",
        "--record-bytes",
        "100",
        "--partitions",
        "3",
        "--producers",
        "2",
        "--keep-topic",
    ]);
    assert_all_acknowledged(&many, 12_000, 100);
    assert_eq!((count(&many, "partitions"), count(&many, "replication")), (3, 3));

    let lone = run(&["50", "--window", "1", "--compression", "lz4", "--payload", "text"]);
    assert_all_acknowledged(&lone, 50, 1024);
    assert_eq!(count(&lone, "batches"), 50, "each record went alone");
    assert_eq!(
        (&lone["compression"], &lone["payload"]),
        (&"lz4".into(), &"text".into())
    );

    let topic = many["topic"].as_str().unwrap_or_default();
    let left = cluster.json(&["topic", "list", "--output", "json"]);
    assert_eq!(
        left["topics"].as_array().map(Vec::len),
        Some(1),
        "only what was to be kept"
    );
    let read = cluster.json(&["bench", "consume", topic, "--output", "json"]);
    assert_eq!(
        (count(&read, "records"), count(&read, "payload_bytes")),
        (12_000, 1_200_000)
    );
    assert!(
        read["first_record_us"].is_number() && read["server_cpu_us"].is_number(),
        "{read}"
    );
    let some = cluster.json(&["bench", "consume", topic, "--records", "10", "--output", "json"]);
    assert_eq!(count(&some, "records"), 10);

    let text = cluster
        .run(&["bench", "produce", topic, "--records", "10"])
        .success()
        .stdout();
    for word in ["RECORDS/S", "P99.9", "SERVER CPU", "send to acknowledgement"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn at_a_rate_every_record_that_is_due_is_sent_and_seen() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("paced", 2);
    let paced = [
        "bench",
        "produce",
        "paced",
        "--rate",
        "1200",
        "--seconds",
        "1",
        "--output",
        "json",
    ];
    let paced = cluster.json(&paced);
    assert_all_acknowledged(&paced, 1_200, 1024);
    assert_eq!((&paced["latency_from"], count(&paced, "rate")), (&"due".into(), 1_200));

    // Whatever was there before is nobody's business.
    let arguments = [
        "bench",
        "latency",
        "paced",
        "--rate",
        "500",
        "--records",
        "200",
        "--record-bytes",
        "16",
    ];
    let told = cluster.json(&[&arguments[..], &["--output", "json"]].concat());
    assert_all_acknowledged(&told, 200, 16);
    assert_eq!(count(&told, "seen"), 200);
    assert_latencies(&told["end_to_end_us"], 200);
    let text = cluster.run(&arguments).success().stdout();
    assert!(
        text.contains("due to acknowledgement") && text.contains("due to consumer"),
        "{text}"
    );
}

/// Starts a long run on a topic, and waits until something of it is committed.
#[track_caller]
fn start_long_run(cluster: &TestCluster, topic: &str) -> std::process::Child {
    let mut command = cluster.command(&["bench", "produce", topic, "--seconds", "600", "--window", "100"]);
    command.args(["--deadline", "10s", "--output", "json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("cannot start it: {error}"));
    eventually("records are committed", PATIENCE, || {
        let described = cluster.json(&["topic", "describe", topic, "--output", "json"]);
        described["partitions"][0]["high_watermark"]
            .as_u64()
            .filter(|end| *end > 0)
    });
    child
}

#[test]
fn an_interrupt_shows_what_was_measured_until_then() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("long", 1);
    let child = start_long_run(&cluster, "long");
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.unwrap_or_else(|| panic!("an odd process id"));
    kill_process(pid, Signal::INT).unwrap_or_else(|error| panic!("cannot interrupt it: {error}"));
    let told: Value = serde_json::from_slice(&wait(child, PATIENCE).success().bytes).unwrap_or_default();
    assert_eq!(told["interrupted"], true, "{told}");
    let acknowledged = count(&told, "acknowledged");
    assert_eq!(count(&told, "sent"), acknowledged, "those on their way were waited for");
    assert!(acknowledged > 0);
    assert_eq!(count(&told["acknowledgement_us"], "count"), acknowledged);
}

#[test]
fn a_record_that_fails_is_counted_and_ends_the_run_with_its_reason() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("doomed", 1);
    let child = start_long_run(&cluster, "doomed");
    cluster.run(&["topic", "delete", "doomed"]).success();
    let ended = wait(child, PATIENCE);
    assert_ne!(ended.code(), 0);
    let told: Value = serde_json::from_slice(&ended.bytes).unwrap_or_default();
    let failed = count(&told, "not_applied") + count(&told, "unknown");
    assert!(failed > 0 && told["failure"].is_string(), "{told}");
    assert_eq!(
        count(&told, "sent"),
        count(&told, "acknowledged") + failed,
        "each sent record became something"
    );
    let summary = format!("{failed} of {} records were not acknowledged", count(&told, "sent"));
    assert!(ended.stderr.contains(&summary), "{}", ended.stderr);
}

#[test]
fn absurd_options_are_refused_with_their_limits() {
    let cluster = TestCluster::prepare(1);
    for (arguments, words) in [
        (
            &["produce", "--record-bytes", "1000001"][..],
            ["--record-bytes", "1000000"],
        ),
        (&["produce", "--batch-bytes", "9999999"], ["--batch-bytes", "1048576"]),
        (&["produce", "--window", "0"], ["--window", "1000000"]),
        (&["produce", "--rate", "0"], ["--rate", "10000000"]),
        (&["produce", "--producers", "65"], ["--producers", "64"]),
        (&["produce", "--partitions", "1025"], ["--partitions", "1024"]),
        (&["produce", "--replication", "8"], ["--replication", "7"]),
        (&["produce", "--linger", "61s"], ["--linger", "1m"]),
        (&["produce", "--deadline", "11m"], ["--deadline", "10m"]),
        (&["produce", "--seconds", "86401"], ["--seconds", "86400"]),
        (
            &["produce", "--seconds", "1", "--records", "1"],
            ["--seconds", "--records"],
        ),
        (&["produce", "t", "--partitions", "3"], ["topic", "--partitions"]),
        (&["consume", "t", "--records", "0"], ["--records", "10000000000"]),
        (&["latency", "--rate", "10000001"], ["--rate", "10000000"]),
        (&["latency", "--record-bytes", "15"], ["--record-bytes 15", "16"]),
    ] {
        cluster.run(&[&["bench"], arguments].concat()).fails_with(2, &words);
    }
}

#[test]
fn topics_and_clusters_that_are_not_there_are_said_so() {
    let cluster = TestCluster::start(1);
    for verb in ["produce", "consume", "latency"] {
        cluster.run(&["bench", verb, "nowhere"]).fails_with(3, &["nowhere"]);
    }
    cluster
        .run(&["bench", "produce", "--replication", "2"])
        .fails_with(4, &["2"]);
    let nobody = TestCluster::prepare(1);
    nobody
        .run(&["bench", "produce", "--deadline", "2s"])
        .fails_with(5, &["127.0.0.1"]);
}

#[test]
fn every_node_tells_its_cpu_time_and_it_only_grows() {
    let cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    let times = || -> Vec<u64> {
        let described = cluster.describe();
        let nodes = described["nodes"].as_array().into_iter().flatten();
        nodes.map(|node| count(node, "cpu_us")).collect()
    };
    let before = times();
    assert_eq!(before.len(), 3);
    eventually("each has used more", Duration::from_secs(60), || {
        times()
            .iter()
            .zip(&before)
            .all(|(after, before)| after > before)
            .then_some(())
    });
}
