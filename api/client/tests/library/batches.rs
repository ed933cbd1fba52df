//! Reading batch by batch: the same records as one by one, and the consumer knows how far it is.

use std::time::Duration;

use highwater::{Client, ConsumedBatch, Consumer, Position, Record};

use crate::cluster::{Cluster, TOPIC};
use crate::within;

/// Sends batches of so many records each to a partition.
async fn send(client: &Client, partition: u32, sizes: &[usize]) {
    let producer = client.producer(TOPIC).linger(Duration::from_secs(60));
    let producer = producer.build().await.unwrap();
    let mut number = 0;
    for size in sizes {
        for _ in 0..*size {
            let record = Record::new(format!("{number}")).with_partition(partition);
            drop(producer.send(record).await.unwrap());
            number += 1;
        }
        producer.flush().await;
    }
}

async fn next(consumer: &mut Consumer) -> ConsumedBatch {
    consumer.next_batch().await.unwrap().unwrap()
}

/// The offsets of a batch's records, which are also their values.
fn numbers(batch: ConsumedBatch) -> Vec<u64> {
    let partition = batch.partition;
    let number = |record: Result<highwater::ConsumedRecord, highwater::Error>| {
        let record = record.unwrap();
        assert_eq!(record.partition, partition);
        assert_eq!(record.value, record.offset.to_string());
        record.offset
    };
    batch.map(number).collect()
}

#[tokio::test]
async fn batches_come_as_they_were_sent_and_move_the_position_at_once() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        send(&client, 0, &[3, 1, 2]).await;
        let reader = client.consumer(TOPIC, 0).from(Position::Beginning).stop_at_end();
        let mut consumer = reader.build().await.unwrap();
        let mut batch = next(&mut consumer).await;
        assert_eq!((batch.partition, batch.offsets(), batch.append_time_ms), (0, 0..3, 1));
        assert_eq!(consumer.position(0), Some(3));
        assert_eq!(batch.next().unwrap().unwrap().offset, 0);
        assert_eq!((batch.offsets(), batch.size_hint()), (1..3, (0, Some(2))));
        drop(batch);
        assert_eq!(
            numbers(next(&mut consumer).await),
            [3],
            "what was left of a batch does not come again"
        );
        assert_eq!(numbers(next(&mut consumer).await), [4, 5]);
        assert!(consumer.next_batch().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn what_was_read_one_by_one_or_is_not_wanted_is_not_in_a_batch() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        send(&client, 0, &[4, 2, 3]).await;
        let reader = client.consumer(TOPIC, 0).from(Position::Offset(1)).stop_at_end();
        let mut consumer = reader.build().await.unwrap();
        assert_eq!(consumer.next_record().await.unwrap().unwrap().offset, 1);
        assert_eq!(numbers(next(&mut consumer).await), [2, 3]);
        for offset in 4..6 {
            assert_eq!(consumer.next_record().await.unwrap().unwrap().offset, offset);
        }
        assert_eq!(
            numbers(next(&mut consumer).await),
            [6, 7, 8],
            "nothing was left of the batch before"
        );
        consumer.seek(0, Position::Offset(5)).await.unwrap();
        assert_eq!(next(&mut consumer).await.offsets(), 5..6);
        consumer.pause(0).unwrap();
        consumer.resume(0).unwrap();
        assert_eq!(numbers(next(&mut consumer).await), [6, 7, 8]);
        assert!(consumer.next_batch().await.is_none());
    })
    .await;
}

/// Their memory is the program's: a reader that collects them is not stopped by its prefetch.
#[tokio::test]
async fn batches_that_are_kept_do_not_stop_the_reading_ahead() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        send(&client, 0, &[1; 20]).await;
        let reader = client.consumer(TOPIC, 0).prefetch_bytes(10).stop_at_end();
        let mut consumer = reader.from(Position::Beginning).build().await.unwrap();
        let mut kept = Vec::new();
        while let Some(batch) = consumer.next_batch().await {
            kept.push(batch.unwrap());
        }
        let kept: Vec<u64> = kept.into_iter().flat_map(numbers).collect();
        assert_eq!(kept, (0..20).collect::<Vec<_>>());
    })
    .await;
}
