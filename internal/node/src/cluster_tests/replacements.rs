//! Dead replicas give way to new ones, and what was acknowledged stays.

use highwater_catalog::{Catalog, Command};

use super::*;
use crate::catalog::propose_here;
use crate::data_dir::DataDir;
use crate::hex::Id;

const BATCHES: u64 = 20;

/// A founded cluster with a topic of one partition, which holds [`BATCHES`] batches.
async fn with_records() -> TestCluster {
    let cluster = TestCluster::founded().await;
    fill(&cluster).await;
    cluster
}

impl TestCluster {
    /// Tells the catalog that a replica of the only partition is dead, and waits until its place is given away.
    async fn report_dead(&self, replica_id: u64) {
        let report = Command::ReportDeadReplica {
            group_id: 1,
            replica_id,
        }
        .encode();
        let decided = async {
            loop {
                for node in self.nodes.iter().flatten() {
                    let catalog = node.registry().catalog().unwrap();
                    propose_here(&catalog, report.clone().into()).await;
                    let is_given_away = |catalog: &Catalog| {
                        let (_, partition) = catalog.partition_of_group(1).unwrap();
                        partition
                            .replaced
                            .iter()
                            .any(|replica| replica.replica_id == replica_id)
                    };
                    if node.host().read(is_given_away) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, decided).await.expect("the place is not given away");
    }
}

async fn fill(cluster: &TestCluster) {
    cluster.client(0, "shop").await.create("orders", 1).await;
    for sequence in 0..BATCHES {
        let batch = batch_of("orders", sequence, &[&format!("kept {sequence}")]);
        cluster.produce("shop", batch).await.unwrap();
    }
}

/// The directories of all replicas on a node, by name; those of the catalog begin with `0-`.
fn all_directories(cluster: &TestCluster, number: usize) -> Vec<String> {
    let listed = std::fs::read_dir(cluster.data_dir(number).join("groups")).unwrap();
    listed
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The directories of the partition's replicas on a node, by name.
fn directories(cluster: &TestCluster, number: usize) -> Vec<String> {
    let names = all_directories(cluster, number).into_iter();
    names.filter(|name| !name.starts_with("0-")).collect()
}

/// Waits until the node's replica of the partition has the whole log again, under another id than `old`.
async fn replaced(cluster: &TestCluster, number: usize, old: u64) -> v1::ReplicaStatus {
    let mut client = cluster.client((number + 1) % 3, "shop").await;
    let found = async {
        loop {
            let replicas = client.describe().await.replicas;
            let new = replicas.into_iter().find(|replica| replica.node == NAMES[number]);
            match new {
                Some(new) if new.replica_id > old && new.role == "follower" && new.log_end >= BATCHES => return new,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the replica was not replaced")
}

/// The node's replica of the partition, once it has all records.
async fn replica_id(cluster: &TestCluster, number: usize) -> u64 {
    let mut client = cluster.client(number, "shop").await;
    let found = async {
        loop {
            let replicas = client.describe().await.replicas;
            let own = replicas.into_iter().find(|replica| replica.node == NAMES[number]);
            match own.filter(|own| own.log_end >= BATCHES) {
                Some(own) => return own.replica_id,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.expect("the replica does not follow")
}

/// With another replica gone, a majority needs the new one; and everything is still there.
async fn assert_counts(cluster: &mut TestCluster, number: usize) {
    cluster.stop((number + 1) % 3).await;
    let more = batch_of("orders", BATCHES, &["more"]);
    let answer = cluster.produce("shop", more).await.unwrap();
    assert_eq!(answer.base_offset, BATCHES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replicas_of_a_wiped_node_are_replaced_and_count_again() {
    let mut cluster = with_records().await;
    let old = replica_id(&cluster, 2).await;
    cluster.stop(2).await;
    cluster.wipe(2);
    cluster.start(2).await;
    replaced(&cluster, 2, old).await;
    assert_counts(&mut cluster, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_copied_before_a_replica_was_made_does_not_make_it_anew() {
    let mut cluster = TestCluster::founded().await;
    cluster.stop(2).await;
    let before = cluster.copy(2);
    cluster.start(2).await;
    cluster.ready(2).await;
    fill(&cluster).await;
    let old = replica_id(&cluster, 2).await;
    cluster.stop(2).await;
    cluster.restore(2, &before);
    cluster.start(2).await;
    replaced(&cluster, 2, old).await;
    assert_counts(&mut cluster, 2).await;
}

/// The catalog has given up what the directory holds: reported before the copy was put back, by the node as it was then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_given_up_ends_although_its_directory_does_not_know() {
    let mut cluster = with_records().await;
    let first = replica_id(&cluster, 1).await;
    cluster.stop(1).await;
    cluster.report_dead(first).await;
    cluster.start(1).await;
    replaced(&cluster, 1, first).await;
    assert_counts(&mut cluster, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_copied_before_its_node_joined_gets_another_catalog_replica() {
    let mut cluster = TestCluster::founded().await;
    drop(DataDir::open(&cluster.data_dir(3), CLUSTER, NAMES[3], Id::random()).unwrap());
    let before = cluster.copy(3);
    cluster.start(3).await;
    cluster.ready(3).await;
    let first = all_directories(&cluster, 3);
    cluster.stop(3).await;
    cluster.restore(3, &before);
    cluster.start(3).await;
    cluster.ready(3).await;
    let second = all_directories(&cluster, 3);
    assert_ne!(first, second, "the replica that had run was made anew");
    assert_eq!((first.len(), second.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_vote_is_replaced_and_only_then_deleted() {
    let mut cluster = with_records().await;
    let old = replica_id(&cluster, 1).await;
    cluster.stop(1).await;
    let directory = directories(&cluster, 1).remove(0);
    std::fs::remove_file(cluster.data_dir(1).join("groups").join(&directory).join("hard-state")).unwrap();
    cluster.start(1).await;
    let new = replaced(&cluster, 1, old).await;
    let deleted = async {
        while directories(&cluster, 1).contains(&directory) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, deleted)
        .await
        .expect("the dead replica's data is still there");
    assert_eq!(directories(&cluster, 1).len(), 1, "of replica {}", new.replica_id);
    assert_counts(&mut cluster, 1).await;
}
