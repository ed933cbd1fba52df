//! Every replica holds and serves the same records, the leader's too.

use std::time::Duration;

use highwater::{Client, ConsumedRecord, Profile};
use highwater_tests::{ReadFrom, TestCluster};

use crate::{PATIENCE, numbers, produce};

const LINES: usize = 20_000;

#[test]
fn every_replica_serves_the_same_records_at_the_same_offsets() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(LINES));
    let leader = cluster.leader("numbers", 0);
    let by_leader = read_all(&cluster, leader);
    let values: Vec<String> = by_leader
        .iter()
        .map(|record| String::from_utf8_lossy(&record.value).into_owned())
        .collect();
    let expected: Vec<String> = (0..LINES).map(|number| number.to_string()).collect();
    assert!(
        values == expected,
        "gap, repeat or disorder in {} records",
        values.len()
    );
    for follower in (0..3).filter(|position| *position != leader) {
        let by_follower = read_all(&cluster, follower);
        let differs = by_follower.iter().zip(&by_leader).find(|(one, other)| one != other);
        assert_eq!(differs, None, "served by n{} and by the leader", follower + 1);
        assert_eq!(by_follower.len(), LINES);
    }
}

/// Everything in the topic, as the node at `position` serves it.
#[track_caller]
fn read_all(cluster: &TestCluster, position: usize) -> Vec<ConsumedRecord> {
    let name = cluster.nodes()[position].name().to_owned();
    let profile = Profile::load(cluster.profile()).unwrap_or_else(|error| panic!("{error}"));
    let reading = async {
        let client: Client = profile
            .builder()
            .picker(std::sync::Arc::new(ReadFrom(name.clone())))
            .connect()
            .await?;
        let mut consumer = client.consumer("numbers", 0).stop_at_end().build().await?;
        let mut records = Vec::new();
        while let Some(record) = consumer.next_record().await {
            records.push(record?);
        }
        assert_eq!(consumer.served_by(0), Some(name));
        Ok::<_, highwater::Error>(records)
    };
    block_on(PATIENCE, reading).unwrap_or_else(|error| panic!("{error}"))
}

fn block_on<F: Future>(deadline: Duration, work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let worked = runtime.block_on(async { tokio::time::timeout(deadline, work).await });
    worked.unwrap_or_else(|_| panic!("not within {deadline:?}"))
}
