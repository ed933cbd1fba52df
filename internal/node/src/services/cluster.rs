//! ClusterService: who is there, who leads what.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{Stream, StreamExt};
use highwater_proto::v1;
use highwater_proto::v1::cluster_service_server::ClusterService;
use prost::Message;
use tonic::{Request, Response, Status};

use super::revocation::{Grounds, while_allowed};
use super::watch_cluster::{self, View};
use super::{Context, operate, principal, targets};
use crate::access::{Action, Principal, Resource};
use crate::describe;
use crate::peer_calls::REPLICAS;
use crate::replicas::CATALOG_GROUP;

/// How long a description waits for another node's part; a node that does not answer is left out.
const REPLICAS_TIMEOUT: Duration = Duration::from_secs(1);
/// Why a node is not ready that does not answer.
const SILENT: &str = "it does not answer";

/// The cluster as clients see it.
pub(super) struct Cluster {
    pub(super) context: Arc<Context>,
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn describe_cluster(
        &self,
        request: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let principal = principal(&request)?;
        let context = &self.context;
        let tenant = context.own_tenant(&principal)?;
        let parts = gather_parts(context).await;
        let nodes = nodes_with_parts(context, &parts);
        let mut replicas: Vec<v1::ReplicaStatus> = parts.into_iter().flat_map(|part| part.replicas).collect();
        replicas.retain(|replica| replica.tenant == tenant);
        replicas.extend(context.host.read(|catalog| describe::dead_replicas(catalog, tenant)));
        replicas.retain(|replica| context.may_see(&principal, &replica.tenant, &replica.topic));
        replicas.sort_by(|a, b| (&a.topic, a.partition, &a.node).cmp(&(&b.topic, b.partition, &b.node)));
        let catalog_leader = context.leaders.leader(CATALOG_GROUP).map(|leader| leader.node);
        Ok(Response::new(v1::DescribeClusterResponse {
            cluster_name: context.cluster.clone(),
            cluster_id: context.cluster_id(),
            node: context.node.clone(),
            catalog_leader: catalog_leader.unwrap_or_default(),
            nodes,
            replicas,
            settings: Some(context.host.read(|catalog| operate::settings(catalog.settings()))),
            feature_level: context.host.read(highwater_catalog::Catalog::feature_level),
        }))
    }

    type WatchClusterStream = Pin<Box<dyn Stream<Item = Result<v1::WatchClusterResponse, Status>> + Send>>;

    async fn watch_cluster(
        &self,
        request: Request<v1::WatchClusterRequest>,
    ) -> Result<Response<Self::WatchClusterStream>, Status> {
        let principal = principal(&request)?;
        self.context.own_tenant(&principal)?;
        let looking = vec![(Action::Describe, Resource::Cluster)];
        let grounds = Grounds::new(self.context.clone(), principal.clone(), looking);
        let changes = watch_cluster::watch(self.context.clone(), principal);
        Ok(Response::new(Box::pin(while_allowed(
            Box::pin(changes.map(Ok)),
            grounds,
        ))))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let act = self.context.act(&request, "TransferLeader", targets::transfer_leader)?;
        let request = request.into_inner();
        let done = self.context.transfer_leader(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let act = self.context.act(&request, "DrainNode", targets::drain_node)?;
        let act = act.unless(request.get_ref().look);
        let request = request.into_inner();
        let done = self.context.drain_node(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }

    async fn decommission_node(
        &self,
        request: Request<v1::DecommissionNodeRequest>,
    ) -> Result<Response<v1::DecommissionNodeResponse>, Status> {
        let act = self
            .context
            .act(&request, "DecommissionNode", targets::decommission_node)?;
        let act = act.unless(request.get_ref().look);
        let request = request.into_inner();
        let done = self.context.decommission_node(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }

    async fn move_replica(
        &self,
        request: Request<v1::MoveReplicaRequest>,
    ) -> Result<Response<v1::MoveReplicaResponse>, Status> {
        let act = self.context.act(&request, "MoveReplica", targets::move_replica)?;
        let request = request.into_inner();
        let done = self.context.move_replica(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }

    async fn recover_partition(
        &self,
        request: Request<v1::RecoverPartitionRequest>,
    ) -> Result<Response<v1::RecoverPartitionResponse>, Status> {
        let act = self
            .context
            .act(&request, "RecoverPartition", targets::recover_partition)?;
        let act = act.unless(!request.get_ref().accept_loss);
        let request = request.into_inner();
        let done = self.context.recover_partition(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }

    async fn update_settings(
        &self,
        request: Request<v1::UpdateSettingsRequest>,
    ) -> Result<Response<v1::UpdateSettingsResponse>, Status> {
        let act = self.context.act(&request, "UpdateSettings", targets::update_settings)?;
        let request = request.into_inner();
        let done = self.context.update_settings(act.principal(), request, act.deadline());
        let done = done.await;
        act.end(done).await
    }
}

/// Every node of the cluster, with what is known of it at the moment.
pub(super) fn nodes(context: &Context) -> Vec<v1::Node> {
    let catalog_group = context.registry.hosted(CATALOG_GROUP).map(|hosted| hosted.status());
    let known: Vec<highwater_catalog::Node> = context.host.read(|catalog| catalog.members().cloned().collect());
    let describe = |node: &highwater_catalog::Node| {
        let alive = node.name == context.node || context.leaders.is_alive(&node.name);
        describe::node(node, context.leaders.address(&node.name), alive, catalog_group.as_ref())
    };
    known.iter().map(describe).collect()
}

/// The same, with what they say of themselves.
pub(super) fn nodes_with_parts(context: &Context, parts: &[v1::DescribeClusterResponse]) -> Vec<v1::Node> {
    let (leaders, replicas) = (context.leader_counts(), context.replicas_on_each());
    let mut nodes = nodes(context);
    for node in &mut nodes {
        node.replicas = replicas.get(&node.name).copied().unwrap_or(0);
        node.leaders = leaders.get(&node.name).copied().unwrap_or(0);
        let own = parts
            .iter()
            .flat_map(|part| &part.nodes)
            .find(|own| own.name == node.name);
        node.disk = own.and_then(|own| own.disk);
        node.cpu_us = own.and_then(|own| own.cpu_us);
        node.notices = own.map(|own| own.notices.clone()).unwrap_or_default();
        node.not_ready = own.map_or_else(|| SILENT.to_owned(), |own| own.not_ready.clone());
    }
    nodes
}

/// All that a tenant's client may see now. Watermarks are left out: they change with every batch.
pub(super) fn view(context: &Context, principal: &Principal, tenant: &str) -> View {
    let mut topics: Vec<highwater_catalog::Topic> =
        context.host.read(|catalog| catalog.topics(tenant).cloned().collect());
    topics.retain(|topic| context.may_see(principal, tenant, &topic.name));
    let describe = |topic: &highwater_catalog::Topic| {
        let mut topic = describe::topic(topic, &context.leaders, &context.registry);
        for partition in &mut topic.partitions {
            (partition.log_start, partition.high_watermark) = (None, None);
        }
        (topic.topic_id, topic)
    };
    View {
        nodes: nodes(context)
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect::<BTreeMap<_, _>>(),
        topics: topics.iter().map(describe).collect(),
    }
}

/// What this node says of itself, and every other that answers in time.
pub(super) async fn gather_parts(context: &Context) -> Vec<v1::DescribeClusterResponse> {
    let state = (context.not_ready.borrow().clone(), context.notices.borrow().clone());
    let own = describe::own_part(&context.node, &context.registry, &context.host, &context.storage, state).await;
    let names: Vec<String> = context
        .host
        .read(|catalog| catalog.members().map(|node| node.name.clone()).collect());
    let others = names.iter().filter(|name| **name != context.node);
    let answers = join_all(others.map(|name| ask_part(context, name))).await;
    answers.into_iter().flatten().chain([own]).collect()
}

async fn ask_part(context: &Context, node: &str) -> Option<v1::DescribeClusterResponse> {
    let answered = context
        .link
        .call_node(node, REPLICAS, Vec::new(), REPLICAS_TIMEOUT)
        .await;
    match answered.map(v1::DescribeClusterResponse::decode) {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::warn!(node, %error, "its description cannot be read");
            None
        }
        Err(error) => {
            tracing::debug!(node, %error, "it is left out of a description");
            None
        }
    }
}
