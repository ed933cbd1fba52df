//! What a subscriber of `tracing` sees.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use highwater::Record;
use tracing::span::{Attributes, Id, Record as Values};
use tracing::{Event, Metadata, Subscriber};

use crate::cluster::{Cluster, TOPIC};
use crate::within;

/// Counts the spans of the library, by name.
#[derive(Clone, Default)]
struct Spans {
    by_name: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    next: Arc<AtomicU64>,
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target().starts_with("highwater::")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        *self.by_name.lock().unwrap().entry(span.metadata().name()).or_default() += 1;
        Id::from_u64(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _span: &Id, _values: &Values<'_>) {}
    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}
    fn event(&self, _event: &Event<'_>) {}
    fn enter(&self, _span: &Id) {}
    fn exit(&self, _span: &Id) {}
}

#[tokio::test]
async fn calls_producers_and_consumers_have_spans_and_records_have_none() {
    const RECORDS: u64 = 1_000;
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    let cluster = Cluster::start(1, 2);
    within(async {
        let client = cluster.client().await;
        let producer = client.producer(TOPIC).build().await.unwrap();
        for number in 0..RECORDS {
            let record = Record::new(number.to_string()).with_partition(number as u32 % 2);
            drop(producer.send(record).await.unwrap());
        }
        producer.close().await;
        let mut consumer = client.consume_topic(TOPIC).stop_at_end().build().await.unwrap();
        while let Some(record) = consumer.next_record().await {
            record.unwrap();
        }
    })
    .await;
    let seen = spans.by_name.lock().unwrap().clone();
    for (name, count) in [
        ("connect", 1),
        ("dial", 1),
        ("watch", 1),
        ("produce", 2),
        ("flush", 1),
        ("consume", 2),
    ] {
        assert_eq!(seen.get(name), Some(&count), "{name} in {seen:?}");
    }
    assert!(seen["call"] < 10, "{seen:?}");
    assert_eq!(seen.len(), 7, "{seen:?}");
}
