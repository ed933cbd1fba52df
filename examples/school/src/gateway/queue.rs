//! A topic of commands, with the topic of their events: where commands are sent, and what became of them is waited for.

use std::time::Duration;

use highwater::{Client, Error, ProduceError, Producer};
use highwater_service::{Start, View};
use serde::Serialize;
use tokio::time::timeout;

use super::outcomes::{Fate, Outcomes};
use crate::command::{self, CommandId};
use crate::proto::Freshness;

/// How long a command is tried to be sent. HTTP clients do not wait much longer than that.
const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// Commands of one kind.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) topic: &'static str,
    producer: Producer,
    pub(super) outcomes: View<Outcomes>,
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
    pub(super) async fn open(client: &Client, topic: &'static str, events: &str) -> Result<Self, Error> {
        let outcomes = Outcomes::near_the_end(client, events).await?;
        Ok(Self {
            topic,
            producer: client.producer(topic).deadline(SEND_DEADLINE).build().await?,
            outcomes: View::open(client, events, Start::State, outcomes).await?,
        })
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

    /// What became of a command, as soon as that is known, or after so long as is known then.
    pub(super) async fn wait(&self, id: CommandId, within: Duration) -> Fate {
        let mut changes = self.outcomes.changes();
        let decided = changes.wait_for(|()| self.fate(id) != Fate::Pending);
        // What is known is looked at below, however the wait ended.
        let _ = timeout(within, decided).await.is_ok();
        self.fate(id)
    }

    /// What an answer must be made of so that nobody whom this gateway has told of an event reads of the time before.
    pub(super) fn seen(&self) -> Freshness {
        let partitions = 0..self.outcomes.partitions();
        Freshness {
            positions: partitions.map(|partition| self.outcomes.position(partition)).collect(),
        }
    }

    /// The same about one id, which only one partition says anything of.
    pub(super) fn seen_of(&self, id: &str) -> Freshness {
        let partition = highwater::proto::keys::partition(id.as_bytes(), self.outcomes.partitions());
        let mut positions = vec![0; partition as usize];
        positions.push(self.outcomes.position(partition));
        Freshness { positions }
    }
}
