//! What the console knows of the cluster at one moment: nodes, partitions with their replicas, and how fast records come and go.
//!
//! Rates are differences of two looks some seconds apart. Of a partition they follow its high watermark, which no change of leader sets back;
//! what is read is counted by the nodes since they started, so a count that has become smaller says nothing.

use std::collections::HashMap;
use std::sync::Arc;

use highwater_catalog::Topic;
use highwater_partition::log::GroupId;
use serde::Serialize;
use tokio::time::Instant;

use crate::attention::{self, DiskSeen, NodeSeen, PartitionSeen, ReplicaSeen, Seen};
use crate::clock::now_ms;
use crate::services::{Context, NodeView, ReplicaView, overview};

/// The cluster at one moment.
pub(super) struct Picture {
    pub(super) at: Instant,
    pub(super) at_ms: u64,
    pub(super) by: String,
    pub(super) catalog_leader: String,
    pub(super) nodes: Vec<NodeView>,
    /// In the order of tenant, topic and number.
    pub(super) topics: Vec<TopicPicture>,
}

/// A topic.
#[derive(Debug)]
pub(super) struct TopicPicture {
    pub(super) tenant: String,
    pub(super) name: String,
    pub(super) replication: u32,
    pub(super) retention_ms: u64,
    pub(super) retention_bytes: u64,
    pub(super) partitions: Vec<PartitionPicture>,
}

/// A partition.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PartitionPicture {
    pub(super) partition: u32,
    pub(super) leader: String,
    pub(super) term: u64,
    pub(super) log_start: u64,
    pub(super) high_watermark: u64,
    pub(super) replicas: Vec<ReplicaPicture>,
}

impl PartitionPicture {
    /// Whether all replicas are there and take part.
    pub(super) fn is_complete(&self) -> bool {
        self.replicas.iter().all(|replica| attention::takes_part(&replica.role))
    }

    /// Records that can be read.
    pub(super) fn records(&self) -> u64 {
        self.high_watermark.saturating_sub(self.log_start)
    }

    /// Whether a replica has told how it is, and so the high watermark.
    fn is_measured(&self) -> bool {
        self.replicas.iter().any(ReplicaPicture::is_measured)
    }
}

/// A replica; `role` is empty if nothing was heard of it.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct ReplicaPicture {
    pub(super) node: String,
    pub(super) role: String,
    pub(super) log_end: u64,
    pub(super) lag_records: Option<u64>,
    pub(super) bytes: u64,
    pub(super) damaged_entries: u64,
    pub(super) damaged_everywhere: bool,
    /// Records given to consumers since its node started.
    #[serde(skip)]
    pub(super) records_served: u64,
}

impl ReplicaPicture {
    /// Whether its figures are its own: of one that did not answer, or that is dead, they are zeros which nobody has measured.
    fn is_measured(&self) -> bool {
        !["", "dead"].contains(&self.role.as_str())
    }
}

/// Records that come and go, per second; None before two looks that have measured them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Rates {
    pub(super) produced_per_second: Option<f64>,
    pub(super) consumed_per_second: Option<f64>,
}

impl Rates {
    fn add(&mut self, other: Rates) {
        let sum = |one: Option<f64>, other: Option<f64>| match other {
            Some(other) => Some(one.unwrap_or(0.0) + other),
            None => one,
        };
        self.produced_per_second = sum(self.produced_per_second, other.produced_per_second);
        self.consumed_per_second = sum(self.consumed_per_second, other.consumed_per_second);
    }
}

impl Picture {
    pub(super) async fn take(context: &Arc<Context>) -> Picture {
        let seen = overview(context).await;
        let mut replicas: HashMap<(String, String, u32), Vec<ReplicaView>> = HashMap::new();
        for replica in seen.replicas {
            let key = (replica.tenant.clone(), replica.topic.clone(), replica.partition);
            replicas.entry(key).or_default().push(replica);
        }
        let mut topics: Vec<Topic> = context.host.read(|catalog| catalog.all_topics().cloned().collect());
        topics.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
        let topics = topics
            .into_iter()
            .map(|topic| topic_picture(context, topic, &mut replicas));
        Picture {
            topics: topics.collect(),
            at: Instant::now(),
            at_ms: now_ms(),
            by: context.node.clone(),
            catalog_leader: seen.catalog_leader,
            nodes: seen.nodes,
        }
    }

    /// Its partitions with their topics.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&TopicPicture, &PartitionPicture)> {
        self.topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
    }

    /// As `attention` judges it.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            by: self.by.clone(),
            catalog_leader: self.catalog_leader.clone(),
            nodes: self.nodes.iter().map(node_seen).collect(),
            partitions: self.partitions().map(partition_seen).collect(),
        }
    }
}

fn topic_picture(
    context: &Context,
    topic: Topic,
    told: &mut HashMap<(String, String, u32), Vec<ReplicaView>>,
) -> TopicPicture {
    let partitions = topic.partitions.iter().map(|placed| {
        let leader = context.leaders.leader(GroupId(placed.group_id));
        let key = (topic.tenant.clone(), topic.name.clone(), placed.partition);
        let told = told.remove(&key).unwrap_or_default();
        let nodes = placed
            .replicas
            .iter()
            .map(|replica| replica.node.as_str())
            .collect::<Vec<_>>();
        let (leader, term) = leader.map(|leader| (leader.node, leader.term)).unwrap_or_default();
        partition_picture(placed.partition, (leader, term), &nodes, &told)
    });
    TopicPicture {
        partitions: partitions.collect(),
        tenant: topic.tenant.clone(),
        name: topic.name.clone(),
        replication: topic.replication,
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
    }
}

fn partition_picture(
    partition: u32,
    (leader, term): (String, u64),
    nodes: &[&str],
    told: &[ReplicaView],
) -> PartitionPicture {
    let high_watermark = told.iter().map(|replica| replica.high_watermark).max().unwrap_or(0);
    let leading = told.iter().find(|replica| replica.node == leader);
    let picture = |node: &&str| {
        // A node may tell of a replica that the catalog says is dead; that it answers counts.
        let told = told
            .iter()
            .filter(|replica| replica.node == **node)
            .max_by_key(|replica| replica.term);
        told.map_or_else(
            || ReplicaPicture {
                node: (*node).to_owned(),
                ..ReplicaPicture::default()
            },
            |told| replica_picture(told, high_watermark),
        )
    };
    PartitionPicture {
        partition,
        term: leading.map_or(term, |leading| leading.term),
        leader,
        log_start: told.iter().map(|replica| replica.log_start).max().unwrap_or(0),
        high_watermark,
        replicas: nodes.iter().map(picture).collect(),
    }
}

fn replica_picture(told: &ReplicaView, high_watermark: u64) -> ReplicaPicture {
    ReplicaPicture {
        node: told.node.clone(),
        role: told.role.clone(),
        log_end: told.log_end,
        lag_records: (told.role != "dead").then(|| high_watermark.saturating_sub(told.log_end)),
        bytes: told.bytes,
        damaged_entries: told.damaged_entries,
        damaged_everywhere: told.damaged_everywhere,
        records_served: told.records_served,
    }
}

fn node_seen(node: &NodeView) -> NodeSeen {
    NodeSeen {
        name: node.name.clone(),
        alive: node.alive,
        votes: node.catalog_role == "voter",
        not_ready: node.not_ready.clone(),
        notices: node.notices.clone(),
        disk: node.disk.map(|disk| DiskSeen {
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            low: disk.state == "low",
            full: disk.state == "full",
        }),
        leaving: node.leaving,
        drained: node.drained,
    }
}

fn partition_seen((topic, partition): (&TopicPicture, &PartitionPicture)) -> PartitionSeen {
    let replica = |replica: &ReplicaPicture| ReplicaSeen {
        node: replica.node.clone(),
        role: replica.role.clone(),
        lag_records: replica.lag_records,
        damaged_entries: replica.damaged_entries,
        damaged_everywhere: replica.damaged_everywhere,
    };
    PartitionSeen {
        topic: format!("{}/{}", topic.tenant, topic.name),
        partition: partition.partition,
        leader: partition.leader.clone(),
        replicas: partition.replicas.iter().map(replica).collect(),
    }
}

/// How fast each partition changed between two looks, by its place in the later one.
pub(super) fn rates(before: &Picture, now: &Picture) -> HashMap<(String, String, u32), Rates> {
    let seconds = now.at.saturating_duration_since(before.at).as_secs_f64();
    if seconds <= 0.0 {
        return HashMap::new();
    }
    let key = |topic: &TopicPicture, partition: u32| (topic.tenant.clone(), topic.name.clone(), partition);
    let former: HashMap<_, _> = before
        .partitions()
        .map(|(topic, partition)| (key(topic, partition.partition), partition))
        .collect();
    let rated = now.partitions().filter_map(|(topic, partition)| {
        let key = key(topic, partition.partition);
        let before = former.get(&key)?;
        let per_second = |records: u64| records as f64 / seconds;
        let rates = Rates {
            produced_per_second: produced_between(before, partition).map(per_second),
            consumed_per_second: served_between(before, partition).map(per_second),
        };
        Some((key, rates))
    });
    rated.collect()
}

fn produced_between(before: &PartitionPicture, now: &PartitionPicture) -> Option<u64> {
    let is_measured = before.is_measured() && now.is_measured();
    is_measured.then(|| now.high_watermark.saturating_sub(before.high_watermark))
}

/// Of the replicas that told both times: to one that was silent, all that it has ever served would be new.
fn served_between(before: &PartitionPicture, now: &PartitionPicture) -> Option<u64> {
    let served = now.replicas.iter().filter_map(|replica| {
        let before = before.replicas.iter().find(|before| before.node == replica.node)?;
        let is_measured = before.is_measured() && replica.is_measured();
        is_measured.then(|| replica.records_served.saturating_sub(before.records_served))
    });
    served.reduce(|all, served| all + served)
}

/// Several partitions together.
pub(super) fn sum<'a>(rates: impl Iterator<Item = &'a Rates>) -> Rates {
    let mut all = Rates::default();
    rates.for_each(|rates| all.add(*rates));
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(node: &str, role: &str, log_end: u64, served: u64) -> ReplicaView {
        ReplicaView {
            tenant: "shop".to_owned(),
            topic: "orders".to_owned(),
            partition: 0,
            node: node.to_owned(),
            role: role.to_owned(),
            term: 3,
            log_start: 1,
            high_watermark: log_end,
            log_end,
            records_served: served,
            bytes: 10,
            damaged_entries: 0,
            damaged_everywhere: false,
        }
    }

    fn picture(at: Instant, replicas: &[ReplicaView]) -> Picture {
        let partition = partition_picture(0, ("a".to_owned(), 3), &["a", "b", "c"], replicas);
        Picture {
            at,
            at_ms: 0,
            by: "a".to_owned(),
            catalog_leader: "a".to_owned(),
            nodes: Vec::new(),
            topics: vec![TopicPicture {
                tenant: "shop".to_owned(),
                name: "orders".to_owned(),
                replication: 3,
                retention_ms: 0,
                retention_bytes: 0,
                partitions: vec![partition],
            }],
        }
    }

    #[test]
    fn a_replica_that_says_nothing_is_shown_without_a_role_and_lag_is_what_it_lacks() {
        let picture = picture(
            Instant::now(),
            &[told("a", "leader", 100, 0), told("b", "follower", 70, 0)],
        );
        let replicas = &picture.topics[0].partitions[0].replicas;
        let shown: Vec<_> = replicas
            .iter()
            .map(|replica| (replica.role.as_str(), replica.lag_records))
            .collect();
        assert_eq!(shown, [("leader", Some(0)), ("follower", Some(30)), ("", None)]);
    }

    #[test]
    fn rates_follow_the_high_watermark_and_a_restarted_count_says_nothing() {
        let begin = Instant::now();
        let before = picture(begin, &[told("a", "leader", 100, 50), told("b", "follower", 100, 900)]);
        let now = picture(
            begin + Duration::from_secs(2),
            &[told("a", "leader", 300, 90), told("b", "follower", 300, 4)],
        );
        let rates = rates(&before, &now);
        let rates = sum(rates.values());
        assert_eq!(rates.produced_per_second, Some(100.0));
        assert_eq!(rates.consumed_per_second, Some(20.0));
    }

    fn rates_between(before: &[ReplicaView], now: &[ReplicaView]) -> (Option<f64>, Option<f64>) {
        let begin = Instant::now();
        let (before, now) = (picture(begin, before), picture(begin + Duration::from_secs(2), now));
        let rates = sum(rates(&before, &now).values());
        (rates.produced_per_second, rates.consumed_per_second)
    }

    #[test]
    fn a_replica_that_did_not_answer_once_was_not_measured() {
        let (a, b) = (told("a", "leader", 100, 50), told("b", "follower", 100, 900));
        let later = [told("a", "leader", 300, 90), told("b", "follower", 300, 904)];
        assert_eq!(
            rates_between(&[a.clone(), b.clone()], &later),
            (Some(100.0), Some(22.0))
        );
        assert_eq!(
            rates_between(std::slice::from_ref(&a), &later),
            (Some(100.0), Some(20.0))
        );
        assert_eq!(rates_between(&[a, b], &later[1..]), (Some(100.0), Some(2.0)));
    }

    #[test]
    fn a_partition_of_which_nobody_told_once_has_no_rates() {
        let later = [told("a", "leader", 300, 90)];
        assert_eq!(rates_between(&[], &later), (None, None));
        assert_eq!(rates_between(&later, &[]), (None, None));
        // The catalog tells of a dead replica, without figures.
        assert_eq!(rates_between(&[told("a", "dead", 0, 0)], &later), (None, None));
        // Of others there may still be a high watermark, though no replica told how much it served both times.
        assert_eq!(
            rates_between(&[told("b", "follower", 100, 7)], &later),
            (Some(100.0), None)
        );
    }
}
