//! Ready, alive, and why not.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::Failure;
use crate::test_node::eventually;

/// A cluster whose nodes have admin listeners.
pub(super) fn with_admin() -> TestCluster {
    TestCluster {
        admin_listen: "127.0.0.1:0",
        ..TestCluster::new()
    }
}

/// The status line's code and the body of an answer of the admin listener.
pub(super) async fn ask(node: &NodeHandle, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(node.admin_address().unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut response))
        .await
        .unwrap()
        .unwrap();
    let code = response.split(' ').nth(1).unwrap().parse().unwrap();
    let body = response.split("\r\n\r\n").nth(1).unwrap();
    (code, body.trim_end().to_owned())
}

async fn health(client: &TestClient, service: &str) -> ServingStatus {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(client.channel.clone()).check(request).await;
    answer.unwrap().into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_its_cluster_is_alive_not_ready_and_says_why() {
    let mut cluster = with_admin();
    cluster.start(0).await;
    let client = cluster.client(0, "shop").await;
    let node = cluster.nodes[0].as_ref().unwrap();
    eventually("its directory is empty, and it looks for the others", || {
        node.not_ready().as_deref() == Some("it has not found its cluster yet")
    })
    .await;
    let why = "not ready: it has not found its cluster yet".to_owned();
    assert_eq!(ask(node, "/readyz").await, (503, why));
    assert_eq!(ask(node, "/livez").await, (200, "live".to_owned()));
    assert_eq!(health(&client, "live").await, ServingStatus::Serving);
    assert_eq!(health(&client, "").await, ServingStatus::NotServing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_description_says_of_each_node_whether_it_is_ready() {
    let mut cluster = with_admin();
    cluster.found().await;
    let mut client = cluster.client(0, "shop").await;
    let described = client.describe().await;
    for node in &described.nodes {
        assert_eq!(node.not_ready, "", "{node:?}");
    }
    assert_eq!(
        ask(cluster.nodes[0].as_ref().unwrap(), "/readyz").await,
        (200, "ready".to_owned())
    );
    assert_eq!(health(&client, "").await, ServingStatus::Serving);
    cluster.stop(2).await;
    let described = client.describe().await;
    let told = |name: &str| {
        described
            .nodes
            .iter()
            .find(|node| node.name == name)
            .unwrap()
            .not_ready
            .clone()
    };
    assert_eq!((told("b").as_str(), told("c").as_str()), ("", "it does not answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_that_dies_ends_the_node_which_is_not_ready_by_then() {
    let mut cluster = with_admin();
    cluster.found().await;
    let victim = cluster.nodes[2].as_ref().unwrap();
    victim.host().breaks.store(true, Ordering::SeqCst);
    cluster.client(0, "shop").await.create("orders", 1).await;
    let failure = timeout(PATIENCE, victim.failed()).await.unwrap();
    assert!(matches!(failure, Failure::Replica { group: 0, .. }), "{failure:?}");
    let why = victim.not_ready().unwrap();
    assert!(
        why.starts_with("it cannot go on: ") && why.contains("the machine panicked"),
        "{why}"
    );
    let (code, body) = ask(victim, "/readyz").await;
    assert!(code == 503 && body.contains("it cannot go on"), "{code} {body}");
    assert_eq!(ask(victim, "/livez").await.0, 200);
}
