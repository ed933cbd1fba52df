//! What a node refuses at its start, and what it survives on its port.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use highwater_tests::{TestCluster, eventually, run};
use serde_json::Value;

use crate::{PATIENCE, consume, numbers, produce};

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = TestCluster::prepare(1);
    let address = cluster.nodes()[0].address();
    let _squatter = TcpListener::bind(&address).unwrap_or_else(|error| panic!("cannot take {address}: {error}"));
    run(&mut cluster.node(0).command(), PATIENCE).fails_with(6, &[&address]);
}

#[test]
fn a_data_directory_in_use_is_refused_and_its_node_goes_on() {
    let mut cluster = TestCluster::start(1);
    let mut second = cluster.node(0).command();
    second.args(["--listen", "127.0.0.1:0"]);
    run(&mut second, PATIENCE).fails_with(6, &["in use"]);
    assert!(cluster.node(0).runs());
    cluster.wait_ready();
}

#[test]
fn a_data_directory_of_another_node_is_refused() {
    let mut cluster = TestCluster::start(3);
    cluster.node(0).stop();
    cluster.node(1).stop();
    let mut mixed_up = cluster.node(0).command();
    let directory = cluster.nodes()[1].data_dir().to_owned();
    mixed_up.arg("--data-dir").arg(directory);
    run(&mut mixed_up, PATIENCE).fails_with(6, &["n1", "n2"]);
}

#[test]
fn a_data_directory_of_another_cluster_is_refused() {
    let mut cluster = TestCluster::start(1);
    assert!(cluster.node(0).stop().success());
    let mut other = TestCluster::prepare_named("other", 1);
    let mut mixed_up = other.node(0).command();
    mixed_up.arg("--data-dir").arg(cluster.nodes()[0].data_dir());
    run(&mut mixed_up, PATIENCE).fails_with(6, &["test", "other"]);
}

#[test]
fn certificates_that_cannot_be_used_are_refused_by_name() {
    let mut cluster = TestCluster::prepare(3);
    let certificates = cluster.certificates();
    let mut missing = cluster.node(0).command();
    missing.args(["--cert", "/nonexistent/node.pem"]);
    run(&mut missing, PATIENCE).fails_with(6, &["/nonexistent/node.pem"]);

    let garbage = cluster.directory().join("garbage.pem");
    fs::write(&garbage, "not a certificate").unwrap_or_else(|error| panic!("{error}"));
    let mut unreadable = cluster.node(0).command();
    unreadable.arg("--cert").arg(&garbage);
    run(&mut unreadable, PATIENCE).fails_with(6, &["garbage.pem"]);

    let mut of_another_node = cluster.node(0).command();
    of_another_node.args(["--cert", &format!("{certificates}/node-n2.pem")]);
    of_another_node.args(["--key", &format!("{certificates}/node-n2.key")]);
    run(&mut of_another_node, PATIENCE).fails_with(6, &["n1", "n2"]);
}

#[test]
fn an_expired_certificate_is_refused_at_the_start() {
    let mut cluster = TestCluster::prepare(1);
    let certificates = cluster.certificates();
    let past = [
        "--not-before",
        "2020-01-01T00:00:00Z",
        "--not-after",
        "2021-01-01T00:00:00Z",
        "--force",
    ];
    let arguments = ["certs", "node", "n1", "--ca-dir", &certificates, "--out", &certificates];
    cluster.run(&[&arguments[..], &past].concat()).success();
    run(&mut cluster.node(0).command(), PATIENCE).fails_with(6, &["expired"]);
}

#[test]
fn a_data_directory_that_cannot_be_written_is_refused() {
    let mut cluster = TestCluster::prepare(1);
    let file = cluster.directory().join("a-file");
    fs::write(&file, "").unwrap_or_else(|error| panic!("{error}"));
    let mut command = cluster.node(0).command();
    command.arg("--data-dir").arg(&file);
    run(&mut command, PATIENCE).fails_with(6, &["a-file"]);
    let mode = fs::metadata(&file).map(|metadata| metadata.permissions().mode() & 0o777);
    assert!(file.is_file() && mode.is_ok(), "what was there stays");
}

#[test]
fn a_node_is_healthy_only_while_it_can_serve() {
    let mut cluster = TestCluster::prepare(3);
    cluster.node(0).start();
    let address = cluster.nodes()[0].address();
    // It answers, and does not claim to serve before there is a cluster.
    let answer = eventually("the node answers", PATIENCE, || {
        let answer = cluster.run(&["health", "--address", &address]);
        (!answer.stdout().contains("unreachable")).then_some(answer)
    });
    assert!(!answer.status.success(), "{}", answer.stdout());
    cluster.node(1).start();
    cluster.node(2).start();
    cluster.wait_ready();
    cluster.run(&["health", "--address", &address]).success();
}

#[test]
fn strangers_on_the_port_do_no_harm() {
    let mut cluster = TestCluster::start(1);
    cluster.create_topic("numbers", 1);
    let address = cluster.nodes()[0].address();

    let answer = talk(&address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(
        answer.starts_with(b"HTTP/1.1 400") || answer.is_empty(),
        "{:?}",
        String::from_utf8_lossy(&answer)
    );
    talk(&address, &[0; 4096]);
    talk(&address, b"\x16\x03\x01\xff\xff garbage that claims to be TLS");
    talk(&address, b"");
    // Connections that say nothing must not keep others out.
    let silent: Vec<_> = (0..50).filter_map(|_| TcpStream::connect(&address).ok()).collect();
    produce(&cluster, "numbers", numbers(100));
    assert_eq!(consume(&cluster, "numbers"), numbers(100));
    drop(silent);
    assert!(cluster.node(0).runs());
}

#[test]
fn a_node_stops_in_good_order_and_comes_back_with_everything() {
    let mut cluster = TestCluster::start(1);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(1_000));
    assert!(cluster.node(0).stop().success(), "SIGTERM ends a node with success");
    cluster.node(0).start();
    cluster.wait_ready();
    assert_eq!(consume(&cluster, "numbers"), numbers(1_000));
}

/// How many lines of [`LINE_BYTES`] a node misses: at the slowest pace, 1 MB a second, they take longer than its start.
const MISSED_LINES: usize = 8_000;
const LINE_BYTES: usize = 1_000;

#[test]
fn a_node_is_not_ready_until_its_replicas_have_what_was_appended_while_it_was_away() {
    let mut cluster = TestCluster::prepare(3);
    for position in 0..3 {
        // What is in the cache comes without being paced.
        cluster.node(position).set("--tail-cache-bytes", "0");
        cluster.node(position).start();
    }
    cluster.wait_ready();
    cluster.create_topic("numbers", 1);
    cluster
        .run(&["cluster", "settings", "--catch-up-bytes-per-second", "1000000"])
        .success();
    let away = (cluster.leader("numbers", 0) + 1) % 3;
    let name = cluster.nodes()[away].name().to_owned();
    cluster.node(away).stop();
    produce(
        &cluster,
        "numbers",
        format!("{:LINE_BYTES$}\n", "x").repeat(MISSED_LINES),
    );
    let end = eventually("what was acknowledged is there", PATIENCE, || {
        replica_end(&cluster.describe(), None)
    });

    cluster.node(away).start();
    let mut reasons = Vec::new();
    eventually("the node is ready again", PATIENCE, || {
        let described = cluster.describe();
        let nodes = described["nodes"].as_array()?;
        let node = nodes.iter().find(|node| node["name"] == *name)?;
        reasons.extend(node["not_ready"].as_str().map(str::to_owned));
        (node["ready"] == true).then_some(())
    });
    let caught_up = replica_end(&cluster.describe(), Some(&name));
    assert_eq!(caught_up, Some(end), "ready, and behind; before: {reasons:?}");
    let told = "1 of its replicas have not caught up yet with what was appended while it was away";
    assert!(reasons.iter().any(|reason| reason == told), "{reasons:?}");
}

/// Up to where the replica on that node, or the one that is furthest, knows records as committed.
fn replica_end(described: &Value, node: Option<&str>) -> Option<u64> {
    let replicas = described["replicas"].as_array()?.iter();
    let replicas = replicas.filter(|replica| replica["topic"] == "numbers");
    let replicas = replicas.filter(|replica| node.is_none_or(|node| replica["node"] == node));
    replicas.filter_map(|replica| replica["high_watermark"].as_u64()).max()
}

#[test]
fn how_long_groups_are_kept_is_shown_changed_refused_by_name_and_there_after_a_restart() {
    let mut cluster = TestCluster::start(1);
    let show = ["cluster", "settings", "--output", "json"];
    assert_eq!(cluster.json(&show)["groups_kept_ms"], 604_800_000);
    let changed = cluster.run(&["cluster", "settings", "--groups-kept", "48h"]);
    let text = changed.success().stdout();
    assert!(text.contains("groups kept 172800000 ms"), "{text}");
    for (kept, limit) in [("59m", "3600000"), ("1ms", "3600000")] {
        let refused = cluster.run(&["cluster", "settings", "--groups-kept", kept]);
        refused.fails_with(4, &["groups_kept_ms", limit]);
    }
    assert!(cluster.node(0).stop().success());
    cluster.node(0).start();
    cluster.wait_ready();
    let settings = cluster.json(&show);
    assert_eq!(settings["groups_kept_ms"], 172_800_000);
    assert_eq!(settings["timer_step"], 1, "the others stay");
}

/// Sends `bytes` and gives what comes back until the other side closes.
fn talk(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
    let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
    // The node may close in the middle.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
