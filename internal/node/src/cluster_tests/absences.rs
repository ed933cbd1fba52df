//! Nodes that were away while something happened, or that come back damaged.

use super::*;
use tokio_stream::StreamExt;

fn in_partition(partition: u32, request: v1::ProduceRequest) -> v1::ProduceRequest {
    v1::ProduceRequest { partition, ..request }
}

/// The values of the first record on, as one node serves them once it has that record.
async fn first_values(cluster: &TestCluster, number: usize, topic: &str, partition: u32) -> Vec<String> {
    let request = v1::ConsumeRequest {
        topic: topic.to_owned(),
        partition,
        freshness: Some(v1::Freshness {
            kind: Some(v1::freshness::Kind::MinOffset(1)),
        }),
        ..Default::default()
    };
    let read = async {
        loop {
            let mut client = cluster.client(number, "shop").await;
            let Ok(answered) = client.log.consume(request.clone()).await else {
                continue; // its replica is being made
            };
            if let Some(Ok(response)) = answered.into_inner().next().await {
                return values_of(&response);
            }
        }
    };
    timeout(PATIENCE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_while_a_node_is_away_is_led_by_the_others_and_the_node_takes_part_later() {
    let mut cluster = TestCluster::founded().await;
    cluster.stop(0).await;
    let created = cluster.client(1, "shop").await.create("orders", 3).await;
    let preferred: Vec<&str> = created.partitions.iter().map(|p| p.replicas[0].as_str()).collect();
    assert!(preferred.contains(&"a"), "{preferred:?}");
    for partition in 0..3 {
        let request = in_partition(partition, batch_of("orders", 0, &["kept"]));
        cluster.produce("shop", request).await.unwrap();
    }
    cluster.start(0).await;
    for partition in 0..3 {
        assert_eq!(first_values(&cluster, 0, "orders", partition).await, ["kept"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_died_with_their_disk_are_described_as_dead() {
    let mut cluster = TestCluster::founded().await;
    cluster.client(0, "shop").await.create("orders", 2).await;
    cluster.client(0, "other").await.create("secret", 1).await;
    cluster.stop(2).await;
    cluster.wipe(2);
    cluster.start(2).await;
    cluster.ready(2).await;
    let dead = |described: &v1::DescribeClusterResponse| -> Vec<(String, u32, String)> {
        let dead = described.replicas.iter().filter(|replica| replica.role == "dead");
        dead.map(|dead| (dead.topic.clone(), dead.partition, dead.node.clone()))
            .collect()
    };
    let expected = [0, 1].map(|partition| ("orders".to_owned(), partition, "c".to_owned()));
    for number in 0..3 {
        let mut client = cluster.client(number, "shop").await;
        // A node may hear of the new incarnation a little later, and a busy one be left out of a description.
        let all_six = async {
            loop {
                let described = client.describe().await;
                if dead(&described) == expected && described.replicas.len() == 6 {
                    return described;
                }
            }
        };
        let described = timeout(PATIENCE, all_six).await.unwrap();
        assert!(described.replicas.iter().all(|replica| replica.replica_id > 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_stop_of_all_a_majority_finds_together_without_its_only_seed() {
    let mut cluster = TestCluster::founded_with_seeds(vec![0]).await;
    cluster.client(0, "shop").await.create("orders", 1).await;
    for number in 0..3 {
        cluster.stop(number).await;
    }
    for number in 1..3 {
        cluster.start(number).await;
    }
    for number in 1..3 {
        cluster.ready(number).await;
    }
    cluster.produce("shop", batch_of("orders", 0, &["kept"])).await.unwrap();
    let seen = async {
        let mut client = cluster.client(1, "shop").await;
        while client.describe().await.nodes.iter().filter(|node| node.alive).count() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, seen).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_replica_does_not_keep_a_node_from_serving_the_others() {
    let mut cluster = TestCluster::founded().await;
    let mut client = cluster.client(1, "shop").await;
    for topic in ["damaged", "whole"] {
        client.create(topic, 1).await;
        cluster.produce("shop", batch_of(topic, 0, &[topic])).await.unwrap();
    }
    first_values(&cluster, 0, "damaged", 0).await;
    cluster.stop(0).await;
    let groups = std::fs::read_dir(cluster.data_dir(0).join("groups")).unwrap();
    let mut groups: Vec<PathBuf> = groups.map(|entry| entry.unwrap().path()).collect();
    groups.sort();
    std::fs::remove_file(groups[1].join("hard-state")).unwrap();
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(first_values(&cluster, 0, "whole", 0).await, ["whole"]);
    let request = v1::ConsumeRequest {
        topic: "damaged".to_owned(),
        ..Default::default()
    };
    let refused = cluster.client(0, "shop").await.log.consume(request).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::Unavailable);
    cluster
        .produce("shop", batch_of("damaged", 1, &["more"]))
        .await
        .unwrap();
}
