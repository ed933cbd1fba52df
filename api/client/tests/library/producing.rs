//! Producing: order, once, outcomes, backpressure.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use highwater::proto::v1;
use highwater::{Delivery, Outcome, Producer, Reason, Record, TrySendError};

use crate::cluster::{Action, Cluster, TOPIC, error};
use crate::within;

/// Sends numbered values one per batch, so that scripts can point at each.
async fn send(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::new(number.to_string()).with_partition(0);
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

/// A producer whose batches hold one record each.
async fn single_record_producer(cluster: &Cluster, deadline: Duration) -> Producer {
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .batch_bytes(1024)
        .deadline(deadline);
    producer.build().await.unwrap()
}

/// Values large enough to fill a batch each.
pub async fn send_large(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::new(format!("{number:01100}")).with_partition(0);
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

fn large(numbers: impl IntoIterator<Item = u64>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{number:01100}")).collect()
}

pub const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn keyed_records_keep_their_order_within_their_partition() {
    let cluster = Cluster::start(3, 3);
    let client = cluster.client().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    within(async {
        let mut deliveries = Vec::new();
        for number in 0..3_000u64 {
            let record = Record::keyed(format!("key {}", number % 17), number.to_string());
            deliveries.push((number, producer.send(record).await.unwrap()));
        }
        producer.flush().await;
        let stored: Vec<Vec<String>> = (0..3).map(|partition| cluster.values(partition)).collect();
        for (number, delivery) in deliveries {
            let delivered = delivery.await.unwrap();
            let value = &stored[delivered.partition as usize][delivered.offset as usize];
            assert_eq!(*value, number.to_string());
        }
        assert_eq!(stored.iter().map(Vec::len).sum::<usize>(), 3_000);
        for values in stored {
            let numbers: Vec<u64> = values.iter().map(|value| value.parse().unwrap()).collect();
            assert!(numbers.is_sorted(), "order within a partition");
        }
    })
    .await;
}

#[tokio::test]
async fn records_without_key_reach_all_partitions() {
    let cluster = Cluster::start(3, 4);
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .batch_bytes(1024)
        .build()
        .await
        .unwrap();
    within(async {
        for number in 0..400 {
            drop(producer.send(Record::new(format!("{number:0500}"))).await.unwrap());
        }
        producer.close().await;
        for partition in 0..4 {
            assert!(!cluster.values(partition).is_empty(), "partition {partition}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_leader_change_is_followed_by_hint_without_an_error() {
    let cluster = Cluster::start(3, 1);
    let producer = single_record_producer(&cluster, DEADLINE).await;
    within(async {
        let mut deliveries = send_large(&producer, 0..20).await;
        cluster.set_leader_silently(0, 1);
        deliveries.extend(send_large(&producer, 20..40).await);
        cluster.set_leader_silently(0, 2);
        deliveries.extend(send_large(&producer, 40..60).await);
        for (offset, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await.unwrap().offset, offset as u64);
        }
        assert_eq!(cluster.values(0), large(0..60));
    })
    .await;
}

#[tokio::test]
async fn a_killed_leader_is_survived_in_the_middle_of_a_load() {
    let mut cluster = Cluster::start(3, 1);
    let producer = single_record_producer(&cluster, DEADLINE).await;
    within(async {
        let mut deliveries = send_large(&producer, 0..100).await;
        cluster.kill(0);
        cluster.set_leader(0, 1);
        deliveries.extend(send_large(&producer, 100..200).await);
        for (offset, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await.unwrap().offset, offset as u64);
        }
        assert_eq!(cluster.values(0), large(0..200));
    })
    .await;
}

/// Runs a script that strikes once, and expects that nobody notices.
async fn strikes_once(action: fn() -> Action) {
    let cluster = Cluster::start(3, 1);
    let producer = single_record_producer(&cluster, DEADLINE).await;
    cluster.set_script(move |produced| if produced.count == 5 { action() } else { Action::Normal });
    within(async {
        let deliveries = send_large(&producer, 0..30).await;
        for (offset, delivery) in deliveries.into_iter().enumerate() {
            assert_eq!(delivery.await.unwrap().offset, offset as u64);
        }
        assert_eq!(cluster.values(0), large(0..30));
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_breaks_between_append_and_answer_stores_nothing_twice() {
    strikes_once(|| Action::AppendAndBreak).await;
}

#[tokio::test]
async fn a_stream_that_breaks_before_the_append_loses_nothing() {
    strikes_once(|| Action::Break).await;
}

#[tokio::test]
async fn an_unknown_outcome_is_resolved_by_the_retry() {
    strikes_once(|| Action::AppendAndSayUnknown).await;
}

#[tokio::test]
async fn a_node_that_swallows_a_batch_is_given_another_chance() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .answer_timeout(Duration::from_millis(100))
        .build()
        .await
        .unwrap();
    cluster.set_script(|produced| {
        if produced.count == 0 {
            Action::Ignore
        } else {
            Action::Normal
        }
    });
    within(async {
        for delivery in send(&producer, 0..3).await {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values(0), ["0", "1", "2"]);
    })
    .await;
}

#[tokio::test]
async fn order_is_kept_when_one_of_eight_in_flight_fails() {
    strikes_once(|| Action::Refuse(error(Reason::Overloaded, v1::Outcome::NotApplied))).await;
}

#[tokio::test]
async fn a_node_that_does_not_know_the_topic_yet_is_asked_again() {
    strikes_once(|| Action::Refuse(error(Reason::TopicNotFound, v1::Outcome::NotApplied))).await;
}

#[tokio::test]
async fn a_partition_that_forgot_the_producer_is_no_error() {
    let cluster = Cluster::start(1, 1);
    let producer = single_record_producer(&cluster, DEADLINE).await;
    within(async {
        for delivery in send(&producer, 0..3).await {
            delivery.await.unwrap();
        }
        let mut forget = true;
        cluster.set_script(move |_| match std::mem::take(&mut forget) {
            true => Action::Refuse(error(Reason::UnknownProducer, v1::Outcome::Unknown)),
            false => Action::Normal,
        });
        for delivery in send(&producer, 3..6).await {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values(0), ["0", "1", "2", "3", "4", "5"]);
    })
    .await;
}

#[tokio::test]
async fn a_refused_batch_fails_alone_and_certainly() {
    let cluster = Cluster::start(3, 1);
    let producer = single_record_producer(&cluster, DEADLINE).await;
    cluster.set_script(|produced| match produced.count {
        3 => Action::Refuse(error(Reason::PermissionDenied, v1::Outcome::NotApplied)),
        _ => Action::Normal,
    });
    within(async {
        let deliveries = send_large(&producer, 0..10).await;
        for (number, delivery) in deliveries.into_iter().enumerate() {
            match delivery.await {
                Ok(_) => assert_ne!(number, 3),
                Err(error) => {
                    assert_eq!(number, 3);
                    assert_eq!(error.outcome(), Outcome::NotApplied);
                    assert_eq!(error.reason(), Some(Reason::PermissionDenied));
                    assert!(!error.is_retryable());
                }
            }
        }
        assert_eq!(cluster.values(0), large([0, 1, 2, 4, 5, 6, 7, 8, 9]));
    })
    .await;
}

#[tokio::test]
async fn without_a_quorum_the_deadline_ends_it_and_later_it_works_again() {
    let cluster = Cluster::start(3, 1);
    let producer = single_record_producer(&cluster, Duration::from_millis(700)).await;
    cluster.set_script(|_| Action::Refuse(error(Reason::NoQuorum, v1::Outcome::NotApplied)));
    within(async {
        for delivery in send_large(&producer, 0..10).await {
            let error = delivery.await.unwrap_err();
            assert_eq!(error.reason(), Some(Reason::NoQuorum), "{error}");
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
            assert!(error.is_retryable());
        }
        cluster.set_script(|_| Action::Normal);
        for delivery in send_large(&producer, 10..20).await {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values(0), large(10..20));
    })
    .await;
}

#[tokio::test]
async fn a_node_that_never_answers_leads_to_unknown_and_stores_nothing_twice() {
    let cluster = Cluster::start(1, 1);
    let producer = single_record_producer(&cluster, Duration::from_millis(700)).await;
    cluster.set_script(|_| Action::AppendSilently);
    within(async {
        for delivery in send_large(&producer, 0..4).await {
            assert_eq!(delivery.await.unwrap_err().outcome(), Outcome::Unknown);
        }
        cluster.set_script(|_| Action::Normal);
        for delivery in send_large(&producer, 4..8).await {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values(0), large(0..8));
    })
    .await;
}

#[tokio::test]
async fn what_never_had_its_turn_is_certainly_not_applied_at_the_deadline() {
    let cluster = Cluster::start(1, 1);
    let producer = single_record_producer(&cluster, Duration::from_secs(3)).await;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let seen_by_node = seen.clone();
    cluster.set_script(move |produced| {
        seen_by_node.lock().unwrap().insert(produced.request.batch.clone());
        Action::Ignore
    });
    within(async {
        let deliveries = send_large(&producer, 0..40).await;
        for (number, delivery) in deliveries.into_iter().enumerate() {
            let outcome = match number {
                0..8 => Outcome::Unknown,
                _ => Outcome::NotApplied,
            };
            assert_eq!(delivery.await.unwrap_err().outcome(), outcome, "record {number}");
        }
        assert_eq!(seen.lock().unwrap().len(), 8, "nothing is sent when its time is over");
        cluster.set_script(|_| Action::Normal);
        for delivery in send_large(&producer, 40..50).await {
            delivery.await.unwrap();
        }
        assert_eq!(cluster.values(0), large(40..50));
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_is_gone_means_not_applied() {
    let mut cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .deadline(Duration::from_millis(700))
        .batch_bytes(1024)
        .build()
        .await
        .unwrap();
    cluster.kill(0);
    within(async {
        // What is sent before the loss is noticed may have arrived; here it has been noticed.
        let topics = client.topics().deadline(Duration::from_millis(100));
        while !topics
            .list()
            .await
            .is_err_and(|error| error.to_string().contains("cannot connect"))
        {}
        for delivery in send_large(&producer, 0..10).await {
            let error = delivery.await.unwrap_err();
            assert_eq!(error.outcome(), Outcome::NotApplied, "{error}");
        }
        cluster.restart(0);
        for delivery in send_large(&producer, 10..20).await {
            delivery.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_is_never_exceeded() {
    const BUFFER: usize = 2 * 1024 * 1024;
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    let producer = client.producer(TOPIC).buffer_bytes(BUFFER).build().await.unwrap();
    let blocked = Arc::new(AtomicBool::new(true));
    let is_blocked = blocked.clone();
    cluster.set_script(move |_| match is_blocked.load(Ordering::Relaxed) {
        true => Action::Refuse(error(Reason::NoQuorum, v1::Outcome::NotApplied)),
        false => Action::Normal,
    });
    let record = || Record::new(vec![0; 100_000]);
    within(async {
        let mut deliveries = Vec::new();
        let returned = loop {
            match producer.try_send(record()) {
                Ok(delivery) => deliveries.push(delivery),
                Err(TrySendError::Full(returned)) => break returned,
                Err(TrySendError::Failed(error)) => panic!("{error}"),
            }
        };
        assert_eq!(*returned, record());
        assert!(deliveries.len() * 100_000 <= BUFFER, "{} records", deliveries.len());
        assert!(deliveries.len() >= 20, "{} records", deliveries.len());

        let waiting = tokio::time::timeout(Duration::from_millis(50), producer.send(record())).await;
        assert!(waiting.is_err(), "send waits for space");
        blocked.store(false, Ordering::Relaxed);
        deliveries.push(producer.send(record()).await.unwrap());
        for delivery in deliveries {
            delivery.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_dropped_producer_has_taken_is_still_sent() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::from_secs(30))
        .build()
        .await
        .unwrap();
    within(async {
        let deliveries = send(&producer, 0..5).await;
        drop(producer);
        for delivery in deliveries {
            delivery.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn records_that_no_node_would_take_are_refused_at_once() {
    let cluster = Cluster::start(1, 2);
    let client = cluster.client().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    let too_large = producer.send(Record::new(vec![0; 1024 * 1024])).await.unwrap_err();
    assert_eq!(too_large.reason(), Some(Reason::TooLarge));
    assert_eq!(too_large.outcome(), Outcome::NotApplied);
    let nowhere = producer.send(Record::new("x").with_partition(2)).await.unwrap_err();
    assert!(nowhere.to_string().contains("2 partitions"), "{nowhere}");
    let unknown = client.producer("unknown").build().await.unwrap_err();
    assert_eq!(unknown.reason(), Some(Reason::TopicNotFound));
    let greedy = client
        .producer(TOPIC)
        .batch_bytes(2 * 1024 * 1024)
        .build()
        .await
        .unwrap_err();
    assert!(greedy.to_string().contains("batch_bytes"), "{greedy}");
    let slow = client.producer(TOPIC).linger(Duration::from_secs(20));
    let slow = slow.deadline(Duration::from_secs(30)).build().await.unwrap_err();
    assert!(slow.to_string().contains("linger"), "{slow}");
}

#[tokio::test]
async fn a_node_may_lead_more_partitions_than_a_connection_has_streams() {
    const PARTITIONS: u32 = 300;
    let cluster = Cluster::start(1, PARTITIONS as usize);
    let client = cluster.client().await;
    let producer = client.producer(TOPIC).build().await.unwrap();
    within(async {
        for partition in 0..PARTITIONS {
            let record = Record::new(partition.to_string()).with_partition(partition);
            drop(producer.send(record).await.unwrap());
        }
        producer.flush().await;
        let consumer = client.consume_topic(TOPIC).stop_at_end().build().await.unwrap();
        let records: Vec<_> = consumer.collect().await;
        assert_eq!(records.len(), PARTITIONS as usize);
        assert!(records.iter().all(Result::is_ok));
    })
    .await;
}

#[tokio::test]
async fn a_batch_is_appended_at_its_offset_or_not_at_all() {
    let cluster = Cluster::start(1, 2);
    let client = cluster.client().await;
    within(async {
        let producer = client.producer(TOPIC).build().await.unwrap();
        let two = |name: &str| vec![Record::new(format!("{name} 0")), Record::new(format!("{name} 1"))];
        let first = producer.append_at(0, 0, two("first")).await.unwrap();
        assert_eq!((first.partition, first.offset), (0, 0));
        let late = producer.append_at(0, 0, two("late")).await.unwrap_err();
        assert_eq!(late.reason(), Some(Reason::OffsetMismatch));
        assert_eq!((late.outcome(), late.log_end()), (Outcome::NotApplied, Some(2)));
        let again = producer.append_at(0, 2, two("again")).await.unwrap();
        assert_eq!(again.offset, 2);
        // Behind what was sent before, also if that waits for more.
        let before = producer.send(Record::new("before").with_partition(0)).await.unwrap();
        assert_eq!(producer.append_at(0, 5, two("behind")).await.unwrap().offset, 5);
        assert_eq!(before.await.unwrap().offset, 4);
    })
    .await;
    let values = [
        "first 0", "first 1", "again 0", "again 1", "before", "behind 0", "behind 1",
    ];
    assert_eq!(cluster.values(0), values);
    let producers = cluster.shared.lock().partitions[0].producer_ids();
    assert_eq!(producers, 1, "a declined batch must not cost a producer id");
}

#[tokio::test]
async fn a_batch_for_an_offset_that_no_node_would_take_is_refused_at_once() {
    let cluster = Cluster::start(1, 2);
    let client = cluster.client().await;
    within(async {
        let producer = client.producer(TOPIC).build().await.unwrap();
        let large = |count| vec![Record::new(vec![0; 400 * 1024]); count];
        let elsewhere = vec![Record::new("x").with_partition(0)];
        for (partition, records) in [(0, vec![]), (0, large(3)), (1, elsewhere), (2, large(1))] {
            let refused = producer.append_at(partition, 0, records).await.unwrap_err();
            assert_eq!(refused.outcome(), Outcome::NotApplied, "{refused}");
        }
        assert_eq!(producer.append_at(1, 0, large(2)).await.unwrap().offset, 0);
    })
    .await;
}
