//! What became of commands, for who asks by the command's id.
//!
//! Kept in memory, the newest of each partition: that is all that is needed to wait for a command that was just sent, and to look back a
//! while. A gateway that starts reads so many events again, and no more.
//!
//! Invariant: behind an event that is not understood nothing is told, for what became of its command is not known; the gateway ends.

use std::collections::VecDeque;

use highwater::{Client, ConsumedRecord, Error};
use highwater_service::State;
use tokio::sync::watch;

use crate::command::{self, CommandId, NotUnderstood, Outcome};

/// How many outcomes are kept of each partition.
pub const KEPT: u64 = 10_000;

/// What is known of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// No event has come. That is also told of a command that was never sent.
    Pending,
    /// It was done.
    Applied,
    /// It was not done, because of this.
    Rejected(String),
    /// It has been decided about so long ago that the answer is not kept.
    Forgotten,
}

/// The newest outcomes of a topic of events.
#[derive(Debug, Default)]
pub struct Outcomes {
    partitions: Vec<Kept>,
    failure: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Where reading begins.
    begin: u64,
    /// The command's offset, and why it was rejected if it was; by offset.
    newest: VecDeque<(u64, Option<String>)>,
}

impl Outcomes {
    /// As a state of that topic, beginning so far from the end that what is kept is full.
    ///
    /// # Errors
    /// As [`highwater::Consumer::end_offset`].
    pub async fn near_the_end(client: &Client, topic: &str) -> Result<Self, Error> {
        let consumer = client.consume_topic(topic).build().await?;
        let mut partitions = Vec::new();
        for partition in consumer.partitions() {
            let end = consumer.end_offset(partition).await?;
            partitions.push(Kept {
                begin: end.saturating_sub(KEPT),
                newest: VecDeque::new(),
            });
        }
        Ok(Self {
            partitions,
            failure: watch::Sender::default(),
        })
    }

    /// Tells when an event was not understood, and which.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// What became of a command.
    #[must_use]
    pub fn of(&self, id: CommandId) -> Fate {
        let Some(newest) = self.partitions.get(id.partition as usize).map(|kept| &kept.newest) else {
            return Fate::Pending;
        };
        if newest.back().is_none_or(|(last, _)| *last < id.offset) {
            return Fate::Pending;
        }
        match newest.binary_search_by_key(&id.offset, |(offset, _)| *offset) {
            Ok(place) => newest[place].1.clone().map_or(Fate::Applied, Fate::Rejected),
            Err(_) => Fate::Forgotten,
        }
    }
}

impl Kept {
    fn take_in(&mut self, records: &[ConsumedRecord]) -> Result<(), NotUnderstood> {
        for record in records {
            let event = command::outcome_in(record)?;
            let reason = match event.outcome {
                Outcome::Applied(_) => None,
                Outcome::Rejected(reason) => Some(reason),
            };
            self.newest.push_back((event.command.offset, reason));
            if self.newest.len() as u64 > KEPT {
                self.newest.pop_front();
            }
        }
        Ok(())
    }
}

impl State for Outcomes {
    fn position(&self, partition: u32) -> u64 {
        self.partitions.get(partition as usize).map_or(0, |kept| kept.begin)
    }

    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        let has_failed = self.failure.borrow().is_some();
        let Some(kept) = self.partitions.get_mut(partition as usize).filter(|_| !has_failed) else {
            return;
        };
        if let Err(error) = kept.take_in(records) {
            self.failure.send_replace(Some(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::tests::record;

    fn id(offset: u64) -> CommandId {
        CommandId { partition: 1, offset }
    }

    fn outcomes() -> Outcomes {
        let partitions = (0..3).map(|_| Kept::default()).collect();
        Outcomes {
            partitions,
            failure: watch::Sender::default(),
        }
    }

    #[test]
    fn behind_an_event_that_is_not_understood_nothing_is_told() {
        let mut outcomes = outcomes();
        let failure = outcomes.failure();
        let newer = record(None, r#"{"command":"1/4","applied":{"promoted":{}},"by":"w"}"#, 4);
        outcomes.apply(1, &[newer]);
        assert_eq!(outcomes.of(id(4)), Fate::Applied);
        assert_eq!(*failure.borrow(), None);
        let other = record(None, r#"{"command":"1/5","postponed":{}}"#, 5);
        outcomes.apply(1, &[other]);
        outcomes.apply(1, &[record(None, r#"{"command":"1/6","applied":"deleted"}"#, 6)]);
        assert_eq!(outcomes.of(id(5)), Fate::Pending);
        assert!(failure.borrow().as_ref().unwrap().contains("offset 5"));
    }

    #[test]
    fn a_command_is_pending_until_its_event_comes() {
        let mut outcomes = outcomes();
        let applied = record(None, r#"{"command":"1/4","applied":{"created":{"name":"x"}}}"#, 4);
        let rejected = record(None, r#"{"command":"1/5","rejected":"why"}"#, 5);
        assert_eq!(outcomes.of(id(4)), Fate::Pending);
        outcomes.apply(1, &[applied, rejected]);
        assert_eq!(outcomes.of(id(4)), Fate::Applied);
        assert_eq!(outcomes.of(id(5)), Fate::Rejected("why".to_owned()));
        assert_eq!(outcomes.of(id(6)), Fate::Pending);
        assert_eq!(outcomes.of(id(3)), Fate::Forgotten);
        let elsewhere = CommandId {
            partition: 9,
            offset: 0,
        };
        assert_eq!(outcomes.of(elsewhere), Fate::Pending);
    }

    #[test]
    fn the_newest_are_kept() {
        let mut outcomes = outcomes();
        for offset in 0..=KEPT {
            let event = format!(r#"{{"command":"1/{offset}","applied":"deleted"}}"#);
            outcomes.apply(1, &[record(None, &event, offset)]);
        }
        assert_eq!(outcomes.of(id(0)), Fate::Forgotten);
        assert_eq!(outcomes.of(id(1)), Fate::Applied);
        assert_eq!(outcomes.of(id(KEPT)), Fate::Applied);
    }
}
