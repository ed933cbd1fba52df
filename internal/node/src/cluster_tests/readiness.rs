//! Ready, alive, and why not.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::metrics::until;
use super::*;
use crate::Failure;
use crate::test_ca::Wanted;
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

/// Starts a node whose certificate is good for a few seconds.
async fn short_lived(cluster: &TestCluster) -> NodeHandle {
    let mut seconds = 4;
    loop {
        let config = cluster.config(0);
        let soon = Wanted {
            uris: vec![format!("spiffe://{CLUSTER}/node/{}", NAMES[0])],
            dns_names: vec!["localhost".to_owned()],
            seconds: Some(seconds),
            ..Wanted::default()
        };
        cluster.ca.issue(NAMES[0], &soon);
        match Box::pin(Node::start_at(config, cluster.pace)).await {
            Ok(node) => return node,
            // On a busy machine it may be over before the node has started.
            Err(error) => assert!(seconds < 60 && error.to_string().contains("expired"), "{error}"),
        }
        seconds *= 2;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_certificate_expires_is_not_ready_and_says_so_until_it_has_another() {
    let cluster = with_admin();
    let node = short_lived(&cluster).await;
    let says = async |why: &str| node.not_ready().as_deref() == Some(why);
    until("it has expired", || says("its certificate has expired")).await;
    let (code, body) = ask(&node, "/readyz").await;
    let begins = body.starts_with("not ready: its certificate has expired\nnotice: its certificate expired on ");
    assert!(code == 503 && begins, "{code} {body}");
    assert_eq!(ask(&node, "/livez").await, (200, "live".to_owned()));
    let connector =
        tokio_rustls::TlsConnector::from(Arc::new(client_config(cluster.ca.client_files("shop", "tester"))));
    // To its clients its last second is still good.
    until("clients refuse it", async || {
        let tcp = TcpStream::connect(("127.0.0.1", cluster.ports[0])).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let refused = connector.connect(name, tcp).await.err();
        refused.is_some_and(|error| error.to_string().contains("expired"))
    })
    .await;

    // Nobody tells the node of it.
    cluster.ca.node_files(CLUSTER, NAMES[0]);
    until("it has another", || says("it has not found its cluster yet")).await;
    assert_eq!(
        health(&cluster.client(0, "shop").await, "live").await,
        ServingStatus::Serving
    );
    node.shutdown().await;
}
