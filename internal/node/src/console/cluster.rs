//! `GET /api/v1/cluster`: nodes, sums over all topics, and what needs attention.

use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::picture::{Picture, sum};
use super::sampler::Sample;
use super::{Console, Desk, answer};
use crate::admin::{Caller, Who};
use crate::attention::findings;
use crate::services::NodeView;
use crate::status::Problem;

/// A node, with what was measured of it.
#[derive(Serialize)]
struct NodeRow<'a> {
    #[serde(flatten)]
    node: &'a NodeView,
    /// What share of one CPU its process uses.
    cpu: Option<f64>,
    /// The certificate's and the process' own words, and whether it leads the catalog.
    leads_catalog: bool,
}

pub(super) async fn cluster(State(console): Desk, ConnectInfo(caller): ConnectInfo<Caller>) -> Response {
    answer::answer(console.cluster(&caller).await)
}

impl Console {
    /// The latest look at the cluster.
    pub(super) async fn sample(&self) -> Result<std::sync::Arc<Sample>, Problem> {
        let sample = self.sampler.sample().await;
        sample.ok_or_else(|| Problem::Unavailable {
            why: format!("node {} does not see the cluster at present", self.context.node),
            hint: None,
        })
    }

    async fn cluster(&self, caller: &Caller) -> Result<Value, Problem> {
        let sample = self.sample().await?;
        let picture = &sample.picture;
        let viewer = match &caller.who {
            Who::Proven(principal) => principal.short_name(),
            Who::Local | Who::Stranger => String::new(),
        };
        let nodes: Vec<NodeRow<'_>> = picture.nodes.iter().map(|node| row(&sample, node)).collect();
        let level = self.context.host.read(highwater_catalog::Catalog::feature_level);
        Ok(json!({
            "cluster": self.context.cluster,
            "cluster_id": self.context.cluster_id(),
            "node": picture.by,
            "viewer": viewer,
            "shows_records": self.records,
            "version": env!("CARGO_PKG_VERSION"),
            "feature_level": level,
            "at_ms": picture.at_ms,
            "catalog_leader": picture.catalog_leader,
            "nodes": nodes,
            "totals": totals(&sample),
            "findings": findings(&picture.seen()),
        }))
    }
}

fn row<'a>(sample: &Sample, node: &'a NodeView) -> NodeRow<'a> {
    NodeRow {
        cpu: sample.cpu(&node.name),
        leads_catalog: sample.picture.catalog_leader == node.name,
        node,
    }
}

fn totals(sample: &Sample) -> Value {
    let picture: &Picture = &sample.picture;
    let count = |is_so: fn(&super::picture::PartitionPicture) -> bool| {
        let partitions = picture.partitions().map(|(_, partition)| partition);
        partitions.filter(|partition| is_so(partition)).count()
    };
    let rates = sum(sample.all_rates());
    let stored: u64 = picture
        .partitions()
        .flat_map(|(_, partition)| &partition.replicas)
        .map(|replica| replica.bytes)
        .sum();
    json!({
        "topics": picture.topics.len(),
        "partitions": count(|_| true),
        "leaderless": count(|partition| partition.leader.is_empty()),
        "incomplete": count(|partition| !partition.is_complete()),
        "stored_bytes": stored,
        "produced_per_second": rates.produced_per_second,
        "consumed_per_second": rates.consumed_per_second,
    })
}
