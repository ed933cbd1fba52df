//! Services whose cluster is not there: they answer that they live, and end when they are told to.

use highwater_tests::{Program, TestCluster, eventually, http, run};
use serde_json::Value;
use tokio::runtime::Runtime;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::processes::{DEADLINE, health, start, users};

#[test]
fn services_answer_before_they_reach_the_cluster_and_end_when_they_are_told_to() {
    let cluster = TestCluster::prepare(1);
    let runtime = Runtime::new().unwrap();
    let mut page = start(&cluster, "metrics", &["metrics"]);
    let mut email = start(&cluster, "email", &["email"]);
    let server = start(&cluster, "serve", &["serve"]);

    let address = page.address("page");
    for path in ["/", "/months.json"] {
        let text = http::get(&address, path).is(503).text;
        assert!(text.contains("still being counted"), "{text}");
    }
    for address in [address, email.address("health over gRPC")] {
        assert_eq!(
            runtime.block_on(health(&address)),
            ServingStatus::NotServing,
            "{address}"
        );
    }
    for mut service in [page, email, server] {
        is_not_ready(&mut service);
        service.stop();
    }
}

fn is_not_ready(service: &mut Program) {
    let metrics = service.address("metrics");
    http::get(&metrics, "/livez").is(200);
    http::get(&metrics, "/metrics").is(200);
    let text = http::get(&metrics, "/readyz").is(503).text;
    assert!(text.starts_with("waiting for user"), "{text}");
}

#[test]
fn a_service_begins_as_soon_as_the_cluster_is_there_however_late_that_is() {
    let mut cluster = TestCluster::prepare(1);
    let mut page = start(&cluster, "metrics", &["metrics"]);
    eventually("it has tried in vain", DEADLINE, || {
        let log = page.log();
        (log.contains("no node of the cluster could be reached") && log.contains("trying again")).then_some(())
    });
    cluster.node(0).start();
    page.wait_ready();
    page.stop();
}

#[test]
fn the_last_error_is_a_line_of_the_log() {
    let cluster = TestCluster::prepare(1);
    for service in ["serve", "metrics", "email"] {
        let mut command = users(&cluster, &[service, "--port", "0", "--metrics-port", "0"]);
        command
            .env("HIGHWATER_CONFIG", "/nowhere/profile.toml")
            .env("LOG_FORMAT", "json");
        let ended = run(&mut command, DEADLINE);
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        let lines: Vec<Value> = ended
            .stderr
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let last = lines.last().unwrap();
        assert_eq!(last["level"], "ERROR", "{last}");
        assert!(
            last["message"].as_str().unwrap().contains("/nowhere/profile.toml"),
            "{last}"
        );
    }
}
