//! Nodes that are to lead nothing, and nodes that are to leave.
//!
//! The catalog marks them, and the cluster follows by itself. Who waits for the end only looks: asking with the command again
//! would overturn what somebody else has undone meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use highwater_catalog::{Catalog, Command, Node, Partition};
use highwater_partition::log::GroupId;
use highwater_proto::v1;
use tokio::time::Instant;

use super::Context;
use crate::access::Principal;
use crate::status::Problem;

/// What a node leads and should not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Led {
    /// Groups that it leads, or of whose leader nothing is known.
    left: u32,
    /// Of these, those that nobody else can lead now.
    stuck: u32,
}

impl Led {
    fn count(&mut self, has_successor: bool) {
        self.left += 1;
        self.stuck += u32::from(!has_successor);
    }
}

impl Context {
    pub(super) async fn drain_node(
        &self,
        principal: &Principal,
        request: v1::DrainNodeRequest,
        deadline: Instant,
    ) -> Result<v1::DrainNodeResponse, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        self.known_node(&request.node)?;
        if !request.look {
            let command = Command::DrainNode {
                node: request.node.clone(),
                drained: !request.undo,
            };
            self.decide(&command, deadline).await?;
        }
        let undone = !self.known_node(&request.node)?.drained && !request.undo;
        let Led { left, stuck } = self.led_by(&request.node);
        Ok(v1::DrainNodeResponse {
            leaders_left: left,
            stuck,
            undone,
        })
    }

    pub(super) async fn decommission_node(
        &self,
        principal: &Principal,
        request: v1::DecommissionNodeRequest,
        deadline: Instant,
    ) -> Result<v1::DecommissionNodeResponse, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        let before = self.known_node(&request.node)?;
        let is_over = !request.undo && before.removed;
        if !is_over && !request.look {
            let command = Command::DecommissionNode {
                node: request.node.clone(),
                leaving: !request.undo,
            };
            self.decide(&command, deadline).await?;
        }
        let node = self.known_node(&request.node)?;
        Ok(v1::DecommissionNodeResponse {
            replicas_left: self.replicas_on(&request.node),
            removed: node.removed,
            undone: !node.leaving && !request.undo,
        })
    }

    pub(super) fn known_node(&self, name: &str) -> Result<Node, Problem> {
        let found = self.host.read(|catalog| catalog.node(name).cloned());
        found.ok_or_else(|| Problem::NodeNotFound { node: name.to_owned() })
    }

    /// Replicas placed on a node, and former ones that are still to go.
    fn replicas_on(&self, node: &str) -> u32 {
        let left = self.host.read(|catalog| catalog.left_on(node));
        u32::try_from(left.placed + left.replaced).unwrap_or(u32::MAX)
    }

    /// The same for every node that has any.
    pub(super) fn replicas_on_each(&self) -> BTreeMap<String, u32> {
        self.host.read(|catalog| {
            let left = catalog.left_on_each().into_iter();
            left.map(|(node, left)| {
                let count = u32::try_from(left.placed + left.replaced).unwrap_or(u32::MAX);
                (node.to_owned(), count)
            })
            .collect()
        })
    }

    /// What a node leads, the catalog included, as far as this one knows.
    fn led_by(&self, node: &str) -> Led {
        let mut led = Led::default();
        let others = self.host.read(|catalog| others_that_may_lead(catalog, node));
        let is_there = |other: &str| others.contains(other) && self.leaders.is_alive(other);
        let leads_catalog = |status: &highwater_partition::Status| {
            let leader = status.leader.as_ref();
            leader.is_none_or(|leader| leader.node == node)
        };
        let catalog = self.registry.catalog().map(|catalog| catalog.status());
        if let Some(status) = catalog.filter(leads_catalog) {
            led.count(status.voters.iter().any(|voter| is_there(&voter.node)));
        }
        let held: Vec<Partition> = self.host.read(|catalog| {
            let partitions = catalog.all_topics().flat_map(|topic| &topic.partitions);
            let on_node = |partition: &&Partition| partition.replicas.iter().any(|replica| replica.node == node);
            partitions.filter(on_node).cloned().collect()
        });
        for partition in held {
            let leader = self.leaders.leader(GroupId(partition.group_id));
            if leader.is_none_or(|leader| leader.node == node) {
                led.count(partition.replicas.iter().any(|replica| is_there(&replica.node)));
            }
        }
        led
    }
}

fn others_that_may_lead(catalog: &Catalog, node: &str) -> BTreeSet<String> {
    let may_lead = |other: &&Node| other.name != node && !other.drained && !other.leaving;
    let others = catalog.members().filter(may_lead);
    others.map(|other| other.name.clone()).collect()
}
