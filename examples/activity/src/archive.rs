//! What is not in memory and has to be asked of the log: old messages, and where it ends.
//!
//! Each read is a consumer of its own for as long as a page takes, so only a few of them run at a time.

use std::sync::Arc;

use highwater::{Client, Consumer, Error, Position};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::TOPIC;
use crate::event::Posted;
use crate::limits::{OLD_READ_BYTES, OLD_READS_MAX, READ_DEADLINE};

/// From this many records of other deployments on, jumping over them is cheaper than reading them.
const JUMP_RECORDS: u64 = 1_000;

/// Why messages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The log did not give them.
    #[error(transparent)]
    Log(#[from] Error),
    /// The log took too long.
    #[error("the log has not answered within {READ_DEADLINE:?}")]
    Late,
    /// The record is not there any more, or not readable.
    #[error("the record at position {0} is not in the log any more")]
    Gone(u64),
}

/// Reads old messages.
#[derive(Debug)]
pub(crate) struct Archive {
    client: Client,
    turns: Semaphore,
}

impl Archive {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            turns: Semaphore::new(OLD_READS_MAX),
        }
    }

    /// The messages at these positions of a partition, which ascend. Cancel safe.
    pub(crate) async fn messages(&self, partition: u32, positions: &[u64]) -> Result<Vec<Arc<str>>, ArchiveError> {
        let reading = async {
            // It is never closed; and without a turn reading would still be right.
            let _turn = self.turns.acquire().await;
            self.read(partition, positions).await
        };
        timeout(READ_DEADLINE, reading).await.map_err(|_| ArchiveError::Late)?
    }

    /// Where a partition ends now (exclusive), as its leader says. Cancel safe.
    pub(crate) async fn end(&self, partition: u32) -> Result<u64, ArchiveError> {
        let asking = async {
            let _turn = self.turns.acquire().await;
            let consumer = self.client.consumer(TOPIC, partition).deadline(READ_DEADLINE);
            Ok(consumer.build().await?.end_offset(partition).await?)
        };
        timeout(READ_DEADLINE, asking).await.map_err(|_| ArchiveError::Late)?
    }

    async fn read(&self, partition: u32, positions: &[u64]) -> Result<Vec<Arc<str>>, ArchiveError> {
        let Some(first) = positions.first() else {
            return Ok(Vec::new());
        };
        let consumer = self.client.consumer(TOPIC, partition).from(Position::Offset(*first));
        let mut consumer = consumer
            .prefetch_bytes(OLD_READ_BYTES)
            .deadline(READ_DEADLINE)
            .build()
            .await?;
        let mut messages = Vec::with_capacity(positions.len());
        for position in positions {
            messages.push(message(&mut consumer, partition, *position).await?);
        }
        Ok(messages)
    }
}

/// The message at a position that is still ahead.
async fn message(consumer: &mut Consumer, partition: u32, position: u64) -> Result<Arc<str>, ArchiveError> {
    let next = consumer.position(partition).unwrap_or(position);
    if position.saturating_sub(next) > JUMP_RECORDS {
        consumer.seek(partition, Position::Offset(position)).await?;
    }
    while let Some(record) = consumer.next_record().await {
        let record = match record {
            Err(Error::OffsetOutOfRange { .. } | Error::CorruptBatch { .. }) => {
                return Err(ArchiveError::Gone(position));
            }
            record => record?,
        };
        if record.offset >= position {
            let posted = Posted::from_record(&record).ok().filter(|_| record.offset == position);
            return posted
                .map(|posted| posted.message.into())
                .ok_or(ArchiveError::Gone(position));
        }
    }
    Err(ArchiveError::Gone(position))
}
