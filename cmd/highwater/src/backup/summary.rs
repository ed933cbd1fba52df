//! How much there is in a backup, told at its end.

use std::path::Path;

use serde_json::json;

use super::manifest::{Manifest, Policy, Topic};
use crate::exit::Result;
use crate::log::time;
use crate::output::{self, Format, Table};

/// Tells what was done with a backup, and what is in it.
pub(super) fn print(manifest: &Manifest, done: &str, directory: &Path, format: Format) -> Result<()> {
    match format {
        Format::Json => print_json(manifest, directory),
        Format::Text => print_text(manifest, done, directory),
    }
}

fn print_json(manifest: &Manifest, directory: &Path) -> Result<()> {
    let topics = manifest.topics.iter().map(|topic| {
        json!({
            "tenant": topic.tenant,
            "topic": topic.name,
            "partitions": topic.partitions.len(),
            "records": topic.count(),
            "bytes": file_bytes(topic),
            "group_offsets": topic.groups.len(),
        })
    });
    output::json(&json!({
        "directory": directory,
        "version": manifest.version,
        "cluster_name": manifest.cluster_name,
        "cluster_id": manifest.cluster_id,
        "begun_ms": manifest.begun_ms,
        "ended_ms": manifest.ended_ms,
        "tenants": manifest.tenants.iter().map(|tenant| &tenant.name).collect::<Vec<_>>(),
        "rules": count(manifest, |policy| policy.rules.len()),
        "grants": count(manifest, |policy| policy.grants.len()),
        "topics": topics.collect::<Vec<_>>(),
    }))
}

fn print_text(manifest: &Manifest, done: &str, directory: &Path) -> Result<()> {
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "RECORDS", "BYTES", "GROUP OFFSETS"]);
    for topic in &manifest.topics {
        let counts = [
            topic.partitions.len() as u64,
            topic.count(),
            file_bytes(topic),
            topic.groups.len() as u64,
        ];
        let [partitions, records, bytes, groups] = counts.map(|count| count.to_string());
        table.row([topic.full_name(), partitions, records, bytes, groups]);
    }
    table.print()?;
    output::line(format!(
        "{done} {}: cluster {}, of {}, with topics {}, tenants {}, rules {}, grants {}.",
        directory.display(),
        manifest.cluster_name,
        time(manifest.begun_ms),
        manifest.topics.len(),
        manifest.tenants.len(),
        count(manifest, |policy| policy.rules.len()),
        count(manifest, |policy| policy.grants.len()),
    ))
}

fn count(manifest: &Manifest, of: impl Fn(&Policy) -> usize) -> usize {
    let policies = manifest.tenants.iter().map(|tenant| &tenant.policy);
    policies.chain(&manifest.cluster_policy).map(of).sum()
}

fn file_bytes(topic: &Topic) -> u64 {
    topic.partitions.iter().map(|partition| partition.file_bytes).sum()
}
