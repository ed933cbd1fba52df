//! The stored part of the catalog, and its check after reading.
//!
//! A checkpoint comes from the disk or from another node, so nothing in it is believed: every invariant that the
//! catalog relies on is checked before the state is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::checks;
use crate::codec::{self, Error, hex16};
use crate::levels::{CHANGES_LEVEL, FEATURE_LEVEL, FIRST_LEVEL, POLICIES_LEVEL};
use crate::limits::{CHECKPOINT_BYTES_MAX, NEXT_ID_MAX, RACK_BYTES_MAX, REPLACED_REPLICAS_MAX};
use crate::model::{Node, Partition, Topic, first_level, is_first_level};
use crate::names;
use crate::settings::Settings;
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
    /// At level 1 nothing is stored that a build of level 1 could not read, this included.
    #[serde(default = "first_level", skip_serializing_if = "is_first_level")]
    pub(crate) feature_level: u32,
    #[serde(default, skip_serializing_if = "Settings::is_default")]
    pub(crate) settings: Settings,
    /// Never changed in place: whoever decides by it keeps a version for as long as he needs it.
    #[serde(default, skip_serializing_if = "is_without_access")]
    pub(crate) access: Arc<Access>,
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
            feature_level: 1,
            settings: Settings::default(),
            access: Arc::default(),
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
        self.check_level()?;
        let mut replica_ids = BTreeSet::new();
        for (name, node) in &self.nodes {
            self.check_node(name, node, &mut replica_ids)?;
        }
        let placeable = self.nodes.values().filter(|node| node.is_placeable()).count();
        let mut group_ids = BTreeSet::new();
        let mut topic_names = BTreeSet::new();
        for (topic_id, topic) in &self.topics {
            self.check_topic(*topic_id, topic, &mut group_ids, &mut replica_ids)?;
            ensure(topic.replication as usize <= placeable, || {
                format!("topic {topic_id} has more replicas than there are nodes that stay")
            })?;
            ensure(topic_names.insert((&topic.tenant, &topic.name)), || {
                format!("{}/{} is two topics", topic.tenant, topic.name)
            })?;
        }
        self.check_access()?;
        self.check_groups(&group_ids)
    }

    fn check_access(&self) -> Result<(), String> {
        ensure(self.feature_level >= POLICIES_LEVEL || self.access.is_empty(), || {
            format!(
                "it has tenants or rules, which need feature level {POLICIES_LEVEL}, but level {}",
                self.feature_level
            )
        })?;
        let owners = self.topics.values().map(|topic| topic.tenant.as_str());
        self.access.flaw(self.revision, owners).map_or(Ok(()), Err)
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
                self.nodes.is_empty() && self.topics.is_empty() && self.revision == 0 && self.feature_level == 1,
                || "it has content, but no cluster id".to_string(),
            ),
        }
    }

    /// The feature level is one that this build knows, and nothing of a higher one is stored.
    fn check_level(&self) -> Result<(), String> {
        let level = self.feature_level;
        ensure((1..=FEATURE_LEVEL).contains(&level), || {
            format!("feature level {level} is not between 1 and {FEATURE_LEVEL}")
        })?;
        self.settings.check().map_err(|refusal| refusal.to_string())?;
        let is_new = |node: &Node| node.feature_level != 1 || node.leaving || node.drained;
        let continues = |partition: &Partition| partition.replicas.iter().any(|replica| replica.continues.is_some());
        let is_new_topic = |topic: &Topic| !topic.leader_rack.is_empty() || topic.partitions.iter().any(continues);
        let has_changes = self.nodes.values().any(is_new) || self.topics.values().any(is_new_topic);
        let needed = if has_changes { CHANGES_LEVEL } else { FIRST_LEVEL };
        let needed = needed.max(self.settings.feature_level());
        ensure(needed <= level, || {
            format!("it has content of feature level {needed}, but level {level}")
        })
    }

    fn check_node(&self, name: &str, node: &Node, replica_ids: &mut BTreeSet<u64>) -> Result<(), String> {
        names::validate("node", name).map_err(|invalid| invalid.to_string())?;
        ensure(name == node.name, || {
            format!("node {:?} is listed as {name}", node.name)
        })?;
        ensure(node.feature_level >= 1, || format!("node {name} has feature level 0"))?;
        ensure(node.leaving || !node.removed, || {
            format!("node {name} was removed, but is not leaving")
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
        checks::text("leader_rack", &topic.leader_rack, RACK_BYTES_MAX).map_err(|refusal| refusal.to_string())?;
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
            self.check_replicas(partition, topic.replication, replica_ids)?;
        }
        Ok(())
    }

    fn check_replicas(
        &self,
        partition: &Partition,
        replication: u32,
        replica_ids: &mut BTreeSet<u64>,
    ) -> Result<(), String> {
        let Partition {
            group_id,
            replicas,
            replaced,
            ..
        } = partition;
        let nodes: BTreeSet<&String> = replicas.iter().map(|replica| &replica.node).collect();
        ensure(
            nodes.len() == replicas.len() && nodes.len() == replication as usize,
            || format!("group {group_id} is not on {replication} distinct nodes"),
        )?;
        ensure(!nodes.is_empty(), || format!("group {group_id} has no replicas"))?;
        ensure(partition.changed || replaced.is_empty(), || {
            format!("group {group_id} has replaced replicas, but never changed")
        })?;
        ensure(replaced.len() <= REPLACED_REPLICAS_MAX, || {
            format!("group {group_id} has {} replaced replicas", replaced.len())
        })?;
        self.check_continuing(partition)?;
        for replica in replicas.iter().chain(replaced) {
            let node = self.nodes.get(&replica.node);
            ensure(node.is_some(), || format!("node {:?} is not known", replica.node))?;
            ensure(node.is_none_or(|node| !node.removed), || {
                format!("node {:?} was removed, but holds group {group_id}", replica.node)
            })?;
            self.check_replica_id(replica.replica_id, replica_ids)?;
        }
        Ok(())
    }

    /// At most one replica goes on with the log of another one, which has lost its place.
    fn check_continuing(&self, partition: &Partition) -> Result<(), String> {
        let group_id = partition.group_id;
        let former: Vec<u64> = partition.replicas.iter().filter_map(|it| it.continues).collect();
        ensure(former.len() <= 1, || {
            format!("group {group_id} goes on from several replicas")
        })?;
        let is_former =
            |id: &u64| self.retired_replicas.contains(*id) || partition.replaced.iter().any(|it| it.replica_id == *id);
        ensure(former.iter().all(is_former), || {
            format!("group {group_id} goes on from replica {former:?}, which has its place still")
        })
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

/// As [`Access::is_empty`], in the shape that serde asks for.
fn is_without_access(access: &Arc<Access>) -> bool {
    access.is_empty()
}
