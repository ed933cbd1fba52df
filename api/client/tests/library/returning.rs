//! Readers go back to the replica that they like best, without a gap, without a repeat, and not for an equal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::proto::v1;
use highwater::{Client, Consumer, DefaultPicker, Picker, Picture, Purpose};

use crate::cluster::{Cluster, TOPIC};
use crate::consuming::{assert_numbers, fill, take};
use crate::metrics::{Recorder, Told};
use crate::{until, within};

/// No reader looks for a better replica so early.
const TOO_EARLY: Duration = Duration::from_secs(45);
/// Every reader has looked for one.
const LONG_ENOUGH: Duration = Duration::from_secs(71);

/// Puts the client's clock forward when each of three nodes has just answered: a ping that waits for its answer then would be late.
async fn pass(client: &Client, time: Duration) {
    let mut answers = BTreeMap::<String, u32>::new();
    while answers.values().filter(|count| **count > 1).count() < 3 {
        let described = within(client.cluster().describe()).await.unwrap();
        *answers.entry(described.node).or_default() += 1;
    }
    put_forward(time).await;
}

/// Puts the client's clock forward. The nodes have clocks of their own.
async fn put_forward(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// Three nodes; a leads, and b stands in the reader's rack.
async fn near_b() -> (Cluster, Client, Arc<Recorder>) {
    let cluster = Cluster::start(3, 1);
    cluster.shared.lock().nodes[1].rack = "north".to_owned();
    let recorder = Arc::new(Recorder::default());
    let builder = cluster.builder().rack("north").metrics(recorder.clone());
    let client = builder.connect().await.unwrap();
    (cluster, client, recorder)
}

/// Reads the first three records while b hands its readers over.
async fn sent_away(cluster: &Cluster, client: &Client) -> (Consumer, String) {
    fill(client, 0, 0..3).await;
    cluster.shared.lock().behind.insert((1, 0));
    let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
    assert_numbers(&take(&mut consumer, 3).await, 0..3);
    cluster.shared.lock().behind.clear();
    let worse = consumer.served_by(0).unwrap();
    assert_ne!(worse, "b");
    (consumer, worse)
}

fn moves(recorder: &Recorder) -> Vec<(String, String)> {
    recorder.those(|told| match told {
        Told::ReaderMoved(0, from, to) => Some((from.clone(), to.clone())),
        _ => None,
    })
}

async fn until_served_by(consumer: &Consumer, node: &str) {
    until("the reader moves", || consumer.served_by(0).as_deref() == Some(node)).await;
}

#[tokio::test]
async fn a_reader_that_was_sent_to_another_rack_comes_back_to_its_own_after_a_while() {
    let (cluster, client, recorder) = near_b().await;
    let (mut consumer, worse) = within(sent_away(&cluster, &client)).await;
    pass(&client, TOO_EARLY).await;
    within(async {
        fill(&client, 0, 3..6).await;
        assert_numbers(&take(&mut consumer, 3).await, 3..6);
        assert_eq!(consumer.served_by(0), Some(worse.clone()), "it is too early");
    })
    .await;
    pass(&client, LONG_ENOUGH).await;
    within(async {
        // It follows the tail, and nothing comes: that is a point between messages as well.
        until_served_by(&consumer, "b").await;
        fill(&client, 0, 6..9).await;
        assert_numbers(&take(&mut consumer, 3).await, 6..9);
        assert_eq!(consumer.served_by(0).unwrap(), "b");
    })
    .await;
    assert_eq!(moves(&recorder), [(worse, "b".to_owned())]);
    assert_eq!(
        recorder.count(|told| matches!(told, Told::ReaderLeft(..))),
        1,
        "when it was sent away"
    );
}

#[tokio::test]
async fn a_reader_in_the_middle_of_many_records_moves_without_a_gap_or_a_repeat() {
    let (cluster, client, recorder) = near_b().await;
    drop(within(sent_away(&cluster, &client)).await);
    within(fill(&client, 0, 3..200)).await;
    // The room in the prefetch stops the reader after a few records.
    cluster.shared.lock().behind.insert((1, 0));
    let builder = client.consumer(TOPIC, 0).prefetch_bytes(16 * 1024);
    let mut consumer = within(builder.build()).await.unwrap();
    assert_numbers(&within(take(&mut consumer, 50)).await, 0..50);
    cluster.shared.lock().behind.clear();
    pass(&client, 3 * LONG_ENOUGH).await;
    within(async {
        let (mut rest, mut end) = (Vec::new(), 200);
        while consumer.served_by(0).unwrap() != "b" {
            rest.extend(take(&mut consumer, 1).await);
            // So there are always more records than it can take.
            fill(&client, 0, end..end + 1).await;
            end += 1;
        }
        let left = end as usize - 50 - rest.len();
        rest.extend(take(&mut consumer, left).await);
        assert_numbers(&rest, 50..end);
    })
    .await;
    assert_eq!(moves(&recorder).len(), 1);
}

#[tokio::test]
async fn a_reader_never_leaves_a_follower_for_an_equal_one_and_a_new_leader_for_a_follower() {
    let cluster = Cluster::start(3, 1);
    let (recorder, client) = crate::metrics::recorded(&cluster).await;
    within(fill(&client, 0, 0..3)).await;
    let mut consumer = within(client.consumer(TOPIC, 0).build()).await.unwrap();
    within(take(&mut consumer, 3)).await;
    let first = consumer.served_by(0).unwrap();
    for round in 0..5 {
        pass(&client, LONG_ENOUGH).await;
        within(async {
            fill(&client, 0, 3 + round..4 + round).await;
            assert_numbers(&take(&mut consumer, 1).await, 3 + round..4 + round);
        })
        .await;
    }
    assert_eq!(moves(&recorder), []);

    let number = usize::from(first.as_bytes()[0] - b'a');
    cluster.set_leader(0, number);
    let watched = || client.cluster().picture().topic("acme", TOPIC).unwrap().partitions[0].leader == first;
    within(until("the client knows the new leader", watched)).await;
    pass(&client, LONG_ENOUGH).await;
    within(until("the reader moves", || !moves(&recorder).is_empty())).await;
    let all = recorder.those(|told| Some(format!("{told:?}")));
    assert_eq!(moves(&recorder).len(), 1, "{all:?}");
    assert!(consumer.served_by(0).is_some_and(|node| node != first), "{all:?}");
}

#[tokio::test]
async fn a_better_replica_that_does_not_serve_costs_the_reader_nothing() {
    let (mut cluster, client, recorder) = near_b().await;
    let (mut consumer, worse) = within(sent_away(&cluster, &client)).await;
    cluster.kill(1);
    for (number, again) in [(3, "dead"), (4, "behind")] {
        if again == "behind" {
            cluster.shared.lock().behind.insert((1, 0));
            cluster.restart(1);
        }
        let asked = || recorder.count(|told| matches!(told, Told::SetAside(_) | Told::ReplicaSetAside(..)));
        let before = asked();
        put_forward(LONG_ENOUGH).await;
        within(async {
            until("the better one has been asked", || asked() > before).await;
            fill(&client, 0, number..number + 1).await;
            assert_numbers(&take(&mut consumer, 1).await, number..number + 1);
        })
        .await;
        assert_eq!(consumer.served_by(0), Some(worse.clone()), "b is {again}");
    }
    assert_eq!(moves(&recorder), []);
    assert_eq!(
        recorder.count(|told| matches!(told, Told::ReaderLeft(..))),
        1,
        "when it was sent away"
    );
}

/// Sends readers to the node that it is told.
#[derive(Debug)]
struct Directed(Mutex<&'static str>);

impl Picker for Directed {
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node> {
        match purpose {
            Purpose::Read { .. } => picture.node(*self.0.lock().unwrap()),
            purpose => DefaultPicker::default().pick(picture, purpose, avoid),
        }
    }
}

#[tokio::test]
async fn another_picker_decides_where_readers_go_on_too() {
    let cluster = Cluster::start(3, 1);
    let picker = Arc::new(Directed(Mutex::new("a")));
    let client = within(cluster.builder().picker(picker.clone()).connect())
        .await
        .unwrap();
    within(fill(&client, 0, 0..3)).await;
    let mut consumer = within(client.consumer(TOPIC, 0).build()).await.unwrap();
    within(take(&mut consumer, 3)).await;
    for node in ["c", "b", "a"] {
        *picker.0.lock().unwrap() = node;
        pass(&client, LONG_ENOUGH).await;
        within(until_served_by(&consumer, node)).await;
    }
    within(fill(&client, 0, 3..6)).await;
    assert_numbers(&within(take(&mut consumer, 3)).await, 3..6);
}
