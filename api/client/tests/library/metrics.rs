//! What is told to whoever counts: everything that happened, and once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use highwater::proto::v1;
use highwater::{BatchInfo, Compression, ConnectionProblem, Error, Metrics, Outcome, Producer, Reason, Record};
use tonic::Status;

use crate::cluster::{Action, Cluster, TOPIC, error};
use crate::producing::send_large;
use crate::{until, within};

/// What was told, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Sent(u32, usize, u32),
    Acknowledged(u32, usize),
    Failed(u32, Outcome),
    Consumed(u32, usize),
    Leader(u32, String, String),
    ReaderLeft(u32, String),
    ReaderMoved(u32, String, String),
    Retried(String),
    SetAside(String),
    ReplicaSetAside(u32, String),
    Opened(String),
    NotOpened(String),
    Closed(String),
    Reloaded,
    Refused(String),
}

/// Remembers what it is told.
#[derive(Debug, Default)]
pub struct Recorder(Mutex<Vec<Told>>);

impl Recorder {
    fn note(&self, told: Told) {
        self.0.lock().unwrap().push(told);
    }

    /// What was told of one kind.
    pub fn those<T>(&self, pick: impl Fn(&Told) -> Option<T>) -> Vec<T> {
        self.0.lock().unwrap().iter().filter_map(pick).collect()
    }

    pub fn count(&self, is_meant: impl Fn(&Told) -> bool) -> usize {
        self.those(|told| is_meant(told).then_some(())).len()
    }
}

impl Metrics for Recorder {
    fn batch_sent(&self, batch: &BatchInfo<'_>, attempt: u32) {
        assert_eq!(batch.topic, TOPIC);
        self.note(Told::Sent(batch.records, batch.bytes, attempt));
    }
    fn batch_acknowledged(&self, batch: &BatchInfo<'_>, latency: Duration) {
        assert!(
            latency > Duration::ZERO && latency < Duration::from_secs(60),
            "{latency:?}"
        );
        self.note(Told::Acknowledged(batch.records, batch.bytes));
    }
    fn batch_failed(&self, batch: &BatchInfo<'_>, outcome: Outcome, _error: &Error) {
        self.note(Told::Failed(batch.records, outcome));
    }
    fn batch_consumed(&self, batch: &BatchInfo<'_>) {
        assert_eq!(batch.topic, TOPIC);
        self.note(Told::Consumed(batch.records, batch.bytes));
    }
    fn leader_changed(&self, topic: &str, partition: u32, from: &str, to: &str) {
        assert_eq!(topic, TOPIC);
        self.note(Told::Leader(partition, from.to_owned(), to.to_owned()));
    }
    fn reader_left(&self, topic: &str, partition: u32, node: &str, _error: &Error) {
        assert_eq!(topic, TOPIC);
        self.note(Told::ReaderLeft(partition, node.to_owned()));
    }
    fn reader_moved(&self, topic: &str, partition: u32, from: &str, to: &str) {
        assert_eq!(topic, TOPIC);
        self.note(Told::ReaderMoved(partition, from.to_owned(), to.to_owned()));
    }
    fn call_retried(&self, node: &str, _error: &Error) {
        self.note(Told::Retried(node.to_owned()));
    }
    fn node_set_aside(&self, node: &str, _length: Duration) {
        self.note(Told::SetAside(node.to_owned()));
    }
    fn replica_set_aside(&self, topic: &str, partition: u32, node: &str, _length: Duration) {
        assert_eq!(topic, TOPIC);
        self.note(Told::ReplicaSetAside(partition, node.to_owned()));
    }
    fn connection_opened(&self, address: &str) {
        self.note(Told::Opened(address.to_owned()));
    }
    fn connection_failed(&self, address: &str, _problem: &ConnectionProblem) {
        self.note(Told::NotOpened(address.to_owned()));
    }
    fn connection_closed(&self, address: &str) {
        self.note(Told::Closed(address.to_owned()));
    }
    fn certificates_reloaded(&self) {
        self.note(Told::Reloaded);
    }
    fn certificates_refused(&self, error: &Error) {
        self.note(Told::Refused(error.to_string()));
    }
}

pub async fn recorded(cluster: &Cluster) -> (Arc<Recorder>, highwater::Client) {
    let recorder = Arc::new(Recorder::default());
    let client = cluster.builder().metrics(recorder.clone()).connect().await.unwrap();
    (recorder, client)
}

/// How many connections are open.
fn open(recorder: &Recorder) -> usize {
    let opened = recorder.count(|told| matches!(told, Told::Opened(_)));
    opened - recorder.count(|told| matches!(told, Told::Closed(_)))
}

async fn single_record_producer(client: &highwater::Client) -> Producer {
    let producer = client.producer(TOPIC).linger(Duration::ZERO).batch_bytes(1024);
    producer.build().await.unwrap()
}

#[tokio::test]
async fn records_and_bytes_are_told_as_they_are_sent_acknowledged_and_consumed() {
    let cluster = Cluster::start(1, 1);
    let (recorder, client) = recorded(&cluster).await;
    within(async {
        let producer = client
            .producer(TOPIC)
            .compression(Compression::Zstd)
            .build()
            .await
            .unwrap();
        for _ in 0..100 {
            drop(producer.send(Record::new(vec![b'x'; 1_000])).await.unwrap());
        }
        producer.close().await;
        let mut consumer = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
        while let Some(record) = consumer.next_record().await {
            record.unwrap();
        }
    })
    .await;
    let stored: usize = cluster.shared.lock().partitions[0]
        .batches
        .iter()
        .map(|batch| batch.batch.len())
        .sum();
    assert!(stored < 50_000, "compressed");
    let sum = |told: Vec<(u32, usize)>| told.iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    let sent = recorder.those(|told| match told {
        Told::Sent(records, bytes, 1) => Some((*records, *bytes)),
        _ => None,
    });
    let acknowledged = recorder.those(|told| match told {
        Told::Acknowledged(records, bytes) => Some((*records, *bytes)),
        _ => None,
    });
    let consumed = recorder.those(|told| match told {
        Told::Consumed(records, bytes) => Some((*records, *bytes)),
        _ => None,
    });
    assert_eq!(sum(sent), (100, stored));
    assert_eq!(sum(acknowledged), (100, stored));
    assert_eq!(sum(consumed), (100, stored));
    assert_eq!(recorder.count(|told| matches!(told, Told::Failed(..))), 0);
}

#[tokio::test]
async fn a_retry_and_a_failure_are_told_and_each_batch_ends_once() {
    let cluster = Cluster::start(1, 1);
    let (recorder, client) = recorded(&cluster).await;
    cluster.set_script(|produced| match produced.count {
        0 => Action::Refuse(error(Reason::Overloaded, v1::Outcome::NotApplied)),
        2 => Action::Refuse(error(Reason::PermissionDenied, v1::Outcome::NotApplied)),
        _ => Action::Normal,
    });
    within(async {
        let producer = single_record_producer(&client).await;
        for number in 0..3 {
            for delivery in send_large(&producer, number..number + 1).await {
                let _ = delivery.await;
            }
        }
    })
    .await;
    let attempts = recorder.those(|told| match told {
        Told::Sent(_, _, attempt) => Some(*attempt),
        _ => None,
    });
    assert_eq!(attempts, [1, 2, 1, 1], "the first batch was sent twice");
    let ends = recorder.those(|told| match told {
        Told::Acknowledged(..) => Some(None),
        Told::Failed(_, outcome) => Some(Some(*outcome)),
        _ => None,
    });
    assert_eq!(ends, [None, Some(Outcome::NotApplied), None]);
}

#[tokio::test]
async fn a_leader_change_is_told_once_with_both_nodes() {
    let cluster = Cluster::start(3, 1);
    let (recorder, client) = recorded(&cluster).await;
    within(async {
        let producer = single_record_producer(&client).await;
        for delivery in send_large(&producer, 0..5).await {
            delivery.await.unwrap();
        }
        cluster.set_leader_silently(0, 2);
        for delivery in send_large(&producer, 5..20).await {
            delivery.await.unwrap();
        }
    })
    .await;
    let changes = recorder.those(|told| match told {
        Told::Leader(partition, from, to) => Some((*partition, from.clone(), to.clone())),
        _ => None,
    });
    assert_eq!(changes, [(0, "a".to_owned(), "c".to_owned())]);
}

#[tokio::test]
async fn a_reader_that_changes_its_replica_is_told_with_the_node_that_is_set_aside() {
    let cluster = Cluster::start(3, 1);
    let (recorder, client) = recorded(&cluster).await;
    let mut responses = 0;
    let left = Arc::new(Mutex::new(String::new()));
    let leaves = left.clone();
    cluster.set_read_script(move |node, _| {
        responses += 1;
        if responses == 3 {
            *leaves.lock().unwrap() = char::from(b'a' + node as u8).to_string();
            return Err(Status::unavailable("the stream breaks"));
        }
        Ok(())
    });
    within(async {
        crate::consuming::fill(&client, 0, 0..6).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        crate::consuming::take(&mut consumer, 6).await;
    })
    .await;
    let left = left.lock().unwrap().clone();
    assert_eq!(recorder.count(|told| *told == Told::ReaderLeft(0, left.clone())), 1);
    assert_eq!(recorder.count(|told| *told == Told::SetAside(left.clone())), 1);
}

#[tokio::test]
async fn connections_are_told_when_they_open_fail_and_end() {
    let mut cluster = Cluster::start(1, 1);
    let (recorder, client) = recorded(&cluster).await;
    let address = cluster.addresses()[0].clone();
    assert_eq!(recorder.count(|told| *told == Told::Opened(address.clone())), 1);
    assert_eq!(recorder.count(|told| matches!(told, Told::Closed(_))), 0);
    cluster.kill(0);
    within(async {
        until("the connection has ended", || {
            recorder.count(|told| *told == Told::Closed(address.clone())) == 1
        })
        .await;
        until("another attempt has failed", || {
            recorder.count(|told| *told == Told::NotOpened(address.clone())) > 0
        })
        .await;
        let topics = client.topics();
        let (listed, ()) = tokio::join!(topics.list(), async {
            until("the call is tried again", || {
                recorder.count(|told| *told == Told::Retried("a".to_owned())) > 0
            })
            .await;
            cluster.restart(0);
        });
        listed.unwrap();
        drop((topics, client));
        until("every connection has ended", || {
            let opened = recorder.count(|told| matches!(told, Told::Opened(_)));
            opened >= 2 && recorder.count(|told| matches!(told, Told::Closed(_))) == opened
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn many_streams_to_a_node_are_spread_over_a_few_connections_and_those_are_closed_again() {
    const PARTITIONS: u32 = 100;
    let cluster = Cluster::start(1, PARTITIONS as usize);
    let (recorder, client) = recorded(&cluster).await;
    within(async {
        let producer = client.producer(TOPIC).build().await.unwrap();
        for partition in 0..PARTITIONS {
            // The first connection has room for 32.
            if partition == 32 {
                producer.flush().await;
                assert_eq!(open(&recorder), 1);
            }
            let record = Record::new("x").with_partition(partition);
            drop(producer.send(record).await.unwrap());
        }
        producer.flush().await;
        assert_eq!(open(&recorder), 4);
        producer.close().await;
        until("surplus connections are closed", || open(&recorder) <= 2).await;
        client.topics().list().await.unwrap();
    })
    .await;
}
