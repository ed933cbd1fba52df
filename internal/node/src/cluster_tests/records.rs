//! Records in, records out, through every room.

use super::*;
use highwater_proto::v1::list_offsets_request::Position;
use highwater_proto::v1::produce_stream_response::Result as Answered;
use tokio_stream::StreamExt;

/// A cluster with one topic, the number of its partition's leader, and that of a follower.
async fn with_topic(topic: &str) -> (TestCluster, usize, usize) {
    let cluster = TestCluster::founded().await;
    let created = cluster.client(0, "shop").await.create(topic, 1).await;
    let leader = TestCluster::number(&created.partitions[0].leader);
    (cluster, leader, (leader + 1) % 3)
}

fn from(topic: &str, offset: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest {
        topic: topic.to_owned(),
        offset,
        ..Default::default()
    }
}

/// Sends the same requests to one node after the other until one that leads throughout has answered. What an earlier
/// one has appended is answered as a duplicate, at the same offset.
async fn stream_until_led(cluster: &TestCluster, requests: Vec<v1::ProduceRequest>) -> Vec<v1::ProduceStreamResponse> {
    let not_led = |answer: &v1::ProduceStreamResponse| match answer.result.as_ref().unwrap() {
        Answered::Error(detail) => matches!(
            detail.reason(),
            v1::Reason::NotLeader | v1::Reason::NoQuorum | v1::Reason::UnknownOutcome | v1::Reason::Unavailable
        ),
        Answered::Appended(_) => false,
    };
    let attempts = async {
        for number in (0..3).cycle() {
            let mut client = cluster.client(number, "shop").await;
            let answered = client.log.produce_stream(tokio_stream::iter(requests.clone())).await;
            let answers: Vec<v1::ProduceStreamResponse> =
                answered.unwrap().into_inner().map(Result::unwrap).collect().await;
            if !answers.iter().any(not_led) {
                return answers;
            }
        }
        unreachable!("the cycle has no end");
    };
    timeout(PATIENCE, attempts).await.unwrap()
}

fn offset_of(topic: &str, position: Position) -> v1::ListOffsetsRequest {
    v1::ListOffsetsRequest {
        topic: topic.to_owned(),
        position: Some(position),
        ..Default::default()
    }
}

/// The offset of that position; without a leader at this very moment nobody can confirm it, nor before the replica there is open.
async fn found(client: &mut TestClient, topic: &str, position: Position) -> u64 {
    let confirmed = async {
        loop {
            match client.log.list_offsets(offset_of(topic, position)).await {
                Ok(answer) => return answer.into_inner().offset,
                Err(status) => {
                    let passing = [v1::Reason::NoQuorum, v1::Reason::Unavailable];
                    assert!(passing.contains(&reason(&status)), "{status}");
                }
            }
        }
    };
    timeout(PATIENCE, confirmed).await.unwrap()
}

async fn latest(client: &mut TestClient, topic: &str) -> u64 {
    found(client, topic, Position::Latest(true)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_edge_of_a_log_is_told_by_a_node_that_cannot_confirm_it() {
    let (mut cluster, leader, follower) = with_topic("orders").await;
    cluster
        .produce("shop", batch_of("orders", 0, &["one", "two"]))
        .await
        .unwrap();
    let edges = [Position::Earliest(true), Position::Latest(true)];
    for number in 0..3 {
        let mut client = cluster.client(number, "shop").await;
        for (edge, offset) in edges.into_iter().zip([0, 2]) {
            assert_eq!(found(&mut client, "orders", edge).await, offset, "node {number}");
        }
    }
    for number in [leader, 3 - leader - follower] {
        cluster.stop(number).await;
    }
    let mut client = cluster.client(follower, "shop").await;
    for edge in edges {
        let status = client.log.list_offsets(offset_of("orders", edge)).await.unwrap_err();
        // After ten seconds without the others it serves nobody.
        let expected = [v1::Reason::NoQuorum, v1::Reason::Unavailable];
        assert!(expected.contains(&reason(&status)), "{edge:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_leader_takes_a_follower_serves_and_then_follows_the_tail() {
    let (cluster, leader, follower) = with_topic("orders").await;
    let first = cluster.produce("shop", batch_of("orders", 0, &["one", "two"])).await;
    assert_eq!(first.unwrap().base_offset, 0);

    let mut consumer = cluster.client(follower, "shop").await;
    let mut stream = consumer.log.consume(from("orders", 0)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let response = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(response.node, NAMES[follower]);
        seen.extend(values_of(&response));
    }
    // The stream waits at the end, and wakes with the next commit.
    let third = cluster.produce("shop", batch_of("orders", 1, &["three"])).await;
    assert_eq!(third.unwrap().base_offset, 2);
    let response = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
    seen.extend(values_of(&response));
    assert_eq!(seen, ["one", "two", "three"]);

    // A retry is answered as the first try was.
    let again = cluster
        .produce("shop", batch_of("orders", 1, &["three"]))
        .await
        .unwrap();
    assert_eq!((again.base_offset, again.duplicate), (2, true));
    assert_eq!(latest(&mut consumer, "orders").await, 3);

    // The counters say who served what.
    let described = consumer.describe().await;
    let served = |name: &str| {
        described
            .replicas
            .iter()
            .find(|replica| replica.node == name)
            .unwrap_or_else(|| panic!("{name} is not in {described:?}"))
            .records_served
    };
    assert_eq!((served(NAMES[follower]), served(NAMES[leader])), (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_in_order_and_a_refused_batch_does_not_end_it() {
    let (cluster, _, _) = with_topic("orders").await;
    let mut requests: Vec<v1::ProduceRequest> = (0..6).map(|sequence| batch_of("orders", sequence, &["x"])).collect();
    requests[3].record_count = 9; // Refused at once, while those before it are being synced.
    requests[4].sequence = 3;
    requests[5].sequence = 4;
    let answers = stream_until_led(&cluster, requests).await;
    let ids: Vec<u64> = answers.iter().map(|answer| answer.request_id).collect();
    assert_eq!(ids, [0, 1, 2, 3, 4, 5]);
    let offsets: Vec<Option<u64>> = answers
        .iter()
        .map(|answer| match answer.result.as_ref().unwrap() {
            Answered::Appended(appended) => Some(appended.base_offset),
            Answered::Error(detail) => {
                assert_eq!(detail.reason(), v1::Reason::CorruptBatch);
                None
            }
        })
        .collect();
    assert_eq!(offsets, [Some(0), Some(1), Some(2), None, Some(3), Some(4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_outlive_the_stop_of_all_nodes_and_a_leader_that_stops_is_replaced() {
    let (mut cluster, leader, _) = with_topic("orders").await;
    cluster.produce("shop", batch_of("orders", 0, &["kept"])).await.unwrap();
    cluster.stop(leader).await;
    let again = cluster.produce("shop", batch_of("orders", 0, &["kept"])).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));

    for number in (0..3).filter(|number| *number != leader) {
        cluster.stop(number).await;
    }
    for number in 0..3 {
        cluster.start(number).await;
    }
    for number in 0..3 {
        cluster.ready(number).await;
    }
    for (number, name) in NAMES[..3].iter().enumerate() {
        let mut client = cluster.client(number, "shop").await;
        let mut request = from("orders", 0);
        request.freshness = Some(v1::Freshness {
            kind: Some(v1::freshness::Kind::MinOffset(1)),
        });
        let mut stream = client.log.consume(request).await.unwrap().into_inner();
        let response = timeout(PATIENCE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(values_of(&response), ["kept"], "on {name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_sees_everything_first_then_changes_and_the_draining() {
    let mut cluster = TestCluster::founded().await;
    let mut watcher = cluster.client(2, "shop").await;
    let watched = watcher.cluster.watch_cluster(v1::WatchClusterRequest {}).await.unwrap();
    let mut changes = watched.into_inner();
    let first = timeout(PATIENCE, changes.next()).await.unwrap().unwrap().unwrap();
    assert!(
        first.full && first.nodes.len() == 3 && first.topics.is_empty(),
        "{first:?}"
    );
    cluster.client(0, "other").await.create("secret", 1).await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    let led = async {
        loop {
            let change = changes.next().await.unwrap().unwrap();
            assert!(change.topics.iter().all(|topic| topic.tenant == "shop"), "{change:?}");
            if change.topics.iter().any(|topic| !topic.partitions[0].leader.is_empty()) {
                return;
            }
        }
    };
    timeout(PATIENCE, led).await.unwrap();
    let node = cluster.nodes[2].take().unwrap();
    let drained = async {
        let mut draining = false;
        while let Some(change) = changes.next().await {
            draining |= change.is_ok_and(|change| change.draining);
        }
        draining
    };
    let (drained, ()) = futures::future::join(timeout(PATIENCE, drained), Box::pin(node.shutdown())).await;
    assert!(drained.unwrap(), "the stream ended without saying that the node drains");
}
