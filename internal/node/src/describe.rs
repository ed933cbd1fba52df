//! Nodes, topics and replicas as the wire shows them.

use highwater_catalog::{Catalog, Node, Topic};
use highwater_partition::log::{GroupId, ReplicaId};
use highwater_partition::{Role, Status};
use highwater_proto::v1;

use crate::catalog::CatalogHost;
use crate::hex::Id;
use crate::leaders::Leaders;
use crate::replicas::Registry;

/// What this node's replicas say about themselves; the catalog's own is not among them.
pub(crate) fn own_replicas(node: &str, registry: &Registry, catalog: &CatalogHost) -> Vec<v1::ReplicaStatus> {
    let hosted = registry.all();
    let name = |group: GroupId| {
        catalog.read(|catalog| {
            let (topic, partition) = catalog.partition_of_group(group.0)?;
            Some((topic.tenant.clone(), topic.name.clone(), partition.partition))
        })
    };
    let describe = |hosted: &std::sync::Arc<crate::replicas::Hosted>| {
        let (tenant, topic, partition) = name(hosted.group_id)?;
        let status = hosted.status();
        Some(v1::ReplicaStatus {
            tenant,
            topic,
            partition,
            node: node.to_owned(),
            role: role(status.role).to_owned(),
            term: status.term,
            log_start: status.watermark.log_start,
            high_watermark: status.watermark.high_watermark,
            log_end: status.log_end,
            records_served: hosted.records_served(),
            records_appended: hosted.records_appended(),
            replica_id: hosted.replica_id.0,
        })
    };
    hosted.iter().filter_map(describe).collect()
}

/// A tenant's replicas that died with an earlier incarnation of their node. Nobody runs them, so only the catalog knows.
pub(crate) fn dead_replicas(catalog: &Catalog, tenant: &str) -> Vec<v1::ReplicaStatus> {
    let placed = |topic: &'_ Topic| {
        let (tenant, name) = (topic.tenant.clone(), topic.name.clone());
        let replicas = topic.partitions.iter().flat_map(|partition| {
            let dead = partition.replicas.iter().filter(|replica| catalog.is_dead(replica));
            dead.map(|replica| (partition.partition, replica))
        });
        let dead = replicas.map(move |(partition, replica)| v1::ReplicaStatus {
            tenant: tenant.clone(),
            topic: name.clone(),
            partition,
            node: replica.node.clone(),
            role: "dead".to_owned(),
            replica_id: replica.replica_id,
            ..Default::default()
        });
        dead.collect::<Vec<_>>()
    };
    catalog.topics(tenant).flat_map(placed).collect()
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Leader => "leader",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Stopped => "stopped",
    }
}

/// A node of the catalog, with what is known of it here at the moment.
pub(crate) fn node(node: &Node, address: String, alive: bool, catalog_group: Option<&Status>) -> v1::Node {
    let replica_id = ReplicaId(node.catalog_replica_id);
    let is_member = |status: &Status| {
        let mut members = status.voters.iter().chain(&status.learners);
        members.any(|member| member.replica_id == replica_id)
    };
    let catalog_role = match catalog_group {
        Some(status) if status.is_lasting_voter(replica_id) => "voter",
        Some(status) if is_member(status) => "learner",
        _ => "",
    };
    v1::Node {
        name: node.name.clone(),
        address,
        rack: node.rack.clone(),
        alive,
        version: node.version.clone(),
        incarnation: Id(node.incarnation).to_string(),
        catalog_role: catalog_role.to_owned(),
    }
}

/// A topic, with the leaders and watermarks known here.
pub(crate) fn topic(topic: &Topic, leaders: &Leaders, registry: &Registry) -> v1::Topic {
    let partition = |partition: &highwater_catalog::Partition| {
        let group = GroupId(partition.group_id);
        let leader = leaders.leader(group);
        let watermark = registry.hosted(group).map(|hosted| hosted.status().watermark);
        v1::Partition {
            partition: partition.partition,
            replicas: partition.replicas.iter().map(|replica| replica.node.clone()).collect(),
            term: leader.as_ref().map_or(0, |leader| leader.term),
            leader: leader.map(|leader| leader.node).unwrap_or_default(),
            log_start: watermark.map(|watermark| watermark.log_start),
            high_watermark: watermark.map(|watermark| watermark.high_watermark),
        }
    };
    v1::Topic {
        tenant: topic.tenant.clone(),
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        replication: topic.replication,
        config: Some(v1::TopicConfig {
            retention_ms: Some(topic.retention_ms),
            retention_bytes: Some(topic.retention_bytes),
        }),
        partitions: topic.partitions.iter().map(partition).collect(),
    }
}
