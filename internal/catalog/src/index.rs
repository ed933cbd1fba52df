//! What can be looked up quickly; computed from the topics, never stored.
//!
//! Former replicas are no load: their nodes are about to lose them.

use std::collections::BTreeMap;

use crate::model::Topic;
use crate::placement::Load;

/// Follows the topics: [`Index::insert`] and [`Index::remove`] are called with every topic that comes and goes, or is
/// about to change and has changed; [`Index::move_replica`] and [`Index::move_leader`] with what changes one partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Index {
    /// Tenant, then name, to topic id. Tenants without topics are absent.
    pub(crate) names: BTreeMap<String, BTreeMap<String, u64>>,
    /// Group id to topic id and partition number.
    pub(crate) groups: BTreeMap<u64, (u64, u32)>,
    /// Node to what it holds. Nodes that hold nothing are absent.
    loads: BTreeMap<String, Load>,
}

impl Index {
    pub(crate) fn insert(&mut self, topic: &Topic) {
        let names = self.names.entry(topic.tenant.clone()).or_default();
        let before = names.insert(topic.name.clone(), topic.topic_id);
        assert_eq!(before, None, "{}/{} is two topics", topic.tenant, topic.name);
        for partition in &topic.partitions {
            let before = self
                .groups
                .insert(partition.group_id, (topic.topic_id, partition.partition));
            assert_eq!(before, None, "group {} is two partitions", partition.group_id);
            for (at, replica) in partition.replicas.iter().enumerate() {
                self.load_node(&replica.node, at == 0);
            }
        }
    }

    pub(crate) fn remove(&mut self, topic: &Topic) {
        if let Some(names) = self.names.get_mut(&topic.tenant) {
            names.remove(&topic.name);
            if names.is_empty() {
                self.names.remove(&topic.tenant);
            }
        }
        for partition in &topic.partitions {
            self.groups.remove(&partition.group_id);
            for (at, replica) in partition.replicas.iter().enumerate() {
                self.unload(&replica.node, at == 0);
            }
        }
    }

    /// A replica's place was given to one on another node; `leads`: it is the preferred leader's.
    pub(crate) fn move_replica(&mut self, from: &str, to: &str, leads: bool) {
        self.unload(from, leads);
        self.load_node(to, leads);
    }

    /// Another replica has become the preferred leader.
    pub(crate) fn move_leader(&mut self, from: &str, to: &str) {
        for (node, leads) in [(from, true), (to, false)] {
            self.unload(node, leads);
            self.load_node(node, !leads);
        }
    }

    fn load_node(&mut self, node: &str, leads: bool) {
        let load = self.loads.entry(node.to_string()).or_default();
        load.replicas += 1;
        load.leaders += u64::from(leads);
    }

    fn unload(&mut self, node: &str, leads: bool) {
        let Some(load) = self.loads.get_mut(node) else {
            unreachable!("node {node} holds nothing, yet a replica is removed from it");
        };
        load.replicas -= 1;
        load.leaders -= u64::from(leads);
        if load.replicas == 0 {
            self.loads.remove(node);
        }
    }

    pub(crate) fn topic_id(&self, tenant: &str, name: &str) -> Option<u64> {
        self.names.get(tenant)?.get(name).copied()
    }

    pub(crate) fn topic_count(&self, tenant: &str) -> usize {
        self.names.get(tenant).map_or(0, BTreeMap::len)
    }

    pub(crate) fn load(&self, node: &str) -> Load {
        self.loads.get(node).copied().unwrap_or_default()
    }
}
