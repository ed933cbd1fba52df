//! A partition whose majority is gone for good goes on from one replica, by an operator's word and by nothing else.

use super::moves::{BATCHES, TENANT, are};
use super::*;

/// Four nodes; the topic's only partition on `a`, `c` and `d`, so that the catalog has its majority without `c` and `d`.
async fn cluster() -> TestCluster {
    let mut cluster = TestCluster::with_topic(1, 3).await;
    cluster.start(3).await;
    cluster.ready(3).await;
    let mut client = cluster.client(0, TENANT).await;
    let still = v1::UpdateSettingsRequest {
        balance: Some(false),
        ..Default::default()
    };
    client.settings(still).await;
    let request = v1::MoveReplicaRequest {
        topic: "orders".to_owned(),
        partition: 0,
        from_node: "b".to_owned(),
        to_node: "d".to_owned(),
    };
    client.cluster.move_replica(request).await.unwrap();
    cluster
        .until("d has b's place", |catalog| are(catalog, &["a", "c", "d"]))
        .await;
    cluster.assert_serves(0, BATCHES).await;
    cluster
}

/// Whether the partition has all its replicas after its recovery; nodes that have just started may still know it as it was
/// before.
fn is_whole_again(catalog: &highwater_catalog::Catalog) -> bool {
    let topic = catalog.topic(TENANT, "orders");
    let mut replicas = topic.into_iter().flat_map(|topic| &topic.partitions[0].replicas);
    are(catalog, &["a", "c", "d"]) && replicas.any(|replica| replica.continues.is_some())
}

fn request(node: &str, accept_loss: bool) -> v1::RecoverPartitionRequest {
    v1::RecoverPartitionRequest {
        topic: "orders".to_owned(),
        partition: 0,
        node: node.to_owned(),
        accept_loss,
    }
}

/// Asks until it is not refused any more: that the others are away takes a moment to be seen.
async fn recover(cluster: &TestCluster, asked: usize, accept_loss: bool) -> v1::RecoverPartitionResponse {
    let mut client = cluster.client(asked, TENANT).await;
    let mut why = String::new();
    let asking = async {
        loop {
            match client.cluster.recover_partition(request("a", accept_loss)).await {
                Ok(answer) => return answer.into_inner(),
                Err(status) if reason(&status) == Reason::Refused => {
                    why = status.message().to_owned();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => panic!("{status:?}"),
            }
        }
    };
    let answer = timeout(PATIENCE, asking).await;
    answer.unwrap_or_else(|_| panic!("it is refused for ever: {why}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_goes_on_from_the_replica_that_is_left_when_the_loss_is_accepted() {
    let mut cluster = cluster().await;
    cluster.stop(2).await;
    cluster.stop(3).await;
    let looked = recover(&cluster, 1, false).await;
    assert!(
        !looked.recovered && looked.last_append_ms > 0 && !looked.damaged,
        "{looked:?}"
    );
    assert_eq!((looked.log_start, looked.log_end), (0, BATCHES));
    assert_eq!(looked.given_up, ["c", "d"]);
    let lost = |catalog: &highwater_catalog::Catalog| {
        let topic = catalog.topic(TENANT, "orders").unwrap();
        topic.partitions[0].replaced.is_empty()
    };
    cluster.until("looking changes nothing", lost).await;

    assert!(recover(&cluster, 1, true).await.recovered);
    cluster.fill(BATCHES..BATCHES + 3).await;
    // With their old disks: what they have is nobody's any more.
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.until("c and d have new ones", is_whole_again).await;
    for number in [2, 3] {
        cluster.ready(number).await;
        cluster.assert_serves(number, BATCHES + 3).await;
    }
    cluster.stop(0).await;
    cluster.fill(BATCHES + 3..BATCHES + 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_can_help_itself_is_not_recovered() {
    let mut cluster = cluster().await;
    let mut client = cluster.client(1, TENANT).await;
    let mut refused = async |request: v1::RecoverPartitionRequest| {
        let status = client.cluster.recover_partition(request).await.unwrap_err();
        assert_eq!(reason(&status), Reason::Refused, "{status:?}");
        status.message().to_owned()
    };
    let led = refused(request("a", true)).await;
    assert!(led.contains("is led by") || led.contains("a majority"), "{led}");
    let held = refused(request("b", true)).await;
    assert!(held.contains("holds no replica"), "{held}");
    // One of three away: the other two elect.
    cluster.stop(2).await;
    cluster.fill(BATCHES..BATCHES + 1).await;
    let still = refused(request("a", true)).await;
    assert!(still.contains("is led by") || still.contains("a majority"), "{still}");

    let mut stranger = cluster.client(0, "shop").await;
    let denied = stranger
        .cluster
        .recover_partition(request("a", true))
        .await
        .unwrap_err();
    assert_eq!(reason(&denied), Reason::PermissionDenied);
}

/// Its old copy holds the log that the survivor went on with, and must not go on with it once more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_that_is_put_back_to_before_the_recovery_is_replaced() {
    let mut cluster = cluster().await;
    cluster.stop(0).await;
    let before = cluster.copy(0);
    cluster.start(0).await;
    cluster.ready(0).await;
    cluster.stop(2).await;
    cluster.stop(3).await;
    assert!(recover(&cluster, 1, true).await.recovered);
    cluster.fill(BATCHES..BATCHES + 3).await;
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.until("c and d have new ones", is_whole_again).await;
    let continuing = cluster.nodes[1].as_ref().unwrap().host().read(|catalog| {
        let topic = catalog.topic(TENANT, "orders").unwrap();
        let mut replicas = topic.partitions[0].replicas.iter();
        replicas.find(|replica| replica.node == "a").unwrap().replica_id
    });
    cluster.stop(0).await;
    cluster.restore(0, &before);
    cluster.start(0).await;
    let is_replaced = |catalog: &highwater_catalog::Catalog| {
        let topic = catalog.topic(TENANT, "orders");
        let replicas = topic.into_iter().flat_map(|topic| &topic.partitions[0].replicas);
        let mut of_a = replicas.filter(|replica| replica.node == "a");
        of_a.any(|replica| replica.continues.is_none() && replica.started && replica.replica_id > continuing)
    };
    cluster.until("a has another one", is_replaced).await;
    cluster.ready(0).await;
    cluster.assert_serves(0, BATCHES + 3).await;
    cluster.fill(BATCHES + 3..BATCHES + 5).await;
}
