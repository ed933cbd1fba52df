//! Consuming: no gap, no repeat, loud about loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use highwater::proto::detail;
use highwater::proto::v1;
use highwater::{Client, Compression, ConsumedRecord, Consumer, Error, Freshness, Position, Reason, Record};
use tonic::{Code, Status};

use crate::cluster::{Cluster, TOPIC, error};
use crate::server::bind_again;
use crate::{until, within};

/// Fills a partition with numbered values, one batch each.
pub async fn fill(client: &Client, partition: u32, numbers: std::ops::Range<u64>) {
    let producer = client
        .producer(TOPIC)
        .linger(Duration::ZERO)
        .batch_bytes(1024)
        .build()
        .await
        .unwrap();
    for number in numbers {
        let record = Record::keyed("key", format!("{number:01100}")).with_partition(partition);
        let record = record.with_header("name", "value").with_timestamp_ms(number as i64);
        drop(producer.send(record).await.unwrap());
    }
    producer.close().await;
}

pub async fn take(consumer: &mut Consumer, count: usize) -> Vec<ConsumedRecord> {
    let mut records = Vec::new();
    while records.len() < count {
        records.push(consumer.next_record().await.unwrap().unwrap());
    }
    records
}

pub fn assert_numbers(records: &[ConsumedRecord], numbers: std::ops::Range<u64>) {
    assert_eq!(records.len() as u64, numbers.end - numbers.start);
    for (record, number) in records.iter().zip(numbers) {
        assert_eq!(record.offset, number);
        assert_eq!(record.value, format!("{number:01100}"));
    }
}

#[tokio::test]
async fn a_follower_serves_everything_and_then_the_tail() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..20).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        let records = take(&mut consumer, 20).await;
        assert_numbers(&records, 0..20);
        assert_eq!(records[7].key, Some(Bytes::from_static(b"key")));
        assert_eq!(records[7].timestamp_ms, 7);
        assert_eq!(records[7].append_time_ms, 8);
        assert_eq!(records[7].headers[0].name, "name");
        let node = consumer.served_by(0).unwrap();
        assert!(node == "b" || node == "c", "served by {node}, but a leads");
        fill(&client, 0, 20..30).await;
        assert_numbers(&take(&mut consumer, 10).await, 20..30);
        assert_eq!(consumer.position(0), Some(30));
        assert_eq!(consumer.end_offset(0).await.unwrap(), 30);
    })
    .await;
}

#[tokio::test]
async fn broken_streams_leave_no_gap_and_repeat_nothing() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    let mut responses = 0;
    cluster.set_read_script(move |_, _| {
        responses += 1;
        if responses % 7 == 0 {
            return Err(Status::unavailable("the stream breaks"));
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..60).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        assert_numbers(&take(&mut consumer, 60).await, 0..60);
    })
    .await;
}

#[tokio::test]
async fn the_freshness_asked_for_holds_until_something_has_been_answered() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    let mut responses = 0;
    cluster.set_read_script(move |_, _| {
        responses += 1;
        match responses {
            1 | 4 => Err(Status::unavailable("the stream breaks")),
            _ => Ok(()),
        }
    });
    within(async {
        fill(&client, 0, 0..6).await;
        let consumer = client.consumer(TOPIC, 0).freshness(Freshness::Linearizable);
        assert_numbers(&take(&mut consumer.build().await.unwrap(), 6).await, 0..6);
        let linearizable = Some(v1::freshness::Kind::Linearizable(true));
        assert_eq!(
            cluster.shared.lock().freshness_asked,
            [linearizable, linearizable, None]
        );
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_leaves_something_out_is_not_believed() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    let mut responses = 0;
    cluster.set_read_script(move |_, response| {
        responses += 1;
        if responses == 4 {
            response.batches.clear();
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..10).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        assert_numbers(&take(&mut consumer, 10).await, 0..10);
    })
    .await;
}

#[tokio::test]
async fn a_killed_replica_is_replaced_while_following_the_tail() {
    let mut cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..10).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        assert_numbers(&take(&mut consumer, 10).await, 0..10);
        let node = consumer.served_by(0).unwrap();
        cluster.kill(usize::from(node.as_bytes()[0] - b'a'));
        fill(&client, 0, 10..20).await;
        assert_numbers(&take(&mut consumer, 10).await, 10..20);
        assert_ne!(consumer.served_by(0), Some(node));
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_others_do_not_hear_from_is_left() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..5).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        take(&mut consumer, 5).await;
        let node = consumer.served_by(0).unwrap();
        let number = usize::from(node.as_bytes()[0] - b'a');
        cluster.shared.lock().nodes[number].alive = false;
        cluster.shared.changed();
        until("the stream has moved", || consumer.served_by(0).as_ref() != Some(&node)).await;
        fill(&client, 0, 5..10).await;
        assert_numbers(&take(&mut consumer, 5).await, 5..10);
        assert_ne!(consumer.served_by(0), Some(node));
    })
    .await;
}

/// What a follower says that is cut off from its leader, or does not keep up.
fn hand_over() -> Status {
    let mut detail = error(Reason::ReplicaBehind, v1::Outcome::NotApplied);
    detail.leader = Some(v1::LeaderHint {
        node: "a".to_owned(),
        term: 1,
        ..Default::default()
    });
    detail::to_status(Code::Unavailable, &detail)
}

#[tokio::test]
async fn a_replica_that_hands_its_readers_over_is_left_without_gap_or_repeat_and_set_aside_for_all() {
    const CONSUMERS: usize = 40;
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    let handed_over = Arc::new(AtomicUsize::new(0));
    let counter = handed_over.clone();
    let mut responses = 0;
    cluster.set_read_script(move |node, _| {
        responses += usize::from(node == 1);
        if node == 1 && responses % 3 == 0 {
            counter.fetch_add(1, Ordering::Relaxed);
            return Err(hand_over());
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..10).await;
        for _ in 0..CONSUMERS {
            let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
            assert_numbers(&take(&mut consumer, 10).await, 0..10);
        }
    })
    .await;
    // Half of the readers would begin at it. Set aside for 1, 2, 4, … seconds, it gets few of them.
    let handed_over = handed_over.load(Ordering::Relaxed);
    assert!(handed_over <= 8, "handed over {handed_over} times");
}

#[tokio::test]
async fn a_reader_that_every_follower_hands_over_goes_on_at_the_leader() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    cluster.set_read_script(|node, _| match node {
        0 => Ok(()),
        _ => Err(hand_over()),
    });
    within(async {
        fill(&client, 0, 0..10).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        assert_numbers(&take(&mut consumer, 10).await, 0..10);
        assert_eq!(consumer.served_by(0).as_deref(), Some("a"));
        // And stays there: at the end nothing draws it back.
        fill(&client, 0, 10..20).await;
        assert_numbers(&take(&mut consumer, 10).await, 10..20);
        assert_eq!(consumer.served_by(0).as_deref(), Some("a"));
    })
    .await;
}

#[tokio::test]
async fn compressed_records_come_back_as_they_were() {
    for method in [Compression::Lz4, Compression::Zstd] {
        let cluster = Cluster::start(1, 1);
        let client = cluster.client().await;
        within(async {
            let producer = client
                .producer(TOPIC)
                .compression(method)
                .linger(Duration::from_millis(5));
            let producer = producer.build().await.unwrap();
            for number in 0..5_000u64 {
                let record = Record::keyed("key", format!("a line like the others, {number}"));
                let record = record.with_header("name", "value").with_partition(0);
                drop(producer.send(record).await.unwrap());
            }
            producer.close().await;
            let mut consumer = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
            let records = take(&mut consumer, 5_000).await;
            for (record, number) in records.iter().zip(0u64..) {
                assert_eq!((record.offset, record.headers.len()), (number, 1));
                assert_eq!(record.value, format!("a line like the others, {number}"));
            }
            assert!(consumer.next_record().await.is_none());
        })
        .await;
        let state = cluster.shared.lock();
        let batches = &state.partitions[0].batches;
        assert!(
            batches.iter().any(|batch| batch.compression == method as i32),
            "{method:?}"
        );
    }
}

#[tokio::test]
async fn an_offset_below_the_log_start_is_an_error_with_the_valid_range() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..10).await;
        cluster.shared.lock().partitions[0].log_start = 4;
        let mut consumer = client
            .consumer(TOPIC, 0)
            .from(Position::Offset(2))
            .build()
            .await
            .unwrap();
        match consumer.next_record().await {
            Some(Err(Error::OffsetOutOfRange { offset, range, .. })) => {
                assert_eq!((offset, range.log_start, range.high_watermark), (2, 4, 10));
            }
            other => panic!("{other:?}"),
        }
        assert!(
            consumer.next_record().await.is_none(),
            "it cannot pass, so it ends the stream"
        );
        let mut consumer = client
            .consumer(TOPIC, 0)
            .from(Position::Beginning)
            .build()
            .await
            .unwrap();
        assert_eq!(take(&mut consumer, 1).await[0].offset, 4);
    })
    .await;
}

#[tokio::test]
async fn positions_and_ends_are_found() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..10).await;
        let from = |position| client.consumer(TOPIC, 0).from(position).stop_at_end();
        let mut by_time = from(Position::Time(6)).build().await.unwrap();
        assert_eq!(take(&mut by_time, 1).await[0].append_time_ms, 6);
        let at_end = from(Position::End).build().await.unwrap();
        assert_eq!(at_end.count().await, 0);
        let from_4 = from(Position::Offset(4)).build().await.unwrap();
        assert_eq!(from_4.stop_offset(0), Some(10));
        assert_eq!(from_4.count().await, 6);

        let mut only_new = client.consumer(TOPIC, 0).from(Position::End).build().await.unwrap();
        fill(&client, 0, 10..12).await;
        assert_numbers(&take(&mut only_new, 2).await, 10..12);
    })
    .await;
}

#[tokio::test]
async fn all_partitions_of_a_topic_come_in_one_stream_each_in_order() {
    let cluster = Cluster::start(3, 4);
    let client = cluster.client().await;
    within(async {
        for partition in 0..4 {
            fill(&client, partition, 0..10).await;
        }
        let mut consumer = client.consume_topic(TOPIC).stop_at_end().build().await.unwrap();
        let mut next = [0; 4];
        while let Some(record) = consumer.next().await {
            let record = record.unwrap();
            let next = &mut next[record.partition as usize];
            assert_eq!(record.offset, *next);
            *next += 1;
        }
        assert_eq!(next, [10; 4]);
        assert_eq!(consumer.partitions(), [0, 1, 2, 3]);
    })
    .await;
}

#[tokio::test]
async fn an_application_that_does_not_read_stops_the_reading_ahead() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    within(async {
        let producer = client.producer(TOPIC).build().await.unwrap();
        for _ in 0..40 {
            let record = Record::new(vec![0; 1_000_000]).with_partition(0);
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await;
        let consumer = client
            .consumer(TOPIC, 0)
            .prefetch_bytes(2_000_000)
            .stop_at_end()
            .build()
            .await
            .unwrap();
        until("reading ahead has begun", || cluster.shared.lock().batches_served > 3).await;
        // An application that reads gets everything three times over the same connection: time enough, on a machine of
        // any speed, to send it all to the other one, too.
        for _ in 0..3 {
            let reading = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
            assert_eq!(reading.count().await, 40);
        }
        let served = cluster.shared.lock().batches_served - 3 * 40;
        // The prefetch, the stream's window of 4 MiB, and what lies between them, but never all 40.
        assert!(
            served < 16,
            "{served} batches of 1 MB were sent to an application that does not read"
        );
        // And a call beside the blocked stream goes through.
        assert_eq!(consumer.end_offset(0).await.unwrap(), 40);
        assert_eq!(consumer.count().await, 40);
    })
    .await;
}

#[tokio::test]
async fn a_cluster_that_is_gone_ends_the_stream_at_its_deadline() {
    let mut cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..1).await;
        let builder = client.consumer(TOPIC, 0).deadline(Duration::from_millis(200));
        let mut consumer = builder.build().await.unwrap();
        take(&mut consumer, 1).await;
        cluster.kill(0);
        let error = consumer.next_record().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(error.is_retryable());
        assert!(consumer.next_record().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_node_that_hangs_does_not_put_off_the_deadline() {
    let mut cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..1).await;
        let builder = client.consumer(TOPIC, 0).deadline(Duration::from_secs(2));
        let mut consumer = builder.build().await.unwrap();
        take(&mut consumer, 1).await;
        cluster.kill(0);
        // Connections are accepted by the system, and nobody ever says anything on them.
        let _silent = bind_again(cluster.addresses()[0].parse().unwrap());
        let error = consumer.next_record().await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
    })
    .await;
}

#[tokio::test]
async fn unknown_topics_and_partitions_are_named() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    let error = client.consumer("unknown", 0).build().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::TopicNotFound));
    let error = client.consumer(TOPIC, 9).build().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PartitionNotFound));
}
