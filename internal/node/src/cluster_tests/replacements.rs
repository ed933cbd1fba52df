//! Dead replicas give way to new ones, and what was acknowledged stays.

use highwater_catalog::{Catalog, CatalogReplica, Command};

use super::*;
use crate::catalog::{Readable, propose_here};
use crate::data_dir::DataDir;
use crate::hex::Id;
use crate::test_node::eventually;

const BATCHES: u64 = 20;

/// A founded cluster with a topic of one partition, which holds [`BATCHES`] batches.
async fn with_records() -> TestCluster {
    let cluster = TestCluster::founded().await;
    fill(&cluster).await;
    cluster
}

impl TestCluster {
    /// Tells the catalog something, until it is as `is_done` says.
    async fn tell_catalog(&self, command: Command, is_done: impl Fn(&Catalog) -> bool) {
        let readable = Readable::new(command.encode().into()).unwrap();
        let decided = async {
            loop {
                for node in self.nodes.iter().flatten() {
                    let catalog = node.registry().catalog().unwrap();
                    propose_here(&catalog, readable.clone()).await;
                    if node.host().read(&is_done) {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let told = timeout(PATIENCE, decided).await;
        told.unwrap_or_else(|_| panic!("{command:?} has no effect"));
    }

    /// Reports a replica of the only partition as dead, and waits until its place is given away.
    async fn report_dead(&self, replica_id: u64) {
        let is_given_away = |catalog: &Catalog| {
            let (_, partition) = catalog.partition_of_group(1).unwrap();
            let mut replaced = partition.replaced.iter();
            replaced.any(|replica| replica.replica_id == replica_id)
        };
        let report = Command::ReportDeadReplica {
            group_id: 1,
            replica_id,
        };
        self.tell_catalog(report, is_given_away).await;
    }

    /// Removes the vote of the replica in this directory.
    fn lose_vote(&self, number: usize, directory: &str) {
        let replica = self.data_dir(number).join("groups").join(directory);
        std::fs::remove_file(replica.join("hard-state")).unwrap();
    }

    /// The directory of the node's catalog replica.
    fn catalog_directory(&self, number: usize) -> String {
        let mut all = all_directories(self, number).into_iter();
        all.find(|name| name.starts_with("0-")).unwrap()
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
                Some(new)
                    if new.replica_id > old
                        && ["follower", "leader"].contains(&new.role.as_str())
                        && new.log_end >= BATCHES =>
                {
                    return new;
                }
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

/// Whether every replica that runs knows of a finished change of voters, and of none under way.
fn are_voters_settled(cluster: &TestCluster) -> bool {
    let running = cluster.nodes.iter().flatten();
    let mut replicas = running.flat_map(|node| node.registry().all());
    replicas.all(|hosted| {
        let status = hosted.status();
        status.voter_change.is_none() && status.is_membership_committed
    })
}

/// With another replica gone, a majority needs the new one; and everything is still there.
async fn assert_counts(cluster: &mut TestCluster, number: usize) {
    // Between the two halves of the swap both sets of voters are needed, and one of the old set is dead.
    eventually("the voters are settled", || are_voters_settled(cluster)).await;
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

/// The node's catalog follows from behind, and places a replica on its way that has run and was replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_copied_before_a_replica_was_made_and_replaced_makes_neither_anew() {
    let mut cluster = TestCluster::founded().await;
    cluster.stop(2).await;
    let before = cluster.copy(2);
    cluster.start(2).await;
    cluster.ready(2).await;
    fill(&cluster).await;
    let first = replica_id(&cluster, 2).await;
    cluster.stop(2).await;
    cluster.lose_vote(2, &directories(&cluster, 2)[0]);
    cluster.start(2).await;
    let second = replaced(&cluster, 2, first).await.replica_id;
    cluster.stop(2).await;
    cluster.restore(2, &before);
    cluster.start(2).await;
    let third = replaced(&cluster, 2, second).await.replica_id;
    assert_eq!(directories(&cluster, 2), [format!("1-{third}")]);
    assert_counts(&mut cluster, 2).await;
}

/// On its way the catalog places a replica whose place was given to the one that is here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_follows_from_behind_ends_no_replica_that_is_alive() {
    let mut cluster = with_records().await;
    let first = replica_id(&cluster, 1).await;
    cluster.stop(1).await;
    cluster.lose_vote(1, &directories(&cluster, 1)[0]);
    cluster.start(1).await;
    let second = replaced(&cluster, 1, first).await.replica_id;
    cluster.stop(1).await;
    cluster.lose_vote(1, &cluster.catalog_directory(1));
    cluster.start(1).await;
    cluster.ready(1).await;
    assert_eq!(replica_id(&cluster, 1).await, second);
    assert_counts(&mut cluster, 1).await;
    assert_eq!(replica_id(&cluster, 1).await, second);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_catalog_replica_was_given_up_ends_and_gets_another_at_its_next_start() {
    let mut cluster = TestCluster::founded().await;
    let lost = cluster.catalog_directory(2);
    cluster.stop(2).await;
    let known = cluster.nodes[0].as_ref().unwrap().host();
    let known = known.read(|catalog| catalog.node(NAMES[2]).unwrap().clone());
    let register = Command::RegisterNode {
        name: known.name,
        incarnation: known.incarnation,
        address: known.address,
        rack: known.rack,
        version: known.version,
        feature_level: known.feature_level,
        catalog_replica: Some(CatalogReplica::Lost(known.catalog_replica_id)),
    };
    let is_replaced = |catalog: &Catalog| catalog.node(NAMES[2]).unwrap().catalog_replica_id > known.catalog_replica_id;
    cluster.tell_catalog(register, is_replaced).await;
    cluster.start(2).await;
    let failed = cluster.nodes[2].as_ref().unwrap().failed();
    let failure = timeout(PATIENCE, failed).await.unwrap().to_string();
    assert!(failure.contains("old copy"), "{failure}");
    cluster.stop(2).await;
    cluster.start(2).await;
    cluster.ready(2).await;
    assert_ne!(cluster.catalog_directory(2), lost);
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
async fn the_catalog_knows_of_its_new_replica_before_that_runs() {
    let mut cluster = TestCluster::founded().await;
    cluster.start(3).await;
    let registry = cluster.nodes[3].as_ref().unwrap().registry();
    let mut changes = registry.changes();
    let runs = changes.wait_for(|_| registry.catalog().is_some());
    timeout(PATIENCE, runs).await.expect("node d never joined").unwrap();
    let knows = |catalog: &Catalog| catalog.node(NAMES[3]).is_some_and(|node| node.catalog_replica_started);
    let is_known = cluster.nodes[..3].iter().flatten().any(|node| node.host().read(knows));
    assert!(is_known, "an old copy of the directory could make that replica anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lost_its_vote_is_replaced_and_only_then_deleted() {
    let mut cluster = with_records().await;
    let old = replica_id(&cluster, 1).await;
    cluster.stop(1).await;
    let directory = directories(&cluster, 1).remove(0);
    cluster.lose_vote(1, &directory);
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
