//! Who is left alone after it has failed, by whom, and whether that makes a difference.

use highwater::Client;

use crate::cluster::{Cluster, TOPIC};
use crate::consuming::{assert_numbers, fill, take};
use crate::metrics::{Told, recorded};
use crate::within;

/// Reads a partition from its beginning; who served it.
async fn read(client: &Client, partition: u32) -> String {
    let mut consumer = client.consumer(TOPIC, partition).build().await.unwrap();
    assert_numbers(&take(&mut consumer, 3).await, 0..3);
    consumer.served_by(partition).unwrap()
}

/// Three nodes; a leads the partitions 0, 3 and 6, and b stands in the reader's rack.
async fn near_b() -> (Cluster, Client, std::sync::Arc<crate::metrics::Recorder>) {
    let cluster = Cluster::start(3, 7);
    cluster.shared.lock().nodes[1].rack = "north".to_owned();
    let recorder = std::sync::Arc::new(crate::metrics::Recorder::default());
    let builder = cluster.builder().rack("north").metrics(recorder.clone());
    let client = builder.connect().await.unwrap();
    for partition in [0, 3, 6] {
        fill(&client, partition, 0..3).await;
    }
    (cluster, client, recorder)
}

#[tokio::test]
async fn a_replica_that_is_behind_is_avoided_by_its_readers_and_its_node_serves_other_partitions() {
    let (cluster, client, recorder) = near_b().await;
    cluster.shared.lock().behind.insert((1, 0));
    within(async {
        for _ in 0..20 {
            assert_ne!(read(&client, 0).await, "b");
            assert_eq!(read(&client, 3).await, "b", "the nearest one, and good");
        }
    })
    .await;
    assert_eq!(cluster.shared.lock().handed_over, 1, "nobody else begins at it");
    assert_eq!(
        recorder.count(|told| *told == Told::ReplicaSetAside(0, "b".to_owned())),
        1
    );
    assert_eq!(recorder.count(|told| matches!(told, Told::SetAside(_))), 0);
}

#[tokio::test]
async fn a_node_that_is_behind_with_two_partitions_is_avoided_by_readers_of_a_third() {
    let (cluster, client, recorder) = near_b().await;
    cluster.shared.lock().behind.extend([(1, 0), (1, 3)]);
    within(async {
        read(&client, 0).await;
        assert_eq!(read(&client, 6).await, "b");
        read(&client, 3).await;
        assert_ne!(read(&client, 6).await, "b");
    })
    .await;
    assert_eq!(recorder.count(|told| *told == Told::SetAside("b".to_owned())), 1);
}

#[tokio::test]
async fn when_every_replica_is_behind_the_reader_still_goes_on_as_soon_as_one_is_not() {
    let cluster = Cluster::start(3, 1);
    let (_, client) = recorded(&cluster).await;
    within(async {
        fill(&client, 0, 0..3).await;
        cluster.shared.lock().behind.extend([(0, 0), (1, 0), (2, 0)]);
        let (served_by, ()) = tokio::join!(read(&client, 0), async {
            crate::until("all were tried", || cluster.shared.lock().handed_over >= 3).await;
            cluster.shared.lock().behind.remove(&(2, 0));
        });
        assert_eq!(served_by, "c");
    })
    .await;
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_costs_calls_little_although_nobody_calls_it_dead() {
    const CALLS: usize = 200;
    let mut cluster = Cluster::start(3, 1);
    let (recorder, client) = recorded(&cluster).await;
    cluster.kill(1);
    within(async {
        for _ in 0..CALLS {
            client.topics().list().await.unwrap();
        }
    })
    .await;
    // A third of them would meet it. Set aside for 1, 2, 4, … seconds, it gets few of them.
    let retried = recorder.count(|told| matches!(told, Told::Retried(_)));
    assert!(retried <= 6, "{retried} of {CALLS} calls were retried");
}
