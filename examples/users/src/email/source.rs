//! Where a worker gets its records from: its membership in the group, which it takes up again as long as what ended it may pass.
//!
//! Invariant: all records are of the topic with one id. When that is deleted and made again, this ends with an error, for what has been
//! handled is known of the old one only.

use std::time::Duration;

use highwater::{Client, Consumer, Error};
use tokio::time::sleep;

use super::smtp;
use crate::events::USER_ADDED;

/// After what silence of a worker others take over.
const SESSION: Duration = Duration::from_secs(3);
/// How long one record may take before others take over: longer than sending one message once.
const PROCESSING_DEADLINE: Duration = Duration::from_secs(smtp::MESSAGE_MAX.as_secs() + 60);
/// How long to wait before the group is joined again.
const PAUSE: Duration = Duration::from_millis(500);

/// Who joins which group.
#[derive(Debug, Clone)]
pub(super) struct Membership {
    pub(super) client: Client,
    pub(super) group: String,
    /// A name that nobody else in the group has at the same time.
    pub(super) member: String,
    /// Of the topic.
    pub(super) topic_id: u64,
    /// How long no replica may serve a partition before that is an error.
    pub(super) deadline: Duration,
}

/// Why there are no records, for good.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    /// The cluster says so.
    #[error(transparent)]
    Cluster(#[from] Error),
    /// Whom to welcome is told by another topic now.
    #[error(
        "topic {USER_ADDED} was deleted and made again: its id was {before}, and is {now}; begin with another file"
    )]
    Remade {
        /// Which topic it was.
        before: u64,
        /// Which topic it is.
        now: u64,
    },
}

impl Membership {
    /// Joins once, and begins at the beginning where the group has not committed anything.
    pub(super) async fn join(&self) -> Result<Consumer, SourceError> {
        let consumer = self.client.consume_topic(USER_ADDED).group(&self.group, &self.member);
        let consumer = consumer.session(SESSION).processing_deadline(PROCESSING_DEADLINE);
        let consumer = consumer.deadline(self.deadline).build().await?;
        // Looked up last: the consumer is of this topic, or of an older one.
        match self.client.topics().get(USER_ADDED).await?.topic_id {
            now if now == self.topic_id => Ok(consumer),
            now => Err(SourceError::Remade {
                before: self.topic_id,
                now,
            }),
        }
    }

    /// Joins, however often that has to be tried. Cancel safe.
    pub(super) async fn join_again(&self) -> Result<Consumer, SourceError> {
        loop {
            sleep(PAUSE).await;
            match self.join().await {
                Err(SourceError::Cluster(error)) if error.is_retryable() => {
                    tracing::debug!(%error, "the group cannot be joined yet");
                }
                joined => return joined,
            }
        }
    }
}
