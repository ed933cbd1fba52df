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

/// A partition whose only replica is lost has no leader, so nothing can take its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_died_with_their_disk_and_cannot_be_replaced_are_described_as_dead() {
    let mut cluster = TestCluster::founded().await;
    let single = v1::CreateTopicRequest {
        topic: "orders".to_owned(),
        partitions: 3,
        replication: 1,
        config: None,
    };
    for tenant in ["shop", "other"] {
        let mut client = cluster.client(0, tenant).await;
        client.topics.create_topic(single.clone()).await.unwrap();
    }
    cluster.stop(2).await;
    cluster.wipe(2);
    cluster.start(2).await;
    cluster.ready(2).await;
    let dead = |described: &v1::DescribeClusterResponse| -> Vec<(String, u32, String)> {
        let dead = described.replicas.iter().filter(|replica| replica.role == "dead");
        dead.map(|dead| (dead.topic.clone(), dead.partition, dead.node.clone()))
            .collect()
    };
    let expected = [("orders".to_owned(), 2, "c".to_owned())];
    for number in 0..3 {
        let mut client = cluster.client(number, "shop").await;
        // A node may hear of the new incarnation a little later, and a busy one be left out of a description.
        let all_three = async {
            loop {
                let described = client.describe().await;
                if dead(&described) == expected && described.replicas.len() == 3 {
                    return described;
                }
            }
        };
        let described = timeout(PATIENCE, all_three).await.unwrap();
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

/// The directory of this node's replica of the only topic made so far, and of its catalog replica.
fn replica_directories(cluster: &TestCluster, number: usize) -> (PathBuf, PathBuf) {
    let groups = std::fs::read_dir(cluster.data_dir(number).join("groups")).unwrap();
    let mut groups: Vec<PathBuf> = groups.map(|entry| entry.unwrap().path()).collect();
    groups.sort();
    assert_eq!(groups.len(), 2, "{groups:?}");
    (groups.remove(1), groups.remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_too_damaged_to_be_opened_is_mended_by_the_others() {
    let mut cluster = TestCluster::founded().await;
    cluster.client(1, "shop").await.create("orders", 1).await;
    cluster.produce("shop", batch_of("orders", 0, &["kept"])).await.unwrap();
    first_values(&cluster, 0, "orders", 0).await;
    cluster.stop(0).await;
    let (replica, catalog) = replica_directories(&cluster, 0);
    let mut whole = Vec::new();
    for directory in [&replica, &catalog] {
        let segment = directory.join("00000000000000000000.log");
        let mut bytes = std::fs::read(&segment).unwrap();
        whole.push(bytes.clone());
        bytes[100] ^= 1; // in the first frame, which was synced
        std::fs::write(&segment, bytes).unwrap();
        // without it all of the log is needed
        std::fs::remove_file(directory.join("checkpoint")).unwrap();
    }
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(first_values(&cluster, 0, "orders", 0).await, ["kept"]);
    for (directory, whole) in [&replica, &catalog].into_iter().zip(whole) {
        let mended = std::fs::read(directory.join("00000000000000000000.log")).unwrap();
        assert!(mended.starts_with(&whole), "{} is not as it was", directory.display());
    }
    cluster.produce("shop", batch_of("orders", 1, &["more"])).await.unwrap();
}

/// None of them can be opened, so none of them serves its log; what is whole in it helps the others all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_logs_too_damaged_to_be_opened_mend_each_other() {
    let mut cluster = TestCluster::founded().await;
    cluster.client(1, "shop").await.create("orders", 1).await;
    let large = "x".repeat(100_000);
    for sequence in 0..6 {
        cluster
            .produce("shop", batch_of("orders", sequence, &[&large]))
            .await
            .unwrap();
    }
    for number in 0..3 {
        first_values(&cluster, number, "orders", 0).await;
    }
    for number in 0..3 {
        cluster.stop(number).await;
    }
    let mut whole = Vec::new();
    for number in 0..3 {
        let (replica, _) = replica_directories(&cluster, number);
        let segment = replica.join("00000000000000000000.log");
        let mut bytes = std::fs::read(&segment).unwrap();
        // The last leader's first entry may be behind the records, on this disk alone: such a one may go.
        whole.push((segment.clone(), bytes[..600_000].to_vec()));
        bytes[150_000 + 100_000 * number] ^= 1; // each in another batch
        std::fs::write(&segment, bytes).unwrap();
        std::fs::remove_file(replica.join("checkpoint")).unwrap();
    }
    for number in 0..3 {
        cluster.start(number).await;
    }
    for number in 0..3 {
        cluster.ready(number).await;
        let found = first_values(&cluster, number, "orders", 0).await;
        assert!(found.iter().all(|value| *value == large), "a wrong record on {number}");
    }
    for (segment, whole) in whole {
        let mended = std::fs::read(&segment).unwrap();
        assert!(mended.starts_with(&whole), "{} is not as it was", segment.display());
    }
    let answer = cluster.produce("shop", batch_of("orders", 6, &["more"])).await.unwrap();
    assert_eq!(answer.base_offset, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_lost_its_catalog_vote_gets_another_catalog_replica_and_keeps_its_others() {
    let mut cluster = TestCluster::founded().await;
    cluster.client(1, "shop").await.create("orders", 1).await;
    cluster.produce("shop", batch_of("orders", 0, &["kept"])).await.unwrap();
    first_values(&cluster, 0, "orders", 0).await;
    let before = incarnations(&cluster, 1).await;
    cluster.stop(0).await;
    let (replica, catalog) = replica_directories(&cluster, 0);
    std::fs::remove_file(catalog.join("hard-state")).unwrap();
    cluster.start(0).await;
    cluster.ready(0).await;
    assert_eq!(first_values(&cluster, 0, "orders", 0).await, ["kept"]);
    assert!(replica.exists(), "the other replicas stay");
    assert_eq!(incarnations(&cluster, 1).await, before, "it is the same life");
    let taken_over = async {
        while catalog.exists() || role_in_catalog(&cluster, 1, "a").await != "voter" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, taken_over)
        .await
        .expect("the vote was not taken over");
    // It is what it is also when it starts again, and the others are enough without each of them.
    cluster.stop(0).await;
    cluster.start(0).await;
    cluster.ready(0).await;
    cluster.stop(1).await;
    cluster.produce("shop", batch_of("orders", 1, &["more"])).await.unwrap();
}

async fn incarnations(cluster: &TestCluster, number: usize) -> Vec<String> {
    let described = cluster.client(number, "shop").await.describe().await;
    described.nodes.into_iter().map(|node| node.incarnation).collect()
}

async fn role_in_catalog(cluster: &TestCluster, number: usize, node: &str) -> String {
    let described = cluster.client(number, "shop").await.describe().await;
    let found = described.nodes.into_iter().find(|found| found.name == node);
    found.unwrap().catalog_role
}
