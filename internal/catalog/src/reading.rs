//! What anybody may ask the catalog.
//!
//! Deliberately absent: liveness and leadership. The catalog does not know them.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::catalog::Catalog;
use crate::model::{LeftOn, Node, Partition, Placement, Replica, Topic};

impl Catalog {
    /// The cluster id; None before the founding.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.state.cluster.as_ref().map(|cluster| cluster.id)
    }

    /// The cluster name; None before the founding.
    pub fn cluster_name(&self) -> Option<&str> {
        self.state.cluster.as_ref().map(|cluster| cluster.name.as_str())
    }

    /// Index of the last command that changed something; 0: none did. It stays when a command is refused or says
    /// nothing new, so whoever follows the catalog need only look when it moves.
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// What the cluster's nodes may use: 1 until it is raised.
    pub fn feature_level(&self) -> u32 {
        self.state.feature_level
    }

    /// Every node ever registered, by name; those that have left the cluster among them.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> + '_ {
        self.state.nodes.values()
    }

    /// The nodes that have not left the cluster, by name.
    pub fn members(&self) -> impl Iterator<Item = &Node> + '_ {
        self.state.nodes.values().filter(|node| !node.removed)
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.state.nodes.get(name)
    }

    /// The topics of a tenant, by name.
    pub fn topics(&self, tenant: &str) -> impl Iterator<Item = &Topic> + '_ {
        let ids = self
            .index
            .names
            .get(tenant)
            .into_iter()
            .flat_map(|names| names.values());
        ids.filter_map(|topic_id| self.state.topics.get(topic_id))
    }

    /// The topics of all tenants, by id, which is the order of their creation.
    pub fn all_topics(&self) -> impl ExactSizeIterator<Item = &Topic> + '_ {
        self.state.topics.values()
    }

    /// A topic by its name.
    pub fn topic(&self, tenant: &str, name: &str) -> Option<&Topic> {
        self.topic_by_id(self.index.topic_id(tenant, name)?)
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, topic_id: u64) -> Option<&Topic> {
        self.state.topics.get(&topic_id)
    }

    /// The topic and the partition that a Raft group keeps; None for the catalog's own group, and for groups deleted or
    /// never made.
    pub fn partition_of_group(&self, group_id: u64) -> Option<(&Topic, &Partition)> {
        let (topic_id, partition) = self.index.groups.get(&group_id)?;
        let topic = self.topic_by_id(*topic_id)?;
        Some((topic, topic.partitions.get(*partition as usize)?))
    }

    /// The replicas of partitions that are placed on a node, by group id; its catalog replica is not among them.
    pub fn groups_on(&self, node: &str) -> impl Iterator<Item = Placement> + '_ {
        let name = node.to_string();
        self.index.groups.keys().filter_map(move |group_id| {
            let (topic, partition) = self.partition_of_group(*group_id)?;
            let replica = partition.replicas.iter().find(|replica| replica.node == name)?;
            Some(Placement {
                group_id: *group_id,
                replica_id: replica.replica_id,
                topic_id: topic.topic_id,
                partition: partition.partition,
                started: replica.started,
                continues: replica.continues,
                dead: self.is_dead(replica),
            })
        })
    }

    /// How many replicas are still to leave a node; its catalog replica is not among them.
    pub fn left_on(&self, node: &str) -> LeftOn {
        let count = |replicas: &[Replica]| replicas.iter().filter(|replica| replica.node == node).count();
        let mut left = LeftOn::default();
        for partition in self.all_topics().flat_map(|topic| &topic.partitions) {
            left.placed += count(&partition.replicas);
            left.replaced += count(&partition.replaced);
        }
        left
    }

    /// [`Catalog::left_on`] of every node that has something left.
    pub fn left_on_each(&self) -> BTreeMap<&str, LeftOn> {
        let mut left: BTreeMap<&str, LeftOn> = BTreeMap::new();
        for partition in self.all_topics().flat_map(|topic| &topic.partitions) {
            let placed = partition.replicas.iter();
            placed.for_each(|replica| left.entry(&replica.node).or_default().placed += 1);
            let replaced = partition.replaced.iter();
            replaced.for_each(|replica| left.entry(&replica.node).or_default().replaced += 1);
        }
        left
    }

    /// Whether a replica must never be started again under this id: it was placed on an earlier incarnation of its node,
    /// whose data is gone, or its node has reported it.
    pub fn is_dead(&self, replica: &Replica) -> bool {
        let is_of_this_life = |node: &Node| replica.replica_id >= node.first_catalog_replica_id();
        replica.reported_dead || !self.node(&replica.node).is_some_and(is_of_this_life)
    }

    /// Whether a partition goes on from one replica by an operator's word.
    pub fn is_recovered(&self, group_id: u64) -> bool {
        let partition = self.partition_of_group(group_id).map(|(_, partition)| partition);
        partition.is_some_and(|it| it.replicas.iter().any(|replica| replica.continues.is_some()))
    }

    /// Whether a replica has been reported as started; None if it has no place in a partition, any more or at all.
    pub fn is_started(&self, group_id: u64, replica_id: u64) -> Option<bool> {
        let (_, partition) = self.partition_of_group(group_id)?;
        let mut replicas = partition.replicas.iter();
        replicas
            .find(|replica| replica.replica_id == replica_id)
            .map(|replica| replica.started)
    }

    /// The group ids of deleted partitions, as ascending ranges (end exclusive). Data of these groups, and of no
    /// others, may be deleted.
    pub fn tombstones(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.state.tombstones.ranges()
    }

    /// Whether a replica has been replaced and its group has let go of it.
    pub fn is_retired(&self, replica_id: u64) -> bool {
        self.state.retired_replicas.contains(replica_id)
    }

    /// Whether the group's partition was deleted.
    pub fn is_deleted(&self, group_id: u64) -> bool {
        self.state.tombstones.contains(group_id)
    }

    /// Whether a replica's data may be deleted: its group was, or it is retired.
    pub fn may_be_removed(&self, group_id: u64, replica_id: u64) -> bool {
        self.is_deleted(group_id) || self.is_retired(replica_id)
    }
}
