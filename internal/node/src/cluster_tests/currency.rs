//! Nodes that hear nothing from a quorum of the catalog serve no clients.

use highwater_proto::v1::group_service_client::GroupServiceClient;
use highwater_proto::v1::produce_stream_response::Result as Produced;
use highwater_proto::{FILE_DESCRIPTOR_SET, detail};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::gateway::records;
use super::http_client::request;
use super::raw_client::{call, methods};
use super::*;
use crate::test_node::eventually;

/// Shorter than outside of tests. A busy machine may exceed it now and then: whatever is to succeed is tried again.
const STALE_AFTER: Duration = Duration::from_secs(3);

/// Three nodes that do not go on for long by what they know, and topic `orders` with a record.
async fn impatient() -> TestCluster {
    let mut cluster = TestCluster::new();
    cluster.pace.stale_after = STALE_AFTER;
    cluster.found().await;
    let is_set_up = |catalog: &highwater_catalog::Catalog| {
        catalog.access().is_set_up() && catalog.feature_level() == highwater_catalog::FEATURE_LEVEL
    };
    cluster.until_everywhere("the first policy", is_set_up).await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    cluster.produce("shop", batch_of("orders", 0, &["one"])).await.unwrap();
    cluster
}

#[track_caller]
fn is_refusal(status: &Status) {
    assert_eq!(
        (status.code(), reason(status)),
        (Code::Unavailable, Reason::Unavailable)
    );
    let why = status.message();
    assert!(why.contains("has not heard from a quorum of the catalog for"), "{why}");
}

/// Waits until an open stream ends, and gives what it ends with.
pub(super) async fn end<T>(mut stream: Streaming<T>) -> Status {
    let ending = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends without a word"),
                Err(status) => return status,
            }
        }
    };
    timeout(PATIENCE, ending).await.expect("it goes on")
}

impl TestCluster {
    /// The node that leads the topic, by its own account.
    async fn leader_of_orders(&self) -> usize {
        let leading = async {
            loop {
                for (number, name) in NAMES[..3].iter().enumerate() {
                    let mut client = self.client(number, "shop").await;
                    let request = v1::GetTopicRequest {
                        topic: "orders".to_owned(),
                    };
                    if let Ok(answer) = client.topics.get_topic(request).await
                        && answer.into_inner().topic.unwrap().partitions[0].leader == *name
                    {
                        return number;
                    }
                }
            }
        };
        timeout(PATIENCE, leading).await.expect("nobody leads")
    }
}

fn join() -> v1::JoinGroupRequest {
    let join = v1::Join {
        topic: "orders".to_owned(),
        group: "billing".to_owned(),
        member: "worker".to_owned(),
        session_ms: 60_000,
        release_ms: 60_000,
        ..Default::default()
    };
    v1::JoinGroupRequest {
        message: Some(v1::join_group_request::Message::Join(join)),
    }
}

/// A leader, for its partitions have streams of every kind and it does not step down: nothing else would end them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_from_the_catalog_s_quorum_ends_all_streams_and_refuses_all_calls() {
    let cluster = impatient().await;
    let leader = cluster.leader_of_orders().await;
    let mut client = cluster.client(leader, "shop").await;
    let from_start = v1::ConsumeRequest {
        topic: "orders".to_owned(),
        ..Default::default()
    };
    let consumed = client.log.consume(from_start).await.unwrap().into_inner();
    let watched = client.cluster.watch_cluster(v1::WatchClusterRequest {}).await.unwrap();
    let (joining, joins) = mpsc::channel(1);
    joining.send(join()).await.unwrap();
    let mut groups = GroupServiceClient::new(client.channel.clone());
    let joined = groups.join_group(ReceiverStream::new(joins)).await.unwrap();
    let (producing, batches) = mpsc::channel(1);
    producing.send(batch_of("orders", 1, &["two"])).await.unwrap();
    let produced = client.log.produce_stream(ReceiverStream::new(batches)).await.unwrap();
    let mut produced = produced.into_inner();
    let first = timeout(PATIENCE, produced.message()).await.unwrap().unwrap().unwrap();
    assert!(matches!(first.result, Some(Produced::Appended(_))), "{first:?}");

    cluster.nodes[leader].as_ref().unwrap().link().shutdown();
    is_refusal(&end(consumed).await);
    is_refusal(&end(watched.into_inner()).await);
    // A coordinator notices by itself, and mostly before, that nobody follows it.
    assert_ne!(end(joined.into_inner()).await.code(), Code::Ok);
    is_refusal(&end(produced).await);
    refuses_everything(&cluster, leader).await;
    drop((joining, producing));

    // The others go on, and so does the partition.
    for number in (0..3).filter(|number| *number != leader) {
        cluster.serves(number).await;
    }
}

/// Every method of every caller but health and reflection, and the gateway.
async fn refuses_everything(cluster: &TestCluster, number: usize) {
    for tenant in ["shop", "strangers", OPERATOR_TENANT] {
        let client = cluster.client(number, tenant).await;
        for method in methods(FILE_DESCRIPTOR_SET) {
            let answer = call(&client.channel, &method, Bytes::new()).await;
            is_refusal(&answer.expect_err(&method.path));
        }
        for method in methods(tonic_health::pb::FILE_DESCRIPTOR_SET) {
            let answer = call(&client.channel, &method, Bytes::new()).await;
            assert!(matches!(answer, Ok(Some(_))), "{method:?}: {answer:?}");
        }
    }
    let mut http = cluster.http(number, "shop").await;
    http.get("/v1").await.ok("Index");
    http.get("/v1/topics/orders/records").await.refused(503, "UNAVAILABLE");
    http.post("orders", &records(&["x"])).await.refused(503, "UNAVAILABLE");
    let node = cluster.nodes[number].as_ref().unwrap();
    let says_so = || node.not_ready().is_some_and(|why| why.contains("answers no clients"));
    eventually("it says so", says_so).await;
}

impl TestCluster {
    /// Waits until a node serves a client.
    async fn serves(&self, number: usize) {
        let mut client = self.client(number, "shop").await;
        let serving = async {
            loop {
                let request = v1::ListTopicsRequest::default();
                match client.topics.list_topics(request).await {
                    Ok(listed) => return assert_eq!(listed.into_inner().topics.len(), 1),
                    Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, serving).await.expect("it serves nobody");
    }

    /// Waits until a node refuses a client.
    async fn refuses(&self, number: usize) {
        let mut client = self.client(number, "shop").await;
        let refusing = async {
            loop {
                let who = v1::DescribeClusterRequest {};
                if let Err(status) = client.cluster.describe_cluster(who).await {
                    return is_refusal(&status);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, refusing).await.expect("it goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_of_the_catalog_nobody_is_served_and_with_it_everybody_again() {
    let mut cluster = impatient().await;
    cluster.stop(1).await;
    cluster.stop(2).await;
    cluster.refuses(0).await;
    // What is on its disk may be old.
    cluster.stop(0).await;
    cluster.start(0).await;
    let mut client = cluster.client(0, "shop").await;
    let status = client
        .topics
        .list_topics(v1::ListTopicsRequest::default())
        .await
        .unwrap_err();
    let why = detail::from_status(&status).unwrap().message;
    assert!(
        why.contains("has not heard from a quorum of the catalog since it started"),
        "{why}"
    );
    cluster.start(1).await;
    for number in 0..2 {
        cluster.serves(number).await;
        cluster.ready(number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_the_gateway_that_waits_ends_with_what_it_stands_on() {
    let cluster = impatient().await;
    let leader = cluster.leader_of_orders().await;
    let mut waiting = cluster.http(leader, "shop").await;
    let target = "/v1/topics/orders/records?offset=100&wait_ms=30000";
    waiting.send(&request("GET", target, "")).await;
    cluster.nodes[leader].as_ref().unwrap().link().shutdown();
    let begin = std::time::Instant::now();
    waiting.answer().await.refused(503, "UNAVAILABLE");
    assert!(begin.elapsed() < Duration::from_secs(25), "it has waited for records");
}
