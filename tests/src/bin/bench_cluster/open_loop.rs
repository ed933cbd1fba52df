//! A producer that sends on a schedule, whether it is answered or not: what waits is counted, not left out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater::{Client, Error, Record};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

const SEND_INTERVAL: Duration = Duration::from_millis(5);
const VALUE_BYTES: usize = 1024;

/// When it was due, and how long it took until it was acknowledged; `None`: it failed.
type Sent = (Instant, Option<Duration>);

/// A running producer; it ends when dropped.
pub(crate) struct OpenLoop {
    sent: Arc<Mutex<Vec<Sent>>>,
    task: JoinHandle<()>,
}

/// What came of the records that were due in some time.
pub(crate) struct Latencies {
    pub(crate) times: Vec<Duration>,
    pub(crate) failed: usize,
}

impl OpenLoop {
    pub(crate) async fn start(client: &Client, topic: &str) -> Result<OpenLoop, Error> {
        let producer = client.producer(topic).linger(Duration::ZERO).build().await?;
        let sent = Arc::new(Mutex::new(Vec::new()));
        let noting = sent.clone();
        let task = tokio::spawn(async move {
            let producer = Arc::new(producer);
            let mut ticks = interval(SEND_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                let due = ticks.tick().await.into_std();
                let (producer, noting) = (producer.clone(), noting.clone());
                tokio::spawn(async move {
                    let acknowledged = async {
                        let delivery = producer.send(Record::new(vec![b'x'; VALUE_BYTES])).await.ok()?;
                        delivery.await.ok()
                    };
                    let took = acknowledged.await.map(|_| due.elapsed());
                    let mut sent = noting.lock().unwrap_or_else(PoisonError::into_inner);
                    sent.push((due, took));
                });
            }
        });
        Ok(OpenLoop { sent, task })
    }

    /// Of the records that were due in this time and have an answer by now.
    pub(crate) fn between(&self, begin: Instant, end: Instant) -> Latencies {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = sent.iter().filter(|(due, _)| (begin..end).contains(due));
        let due: Vec<Option<Duration>> = due.map(|(_, took)| *took).collect();
        Latencies {
            times: due.iter().flatten().copied().collect(),
            failed: due.iter().filter(|took| took.is_none()).count(),
        }
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.task.abort();
    }
}
