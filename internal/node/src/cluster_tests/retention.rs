//! Records that are let go of: by age, by size, and who sleeps through it.

use super::*;
use tokio_stream::StreamExt;

/// Bytes of one batch of the larger topics.
const BATCH_BYTES: usize = 900_000;

async fn create(cluster: &TestCluster, topic: &str, retention_ms: u64, retention_bytes: u64) {
    let request = v1::CreateTopicRequest {
        topic: topic.to_owned(),
        partitions: 1,
        replication: 3,
        config: Some(v1::TopicConfig {
            retention_ms: Some(retention_ms),
            retention_bytes: Some(retention_bytes),
        }),
    };
    let mut client = cluster.client(0, "shop").await;
    client.topics.create_topic(request).await.unwrap();
}

/// Waits until all of this many replicas of `topic` satisfy the condition.
async fn until(cluster: &TestCluster, count: usize, topic: &str, holds: impl Fn(&v1::ReplicaStatus) -> bool) {
    let waiting = async {
        loop {
            for number in (0..3).filter(|number| cluster.nodes[*number].is_some()) {
                let described = cluster.client(number, "shop").await.describe().await;
                let replicas = described.replicas.iter().filter(|replica| replica.topic == topic);
                if replicas.filter(|replica| holds(replica)).count() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .expect("the replicas do not come to it");
}

async fn consume(cluster: &TestCluster, number: usize, topic: &str, offset: u64) -> Result<Vec<String>, tonic::Status> {
    let request = v1::ConsumeRequest {
        topic: topic.to_owned(),
        offset,
        freshness: Some(v1::Freshness {
            kind: Some(v1::freshness::Kind::MinOffset(offset + 1)),
        }),
        ..Default::default()
    };
    let answered = cluster.client(number, "shop").await.log.consume(request).await?;
    let response = answered.into_inner().next().await.unwrap()?;
    Ok(values_of(&response))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_older_than_their_topic_keeps_go_from_all_replicas_and_readers_hear_what_is_left() {
    let cluster = TestCluster::founded().await;
    create(&cluster, "orders", 1, 0).await;
    create(&cluster, "kept", 0, 0).await;
    let large = "x".repeat(BATCH_BYTES);
    for topic in ["orders", "kept"] {
        cluster.produce("shop", batch_of(topic, 0, &[&large])).await.unwrap();
        cluster.produce("shop", batch_of(topic, 1, &["b", "c"])).await.unwrap();
    }
    until(&cluster, 3, "orders", |replica| replica.log_start == 3).await;
    for number in 0..3 {
        let refused = consume(&cluster, number, "orders", 0).await.unwrap_err();
        let detail = highwater_proto::detail::from_status(&refused).unwrap();
        assert_eq!(detail.reason(), Reason::OffsetOutOfRange);
        assert_eq!(
            detail.range.map(|range| (range.log_start, range.high_watermark)),
            Some((3, 3))
        );
    }
    // Also the room comes back, although nothing more is written.
    until(&cluster, 3, "orders", |replica| replica.bytes < 10_000).await;
    until(&cluster, 3, "kept", |replica| {
        replica.log_start == 0 && replica.bytes > BATCH_BYTES as u64
    })
    .await;
    let answer = cluster.produce("shop", batch_of("orders", 2, &["d"])).await.unwrap();
    assert_eq!(
        answer.base_offset, 3,
        "offsets go on where they were, and producers are remembered"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_slept_through_a_trim_by_size_is_brought_up_behind_it() {
    let mut cluster = TestCluster::founded().await;
    create(&cluster, "orders", 0, 5_000_000).await;
    cluster
        .produce("shop", batch_of("orders", 0, &["first"]))
        .await
        .unwrap();
    until(&cluster, 3, "orders", |replica| replica.high_watermark == 1).await;
    cluster.stop(2).await;
    let large = "x".repeat(BATCH_BYTES);
    for sequence in 1..20 {
        cluster
            .produce("shop", batch_of("orders", sequence, &[&large]))
            .await
            .unwrap();
    }
    let kept = |replica: &v1::ReplicaStatus| replica.log_start > 1 && replica.bytes < 10_000_000;
    until(&cluster, 2, "orders", kept).await;
    let refused = consume(&cluster, 0, "orders", 0).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::OffsetOutOfRange);
    cluster.start(2).await;
    until(&cluster, 3, "orders", |replica| {
        kept(replica) && replica.high_watermark == 20
    })
    .await;
    cluster
        .produce("shop", batch_of("orders", 20, &["last"]))
        .await
        .unwrap();
    assert_eq!(consume(&cluster, 2, "orders", 20).await.unwrap(), ["last"]);
    let trimmed = consume(&cluster, 2, "orders", 0).await.unwrap_err();
    assert_eq!(reason(&trimmed), Reason::OffsetOutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_the_time_of_their_append() {
    let cluster = TestCluster::founded().await;
    create(&cluster, "orders", 0, 0).await;
    let first = cluster
        .produce("shop", batch_of("orders", 0, &["a", "b"]))
        .await
        .unwrap();
    while crate::clock::now_ms() <= first.append_time_ms {
        tokio::task::yield_now().await;
    }
    let second = cluster.produce("shop", batch_of("orders", 1, &["c"])).await.unwrap();
    assert!(second.append_time_ms > first.append_time_ms);
    for number in 0..3 {
        let mut client = cluster.client(number, "shop").await;
        for (time_ms, expected) in [
            (0, 0),
            (first.append_time_ms, 0),
            (first.append_time_ms + 1, 2),
            (second.append_time_ms, 2),
            (second.append_time_ms + 1, 3),
            (u64::MAX, 3),
        ] {
            let request = v1::ListOffsetsRequest {
                topic: "orders".to_owned(),
                position: Some(v1::list_offsets_request::Position::TimestampMs(time_ms)),
                ..Default::default()
            };
            let found = client.log.list_offsets(request).await.unwrap().into_inner();
            assert_eq!(found.offset, expected, "time {time_ms} on {number}");
        }
    }
}
