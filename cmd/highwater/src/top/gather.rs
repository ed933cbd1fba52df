//! Looks at a cluster through a client, and makes of two looks what is shown.

use std::collections::BTreeMap;
use std::time::Instant;

use highwater::Client;
use highwater::proto::v1::disk::State;
use highwater::proto::v1::{DescribeClusterResponse, Disk, Node, ReplicaStatus, Topic};
use highwater_node::attention::{self, DiskSeen, Finding, NodeSeen, PartitionSeen, ReplicaSeen, Seen};
use serde::Serialize;

use crate::exit::Result;
use crate::profile::failure;

/// Topics whose groups are asked for, those with the most partitions first: each is a call or more.
const TOPICS_WITH_GROUPS_MAX: usize = 20;

/// A cluster as it was seen once.
pub(super) struct Look {
    at: Instant,
    described: DescribeClusterResponse,
    topics: Vec<Topic>,
    groups: Vec<GroupView>,
}

/// Asks for all that is shown.
pub(super) async fn look(client: &Client) -> Result<Look> {
    let described = client.cluster().describe().await.map_err(failure)?;
    let at = Instant::now();
    let mut topics = client.topics().list().await.map_err(failure)?;
    topics.sort_by_key(|topic| std::cmp::Reverse(topic.partitions.len()));
    let mut groups: BTreeMap<(String, String), u64> = BTreeMap::new();
    for topic in topics.iter().take(TOPICS_WITH_GROUPS_MAX) {
        // A partition without a leader cannot tell; what others told counts.
        let Ok(offsets) = client.groups().list(&topic.name).await else {
            continue;
        };
        for offset in offsets {
            let lag = offset.lag();
            *groups.entry((offset.group, topic.name.clone())).or_default() += lag;
        }
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    let groups = groups.into_iter().map(|((group, topic), lag_records)| GroupView {
        group,
        topic,
        lag_records,
    });
    Ok(Look {
        at,
        described,
        groups: groups.collect(),
        topics,
    })
}

/// What is shown.
#[derive(Debug, Serialize)]
pub(super) struct View {
    pub(super) cluster: String,
    /// The node that answered.
    pub(super) node: String,
    pub(super) catalog_leader: String,
    pub(super) nodes: Vec<NodeView>,
    pub(super) topics: Vec<TopicView>,
    pub(super) groups: Vec<GroupView>,
    pub(super) findings: Vec<Finding>,
}

/// A node.
#[derive(Debug, Serialize)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) rack: String,
    pub(super) state: &'static str,
    pub(super) leaders: u32,
    pub(super) replicas: u32,
    pub(super) disk_used_percent: Option<u64>,
    /// Of one CPU; None at the first look.
    pub(super) cpu_percent: Option<u64>,
    pub(super) version: String,
}

/// A topic.
#[derive(Debug, Serialize)]
pub(super) struct TopicView {
    pub(super) name: String,
    pub(super) partitions: usize,
    pub(super) records: u64,
    pub(super) produced_per_second: Option<u64>,
    pub(super) consumed_per_second: Option<u64>,
    /// The most that a replica lacks, records.
    pub(super) lag_records: u64,
}

/// A consumer group on a topic.
#[derive(Debug, Clone, Serialize)]
pub(super) struct GroupView {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) lag_records: u64,
}

impl View {
    pub(super) fn of(before: Option<&Look>, now: &Look) -> View {
        let described = &now.described;
        let mut nodes: Vec<NodeView> = described
            .nodes
            .iter()
            .map(|node| node_view(before, now, node))
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        View {
            cluster: described.cluster_name.clone(),
            node: described.node.clone(),
            catalog_leader: described.catalog_leader.clone(),
            nodes,
            topics: now.topics.iter().map(|topic| topic_view(before, now, topic)).collect(),
            groups: now.groups.clone(),
            findings: attention::findings(&seen(now)),
        }
    }
}

fn node_view(before: Option<&Look>, now: &Look, node: &Node) -> NodeView {
    let cpu = before.and_then(|before| {
        let former = before.described.nodes.iter().find(|former| former.name == node.name)?;
        let used_us = node.cpu_us?.checked_sub(former.cpu_us?)?;
        let passed_us = now.at.duration_since(before.at).as_micros().max(1) as u64;
        Some(used_us * 100 / passed_us)
    });
    let used =
        |disk: &Disk| disk.total_bytes.saturating_sub(disk.free_bytes).saturating_mul(100) / disk.total_bytes.max(1);
    NodeView {
        name: node.name.clone(),
        rack: node.rack.clone(),
        state: match (node.alive, node.not_ready.is_empty(), node.leaving, node.drained) {
            (false, ..) => "AWAY",
            (true, false, ..) => "NOT READY",
            (true, true, true, _) => "leaving",
            (true, true, false, true) => "drained",
            (true, true, false, false) => "ready",
        },
        leaders: node.leaders,
        replicas: node.replicas,
        disk_used_percent: node.disk.as_ref().map(used),
        cpu_percent: cpu,
        version: node.version.clone(),
    }
}

/// The replicas of a topic's partition.
fn replicas<'a>(look: &'a Look, topic: &'a Topic, partition: u32) -> impl Iterator<Item = &'a ReplicaStatus> {
    let replicas = look.described.replicas.iter();
    replicas.filter(move |replica| {
        replica.tenant == topic.tenant && replica.topic == topic.name && replica.partition == partition
    })
}

fn high_watermark(look: &Look, topic: &Topic, partition: u32) -> u64 {
    replicas(look, topic, partition)
        .map(|replica| replica.high_watermark)
        .max()
        .unwrap_or(0)
}

fn topic_view(before: Option<&Look>, now: &Look, topic: &Topic) -> TopicView {
    let partitions = || topic.partitions.iter().map(|partition| partition.partition);
    let per_second = |count: fn(&Look, &Topic, u32) -> u64| {
        let before = before?;
        let passed = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let more =
            partitions().map(|partition| count(now, topic, partition).saturating_sub(count(before, topic, partition)));
        Some((more.sum::<u64>() as f64 / passed).round() as u64)
    };
    let start = |partition| {
        replicas(now, topic, partition)
            .map(|replica| replica.log_start)
            .max()
            .unwrap_or(0)
    };
    let records = partitions().map(|partition| high_watermark(now, topic, partition).saturating_sub(start(partition)));
    let lags = partitions().flat_map(|partition| {
        let end = high_watermark(now, topic, partition);
        let live = replicas(now, topic, partition).filter(|replica| attention::takes_part(&replica.role));
        live.map(move |replica| end.saturating_sub(replica.log_end))
    });
    TopicView {
        name: topic.name.clone(),
        partitions: topic.partitions.len(),
        records: records.sum(),
        produced_per_second: per_second(high_watermark),
        consumed_per_second: per_second(|look, topic, partition| {
            replicas(look, topic, partition)
                .map(|replica| replica.records_served)
                .sum()
        }),
        lag_records: lags.max().unwrap_or(0),
    }
}

/// As `attention` judges it.
fn seen(look: &Look) -> Seen {
    let described = &look.described;
    let partitions = look.topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(move |partition| {
            let end = high_watermark(look, topic, partition.partition);
            let replica = |node: &String| {
                let told = replicas(look, topic, partition.partition).find(|replica| replica.node == *node);
                replica_seen(node, told, end)
            };
            PartitionSeen {
                topic: format!("{}/{}", topic.tenant, topic.name),
                partition: partition.partition,
                leader: partition.leader.clone(),
                replicas: partition.replicas.iter().map(replica).collect(),
            }
        })
    });
    Seen {
        by: described.node.clone(),
        catalog_leader: described.catalog_leader.clone(),
        nodes: described.nodes.iter().map(node_seen).collect(),
        partitions: partitions.collect(),
    }
}

fn replica_seen(node: &str, told: Option<&ReplicaStatus>, end: u64) -> ReplicaSeen {
    let Some(told) = told else {
        return ReplicaSeen {
            node: node.to_owned(),
            ..ReplicaSeen::default()
        };
    };
    let entries = told
        .damage
        .iter()
        .map(|range| (range.last_index + 1).saturating_sub(range.first_index));
    ReplicaSeen {
        node: node.to_owned(),
        role: told.role.clone(),
        lag_records: attention::takes_part(&told.role).then(|| end.saturating_sub(told.log_end)),
        damaged_entries: entries.sum(),
        damaged_everywhere: told.damage.iter().any(|range| range.everywhere),
    }
}

fn node_seen(node: &Node) -> NodeSeen {
    NodeSeen {
        name: node.name.clone(),
        alive: node.alive,
        votes: node.catalog_role == "voter",
        not_ready: node.not_ready.clone(),
        notices: node.notices.clone(),
        disk: node.disk.as_ref().map(|disk| DiskSeen {
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            low: disk.state() == State::Low,
            full: disk.state() == State::Full,
        }),
        leaving: node.leaving,
        drained: node.drained,
    }
}
