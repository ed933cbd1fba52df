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

/// Whether a replica's figures are its own: of one that did not answer, or that is dead, they are zeros which nobody has measured.
fn is_measured(replica: &ReplicaStatus) -> bool {
    !["", "dead"].contains(&replica.role.as_str())
}

/// How many records a partition has got between two looks; None if no replica told of it in one of them.
fn produced_between(before: &Look, now: &Look, topic: &Topic, partition: u32) -> Option<u64> {
    let told = |look| replicas(look, topic, partition).any(is_measured);
    let end = |look| high_watermark(look, topic, partition);
    (told(before) && told(now)).then(|| end(now).saturating_sub(end(before)))
}

/// How many records the replicas have served that told both times: to one that was silent, all that it has ever served would be new.
fn served_between(before: &Look, now: &Look, topic: &Topic, partition: u32) -> Option<u64> {
    let served = replicas(now, topic, partition)
        .filter(|replica| is_measured(replica))
        .filter_map(|replica| {
            let mut former = replicas(before, topic, partition).filter(|former| is_measured(former));
            let former = former.find(|former| former.node == replica.node)?;
            Some(replica.records_served.saturating_sub(former.records_served))
        });
    served.reduce(|all, served| all + served)
}

fn topic_view(before: Option<&Look>, now: &Look, topic: &Topic) -> TopicView {
    let partitions = || topic.partitions.iter().map(|partition| partition.partition);
    let per_second = |between: fn(&Look, &Look, &Topic, u32) -> Option<u64>| {
        let before = before?;
        let passed = now.at.duration_since(before.at).as_secs_f64().max(1e-3);
        let more = partitions().filter_map(|partition| between(before, now, topic, partition));
        let more = more.reduce(|all, more| all + more)?;
        Some((more as f64 / passed).round() as u64)
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
        produced_per_second: per_second(produced_between),
        consumed_per_second: per_second(served_between),
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use highwater::proto::v1::{DamagedEntries, Partition};

    use super::*;

    fn told(node: &str, role: &str, high_watermark: u64, served: u64) -> ReplicaStatus {
        ReplicaStatus {
            tenant: "shop".to_owned(),
            topic: "orders".to_owned(),
            node: node.to_owned(),
            role: role.to_owned(),
            high_watermark,
            log_end: high_watermark,
            records_served: served,
            ..ReplicaStatus::default()
        }
    }

    fn topic() -> Topic {
        Topic {
            tenant: "shop".to_owned(),
            name: "orders".to_owned(),
            partitions: vec![Partition::default()],
            ..Topic::default()
        }
    }

    fn look(at: Instant, replicas: Vec<ReplicaStatus>) -> Look {
        Look {
            at,
            described: DescribeClusterResponse {
                replicas,
                ..DescribeClusterResponse::default()
            },
            topics: vec![topic()],
            groups: Vec::new(),
        }
    }

    /// What is shown of two looks, two seconds apart: produced, consumed.
    fn rates(before: Vec<ReplicaStatus>, now: Vec<ReplicaStatus>) -> (Option<u64>, Option<u64>) {
        let begin = Instant::now();
        let (before, now) = (look(begin, before), look(begin + Duration::from_secs(2), now));
        let view = topic_view(Some(&before), &now, &topic());
        (view.produced_per_second, view.consumed_per_second)
    }

    #[test]
    fn rates_are_what_came_and_went_between_two_looks() {
        let before = vec![told("n1", "leader", 100, 10), told("n2", "follower", 100, 50)];
        let now = vec![told("n1", "leader", 300, 10), told("n2", "follower", 290, 70)];
        assert_eq!(rates(before, now), (Some(100), Some(10)));
    }

    #[test]
    fn what_a_replica_that_was_silent_has_ever_served_is_not_shown_as_new() {
        let before = vec![told("n1", "leader", 100, 10), told("n2", "", 0, 0)];
        let now = vec![told("n1", "leader", 100, 12), told("n2", "follower", 100, 9_000)];
        assert_eq!(rates(before, now), (Some(0), Some(1)));
        let only = vec![told("n1", "leader", 9_000, 9_000)];
        assert_eq!(rates(vec![told("n1", "", 0, 0)], only.clone()), (None, None));
        assert_eq!(rates(Vec::new(), only.clone()), (None, None));
        assert_eq!(rates(only, vec![told("n1", "dead", 0, 0)]), (None, None));
    }

    #[test]
    fn the_lag_of_a_topic_is_the_most_that_a_replica_lacks() {
        let replicas = vec![
            told("n1", "leader", 100, 0),
            told("n2", "follower", 40, 0),
            told("n3", "dead", 0, 0),
        ];
        let view = topic_view(None, &look(Instant::now(), replicas), &topic());
        assert_eq!((view.records, view.lag_records), (100, 60));
        assert_eq!((view.produced_per_second, view.consumed_per_second), (None, None));
    }

    #[test]
    fn partitions_are_added_up_and_one_that_nobody_tells_of_adds_nothing() {
        let wide = Topic {
            partitions: (0..3)
                .map(|partition| Partition {
                    partition,
                    ..Partition::default()
                })
                .collect(),
            ..topic()
        };
        let of = |partition: u32, role: &str, high_watermark: u64, served: u64| ReplicaStatus {
            partition,
            log_start: high_watermark.min(5),
            ..told("n1", role, high_watermark, served)
        };
        let begin = Instant::now();
        let before = look(
            begin,
            vec![of(0, "leader", 10, 0), of(1, "leader", 20, 4), of(2, "", 0, 0)],
        );
        let now = vec![
            of(0, "leader", 16, 2),
            of(1, "leader", 24, 10),
            of(2, "leader", 1_000, 900),
        ];
        let view = topic_view(Some(&before), &look(begin + Duration::from_secs(2), now), &wide);
        assert_eq!((view.produced_per_second, view.consumed_per_second), (Some(5), Some(4)));
        assert_eq!(view.records, 11 + 19 + 995);
    }

    /// What is shown of a node at two looks, two seconds apart.
    fn node_between(before: Node, now: Node) -> NodeView {
        let begin = Instant::now();
        let with = |at: Instant, node: &Node| {
            let mut look = look(at, Vec::new());
            look.described.nodes = vec![node.clone()];
            look
        };
        let (before, later) = (with(begin, &before), with(begin + Duration::from_secs(2), &now));
        node_view(Some(&before), &later, &now)
    }

    #[test]
    fn cpu_is_what_was_used_between_two_looks_and_unknown_after_a_restart() {
        let used = |cpu_us: Option<u64>| Node {
            name: "n1".to_owned(),
            cpu_us,
            ..Node::default()
        };
        let percent = |before, now| node_between(used(before), used(now)).cpu_percent;
        assert_eq!(percent(Some(5_000_000), Some(8_000_000)), Some(150));
        assert_eq!(percent(Some(5_000_000), Some(1_000_000)), None);
        assert_eq!(percent(None, Some(8_000_000)), None);
        assert_eq!(percent(Some(5_000_000), None), None);
    }

    #[test]
    fn a_disk_is_used_by_what_is_not_free_and_one_of_no_size_by_nothing() {
        let percent = |free_bytes, total_bytes| {
            let disk = Disk {
                free_bytes,
                total_bytes,
                ..Disk::default()
            };
            let node = Node {
                disk: Some(disk),
                ..Node::default()
            };
            node_between(Node::default(), node).disk_used_percent
        };
        assert_eq!(percent(25, 100), Some(75));
        assert_eq!(percent(0, 0), Some(0));
        assert_eq!(percent(u64::MAX, 100), Some(0));
        assert_eq!(node_between(Node::default(), Node::default()).disk_used_percent, None);
    }

    #[test]
    fn damaged_entries_are_counted_with_both_ends_and_a_silent_replica_has_no_lag() {
        let damaged = ReplicaStatus {
            damage: vec![
                DamagedEntries {
                    first_index: 3,
                    last_index: 5,
                    ..DamagedEntries::default()
                },
                DamagedEntries {
                    first_index: 9,
                    last_index: 9,
                    everywhere: true,
                },
            ],
            ..told("n1", "follower", 60, 0)
        };
        let seen = replica_seen("n1", Some(&damaged), 100);
        assert_eq!((seen.damaged_entries, seen.damaged_everywhere), (4, true));
        assert_eq!(seen.lag_records, Some(40));
        assert_eq!(replica_seen("n2", Some(&told("n2", "", 0, 0)), 100).lag_records, None);
        assert_eq!(replica_seen("n3", None, 100).lag_records, None);
    }
}
