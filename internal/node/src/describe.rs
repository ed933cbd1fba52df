//! Nodes, topics and replicas as the wire shows them.

use futures::future::join_all;
use highwater_catalog::{Catalog, Node, Topic};
use highwater_partition::Status;
use highwater_partition::log::{DamagedRange, GroupId, ReplicaId, Space};
use highwater_proto::v1;

use crate::catalog::CatalogHost;
use crate::clock;
use crate::hex::Id;
use crate::leaders::Leaders;
use crate::readiness::NotReady;
use crate::replicas::{Hosted, Registry};
use crate::storage::Storage;

/// What only this node can say: about its disk, its CPU time, whether it is ready and what else is to be known of it (in
/// `nodes`, of which the rest is empty), and about its replicas, without the catalog's own.
pub(crate) async fn own_part(
    name: &str,
    registry: &Registry,
    catalog: &CatalogHost,
    storage: &Storage,
    (not_ready, notices): (Option<NotReady>, Vec<String>),
) -> v1::DescribeClusterResponse {
    let hosted = registry.all();
    let described = hosted.iter().filter_map(|hosted| {
        let place = catalog.read(|catalog| {
            let (topic, partition) = catalog.partition_of_group(hosted.group_id.0)?;
            Some((topic.tenant.clone(), topic.name.clone(), partition.partition))
        });
        place.map(|place| own_replica(name, place, hosted))
    });
    let node = v1::Node {
        name: name.to_owned(),
        disk: disk(storage),
        not_ready: not_ready.map(|why| why.to_string()).unwrap_or_default(),
        cpu_us: clock::cpu_us(),
        notices,
        ..Default::default()
    };
    v1::DescribeClusterResponse {
        nodes: vec![node],
        replicas: join_all(described).await,
        ..Default::default()
    }
}

async fn own_replica(node: &str, place: (String, String, u32), hosted: &Hosted) -> v1::ReplicaStatus {
    let (tenant, topic, partition) = place;
    let status = hosted.status();
    v1::ReplicaStatus {
        tenant,
        topic,
        partition,
        node: node.to_owned(),
        role: status.role.name().to_owned(),
        term: status.term,
        log_start: status.watermark.log_start,
        high_watermark: status.watermark.high_watermark,
        log_end: status.log_end,
        records_served: hosted.records_served(),
        records_appended: hosted.records_appended(),
        replica_id: hosted.replica_id.0,
        damage: status.damage.iter().map(|range| damaged(range, &status)).collect(),
        bytes: hosted.bytes().await.unwrap_or_default(),
    }
}

fn damaged(range: &DamagedRange, status: &Status) -> v1::DamagedEntries {
    let overlaps = |other: &DamagedRange| other.first_index < range.end_index && range.first_index < other.end_index;
    v1::DamagedEntries {
        first_index: range.first_index,
        last_index: range.end_index.saturating_sub(1),
        everywhere: status.damage_everywhere.iter().any(overlaps),
    }
}

fn disk(storage: &Storage) -> Option<v1::Disk> {
    let room = storage.room();
    let room = room.inspect_err(|error| tracing::warn!(%error, "the room on the disk is not known"));
    room.ok().map(|room| v1::Disk {
        state: match room.space {
            Space::Plenty => v1::disk::State::Plenty,
            Space::Low => v1::disk::State::Low,
            Space::Full => v1::disk::State::Full,
        } as i32,
        free_bytes: room.free_bytes,
        total_bytes: room.total_bytes,
    })
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
        disk: None, // only the node itself can tell
        leaving: node.leaving,
        drained: node.drained,
        feature_level: node.feature_level,
        ..Default::default()
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
            leaving: partition.replaced.iter().map(|replica| replica.node.clone()).collect(),
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
        leader_rack: topic.leader_rack.clone(),
    }
}
