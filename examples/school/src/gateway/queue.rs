//! A topic of commands, with the topic of their events: where commands are sent, and what became of them is waited for.

use std::sync::Arc;
use std::time::Duration;

use highwater::{Client, ProduceError, Producer};
use highwater_service::connections::{CONNECTIONS_MAX, REQUESTS_MAX};
use highwater_service::serving::Stop;
use highwater_service::{Start, View};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::outcomes::{Fate, Outcomes};
use crate::answers::{Failing, Failure, with_hint};
use crate::command::{self, CommandId};
use crate::proto::Freshness;

/// How long a command is tried to be sent. HTTP clients do not wait much longer than that.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// Requests that wait for what becomes of a command at the same time; whoever comes on top of them is answered at once.
const WAITERS_MAX: usize = 256;

// So they do not keep all others out.
const _: () = assert!(WAITERS_MAX < CONNECTIONS_MAX && WAITERS_MAX < REQUESTS_MAX);

/// Commands of one kind.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) topic: &'static str,
    producer: Producer,
    pub(super) outcomes: View<Outcomes>,
    waiting: Arc<Waiting>,
}

/// Who waits, in the whole gateway: not more than so many, and not when it is to end.
#[derive(Debug)]
pub(super) struct Waiting {
    turns: Semaphore,
    stop: Stop,
}

impl Waiting {
    pub(super) fn new(stop: &Stop) -> Arc<Self> {
        Arc::new(Self {
            turns: Semaphore::new(WAITERS_MAX),
            stop: stop.clone(),
        })
    }

    /// Waits for that, for so long at most and until the gateway is to end. False if it did not wait, since too many do.
    async fn wait(&self, within: Duration, happens: impl Future) -> bool {
        let Ok(_turn) = self.turns.try_acquire() else {
            return false;
        };
        tokio::select! {
            () = self.stop.wait() => (),
            _ = timeout(within, happens) => (),
        }
        true
    }
}

/// Why a command was not sent, or may not have been.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error(transparent)]
    Produce(#[from] ProduceError),
    #[error("the command has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

impl Queue {
    pub(super) async fn open(
        client: &Client,
        topic: &'static str,
        events: &str,
        waiting: Arc<Waiting>,
    ) -> Result<(Self, Failing), Failure> {
        let outcomes = Outcomes::near_the_end(client, events).await.map_err(with_hint)?;
        let producer = client.producer(topic).deadline(SEND_DEADLINE).build().await;
        let failing = Failing::new(format!("topic {events}"), outcomes.failure());
        let queue = Self {
            topic,
            producer: producer.map_err(with_hint)?,
            outcomes: View::open(client, events, Start::State, outcomes).await?,
            waiting,
        };
        Ok((queue, failing))
    }

    /// Sends a command. It is on the disks of a majority when this returns.
    pub(super) async fn send<C: Serialize>(&self, id: &str, command: &C) -> Result<CommandId, SendError> {
        let delivery = self.producer.send(command::to_record(id, command)?).await?;
        let delivered = delivery.await?;
        Ok(CommandId {
            partition: delivered.partition,
            offset: delivered.offset,
        })
    }

    pub(super) fn fate(&self, id: CommandId) -> Fate {
        self.outcomes.read(|outcomes| outcomes.of(id))
    }

    /// Waits until it is known what became of a command, or for so long. False if it did not wait, since too many do.
    pub(super) async fn wait(&self, id: CommandId, within: Duration) -> bool {
        let mut changes = self.outcomes.changes();
        let decided = changes.wait_for(|()| self.fate(id) != Fate::Pending);
        self.waiting.wait(within, decided).await
    }

    /// What an answer must be made of so that nobody whom this gateway has told of an event reads of the time before.
    pub(super) fn seen(&self) -> Freshness {
        let partitions = 0..self.outcomes.partitions();
        Freshness {
            positions: partitions.map(|partition| self.outcomes.position(partition)).collect(),
            within_ms: None,
        }
    }

    /// The same about one id, which only one partition says anything of.
    pub(super) fn seen_of(&self, id: &str) -> Freshness {
        let partition = highwater::proto::keys::partition(id.as_bytes(), self.outcomes.partitions());
        let mut positions = vec![0; partition as usize];
        positions.push(self.outcomes.position(partition));
        Freshness {
            positions,
            within_ms: None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn whoever_comes_on_top_of_those_who_wait_is_answered_at_once() {
        let waiting = Waiting::new(&Stop::on_signals().unwrap());
        assert!(waiting.wait(LONG, ready(())).await);
        assert!(waiting.wait(Duration::ZERO, pending::<()>()).await);
        let waiters: Vec<_> = (0..WAITERS_MAX)
            .map(|_| {
                let waiting = waiting.clone();
                tokio::spawn(async move { waiting.wait(LONG, pending::<()>()).await })
            })
            .collect();
        while waiting.turns.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.wait(LONG, ready(())).await);
        waiters[7].abort();
        while waiting.turns.available_permits() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.wait(LONG, ready(())).await);
    }
}
