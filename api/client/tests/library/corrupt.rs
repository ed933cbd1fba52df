//! Batches that are not what was written: read elsewhere if anywhere, else reported with their offsets.

use bytes::Bytes;
use highwater::proto::v1;
use highwater::{Error, Reason};
use prost::Message;

use crate::cluster::{Cluster, TOPIC};
use crate::consuming::{assert_numbers, fill, take};
use crate::within;

/// Damages the batch at offset 3.
fn damage(response: &mut v1::ConsumeResponse) {
    for batch in response.batches.iter_mut().filter(|batch| batch.base_offset == 3) {
        let mut bytes = batch.batch.to_vec();
        bytes[10] ^= 1;
        batch.batch = bytes.into();
    }
}

#[tokio::test]
async fn a_copy_that_is_damaged_on_one_node_is_read_from_another() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    cluster.set_read_script(|node, response| {
        if node == 1 {
            damage(response);
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..6).await;
        for _ in 0..5 {
            let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
            assert_numbers(&take(&mut consumer, 6).await, 0..6);
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_is_corrupt_everywhere_is_reported_with_its_offsets_and_passed() {
    let cluster = Cluster::start(3, 1);
    let client = cluster.client().await;
    cluster.set_read_script(|_, response| {
        damage(response);
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..6).await;
        let mut consumer = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
        assert_numbers(&take(&mut consumer, 3).await, 0..3);
        match consumer.next_record().await {
            Some(Err(Error::CorruptBatch { offsets, .. })) => assert_eq!(offsets, 3..4),
            other => panic!("{other:?}"),
        }
        assert_eq!(consumer.position(0), Some(4));
        assert_eq!(take(&mut consumer, 2).await[0].offset, 4);
        assert!(consumer.next_record().await.is_none());
    })
    .await;
}

#[tokio::test]
async fn a_wrong_record_count_is_a_corrupt_batch() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    cluster.set_read_script(|_, response| {
        for batch in &mut response.batches {
            batch.record_count += 1;
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..1).await;
        let mut consumer = client.consumer(TOPIC, 0).build().await.unwrap();
        let error = consumer.next_record().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(Reason::CorruptBatch));
        assert!(error.to_string().contains("holds 1 records, but says 2"), "{error}");
    })
    .await;
}

/// Whoever produced it, it must cost its own offsets and nothing else.
#[tokio::test]
async fn what_does_not_inflate_is_a_corrupt_batch_and_reading_goes_on_behind_it() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client().await;
    cluster.set_read_script(|_, response| {
        for batch in response.batches.iter_mut().filter(|batch| batch.base_offset == 3) {
            let content = v1::RecordBatch {
                compressed_records: Bytes::from_static(b"no frame of any kind"),
                ..Default::default()
            };
            batch.batch = content.encode_to_vec().into();
            batch.crc32c = crc_fast::crc32_iscsi(&batch.batch);
            batch.compression = v1::Compression::Zstd as i32;
        }
        Ok(())
    });
    within(async {
        fill(&client, 0, 0..6).await;
        let mut consumer = client.consumer(TOPIC, 0).stop_at_end().build().await.unwrap();
        assert_numbers(&take(&mut consumer, 3).await, 0..3);
        match consumer.next_record().await {
            Some(Err(Error::CorruptBatch { offsets, problem, .. })) => {
                assert_eq!(offsets, 3..4);
                assert!(problem.contains("inflate"), "{problem}");
            }
            other => panic!("{other:?}"),
        }
        assert_numbers(&take(&mut consumer, 2).await, 4..6);
        assert!(consumer.next_record().await.is_none());
    })
    .await;
}
