//! The verbs of `highwater cluster` that change something.

use std::time::Duration;

use highwater::proto::v1::Settings;
use highwater::{ChangeSettings, Cluster};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::waiting::Waiting;
use crate::durations;
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format};
use crate::profile::failure;

/// How often a command that waits asks how far the cluster is.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct TransferArgs {
    /// The topic.
    topic: String,
    /// The partition, counted from 0.
    partition: u32,
    /// The node that is to lead; it must hold a replica. Default: whichever is best.
    node: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// The node.
    node: String,
    /// Let it lead again.
    #[arg(long)]
    undo: bool,
    /// Do not wait until the leaderships have moved.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct DecommissionArgs {
    /// The node.
    node: String,
    /// Let it stay. What has been moved comes back only as far as balance wants it.
    #[arg(long)]
    undo: bool,
    /// Do not wait until everything has moved.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct MoveArgs {
    /// The topic.
    topic: String,
    /// The partition, counted from 0.
    partition: u32,
    /// The node whose replica is to go.
    #[arg(long, value_name = "NODE")]
    from: String,
    /// The node that gets one instead.
    #[arg(long, value_name = "NODE")]
    to: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct SettingsArgs {
    /// How patient groups are with a silent leader: 1 (0.3 to 0.4 s), 2 (1.5 to 2 s), 3 (3 to 4 s). The longer, the less do
    /// idle partitions cost; 2 and 3 are for nodes with hundreds of them.
    #[arg(long, value_name = "STEP")]
    timer_step: Option<u32>,
    /// How long a node may be away before others take the places of its replicas.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse_days)]
    replace_after: Option<Duration>,
    /// How fast a node sends records to replicas that are new or far behind.
    #[arg(long, value_name = "BYTES")]
    catch_up_bytes_per_second: Option<u64>,
    /// Whether replicas and leaders are moved so that nodes have equal shares.
    #[arg(long, value_name = "true|false")]
    balance: Option<bool>,
    /// How long a consumer group is kept that lags and neither claims nor commits, at least 1h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse_years)]
    groups_kept: Option<Duration>,
}

pub(super) async fn transfer(cluster: &Cluster, args: &TransferArgs, format: Format) -> Result<()> {
    let TransferArgs { topic, partition, node } = args;
    let node = node.as_deref().unwrap_or_default();
    let leader = cluster
        .transfer_leader(topic, *partition, node)
        .await
        .map_err(failure)?;
    match format {
        Format::Json => output::json(&json!({ "topic": topic, "partition": partition, "leader": leader })),
        Format::Text => output::line(format!("Partition {partition} of {topic} is led by {leader}.")),
    }
}

pub(super) async fn drain(cluster: &Cluster, args: &DrainArgs, format: Format) -> Result<()> {
    let node = &args.node;
    let mut answer = cluster.drain(node, args.undo).await.map_err(failure)?;
    let mut waiting = Waiting::new(format, answer.leaders_left);
    while !args.undo && !args.no_wait && answer.leaders_left > 0 {
        if answer.stuck == answer.leaders_left {
            return Err(nobody_else(node, answer.stuck));
        }
        let left = answer.leaders_left;
        waiting.tell(left, format!("{node} still leads {}", groups(left)));
        sleep(PROGRESS_INTERVAL).await;
        // Only a look: given again, the command would overturn what somebody else has undone.
        answer = cluster.drain_progress(node).await.map_err(failure)?;
        if answer.undone {
            return Err(undone(node, "is not drained any more"));
        }
    }
    drop(waiting);
    let left = answer.leaders_left;
    match (format, args.undo) {
        (Format::Json, undo) => output::json(&json!({ "node": node, "drained": !undo, "leaders_left": left })),
        (Format::Text, true) => output::line(format!("{node} may lead again.")),
        (Format::Text, false) if left > 0 => {
            output::line(format!("{node} is being drained; it still leads {}.", groups(left)))
        }
        (Format::Text, false) => output::line(format!("{node} leads nothing. Let it lead again with --undo.")),
    }
}

fn groups(count: u32) -> String {
    match count {
        1 => "1 group".to_owned(),
        count => format!("{count} groups"),
    }
}

fn nobody_else(node: &str, stuck: u32) -> Failure {
    let what = format!(
        "{node} is drained, but still leads {} that nobody else can lead now",
        groups(stuck)
    );
    Failure::new(Code::Refused, what).hint(
        "they stop when it stops: wait for the nodes that are away, or give their topics another replica with `highwater topic \
         update NAME --replication N`",
    )
}

fn undone(node: &str, state: &str) -> Failure {
    Failure::new(
        Code::Refused,
        format!("{node} {state}: somebody else has undone it meanwhile"),
    )
}

pub(super) async fn decommission(cluster: &Cluster, args: &DecommissionArgs, format: Format) -> Result<()> {
    let node = &args.node;
    let mut answer = cluster.decommission(node, args.undo).await.map_err(failure)?;
    let mut waiting = Waiting::new(format, answer.replicas_left);
    while !args.undo && !args.no_wait && !answer.removed {
        let left = answer.replicas_left;
        let state = match left {
            0 => format!("nothing is left on {node}; it is being removed"),
            left => format!("{left} replicas are left on {node}"),
        };
        waiting.tell(left, state);
        sleep(PROGRESS_INTERVAL).await;
        answer = cluster.decommission_progress(node).await.map_err(failure)?;
        if answer.undone {
            return Err(undone(node, "stays in the cluster"));
        }
    }
    drop(waiting);
    let left = answer.replicas_left;
    match (format, args.undo) {
        (Format::Json, undo) => output::json(&json!({
            "node": node,
            "leaving": !undo,
            "replicas_left": left,
            "removed": answer.removed,
        })),
        (Format::Text, true) => output::line(format!("{node} stays in the cluster.")),
        (Format::Text, false) if answer.removed => output::line(format!(
            "{node} has left the cluster. Its process ends by itself, and its data directory is not needed any more."
        )),
        (Format::Text, false) => output::line(format!(
            "{node} is leaving; {left} replicas are left on it. Give the command again to see how far it is."
        )),
    }
}

pub(super) async fn move_replica(cluster: &Cluster, args: &MoveArgs, format: Format) -> Result<()> {
    let MoveArgs {
        topic,
        partition,
        from,
        to,
    } = args;
    let moved = cluster.move_replica(topic, *partition, from, to).await;
    moved.map_err(failure)?;
    match format {
        Format::Json => output::json(&json!({ "topic": topic, "partition": partition, "from": from, "to": to })),
        Format::Text => output::line(format!(
            "The replica of partition {partition} of {topic} on {from} gives its place to one on {to}. It goes when that one has \
             its records; `highwater topic describe {topic}` shows it."
        )),
    }
}

pub(super) async fn settings(cluster: &Cluster, args: &SettingsArgs, format: Format) -> Result<()> {
    let change = ChangeSettings {
        timer_step: args.timer_step,
        replace_after_ms: args.replace_after.map(|after| after.as_millis() as u64),
        catch_up_bytes_per_second: args.catch_up_bytes_per_second,
        balance: args.balance,
        groups_kept_ms: args.groups_kept.map(|kept| kept.as_millis() as u64),
    };
    let settings = match change == ChangeSettings::default() {
        true => cluster.describe().await.map_err(failure)?.settings.unwrap_or_default(),
        false => cluster.change_settings(change).await.map_err(failure)?,
    };
    check_known(&change, &settings)?;
    match format {
        Format::Json => output::json(&settings_document(&settings)),
        Format::Text => print_settings("", &settings),
    }
}

/// A node of an older version passes over what it does not know, and answers as if all were well.
fn check_known(change: &ChangeSettings, answer: &Settings) -> Result<()> {
    if change.groups_kept_ms.is_none() || answer.groups_kept_ms.is_some() {
        return Ok(());
    }
    let what = "how long groups are kept is not changed: the node that answered is of an older version";
    Err(Failure::new(Code::Unavailable, what).hint("give the command again when every node of the cluster is upgraded"))
}

/// One line.
pub(super) fn print_settings(label: &str, settings: &Settings) -> Result<()> {
    let Settings {
        timer_step,
        replace_after_ms,
        catch_up_bytes_per_second,
        balance,
        groups_kept_ms,
    } = settings;
    let balance = if *balance { "on" } else { "off" };
    let groups_kept = groups_kept_ms.map_or(String::new(), |kept_ms| format!(", groups kept {kept_ms} ms"));
    output::line(format!(
        "{label}timer step {timer_step}, replace after {replace_after_ms} ms, catch up with {catch_up_bytes_per_second} \
         bytes/s, balance {balance}{groups_kept}"
    ))
}

pub(super) fn settings_document(settings: &Settings) -> Value {
    json!({
        "timer_step": settings.timer_step,
        "replace_after_ms": settings.replace_after_ms,
        "catch_up_bytes_per_second": settings.catch_up_bytes_per_second,
        "balance": settings.balance,
        "groups_kept_ms": settings.groups_kept_ms,
    })
}
#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_node_that_passes_over_a_setting_is_not_taken_for_one_that_changed_it() {
        let change = ChangeSettings {
            groups_kept_ms: Some(3_600_000),
            ..ChangeSettings::default()
        };
        let mut answer = Settings::default();
        let failure = check_known(&change, &answer).unwrap_err();
        assert_eq!(failure.code, Code::Unavailable);
        assert!(check_known(&ChangeSettings::default(), &answer).is_ok());
        answer.groups_kept_ms = Some(3_600_000);
        assert!(check_known(&change, &answer).is_ok());
    }
}
