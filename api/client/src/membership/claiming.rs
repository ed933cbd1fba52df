//! Claiming a partition, and finding where to go on with it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::time::sleep;

use super::line::is_final;
use super::{Assigned, Held, Route};
use crate::backoff::Backoff;
use crate::calls::Caller;
use crate::claim::{Claim, Member};
use crate::consumer::Position;
use crate::deadline::Deadline;
use crate::error::{Error, Reason};
use crate::picture::TopicRef;

/// Claims a partition for a member, `after` a while, however long it takes. An error is final.
pub(super) async fn claim(route: Arc<Route>, partition: u32, after: Duration) -> Result<Assigned, Error> {
    sleep(after).await;
    let mut backoff = Backoff::new();
    loop {
        let begin = Begin {
            caller: &route.caller,
            topic: &route.topic,
            member: &route.member,
            position: route.position,
            stop_at_end: route.stop_at_end,
            deadline: Deadline::after(route.call_deadline),
        };
        match begin.claim(partition).await {
            Ok(assigned) => return Ok(assigned),
            // Another has claimed it in between, or nobody answers.
            Err(error) if error.reason() == Some(Reason::StaleClaim) || !is_final(&route, &error) => {
                tracing::debug!(partition, %error, "claiming again");
            }
            Err(error) => return Err(error),
        }
        sleep(backoff.pause()).await;
    }
}

/// How a partition is begun.
pub(crate) struct Begin<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) topic: &'a TopicRef,
    pub(crate) member: &'a Member,
    /// For a group that never committed.
    pub(crate) position: Position,
    pub(crate) stop_at_end: bool,
    pub(crate) deadline: Deadline,
}

impl Begin<'_> {
    /// Claims the partition. A group that never committed has then committed where it begins: "from the end" means the end of now, also
    /// for the next member.
    pub(crate) async fn claim(&self, partition: u32) -> Result<Assigned, Error> {
        let Begin {
            caller,
            topic,
            deadline,
            ..
        } = *self;
        let claim = Claim::take(caller, topic, partition, self.member, deadline).await?;
        let position = match claim.committed() {
            Some(committed) => committed,
            None => {
                let position = self.position.find(caller, topic, partition, deadline).await?;
                match claim.commit(caller, topic, position, deadline).await {
                    // Beyond the end; it may come to be there.
                    Err(error) if error.reason() == Some(Reason::InvalidArgument) => {}
                    committed => committed?,
                }
                position
            }
        };
        let stop = match self.stop_at_end {
            true => Some(Position::End.find(caller, topic, partition, deadline).await?),
            false => None,
        };
        let held = Held {
            claim,
            begin: position,
            done: AtomicU64::new(position),
        };
        Ok(Assigned {
            held: Arc::new(held),
            position,
            stop,
        })
    }
}
