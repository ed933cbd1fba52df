//! The worker: commands into events, each once and in order.
//!
//! How that is kept while workers are killed, or are thought dead and are not, is told in [`highwater_service::transform`]; here is only what
//! is decided, on the least that has to be known. A worker keeps that in memory and reads it out of the events at each start.

use highwater::{Client, ConsumedRecord};
use highwater_service::State;
use highwater_service::serving::Stop;
use highwater_service::transform::{Failed, Route, Transform};
use prometheus::{IntCounterVec, Opts, Registry, register_int_counter_vec_with_registry};

use crate::command::{self, Event, NotUnderstood, Outcome, Register};

/// What is known, as what the events make of it; and the first event that was not understood, behind which nothing is decided.
#[derive(Debug, Default)]
struct Known<R> {
    register: R,
    not_understood: Option<NotUnderstood>,
}

impl<R: Register> Known<R> {
    fn take_in(&mut self, records: &[ConsumedRecord]) -> Result<(), NotUnderstood> {
        for record in records {
            if let Some((id, change)) = command::change_in(record)? {
                self.register.take_in(id, &change);
            }
        }
        Ok(())
    }
}

impl<R: Register> State for Known<R> {
    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        if self.not_understood.is_none() {
            self.not_understood = self.take_in(records).err();
        }
    }

    fn failure(&self) -> Option<String> {
        self.not_understood.as_ref().map(NotUnderstood::to_string)
    }
}

/// Counts what this worker has decided, in `commands_total`. Of a command that had to be looked at again, each time.
#[derive(Debug)]
pub struct Decided(IntCounterVec);

impl Decided {
    /// Among these metrics.
    ///
    /// # Errors
    /// A registry that has them already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let options = Opts::new(
            "commands_total",
            "Commands that this worker has decided about, by outcome.",
        );
        Ok(Self(register_int_counter_vec_with_registry!(
            options,
            &["outcome"],
            registry
        )?))
    }

    fn count<C>(&self, event: &Event<C>) {
        let outcome = match event.outcome {
            Outcome::Applied(_) => "applied",
            Outcome::Rejected(_) => "rejected",
        };
        self.0.with_label_values(&[outcome]).inc();
    }
}

/// The way from a topic of commands to the one of their events, for a worker whose name nobody else has.
#[must_use]
pub fn route(commands: &str, events: &str, group: &str) -> Route {
    Route {
        source: commands.to_owned(),
        destination: events.to_owned(),
        group: group.to_owned(),
        member: format!("{group}-{:016x}", rand::random::<u64>()),
    }
}

/// Handles commands until `stop`.
///
/// # Errors
/// What cannot pass: topics gone or never made, permission withdrawn, an event of a newer program; at the start also that the cluster does
/// not answer.
pub async fn work<R: Register>(client: &Client, route: Route, decided: &Decided, stop: &Stop) -> Result<(), Failed> {
    let (group, member) = (route.group.clone(), route.member.clone());
    let transform = tokio::select! {
        () = stop.wait() => return Ok(()),
        opened = Transform::open(client, route, Known::<R>::default()) => opened?,
    };
    tracing::info!(group, member, "handles commands");
    let step = |known: &Known<R>, record: &ConsumedRecord| {
        let event = command::decide(&known.register, record);
        decided.count(&event);
        vec![command::event_record(&event, record)]
    };
    transform.run(step, stop.wait()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::tests::record;
    use crate::student::Students;

    #[test]
    fn nothing_is_decided_behind_an_event_that_is_not_understood() {
        let mut known = Known::<Students>::default();
        let created = r#"{"command":"1/0","applied":{"created":{"name":"Ada","email":"a@b"}}}"#;
        known.apply(1, &[record(Some("ada"), created, 0)]);
        assert_eq!(known.failure(), None);
        known.apply(
            1,
            &[record(Some("ada"), r#"{"command":"1/1","applied":"promoted"}"#, 1)],
        );
        known.apply(1, &[record(Some("ada"), r#"{"command":"1/2","applied":"deleted"}"#, 2)]);
        let why = known.failure().unwrap_or_default();
        assert!(why.contains("offset 1 of partition 1 is not understood"), "{why}");
    }
}
