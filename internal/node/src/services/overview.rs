//! The cluster for the console: the same as DescribeCluster tells, but of all tenants, and not as a message.

use std::sync::Arc;

use highwater_proto::v1;
use highwater_proto::v1::disk::State;
use serde::Serialize;

use super::Context;
use super::cluster::{gather_parts, nodes_with_parts};
use crate::describe;
use crate::replicas::CATALOG_GROUP;

/// What one node sees, and what the others told it.
pub(crate) struct Overview {
    pub(crate) catalog_leader: String,
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) replicas: Vec<ReplicaView>,
}

/// A node.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NodeView {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) rack: String,
    pub(crate) alive: bool,
    pub(crate) version: String,
    /// `voter`, `learner` or empty.
    pub(crate) catalog_role: String,
    pub(crate) not_ready: String,
    pub(crate) notices: Vec<String>,
    pub(crate) leaving: bool,
    pub(crate) drained: bool,
    pub(crate) replicas: u32,
    pub(crate) leaders: u32,
    pub(crate) disk: Option<DiskView>,
    /// CPU time of its process, if it told.
    #[serde(skip)]
    pub(crate) cpu_us: Option<u64>,
}

/// A disk.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct DiskView {
    pub(crate) free_bytes: u64,
    pub(crate) total_bytes: u64,
    /// `plenty`, `low` or `full`.
    pub(crate) state: &'static str,
}

/// A replica, by its own account or, if it is dead, by the catalog's.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaView {
    pub(crate) tenant: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) node: String,
    pub(crate) role: String,
    pub(crate) term: u64,
    pub(crate) log_start: u64,
    pub(crate) high_watermark: u64,
    pub(crate) log_end: u64,
    pub(crate) records_served: u64,
    pub(crate) bytes: u64,
    pub(crate) damaged_entries: u64,
    pub(crate) damaged_everywhere: bool,
}

/// Asks all nodes; one that does not answer within a second is left out.
pub(crate) async fn overview(context: &Arc<Context>) -> Overview {
    let parts = gather_parts(context).await;
    let nodes = nodes_with_parts(context, &parts).into_iter().map(node_view).collect();
    let dead = context.host.read(|catalog| {
        let mut tenants: Vec<&str> = catalog.all_topics().map(|topic| topic.tenant.as_str()).collect();
        tenants.dedup();
        tenants.sort_unstable();
        tenants.dedup();
        let dead = tenants
            .iter()
            .flat_map(|tenant| describe::dead_replicas(catalog, tenant));
        dead.collect::<Vec<_>>()
    });
    let told = parts.into_iter().flat_map(|part| part.replicas);
    let leader = context.leaders.leader(CATALOG_GROUP).map(|leader| leader.node);
    Overview {
        catalog_leader: leader.unwrap_or_default(),
        nodes,
        replicas: told.chain(dead).map(replica_view).collect(),
    }
}

fn node_view(node: v1::Node) -> NodeView {
    NodeView {
        disk: node.disk.as_ref().map(|disk| DiskView {
            free_bytes: disk.free_bytes,
            total_bytes: disk.total_bytes,
            state: match disk.state() {
                State::Unspecified | State::Plenty => "plenty",
                State::Low => "low",
                State::Full => "full",
            },
        }),
        name: node.name,
        address: node.address,
        rack: node.rack,
        alive: node.alive,
        version: node.version,
        catalog_role: node.catalog_role,
        not_ready: node.not_ready,
        notices: node.notices,
        leaving: node.leaving,
        drained: node.drained,
        replicas: node.replicas,
        leaders: node.leaders,
        cpu_us: node.cpu_us,
    }
}

fn replica_view(replica: v1::ReplicaStatus) -> ReplicaView {
    let entries = |range: &v1::DamagedEntries| (range.last_index + 1).saturating_sub(range.first_index);
    ReplicaView {
        damaged_entries: replica.damage.iter().map(entries).sum(),
        damaged_everywhere: replica.damage.iter().any(|range| range.everywhere),
        tenant: replica.tenant,
        topic: replica.topic,
        partition: replica.partition,
        node: replica.node,
        role: replica.role,
        term: replica.term,
        log_start: replica.log_start,
        high_watermark: replica.high_watermark,
        log_end: replica.log_end,
        records_served: replica.records_served,
        bytes: replica.bytes,
    }
}
