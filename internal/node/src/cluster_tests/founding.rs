//! One cluster, founded once, whatever is stopped and wiped.

use super::*;
use crate::hex::Id;

/// The cluster that a node has recorded as its own; empty: none.
fn cluster_id(cluster: &TestCluster, number: usize) -> String {
    let recorded = cluster.nodes[number].as_ref().unwrap().cluster_id();
    recorded.map(|id| Id(id.0).to_string()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_found_one_cluster_and_find_it_again() {
    let mut cluster = TestCluster::founded().await;
    let id = cluster_id(&cluster, 0);
    assert_eq!(id.len(), 32);
    for number in 1..3 {
        assert_eq!(cluster_id(&cluster, number), id);
    }
    let described = cluster.client(1, "shop").await.describe().await;
    assert_eq!((described.cluster_name.as_str(), described.nodes.len()), (CLUSTER, 3));
    assert_eq!(described.cluster_id, id);
    assert!(
        described.nodes.iter().all(|node| node.catalog_role == "voter"),
        "{described:?}"
    );
    for number in 0..3 {
        cluster.stop(number).await;
    }
    for number in 0..3 {
        cluster.start(number).await;
    }
    for number in 0..3 {
        cluster.ready(number).await;
        assert_eq!(cluster_id(&cluster, number), id);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_founded_until_every_listed_node_is_there() {
    let mut cluster = TestCluster::new();
    cluster.start(0).await;
    cluster.start(1).await;
    let early = timeout(Duration::from_secs(2), cluster.nodes[0].as_ref().unwrap().ready()).await;
    assert!(early.is_err(), "two of three nodes founded a cluster");
    assert_eq!(cluster_id(&cluster, 0), "");
    cluster.start(2).await;
    for number in 0..3 {
        cluster.ready(number).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_founder_comes_back_into_the_same_cluster_as_another_incarnation() {
    let mut cluster = TestCluster::founded().await;
    let before = cluster.client(1, "shop").await.describe().await;
    cluster.stop(0).await;
    cluster.wipe(0);
    cluster.start(0).await;
    cluster.ready(0).await;
    let after = cluster.client(0, "shop").await.describe().await;
    assert_eq!(after.cluster_id, before.cluster_id);
    let incarnation = |description: &v1::DescribeClusterResponse| description.nodes[0].incarnation.clone();
    assert_ne!(incarnation(&after), incarnation(&before));
    // The vote of the lost incarnation goes to the new one.
    let mut client = cluster.client(1, "shop").await;
    let votes_again = async {
        while client.describe().await.nodes[0].catalog_role != "voter" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, votes_again).await.unwrap();
    // And it counts: with another voter gone, nothing is decided without it.
    cluster.stop(1).await;
    cluster.client(2, "shop").await.create("orders", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_wiped_of_three_never_found_a_second_cluster() {
    let mut cluster = TestCluster::founded().await;
    let id = cluster_id(&cluster, 2);
    for number in 0..2 {
        cluster.stop(number).await;
        cluster.wipe(number);
    }
    // First without the survivor in sight, then with it: it has no quorum, so they can only wait.
    cluster.stop(2).await;
    for number in 0..2 {
        cluster.start(number).await;
    }
    let founded = timeout(Duration::from_secs(2), cluster.nodes[0].as_ref().unwrap().ready()).await;
    assert!(founded.is_err(), "two wiped nodes founded a cluster");
    cluster.start(2).await;
    let founded = timeout(Duration::from_secs(3), cluster.nodes[0].as_ref().unwrap().ready()).await;
    assert!(
        founded.is_err(),
        "two wiped nodes founded a cluster beside the survivor"
    );
    for number in 0..2 {
        let seen = cluster_id(&cluster, number);
        assert!(seen.is_empty() || seen == id, "{seen} instead of {id}");
    }
    assert_eq!(cluster_id(&cluster, 2), id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fourth_node_joins_as_a_learner() {
    let mut cluster = TestCluster::founded().await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let described = cluster.client(3, "shop").await.describe().await;
    let fourth = described.nodes.iter().find(|node| node.name == "d").unwrap();
    assert_eq!((fourth.catalog_role.as_str(), fourth.alive), ("learner", true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_in_use_and_a_port_in_use_are_named() {
    let mut cluster = TestCluster::new();
    cluster.start(0).await;
    let error = cluster.try_start(0).await.err().unwrap();
    assert!(matches!(error, StartError::DataDirectory(_)), "{error}");
    let mut config = cluster.config(1);
    config.listen = cluster.config(0).listen;
    let error = Box::pin(Node::start(config)).await.err().unwrap();
    assert!(matches!(error, StartError::Port { .. }), "{error}");
    let mut config = cluster.config(1);
    config.tls = cluster.config(0).tls;
    let error = Box::pin(Node::start(config)).await.err().unwrap();
    assert!(matches!(error, StartError::Credentials(_)), "{error}");
}
