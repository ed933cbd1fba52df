//! `highwater group list|describe|reset|delete`.

use std::collections::BTreeMap;

use highwater::{GroupMember, GroupOffset, Groups, Position};
use serde_json::{Value, json};

use crate::consume::parse_position;
use crate::exit::{Code, Failure, Result};
use crate::output::{self, Format, Table};
use crate::profile::{CommonArgs, failure};
use crate::topic::or_dash;

const EXAMPLES: &str = "\
Examples:
  highwater consume orders --group billing --from beginning
  highwater group list orders
  highwater group describe orders billing --output json
  highwater group reset orders billing --to 2026-01-31T12:00:00Z
  highwater group delete orders billing

A group's offsets live with each partition of a topic; its members share the partitions out among themselves. A reset counts at
once: whoever consumes for the group is refused at its next commit, and goes on from the new offset.";

/// Show consumer groups, and set how far they are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the groups that consume a topic, and how many records wait for each.
    List {
        /// The topic.
        topic: String,
    },
    /// Show how far a group is on each partition, and who consumes.
    Describe {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// Set a group's offset.
    Reset(ResetArgs),
    /// Forget a group on all partitions of a topic.
    Delete {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
}

#[derive(Debug, clap::Args)]
struct ResetArgs {
    /// The topic.
    topic: String,
    /// The group; it need not be known yet.
    group: String,
    /// Where it is to go on: `beginning`, `end`, an offset, or a time (RFC 3339).
    #[arg(long, value_name = "POSITION", value_parser = parse_position, allow_hyphen_values = true)]
    to: Position,
    /// On this partition only.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
}

pub(crate) async fn run(args: &Args) -> Result<()> {
    let groups = args.common.connect().await?.groups();
    let format = args.common.output;
    match &args.command {
        Command::List { topic } => list(&groups, topic, format).await,
        Command::Describe { topic, group } => describe(&groups, topic, group, format).await,
        Command::Reset(args) => reset(&groups, args, format).await,
        Command::Delete { topic, group } => delete(&groups, topic, group, format).await,
    }
}

/// A group on all partitions of a topic that know it.
#[derive(Default)]
struct Sum {
    partitions: usize,
    lag: u64,
    used_ms: u64,
}

async fn list(groups: &Groups, topic: &str, format: Format) -> Result<()> {
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for found in groups.list(topic).await.map_err(failure)? {
        let lag = found.lag();
        let sum = sums.entry(found.group).or_default();
        sum.partitions += 1;
        sum.lag += lag;
        sum.used_ms = sum.used_ms.max(found.used_ms);
    }
    if format == Format::Json {
        let groups = sums.iter().map(|(group, sum)| {
            json!({ "group": group, "partitions": sum.partitions, "lag": sum.lag, "used_ms": sum.used_ms })
        });
        return output::json(&json!({ "topic": topic, "groups": groups.collect::<Vec<_>>() }));
    }
    let mut table = Table::new(&["GROUP", "PARTITIONS", "LAG"]);
    for (group, sum) in &sums {
        table.row([group.clone(), sum.partitions.to_string(), sum.lag.to_string()]);
    }
    table.print()
}

async fn describe(groups: &Groups, topic: &str, group: &str, format: Format) -> Result<()> {
    let found = groups.describe(topic, group).await.map_err(failure)?;
    let members = groups.members(topic, group).await.map_err(failure)?;
    if found.is_empty() && members.is_empty() {
        return Err(unknown(topic, group));
    }
    if format == Format::Json {
        let partitions = found.iter().map(document).collect::<Vec<_>>();
        let members = members.iter().map(member_document).collect::<Vec<_>>();
        return output::json(&json!({ "topic": topic, "group": group, "partitions": partitions, "members": members }));
    }
    if !members.is_empty() {
        print_members(&members)?;
        output::line("")?;
    }
    print_offsets(&found)
}

fn print_members(members: &[GroupMember]) -> Result<()> {
    let mut table = Table::new(&["MEMBER", "CLIENT", "SILENT", "ASSIGNED", "HOLDING"]);
    for member in members {
        table.row([
            member.member.clone(),
            member.client.clone(),
            format!("{:.1} s", member.silence.as_secs_f64()),
            or_dash(&numbers(&member.assigned)),
            or_dash(&numbers(&member.holding)),
        ]);
    }
    table.print()
}

fn numbers(partitions: &[u32]) -> String {
    let numbers: Vec<String> = partitions.iter().map(u32::to_string).collect();
    numbers.join(",")
}

fn print_offsets(found: &[GroupOffset]) -> Result<()> {
    let mut table = Table::new(&[
        "PARTITION",
        "OFFSET",
        "LOG START",
        "HIGH WATERMARK",
        "LAG",
        "MEMBER",
        "CLAIM",
    ]);
    for on in found {
        table.row([
            on.partition.to_string(),
            on.offset.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
            on.range.log_start.to_string(),
            on.range.high_watermark.to_string(),
            on.lag().to_string(),
            or_dash(&on.member),
            on.claim.to_string(),
        ]);
    }
    table.print()
}

async fn reset(groups: &Groups, args: &ResetArgs, format: Format) -> Result<()> {
    let offsets = groups
        .reset(&args.topic, &args.group, args.partition, args.to)
        .await
        .map_err(failure)?;
    if format == Format::Json {
        let offsets = offsets
            .iter()
            .map(|(partition, offset)| json!({ "partition": partition, "offset": offset }));
        return output::json(
            &json!({ "topic": args.topic, "group": args.group, "partitions": offsets.collect::<Vec<_>>() }),
        );
    }
    let mut table = Table::new(&["PARTITION", "OFFSET"]);
    for (partition, offset) in &offsets {
        table.row([partition.to_string(), offset.to_string()]);
    }
    table.print()
}

async fn delete(groups: &Groups, topic: &str, group: &str, format: Format) -> Result<()> {
    if !groups.delete(topic, group).await.map_err(failure)? {
        return Err(unknown(topic, group));
    }
    match format {
        Format::Json => output::json(&json!({ "topic": topic, "deleted": group })),
        Format::Text => output::line(format!("Deleted group {group} of {topic}.")),
    }
}

fn unknown(topic: &str, group: &str) -> Failure {
    let message = format!("no partition of {topic} knows group {group}");
    Failure::new(Code::NotFound, message).hint(format!("`highwater group list {topic}` shows those that there are"))
}

fn member_document(member: &GroupMember) -> Value {
    json!({
        "member": member.member,
        "client": member.client,
        "assigned": member.assigned,
        "holding": member.holding,
        "silent_ms": u64::try_from(member.silence.as_millis()).unwrap_or(u64::MAX),
    })
}

fn document(on: &GroupOffset) -> Value {
    json!({
        "partition": on.partition,
        "offset": on.offset,
        "log_start": on.range.log_start,
        "high_watermark": on.range.high_watermark,
        "lag": on.lag(),
        "member": (!on.member.is_empty()).then_some(&on.member),
        "claim": on.claim,
        "used_ms": on.used_ms,
    })
}
