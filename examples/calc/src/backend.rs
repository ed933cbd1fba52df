//! A back end: takes commands, gives results, and may be killed at any time.
//!
//! Back ends are members of one group, so that each command is worked on by one of them, and a [`Transform`], so that each has exactly one
//! result whatever happens to them. What takes long is calculated on a thread of its own: the connection to the cluster, and with it the
//! membership, live on meanwhile.

use highwater::{ConsumedRecord, Record};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::transform::{Route, Transform};
use tokio::task::spawn_blocking;

use crate::command::{Command, Problem};
use crate::service::{self, Failed, Service};
use crate::wire::{self, COMMAND_TOPIC, Outcome, RESULT_TOPIC};

/// The group that all back ends are members of.
pub const GROUP: &str = "calc";

/// Answers commands until the process is told to end.
///
/// # Errors
/// [`Failed`].
pub async fn run(settings: &ServiceSettings) -> Result<(), Failed> {
    service::run(settings, &["group"], async |service: Service| {
        let route = Route {
            source: COMMAND_TOPIC.to_owned(),
            destination: RESULT_TOPIC.to_owned(),
            group: GROUP.to_owned(),
            member: format!("backend-{:016x}", rand::random::<u64>()),
        };
        tracing::info!(member = route.member, "the back end joins");
        let transform = tokio::select! {
            opened = Transform::stateless(&service.client, route) => opened?,
            () = service.stop.wait() => return Ok(()),
        };
        service.telemetry.there("group");
        let step = async |command: &ConsumedRecord| vec![answer(&service.telemetry, command).await];
        Ok(transform.run_each(step, service.stop.wait()).await?)
    })
    .await
}

/// The result of a command.
async fn answer(telemetry: &Telemetry, record: &ConsumedRecord) -> Record {
    let text = wire::text(record);
    let command = Command::read(&text);
    let request = telemetry.request(command.as_ref().map_or("unknown", Command::name));
    tracing::debug!(
        partition = record.partition,
        offset = record.offset,
        "a command is answered"
    );
    let (outcome, answer) = match calculate(command).await {
        Ok(answer) => (Outcome::Ok, answer),
        Err(problem) => (Outcome::Error, problem),
    };
    request.outcome(match outcome {
        Outcome::Ok => "ok",
        Outcome::Error => "invalid_argument",
    });
    wire::result(record, outcome, answer)
}

async fn calculate(command: Result<Command, Problem>) -> Result<String, String> {
    let command = command.map_err(|problem| problem.to_string())?;
    match spawn_blocking(move || command.answer()).await {
        Ok(answer) => answer.map_err(|problem| problem.to_string()),
        // A command that cannot be calculated must not stop those behind it.
        Err(error) => Err(format!("the back end failed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::tests::consumed;

    #[tokio::test]
    async fn every_command_has_a_result_right_or_wrong() {
        let telemetry = Telemetry::new("test", &[]).unwrap();
        for (text, outcome, words) in [
            ("np 2 12", Outcome::Ok, "3 37"),
            ("np 0", Outcome::Error, "no prime number 0"),
            ("what", Outcome::Error, "no command \"what\""),
        ] {
            let command = consumed(wire::command("a1", 7, text), 0, 0);
            let result = consumed(answer(&telemetry, &command).await, 0, 0);
            assert_eq!(
                (wire::outcome(&result), wire::number(&result)),
                (Some(outcome), Some(7))
            );
            assert!(wire::text(&result).contains(words), "{result:?}");
        }
    }
}
