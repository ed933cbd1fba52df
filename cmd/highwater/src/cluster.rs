//! `highwater cluster describe`: nodes, and what each of their replicas does.

use std::time::Duration;

use highwater::proto::v1::{DescribeClusterResponse, Node, ReplicaStatus};
use serde_json::{Value, json};

use crate::durations;
use crate::exit::Result;
use crate::output::{self, Format, Table};
use crate::profile::{ProfileArgs, failure};
use crate::topic::or_dash;

/// Look at the cluster.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show the nodes and their replicas, as one node sees them.
    Describe(Args),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    profile: ProfileArgs,
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    /// How long to try, at most 24h.
    #[arg(long, value_name = "DURATION", value_parser = durations::parse, default_value = "10s")]
    deadline: Duration,
}

pub(crate) async fn run(command: &Command) -> Result<()> {
    let Command::Describe(args) = command;
    let cluster = args.profile.connect(args.deadline).await?.cluster();
    let mut answer = cluster.describe().await.map_err(failure)?;
    answer.nodes.sort_by(|a, b| a.name.cmp(&b.name));
    answer.replicas.sort_by(|a, b| replica_key(a).cmp(&replica_key(b)));
    match args.output {
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
    output::line("")?;
    nodes(&answer.nodes).print()?;
    if answer.replicas.is_empty() {
        return Ok(());
    }
    output::line("")?;
    replicas(&answer.replicas).print()
}

fn nodes(nodes: &[Node]) -> Table {
    let mut table = Table::new(&["NODE", "ADDRESS", "RACK", "ALIVE", "CATALOG", "VERSION"]);
    for node in nodes {
        table.row([
            node.name.clone(),
            node.address.clone(),
            or_dash(&node.rack),
            if node.alive { "yes" } else { "no" }.to_owned(),
            or_dash(&node.catalog_role),
            or_dash(&node.version),
        ]);
    }
    table
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
        "SERVED",
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
            replica.records_served.to_string(),
        ]);
    }
    table
}

fn document(answer: &DescribeClusterResponse) -> Value {
    let nodes = answer.nodes.iter().map(|node| {
        json!({
            "name": node.name,
            "address": node.address,
            "rack": node.rack,
            "alive": node.alive,
            "version": node.version,
            "incarnation": node.incarnation,
            "catalog_role": node.catalog_role,
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
        })
    });
    json!({
        "cluster_name": answer.cluster_name,
        "cluster_id": answer.cluster_id,
        "answering_node": answer.node,
        "catalog_leader": answer.catalog_leader,
        "nodes": nodes.collect::<Vec<_>>(),
        "replicas": replicas.collect::<Vec<_>>(),
    })
}
