//! The stored part of the catalog, and its check after reading.
//!
//! A checkpoint comes from the disk or from another node, so nothing in it is believed: every invariant that the
//! catalog relies on is checked before the state is used.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::codec::{self, Error, hex16};
use crate::limits::{CHECKPOINT_BYTES_MAX, NEXT_ID_MAX};
use crate::model::{Node, Topic};
use crate::names;
use crate::tombstones::Tombstones;

const WHAT: &str = "catalog checkpoint";

/// Who the cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    #[serde(with = "hex16")]
    pub(crate) id: [u8; 16],
    pub(crate) name: String,
}

/// Everything about the catalog that is not computed from something else. Its invariants are [`Catalog`]'s.
///
/// [`Catalog`]: crate::Catalog
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// None before the founding.
    pub(crate) cluster: Option<Cluster>,
    /// Index of the last command that changed something; 0: none did.
    pub(crate) revision: u64,
    pub(crate) next_topic_id: u64,
    pub(crate) next_group_id: u64,
    pub(crate) next_replica_id: u64,
    /// By name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// By id.
    pub(crate) topics: BTreeMap<u64, Topic>,
    pub(crate) tombstones: Tombstones,
    /// Replicas whose data may be deleted although their group lives.
    #[serde(default, skip_serializing_if = "Tombstones::is_empty")]
    pub(crate) retired_replicas: Tombstones,
}

impl Default for State {
    fn default() -> State {
        State {
            cluster: None,
            revision: 0,
            next_topic_id: 1,
            next_group_id: 1,
            next_replica_id: 1,
            nodes: BTreeMap::new(),
            topics: BTreeMap::new(),
            tombstones: Tombstones::default(),
            retired_replicas: Tombstones::default(),
        }
    }
}

impl State {
    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(WHAT, self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<State, Error> {
        let state: State = codec::decode(WHAT, bytes, CHECKPOINT_BYTES_MAX)?;
        state.check().map_err(|why| Error::Inconsistent { what: WHAT, why })?;
        Ok(state)
    }

    /// The first invariant that does not hold, in words.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_counters()?;
        let mut replica_ids = BTreeSet::new();
        for (name, node) in &self.nodes {
            self.check_node(name, node, &mut replica_ids)?;
        }
        let mut group_ids = BTreeSet::new();
        let mut topic_names = BTreeSet::new();
        for (topic_id, topic) in &self.topics {
            self.check_topic(*topic_id, topic, &mut group_ids, &mut replica_ids)?;
            ensure(topic_names.insert((&topic.tenant, &topic.name)), || {
                format!("{}/{} is two topics", topic.tenant, topic.name)
            })?;
        }
        self.check_groups(&group_ids)
    }

    fn check_counters(&self) -> Result<(), String> {
        for next in [self.next_topic_id, self.next_group_id, self.next_replica_id] {
            ensure((1..=NEXT_ID_MAX).contains(&next), || {
                format!("the next id {next} is not between 1 and {NEXT_ID_MAX}")
            })?;
        }
        match &self.cluster {
            Some(cluster) => names::validate("cluster", &cluster.name).map_err(|invalid| invalid.to_string()),
            None => ensure(
                self.nodes.is_empty() && self.topics.is_empty() && self.revision == 0,
                || "it has content, but no cluster id".to_string(),
            ),
        }
    }

    fn check_node(&self, name: &str, node: &Node, replica_ids: &mut BTreeSet<u64>) -> Result<(), String> {
        names::validate("node", name).map_err(|invalid| invalid.to_string())?;
        ensure(name == node.name, || {
            format!("node {:?} is listed as {name}", node.name)
        })?;
        let mut previous = 0;
        let past = node.past_lives.iter().map(|life| life.catalog_replica_id);
        for replica_id in past.chain([node.catalog_replica_id]) {
            self.check_replica_id(replica_id, replica_ids)?;
            ensure(replica_id > previous, || {
                format!("the catalog replicas of node {name} are not in order")
            })?;
            previous = replica_id;
        }
        Ok(())
    }

    fn check_topic(
        &self,
        topic_id: u64,
        topic: &Topic,
        group_ids: &mut BTreeSet<u64>,
        replica_ids: &mut BTreeSet<u64>,
    ) -> Result<(), String> {
        names::validate("tenant", &topic.tenant).map_err(|invalid| invalid.to_string())?;
        names::validate("topic", &topic.name).map_err(|invalid| invalid.to_string())?;
        ensure(topic_id == topic.topic_id, || {
            format!("topic {} is listed as {topic_id}", topic.topic_id)
        })?;
        ensure((1..self.next_topic_id).contains(&topic_id), || {
            format!("topic id {topic_id} was never handed out")
        })?;
        ensure(!topic.partitions.is_empty(), || {
            format!("topic {topic_id} has no partitions")
        })?;
        for (number, partition) in topic.partitions.iter().enumerate() {
            ensure(partition.partition as usize == number, || {
                format!(
                    "partition {number} of topic {topic_id} says that it is {}",
                    partition.partition
                )
            })?;
            ensure(group_ids.insert(partition.group_id), || {
                format!("group {} is two partitions", partition.group_id)
            })?;
            let nodes: BTreeSet<&String> = partition.replicas.iter().map(|replica| &replica.node).collect();
            ensure(
                nodes.len() == partition.replicas.len() && nodes.len() == topic.replication as usize,
                || {
                    format!(
                        "group {} is not on {} distinct nodes",
                        partition.group_id, topic.replication
                    )
                },
            )?;
            ensure(!nodes.is_empty(), || {
                format!("group {} has no replicas", partition.group_id)
            })?;
            ensure(partition.changed || partition.replaced.is_empty(), || {
                format!("group {} has replaced replicas, but never changed", partition.group_id)
            })?;
            for replica in partition.replicas.iter().chain(&partition.replaced) {
                ensure(self.nodes.contains_key(&replica.node), || {
                    format!("node {:?} is not known", replica.node)
                })?;
                self.check_replica_id(replica.replica_id, replica_ids)?;
            }
        }
        Ok(())
    }

    fn check_replica_id(&self, replica_id: u64, replica_ids: &mut BTreeSet<u64>) -> Result<(), String> {
        ensure((1..self.next_replica_id).contains(&replica_id), || {
            format!("replica id {replica_id} was never handed out")
        })?;
        ensure(!self.retired_replicas.contains(replica_id), || {
            format!("replica id {replica_id} is retired, yet in use")
        })?;
        ensure(replica_ids.insert(replica_id), || {
            format!("replica id {replica_id} is used twice")
        })
    }

    /// Every group id that was handed out is either a partition or has a tombstone.
    fn check_groups(&self, group_ids: &BTreeSet<u64>) -> Result<(), String> {
        if let Some(flaw) = self.tombstones.flaw().or_else(|| self.retired_replicas.flaw()) {
            return Err(flaw);
        }
        ensure(
            self.retired_replicas
                .ranges()
                .all(|range| range.end <= self.next_replica_id),
            || "a retired replica id was never handed out".to_string(),
        )?;
        let dead: u64 = self.tombstones.ranges().map(|range| range.end - range.start).sum();
        let both = group_ids.iter().find(|group_id| self.tombstones.contains(**group_id));
        ensure(both.is_none(), || {
            format!("group {both:?} is a partition and has a tombstone")
        })?;
        let bounds = (self.tombstones.ranges().next(), self.tombstones.ranges().last());
        let dead_known =
            bounds.0.is_none_or(|first| first.start >= 1) && bounds.1.is_none_or(|last| last.end <= self.next_group_id);
        let living_known = group_ids
            .iter()
            .all(|group_id| (1..self.next_group_id).contains(group_id));
        ensure(dead_known && living_known, || {
            format!("a group id is not below {}", self.next_group_id)
        })?;
        let known = dead + group_ids.len() as u64;
        ensure(known == self.next_group_id - 1, || {
            format!(
                "{} group ids were handed out, {known} are partitions or have tombstones",
                self.next_group_id - 1
            )
        })
    }
}

fn ensure(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}
