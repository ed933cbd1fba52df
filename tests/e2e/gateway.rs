//! The JSON gateway with the real curl. The examples of its page are run with those of all others (`tests/documents`).

use std::process::Command;

use highwater_tests::{TestCluster, run};
use serde_json::Value;

use crate::{PATIENCE, assert_same_bytes, consume};

pub(crate) fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("######  SKIPPED: there is no curl, so the test of the gateway did not run.  ######");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "curl is missing");
    }
    found
}

/// Runs a command line as a person would, through the node at that position.
#[track_caller]
pub(crate) fn shell(cluster: &TestCluster, position: usize, line: &str) -> Value {
    let certificates = cluster.certificates();
    let port = cluster.nodes()[position].address();
    let port = port.rsplit(':').next().unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-euc", line])
        .env("CA", format!("{certificates}/ca.pem"))
        .env("CERT", format!("{certificates}/client-acme-app.pem"))
        .env("KEY", format!("{certificates}/client-acme-app.key"))
        .env("NODE", format!("localhost:{port}"));
    let text = run(&mut command, PATIENCE).success().stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}) from {line}: {text}"))
}

#[test]
fn appends_through_any_node_outlive_the_death_of_the_leader() {
    if !has_curl() {
        return;
    }
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("orders", 1);
    let leader = cluster.leader("orders", 0);
    let others: Vec<usize> = (0..3).filter(|position| *position != leader).collect();
    // Sent again until it is known to be applied, as the page says.
    let append = |cluster: &TestCluster, position: usize, sequence: usize| {
        let line = format!(
            "for try in $(seq 100); do \
               curl --silent --show-error --fail --cacert \"$CA\" --cert \"$CERT\" --key \"$KEY\" -d '{{\"partition\":0,\
               \"producer_id\":\"8f14e45fceea167a5a36dedd4bea2543\",\"sequence\":{sequence},\
               \"records\":[{{\"value\":\"eA==\"}}]}}' \"https://$NODE/v1/topics/orders/records\" 2>/dev/null && break; \
             done"
        );
        shell(cluster, position, &line)["base_offset"].as_u64()
    };
    assert_eq!(append(&cluster, others[0], 0), Some(0));
    cluster.node(leader).kill();
    assert_eq!(append(&cluster, others[1], 1), Some(1));
    assert_eq!(append(&cluster, others[0], 1), Some(1), "the same again");
    assert_same_bytes(&consume(&cluster, "orders"), b"x\nx\n");
}
