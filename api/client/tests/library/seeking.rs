//! Consumers that are moved about: seek, pause, resume, and what waits.

use std::time::Duration;

use highwater::{Error, Position};

use crate::cluster::{Cluster, TOPIC};
use crate::consuming::{assert_numbers, fill, take};
use crate::{until, within};

#[tokio::test]
async fn a_seek_goes_on_there_and_drops_what_was_read_ahead() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..50).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        assert_numbers(&take(&mut consumer, 10).await, 0..10);
        for (to, begin) in [
            (Position::Offset(40), 40),
            (Position::Beginning, 0),
            (Position::Offset(3), 3),
        ] {
            consumer.seek(0, to).await.unwrap();
            assert_eq!(consumer.position(0), Some(begin));
            assert_numbers(&take(&mut consumer, 5).await, begin..begin + 5);
        }
        consumer.seek(0, Position::End).await.unwrap();
        fill(&client, 0, 50..55).await;
        assert_numbers(&take(&mut consumer, 5).await, 50..55);
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_has_ended_is_read_again_after_a_seek() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..6).await;
        let mut consumer = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
        assert_numbers(&take(&mut consumer, 6).await, 0..6);
        assert!(consumer.next_record().await.is_none());
        fill(&client, 0, 6..8).await;
        consumer.seek(0, Position::Offset(2)).await.unwrap();
        assert_numbers(&take(&mut consumer, 4).await, 2..6);
        assert!(consumer.next_record().await.is_none(), "the end stays where it was");
        consumer.seek(0, Position::Offset(6)).await.unwrap();
        assert!(consumer.next_record().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_paused_partition_is_silent_and_goes_on_where_it_was() {
    let cluster = Cluster::start(3, 2);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..20).await;
        fill(&client, 1, 0..20).await;
        let mut consumer = client.consume_topic(TOPIC).stop_at_end().build().await.unwrap();
        let before = take(&mut consumer, 7).await;
        let seen = before.iter().filter(|record| record.partition == 0).count() as u64;
        consumer.pause(0).unwrap();
        assert_eq!(consumer.paused(), [0]);
        assert_eq!(consumer.position(0), Some(seen));
        let rest = 20 - (7 - seen) as usize;
        assert!(
            take(&mut consumer, rest)
                .await
                .iter()
                .all(|record| record.partition == 1)
        );
        let more = tokio::time::timeout(Duration::from_millis(200), consumer.next_record()).await;
        assert!(more.is_err(), "it has not ended: {more:?}");
        consumer.resume(0).unwrap();
        assert_numbers(&take(&mut consumer, 20 - seen as usize).await, seen..20);
        assert!(consumer.next_record().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_seek_of_a_paused_partition_counts_when_it_is_resumed() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..20).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        take(&mut consumer, 1).await;
        consumer.pause(0).unwrap();
        consumer.seek(0, Position::Offset(15)).await.unwrap();
        assert_eq!(consumer.paused(), [0]);
        consumer.resume(0).unwrap();
        consumer.resume(0).unwrap();
        assert_numbers(&take(&mut consumer, 5).await, 15..20);
    })
    .await;
}

#[tokio::test]
async fn lag_is_what_waits_to_be_handed_out() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    within(async {
        fill(&client, 0, 0..10).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        take(&mut consumer, 4).await;
        assert_eq!(consumer.lag(0), Some(6));
        take(&mut consumer, 6).await;
        assert_eq!(consumer.lag(0), Some(0));
        fill(&client, 0, 10..13).await;
        until("the news arrive", || consumer.lag(0) == Some(3)).await;
        assert_eq!(consumer.lag(1), None);
    })
    .await;
}

#[tokio::test]
async fn partitions_that_are_not_read_are_refused_by_name() {
    let cluster = Cluster::start(1, 2);
    let client = cluster.client().await;
    within(async {
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        let sought = consumer.seek(1, Position::Beginning).await;
        for refused in [sought, consumer.pause(1), consumer.resume(1)] {
            let error = refused.unwrap_err();
            assert!(
                matches!(&error, Error::InvalidArgument { field: "partition", .. }),
                "{error}"
            );
        }
    })
    .await;
}
