//! `highwater cluster describe`: nodes, and what each of their replicas does.

use highwater::Cluster;
use highwater::proto::v1::disk::State;
use highwater::proto::v1::{DamagedEntries, DescribeClusterResponse, Disk, Node, ReplicaStatus};
use serde_json::{Value, json};

use super::operate::{print_settings, settings_document};
use crate::exit::Result;
use crate::output::{self, Format, Table};
use crate::profile::failure;
use crate::topic::or_dash;

pub(super) async fn describe(cluster: &Cluster, format: Format) -> Result<()> {
    let mut answer = cluster.describe().await.map_err(failure)?;
    answer.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    answer.replicas.sort_by(|a, b| replica_key(a).cmp(&replica_key(b)));
    match format {
        Format::Json => output::json(&document(&answer)),
        Format::Text => print(&answer),
    }
}

fn replica_key(replica: &ReplicaStatus) -> (&str, &str, u32, &str) {
    (&replica.tenant, &replica.topic, replica.partition, &replica.node)
}

fn print(answer: &DescribeClusterResponse) -> Result<()> {
    output::line(format!(
        "Cluster         {} (id {})",
        answer.cluster_name,
        or_dash(&answer.cluster_id)
    ))?;
    output::line(format!("Answering node  {}", answer.node))?;
    output::line(format!("Catalog leader  {}", or_dash(&answer.catalog_leader)))?;
    if let Some(settings) = &answer.settings {
        print_settings("Settings        ", settings)?;
    }
    output::line("")?;
    nodes(&answer.nodes).print()?;
    if answer.replicas.is_empty() {
        return Ok(());
    }
    output::line("")?;
    replicas(&answer.replicas).print()
}

fn nodes(nodes: &[Node]) -> Table {
    let heading = [
        "NODE", "ADDRESS", "RACK", "STATE", "CATALOG", "REPLICAS", "LEADERS", "DISK", "CPU", "VERSION",
    ];
    let mut table = Table::new(&heading);
    for node in nodes {
        table.row([
            node.name.clone(),
            node.address.clone(),
            or_dash(&node.rack),
            state(node),
            or_dash(&node.catalog_role),
            node.replicas.to_string(),
            node.leaders.to_string(),
            disk(node),
            cpu(node),
            or_dash(&node.version),
        ]);
    }
    table
}

/// What a node is up to, in a few words.
fn state(node: &Node) -> String {
    let mut states = Vec::new();
    match (node.alive, node.not_ready.as_str()) {
        (false, _) => states.push("away".to_owned()),
        (true, "") => states.push("ready".to_owned()),
        (true, why) => states.push(format!("not ready: {why}")),
    }
    if node.leaving {
        states.push("leaving".to_owned());
    }
    if node.drained {
        states.push("drained".to_owned());
    }
    states.extend(node.notices.iter().map(|notice| format!("NOTICE: {notice}")));
    states.join(", ")
}

/// How full the disk is, and what the node makes of it.
fn disk(node: &Node) -> String {
    let Some(disk) = &node.disk else {
        return "-".to_owned();
    };
    let used = disk.total_bytes.saturating_sub(disk.free_bytes);
    let percent = used.saturating_mul(100) / disk.total_bytes.max(1);
    match disk.state() {
        State::Unspecified | State::Plenty => format!("{percent} %"),
        State::Low => format!("{percent} % LOW"),
        State::Full => format!("{percent} % FULL: takes no records"),
    }
}

/// What its process has used since it started.
fn cpu(node: &Node) -> String {
    node.cpu_us
        .map_or_else(|| "-".to_owned(), |us| format!("{:.1} s", us as f64 / 1e6))
}

/// What is damaged, in a few words.
fn damage(replica: &ReplicaStatus) -> String {
    let entries: u64 = replica
        .damage
        .iter()
        .map(|range| (range.last_index + 1).saturating_sub(range.first_index))
        .sum();
    let lost = replica.damage.iter().any(|range| range.everywhere);
    match entries {
        0 => "-".to_owned(),
        _ if lost => format!("{entries} entries, some on EVERY replica"),
        _ => format!("{entries} entries, being mended"),
    }
}

fn replicas(replicas: &[ReplicaStatus]) -> Table {
    let heading = [
        "TOPIC",
        "PARTITION",
        "NODE",
        "ROLE",
        "TERM",
        "LOG START",
        "HIGH WATERMARK",
        "LOG END",
        "BYTES",
        "SERVED",
        "DAMAGE",
    ];
    let mut table = Table::new(&heading);
    for replica in replicas {
        let topic = match replica.tenant.as_str() {
            "" => replica.topic.clone(),
            tenant => format!("{tenant}/{}", replica.topic),
        };
        table.row([
            topic,
            replica.partition.to_string(),
            replica.node.clone(),
            replica.role.clone(),
            replica.term.to_string(),
            replica.log_start.to_string(),
            replica.high_watermark.to_string(),
            replica.log_end.to_string(),
            replica.bytes.to_string(),
            replica.records_served.to_string(),
            damage(replica),
        ]);
    }
    table
}

fn disk_document(disk: &Disk) -> Value {
    let state = match disk.state() {
        State::Unspecified => "unknown",
        State::Plenty => "plenty",
        State::Low => "low",
        State::Full => "full",
    };
    json!({ "state": state, "free_bytes": disk.free_bytes, "total_bytes": disk.total_bytes })
}

fn damage_document(range: &DamagedEntries) -> Value {
    json!({
        "first_index": range.first_index,
        "last_index": range.last_index,
        "everywhere": range.everywhere,
    })
}

fn document(answer: &DescribeClusterResponse) -> Value {
    let nodes = answer.nodes.iter().map(|node| {
        json!({
            "name": node.name,
            "address": node.address,
            "rack": node.rack,
            "alive": node.alive,
            "ready": node.not_ready.is_empty(),
            "not_ready": node.not_ready,
            "notices": node.notices,
            "leaving": node.leaving,
            "drained": node.drained,
            "replicas": node.replicas,
            "leaders": node.leaders,
            "feature_level": node.feature_level,
            "version": node.version,
            "incarnation": node.incarnation,
            "catalog_role": node.catalog_role,
            "disk": node.disk.as_ref().map(disk_document),
            "cpu_us": node.cpu_us,
        })
    });
    let replicas = answer.replicas.iter().map(|replica| {
        json!({
            "tenant": replica.tenant,
            "topic": replica.topic,
            "partition": replica.partition,
            "node": replica.node,
            "replica_id": replica.replica_id,
            "role": replica.role,
            "term": replica.term,
            "log_start": replica.log_start,
            "high_watermark": replica.high_watermark,
            "log_end": replica.log_end,
            "records_served": replica.records_served,
            "records_appended": replica.records_appended,
            "bytes": replica.bytes,
            "damage": replica.damage.iter().map(damage_document).collect::<Vec<_>>(),
        })
    });
    json!({
        "cluster_name": answer.cluster_name,
        "cluster_id": answer.cluster_id,
        "answering_node": answer.node,
        "catalog_leader": answer.catalog_leader,
        "settings": answer.settings.as_ref().map(settings_document),
        "feature_level": answer.feature_level,
        "nodes": nodes.collect::<Vec<_>>(),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}
