//! The worker: commands into events, each once and in order.
//!
//! How that is kept while workers are killed, or are thought dead and are not, is told in [`highwater_service::transform`]; here is only what
//! is decided, on the least that has to be known. A worker keeps that in memory and reads it out of the events at each start.

use highwater::{Client, ConsumedRecord};
use highwater_service::State;
use highwater_service::serving::Stop;
use highwater_service::transform::{Failed, Route, Transform};
use prometheus::{IntCounterVec, Opts, Registry, register_int_counter_vec_with_registry};

use crate::command::{self, Event, Outcome, Register};

/// What is known, as what the events make of it.
#[derive(Debug, Default)]
struct Known<R>(R);

impl<R: Register> State for Known<R> {
    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        for record in records {
            if let Some((id, change)) = command::change_in(record) {
                self.0.take_in(id, &change);
            }
        }
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
/// What cannot pass: topics gone or never made, permission withdrawn; at the start also that the cluster does not answer.
pub async fn work<R: Register>(client: &Client, route: Route, decided: &Decided, stop: &Stop) -> Result<(), Failed> {
    let (group, member) = (route.group.clone(), route.member.clone());
    let transform = tokio::select! {
        () = stop.wait() => return Ok(()),
        opened = Transform::open(client, route, Known::<R>::default()) => opened?,
    };
    tracing::info!(group, member, "handles commands");
    let step = |known: &Known<R>, record: &ConsumedRecord| {
        let event = command::decide(&known.0, record);
        decided.count(&event);
        vec![command::event_record(&event, record)]
    };
    transform.run(step, stop.wait()).await
}
