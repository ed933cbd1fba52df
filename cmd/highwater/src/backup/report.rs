//! What a restore has done, or would do.

use serde_json::json;

use super::manifest::{Manifest, Partition};
use super::plan::{Plan, TopicPlan};
use crate::exit::Result;
use crate::output::{self, Format, Table};

/// `left_alone` are offsets of groups that the cluster had already.
pub(super) fn print(
    plan: &Plan<'_>,
    manifest: &Manifest,
    is_dry: bool,
    left_alone: &[String],
    format: Format,
) -> Result<()> {
    match format {
        Format::Json => print_json(plan, manifest, is_dry, left_alone),
        Format::Text => print_text(plan, manifest, is_dry, left_alone),
    }
}

fn print_json(plan: &Plan<'_>, manifest: &Manifest, is_dry: bool, left_alone: &[String]) -> Result<()> {
    let partition = |topic: &TopicPlan<'_>, partition: &Partition| {
        json!({
            "partition": partition.partition,
            "first_offset": partition.first_offset,
            "records": partition.count(),
            "already_there": topic.records_there(partition),
        })
    };
    let topics = plan.topics.iter().map(|topic| {
        let partitions = topic.topic.partitions.iter();
        json!({
            "tenant": topic.topic.tenant,
            "topic": topic.topic.name,
            "replication": topic.replication,
            "existed": topic.there.is_some(),
            "sets_retention_bytes": topic.retention_bytes,
            "group_offsets": topic.topic.groups.len(),
            "partitions": partitions.map(|of| partition(topic, of)).collect::<Vec<_>>(),
        })
    });
    output::json(&json!({
        "dry_run": is_dry,
        "from_cluster": manifest.cluster_name,
        "to_cluster": plan.cluster_name,
        "policy_changes": plan.changes.lines(),
        "topics": topics.collect::<Vec<_>>(),
        "kept": plan.kept,
        "offsets_left_alone": left_alone,
    }))
}

fn print_text(plan: &Plan<'_>, manifest: &Manifest, is_dry: bool, left_alone: &[String]) -> Result<()> {
    plan.changes
        .lines()
        .iter()
        .try_for_each(|line| output::line(format!("+ {line}")))?;
    for topic in plan.topics.iter().filter(|topic| topic.there.is_some()) {
        if let Some(bytes) = topic.retention_bytes {
            output::line(format!("+ topic {}: retention_bytes={bytes}", topic.topic.full_name()))?;
        }
    }
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "ALREADY THERE", "GROUP OFFSETS"]);
    for topic in &plan.topics {
        let there: u64 = topic.there.iter().flatten().sum();
        let counts = [
            topic.topic.partitions.len() as u64,
            topic.topic.count(),
            there,
            topic.topic.groups.len() as u64,
        ];
        let [partitions, records, there, groups] = counts.map(|count| count.to_string());
        table.row([topic.topic.full_name(), partitions, records, there, groups]);
    }
    table.print()?;
    print_offsets(plan)?;
    for line in &plan.kept {
        output::note(format!("Kept as the cluster has it, and not in the backup so: {line}"));
    }
    for line in left_alone {
        output::note(format!("Left alone: {line}"));
    }
    let (from, to) = (&manifest.cluster_name, &plan.cluster_name);
    match is_dry {
        true => output::line(format!(
            "That would be restored from cluster {from} to cluster {to}. Nothing was changed."
        )),
        false => output::line(format!("Restored from cluster {from} to cluster {to}.")),
    }
}

fn print_offsets(plan: &Plan<'_>) -> Result<()> {
    let mut moved = false;
    for topic in &plan.topics {
        for partition in topic
            .topic
            .partitions
            .iter()
            .filter(|partition| partition.first_offset > 0)
        {
            moved = true;
            output::line(format!(
                "{}/{} began at offset {first}: offsets are {first} lower than they were.",
                topic.topic.full_name(),
                partition.partition,
                first = partition.first_offset
            ))?;
        }
    }
    if moved {
        return Ok(());
    }
    output::line("Every record has the offset that it had.")
}
