//! Who should lead each group now.
//!
//! A group is led by its preferred leader wherever that can be; so leaders are even if preferred leaders are. The groups
//! of a node that must not lead, because it is away or drained, are shared among the nodes of their other replicas, and
//! return to it afterwards. Deliberately absent: who leads now, and whether the wanted one has all entries. Whoever
//! transfers a leadership looks at that.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::Catalog;
use crate::model::{Node, Partition, Replica, Topic};

/// A group whose preferred leader must not lead, and the replicas that may; more than one.
struct Choice<'a> {
    group_id: u64,
    replicas: Vec<&'a Replica>,
}

impl Catalog {
    /// Who should lead each group: group id to replica id. Groups of which nobody may lead are absent.
    ///
    /// A replica may lead if it has run and is not dead, and if its node is among `usable`, neither drained nor leaving;
    /// but where one of them stands in the topic's leader rack, only such. Of those that may, the preferred leader leads;
    /// if it may not, the groups are shared so that nodes lead equally many. Equal states and `usable` give equal
    /// answers.
    pub fn wanted_leaders(&self, usable: &BTreeSet<&str>) -> BTreeMap<u64, u64> {
        let may_lead = |node: &&Node| usable.contains(node.name.as_str()) && node.is_placeable() && !node.drained;
        let racks: BTreeMap<&str, &str> = self.members().filter(may_lead).map(name_and_rack).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut wanted = BTreeMap::new();
        let mut choices = Vec::new();
        for topic in self.all_topics() {
            for partition in &topic.partitions {
                let eligible = self.eligible(topic, partition, &racks);
                let preferred = partition.replicas.first().map(|replica| replica.replica_id);
                let is_settled = eligible.len() == 1 || eligible.first().map(|it| it.replica_id) == preferred;
                match eligible.first() {
                    None => {}
                    Some(leader) if is_settled => {
                        *counts.entry(leader.node.as_str()).or_default() += 1;
                        wanted.insert(partition.group_id, leader.replica_id);
                    }
                    Some(_) => choices.push(Choice {
                        group_id: partition.group_id,
                        replicas: eligible,
                    }),
                }
            }
        }
        for choice in choices {
            let count = |replica: &&Replica| counts.get(replica.node.as_str()).copied().unwrap_or_default();
            let least = choice
                .replicas
                .into_iter()
                .min_by_key(|it| (count(it), it.node.as_str()));
            if let Some(leader) = least {
                *counts.entry(leader.node.as_str()).or_default() += 1;
                wanted.insert(choice.group_id, leader.replica_id);
            }
        }
        wanted
    }

    /// The replicas that may lead, in order of preference. `racks`: of the nodes that may.
    fn eligible<'a>(&self, topic: &Topic, partition: &'a Partition, racks: &BTreeMap<&str, &str>) -> Vec<&'a Replica> {
        let may_lead = |it: &&Replica| it.started && !self.is_dead(it) && racks.contains_key(it.node.as_str());
        let mut eligible: Vec<&Replica> = partition.replicas.iter().filter(may_lead).collect();
        let is_there = |it: &&Replica| racks.get(it.node.as_str()) == Some(&topic.leader_rack.as_str());
        if !topic.leader_rack.is_empty() && eligible.iter().any(is_there) {
            eligible.retain(is_there);
        }
        eligible
    }
}

fn name_and_rack(node: &Node) -> (&str, &str) {
    (&node.name, &node.rack)
}
