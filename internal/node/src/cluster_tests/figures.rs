//! What Prometheus is told of refusals, of connections, and of the use of quotas.

use futures::future::join_all;
use highwater_catalog::Limit;

use super::metrics::{add_group, metrics, until, value, with_a_record};
use super::*;

/// A figure that a node tells.
async fn told(cluster: &TestCluster, number: usize, series: &str) -> Option<f64> {
    value(&metrics(cluster, number).await, series)
}

async fn refusals(cluster: &TestCluster, number: usize, reason: &str) -> f64 {
    let series = format!("highwater_refusals_total{{reason=\"{reason}\"}}");
    told(cluster, number, &series).await.unwrap()
}

async fn open(cluster: &TestCluster, kind: &str) -> f64 {
    let series = format!("highwater_connections{{kind=\"{kind}\"}}");
    told(cluster, 1, &series).await.unwrap()
}

/// Wherever it is refused: by a handler, on a stream, at the end of one, before any handler, or by the library.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_refusal_of_a_call_is_counted_once_and_by_its_reason() {
    let cluster = with_a_record().await;
    let mut client = cluster.client(0, "shop").await;
    let before = refusals(&cluster, 0, "TOPIC_NOT_FOUND").await;
    let nowhere = v1::GetTopicRequest {
        topic: "nowhere".to_owned(),
    };
    let refused = client.topics.get_topic(nowhere).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TopicNotFound);
    assert_eq!(refusals(&cluster, 0, "TOPIC_NOT_FOUND").await, before + 1.0);

    let mut too_large = batch_of("orders", 1, &["x"]);
    too_large.batch = vec![0; highwater_proto::limits::MESSAGE_BYTES_MAX + 1].into();
    let requests = [batch_of("nowhere", 0, &["x"]), too_large.clone()];
    let sent = client.log.produce_stream(tokio_stream::iter(requests)).await.unwrap();
    let mut answers = sent.into_inner();
    answers.message().await.unwrap().expect("an answer");
    assert_eq!(refusals(&cluster, 0, "TOPIC_NOT_FOUND").await, before + 2.0);
    assert_eq!(reason(&answers.message().await.unwrap_err()), Reason::TooLarge);
    assert_eq!(refusals(&cluster, 0, "TOO_LARGE").await, 1.0);

    let refused = client.log.produce(too_large).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::TooLarge);
    assert_eq!(refusals(&cluster, 0, "TOO_LARGE").await, 2.0);

    let drain = v1::DrainNodeRequest {
        node: "b".to_owned(),
        ..Default::default()
    };
    let refused = client.cluster.drain_node(drain).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::PermissionDenied);
    assert_eq!(refusals(&cluster, 0, "PERMISSION_DENIED").await, 1.0);
    for other in [1, 2] {
        assert_eq!(refusals(&cluster, other, "PERMISSION_DENIED").await, 0.0);
    }
}

/// Also if the node that leads says no, and another one passes it on: that one gave the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_gateway_is_counted_by_the_node_that_was_asked() {
    let cluster = with_a_record().await;
    let mut body = super::gateway::records(&["x"]);
    body["partition"] = 0.into();
    body["expected_offset"] = 7.into();
    let ask = async |number: usize| {
        let mut client = cluster.http(number, "shop").await;
        // Until there is a leader.
        while client.post("orders", &body).await.status != 412 {}
    };
    let asking = join_all((0..3).map(ask));
    timeout(PATIENCE, asking).await.unwrap();
    for number in 0..3 {
        assert_eq!(refusals(&cluster, number, "OFFSET_MISMATCH").await, 1.0, "on {number}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_connections_are_told_by_what_they_are_for() {
    let cluster = with_a_record().await;
    until("nobody is there yet", async || {
        (open(&cluster, "client").await, open(&cluster, "gateway").await) == (0.0, 0.0)
    })
    .await;
    let clients = [cluster.client(1, "shop").await, cluster.client(1, "other").await];
    let http = cluster.http(1, "shop").await;
    until("two clients and one of the gateway", async || {
        (open(&cluster, "client").await, open(&cluster, "gateway").await) == (2.0, 1.0)
    })
    .await;
    assert!(open(&cluster, "peer").await >= 2.0, "with both other nodes");
    assert!(open(&cluster, "admin").await >= 1.0, "whoever asks this");
    drop((clients, http));
    until("they have gone", async || {
        (open(&cluster, "client").await, open(&cluster, "gateway").await) == (0.0, 0.0)
    })
    .await;
    until("nobody but us asks", async || open(&cluster, "admin").await == 1.0).await;
}

/// The metric that tells how much is used of it.
fn use_of(limit: Limit) -> &'static str {
    match limit {
        Limit::ProduceBytesPerSecond => "highwater_tenant_produce_bytes_total",
        Limit::ConsumeBytesPerSecond => "highwater_tenant_consume_bytes_total",
        Limit::RequestsPerSecond => "highwater_tenant_requests_total",
        Limit::Connections => "highwater_tenant_connections",
        Limit::Streams => "highwater_tenant_streams",
        Limit::Topics => "highwater_tenant_topics",
        Limit::Partitions => "highwater_tenant_partitions",
        Limit::Groups => "highwater_tenant_groups",
        Limit::StoredBytes => "highwater_tenant_stored_bytes",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_every_kind_of_quota_the_use_is_told() {
    let cluster = with_a_record().await;
    cluster.client(0, "shop").await.create("bills", 2).await;
    add_group(&cluster).await;
    let all = async |limit: Limit| {
        let series = format!("{}{{tenant=\"shop\"}}", use_of(limit));
        let asked = (0..3).map(|number| told(&cluster, number, &series));
        join_all(asked).await.into_iter().flatten().collect::<Vec<f64>>()
    };
    until("all three nodes know the topics", async || {
        all(Limit::Topics).await == [2.0; 3] && all(Limit::Partitions).await == [3.0; 3]
    })
    .await;
    until("the group is counted where there are replicas", async || {
        all(Limit::Groups).await == [1.0; 3]
    })
    .await;
    until("somebody leads what is stored", async || {
        all(Limit::StoredBytes).await.iter().sum::<f64>() > 0.0
    })
    .await;
    for limit in Limit::ALL {
        let told = all(limit).await;
        assert!(!told.is_empty(), "{limit}");
    }
}
