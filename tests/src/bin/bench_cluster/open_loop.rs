//! A producer that sends on a schedule, whether it is answered or not: what waits is counted, not left out.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use highwater::{Client, Error, Record};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

const SEND_INTERVAL: Duration = Duration::from_millis(5);
const VALUE_BYTES: usize = 1024;

/// When it was due, and what came of it.
type Sent = (Instant, Outcome);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Waiting,
    Acknowledged(Duration),
    Failed,
}

/// How often is looked whether those that wait have an answer.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

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
                let at = {
                    let mut sent = noting.lock().unwrap_or_else(PoisonError::into_inner);
                    sent.push((due, Outcome::Waiting));
                    sent.len() - 1
                };
                tokio::spawn(async move {
                    let acknowledged = async {
                        let delivery = producer.send(Record::new(vec![b'x'; VALUE_BYTES])).await.ok()?;
                        delivery.await.ok()
                    };
                    let outcome = match acknowledged.await {
                        Some(_) => Outcome::Acknowledged(due.elapsed()),
                        None => Outcome::Failed,
                    };
                    noting.lock().unwrap_or_else(PoisonError::into_inner)[at].1 = outcome;
                });
            }
        });
        Ok(OpenLoop { sent, task })
    }

    /// Of the records that were due in this time. Waits until all of them have an answer.
    pub(crate) async fn between(&self, begin: Instant, end: Instant) -> Latencies {
        loop {
            let outcomes = self.outcomes(begin, end);
            if !outcomes.contains(&Outcome::Waiting) {
                let failed = outcomes.iter().filter(|outcome| **outcome == Outcome::Failed).count();
                let time = |outcome| match outcome {
                    Outcome::Acknowledged(took) => Some(took),
                    _ => None,
                };
                let times = outcomes.into_iter().filter_map(time).collect();
                return Latencies { times, failed };
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    fn outcomes(&self, begin: Instant, end: Instant) -> Vec<Outcome> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = sent.iter().filter(|(due, _)| (begin..end).contains(due));
        due.map(|(_, outcome)| *outcome).collect()
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.task.abort();
    }
}
