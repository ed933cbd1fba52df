//! What a state was made of is no more: whoever builds upon it is told, and does not go on with a wrong one.
#![allow(clippy::unwrap_used)]

use std::future::pending;
use std::time::Duration;

use highwater::{Client, ConsumedRecord, CreateTopic, Error, Position, Profile, Record, UpdateTopic};
use highwater_service::topics::TopicError;
use highwater_service::transform::{Failed, Route, Transform};
use highwater_service::{Lost, OpenError, Start, State, View, topics};
use highwater_tests::TestCluster;
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(20);
const RECORDS: u64 = 3;

/// How many records there are, or were, in what it has kept.
#[derive(Debug, Default)]
struct Count(u64);

impl State for Count {
    fn position(&self, _partition: u32) -> u64 {
        self.0
    }

    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        self.0 += records.len() as u64;
    }
}

async fn fill(client: &Client, topic: &str) {
    topics::ensure(client, topic, 1).await.unwrap();
    send(client, topic, RECORDS).await;
}

async fn send(client: &Client, topic: &str, records: u64) {
    let producer = client.producer(topic).build().await.unwrap();
    for number in 0..records {
        drop(producer.send(Record::new(number.to_string())).await.unwrap());
    }
    producer.flush().await;
}

async fn counted(client: &Client, topic: &str) -> View<Count> {
    let view = View::open(client, topic, Start::State, Count::default()).await.unwrap();
    timeout(DEADLINE, view.caught_up()).await.unwrap();
    view
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_of_a_topic_that_was_made_anew_or_that_loses_records_is_not_gone_on_with() {
    let cluster = tokio::task::block_in_place(|| TestCluster::start(1));
    let client = Client::from_profile(&Profile::load(cluster.profile()).unwrap())
        .await
        .unwrap();
    topics_that_lose_records_are_refused(&client).await;
    what_is_kept_and_lies_beyond_the_end_is_refused(&client).await;
    a_source_that_was_made_anew_is_refused(&client).await;
    a_view_of_a_topic_that_was_made_anew_says_so(&client).await;
    tokio::task::block_in_place(|| drop(cluster));
}

/// As nobody should have it who builds states: somebody has the topic keep nothing for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_lacks_records_which_were_trimmed_is_not_gone_on_with() {
    let cluster = tokio::task::block_in_place(|| {
        let mut cluster = TestCluster::prepare(1);
        cluster.node(0).set("--retention-interval-ms", "200");
        cluster.node(0).start();
        cluster.wait_ready();
        cluster
    });
    let client = Client::from_profile(&Profile::load(cluster.profile()).unwrap())
        .await
        .unwrap();
    views_of_a_trimmed_topic_say_what_they_lack(&client).await;
    a_worker_does_not_pass_over_what_was_trimmed_before_it_was_handled(&client).await;
    tokio::task::block_in_place(|| drop(cluster));
}

/// Returns when all records that there are have been trimmed, and those that come stay.
async fn trim(client: &Client, topic: &str, records: u64) {
    let keep = async |retention_ms| {
        let change = UpdateTopic {
            retention_ms: Some(retention_ms),
            ..UpdateTopic::default()
        };
        client.topics().update(topic, change).await.unwrap();
    };
    keep(1).await;
    let trimmed = async {
        loop {
            let reader = client
                .consumer(topic, 0)
                .from(Position::Beginning)
                .build()
                .await
                .unwrap();
            if reader.position(0) == Some(records) {
                return;
            }
            sleep(POLL).await;
        }
    };
    timeout(DEADLINE, trimmed).await.unwrap();
    keep(0).await;
}

async fn views_of_a_trimmed_topic_say_what_they_lack(client: &Client) {
    fill(client, "events").await;
    let following = counted(client, "events").await;
    trim(client, "events", RECORDS).await;

    // It was away, with what it had kept: nothing, or the first record.
    for kept in [0, 1] {
        let late = View::open(client, "events", Start::State, Count(kept)).await.unwrap();
        let expected = Lost::Trimmed {
            topic: "events".to_owned(),
            partition: 0,
            from: kept,
            to: RECORDS,
        };
        assert_eq!(timeout(DEADLINE, late.lost()).await.unwrap(), expected);
        assert_eq!(late.read(|count| count.0), kept);
        let is_there = timeout(Duration::ZERO, late.caught_up()).await;
        assert!(is_there.is_err(), "it never will be up to date");
    }
    // Those have all, or want the last one at most.
    let with_all = View::open(client, "events", Start::State, Count(RECORDS))
        .await
        .unwrap();
    let of_the_last = View::open(client, "events", Start::LastRecord, Count(0)).await.unwrap();
    timeout(DEADLINE, of_the_last.caught_up()).await.unwrap();
    send(client, "events", 1).await;
    for (view, counted) in [(following, RECORDS + 1), (with_all, RECORDS + 1), (of_the_last, 1)] {
        view.reach(0, RECORDS + 1, DEADLINE).await.unwrap();
        assert_eq!(view.read(|count| count.0), counted);
        let is_lost = timeout(Duration::ZERO, view.lost()).await;
        assert!(is_lost.is_err(), "{is_lost:?}");
    }
}

async fn a_worker_does_not_pass_over_what_was_trimmed_before_it_was_handled(client: &Client) {
    fill(client, "orders").await;
    topics::ensure(client, "invoices", 1).await.unwrap();
    let route = || Route {
        source: "orders".to_owned(),
        destination: "invoices".to_owned(),
        group: "clerks".to_owned(),
        member: "one".to_owned(),
    };
    let step = |_: &_, record: &ConsumedRecord| vec![Record::new(record.value.clone())];
    let invoices = counted(client, "invoices").await;
    let clerk = Transform::stateless(client, route()).await.unwrap();
    let enough = async { invoices.reach(0, RECORDS, DEADLINE).await.unwrap() };
    timeout(DEADLINE, clerk.run(step, enough)).await.unwrap().unwrap();

    send(client, "orders", RECORDS).await;
    trim(client, "orders", 2 * RECORDS).await;
    let clerk = Transform::stateless(client, route()).await.unwrap();
    let ended = timeout(DEADLINE, clerk.run(step, pending()))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(ended, Failed::Cluster(Error::OffsetOutOfRange { offset: RECORDS, .. })),
        "{ended}"
    );
    assert_eq!(invoices.position(0), RECORDS);
}

async fn topics_that_lose_records_are_refused(client: &Client) {
    // As `highwater topic create` makes them: records go after seven days.
    client.topics().create("usual", CreateTopic::default()).await.unwrap();
    let refused = topics::ensure(client, "usual", 1).await.unwrap_err();
    assert!(matches!(refused, TopicError::Retention { .. }), "{refused}");
}

async fn what_is_kept_and_lies_beyond_the_end_is_refused(client: &Client) {
    topics::ensure(client, "short", 1).await.unwrap();
    let refused = View::open(client, "short", Start::State, Count(RECORDS))
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            OpenError::Beyond {
                position: RECORDS,
                end: 0,
                ..
            }
        ),
        "{refused}"
    );
}

async fn a_source_that_was_made_anew_is_refused(client: &Client) {
    fill(client, "commands").await;
    topics::ensure(client, "results", 1).await.unwrap();
    let route = || Route {
        source: "commands".to_owned(),
        destination: "results".to_owned(),
        group: "workers".to_owned(),
        member: "one".to_owned(),
    };
    let results = counted(client, "results").await;
    let worker = Transform::stateless(client, route()).await.unwrap();
    let step = |_: &_, record: &ConsumedRecord| vec![Record::new(record.value.clone())];
    let enough = async { results.reach(0, RECORDS, DEADLINE).await.unwrap() };
    timeout(DEADLINE, worker.run(step, enough)).await.unwrap().unwrap();

    client.topics().delete("commands").await.unwrap();
    fill(client, "commands").await;
    let refused = Transform::stateless(client, route()).await.unwrap_err();
    assert!(matches!(refused, Failed::OtherSource { .. }), "{refused}");
}

async fn a_view_of_a_topic_that_was_made_anew_says_so(client: &Client) {
    fill(client, "names").await;
    let view = counted(client, "names").await;
    let is_lost = timeout(Duration::ZERO, view.lost()).await;
    assert!(is_lost.is_err(), "{is_lost:?}");
    client.topics().delete("names").await.unwrap();
    fill(client, "names").await;
    let expected = Lost::Remade {
        topic: "names".to_owned(),
    };
    assert_eq!(timeout(DEADLINE, view.lost()).await.unwrap(), expected);
    // And it stays so, for all that hold it.
    assert_eq!(view.clone().lost().await, expected);
    assert_eq!(view.read(|count| count.0), RECORDS, "nothing of the new one is in it");
}
