//! How large batches get: small at first, larger while they are full, small again while a quota holds them back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::cluster::{Action, Cluster, TOPIC};
use crate::producing::send_large;
use crate::within;

#[tokio::test]
async fn batches_are_small_at_first_and_after_a_quota_has_held_one_back() {
    let cluster = Cluster::start(1, 1);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = sizes.clone();
    let is_held_back = Arc::new(AtomicBool::new(false));
    let held_back = is_held_back.clone();
    cluster.set_script(move |produced| {
        seen.lock().unwrap().push(produced.request.batch.len());
        match held_back.load(Ordering::SeqCst) {
            true => Action::AppendLate,
            false => Action::Normal,
        }
    });
    let client = cluster.client().await;
    let producer = client
        .producer(TOPIC)
        .linger(Duration::from_secs(5))
        .build()
        .await
        .unwrap();
    let largest_of_next = async |records: u64| {
        sizes.lock().unwrap().clear();
        drop(send_large(&producer, 0..records).await);
        producer.flush().await;
        sizes.lock().unwrap().iter().copied().max().unwrap()
    };
    within(async {
        let small = 32 * 1024;
        assert!(largest_of_next(30).await <= small);
        for _ in 0..6 {
            largest_of_next(1_000).await;
        }
        assert!(
            largest_of_next(1_000).await > 10 * small,
            "full batches that are taken at once grow"
        );
        is_held_back.store(true, Ordering::SeqCst);
        largest_of_next(1).await;
        assert!(largest_of_next(1_000).await <= small, "a batch was held back");
        assert!(largest_of_next(1_000).await <= small, "and so were these");
    })
    .await;
}
