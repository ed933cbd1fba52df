//! Calls that change the cluster: for its operators.
//!
//! Each may be repeated, so an attempt without an answer is simply made again on another node; a transfer to "whichever is
//! best" may then have moved twice, and what somebody else has changed of the same in between is changed back. None says "not
//! found" or "refused" of its own work, but for a recovery. What takes long (moving records) goes on in the cluster; asking again tells how far it is.

use highwater_proto::v1;

use crate::admin::Cluster;
use crate::calls::{cluster_client, timed};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::picker::Purpose;

/// What to change of the cluster's settings; what is absent stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChangeSettings {
    /// 1, 2 or 3: how patient groups are with their leaders, and what they cost when idle.
    pub timer_step: Option<u32>,
    /// How long a node may be away before others take the places of its replicas, milliseconds.
    pub replace_after_ms: Option<u64>,
    /// How fast a node sends records to replicas that are new or far behind, bytes a second.
    pub catch_up_bytes_per_second: Option<u64>,
    /// Whether replicas and leaders are moved so that nodes have equal shares.
    pub balance: Option<bool>,
    /// How long a consumer group is kept that lags and neither claims nor commits, milliseconds: an hour to ten years. A node of
    /// an older version that has no such setting leaves it out of its answer, and changes only the others.
    pub groups_kept_ms: Option<u64>,
}

impl Cluster {
    /// Has the replica on `node` lead a partition, or whichever is best if `node` is empty; answers who leads then.
    ///
    /// Not cancel safe: if the future is dropped, the leader may still move.
    ///
    /// # Errors
    /// Reasons `REFUSED` (the node holds no replica, or does not take it in time), `TOPIC_NOT_FOUND`,
    /// `PARTITION_NOT_FOUND`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn transfer_leader(&self, topic: &str, partition: u32, node: &str) -> Result<String, Error> {
        let request = v1::TransferLeaderRequest {
            topic: topic.to_owned(),
            partition,
            node: node.to_owned(),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { cluster_client(channel).transfer_leader(request).await }
        };
        let action = format!("transfer partition {partition} of topic {topic}");
        let answer = self.caller.call(&action, Purpose::Admin, self.until(), call).await?;
        Ok(answer.leader)
    }

    /// Keeps leaderships away from a node, or lets it lead again; answers how far that is.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same; asking again tells.
    ///
    /// # Errors
    /// Reasons `NODE_NOT_FOUND`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn drain(&self, node: &str, undo: bool) -> Result<v1::DrainNodeResponse, Error> {
        self.ask_to_drain(node, undo, false).await
    }

    /// How far a node is that somebody drains; changes nothing.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Cluster::drain`].
    pub async fn drain_progress(&self, node: &str) -> Result<v1::DrainNodeResponse, Error> {
        self.ask_to_drain(node, false, true).await
    }

    async fn ask_to_drain(&self, node: &str, undo: bool, look: bool) -> Result<v1::DrainNodeResponse, Error> {
        let request = v1::DrainNodeRequest {
            node: node.to_owned(),
            undo,
            look,
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { cluster_client(channel).drain_node(request).await }
        };
        let action = format!("drain node {node}");
        self.caller.call(&action, Purpose::Admin, self.until(), call).await
    }

    /// Has everything moved off a node and then the node removed, or stops that; answers how far it is.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same; asking again tells.
    ///
    /// # Errors
    /// Reasons `NODE_NOT_FOUND`, `REFUSED` (too few nodes would be left), `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn decommission(&self, node: &str, undo: bool) -> Result<v1::DecommissionNodeResponse, Error> {
        self.ask_to_leave(node, undo, false).await
    }

    /// How far a node is that is to leave; changes nothing.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Cluster::decommission`].
    pub async fn decommission_progress(&self, node: &str) -> Result<v1::DecommissionNodeResponse, Error> {
        self.ask_to_leave(node, false, true).await
    }

    async fn ask_to_leave(&self, node: &str, undo: bool, look: bool) -> Result<v1::DecommissionNodeResponse, Error> {
        let request = v1::DecommissionNodeRequest {
            node: node.to_owned(),
            undo,
            look,
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { cluster_client(channel).decommission_node(request).await }
        };
        let action = format!("decommission node {node}");
        self.caller.call(&action, Purpose::Admin, self.until(), call).await
    }

    /// Gives the place of a partition's replica to a new one on another node. Answers when that is decided.
    ///
    /// Not cancel safe: if the future is dropped, the replica may still move.
    ///
    /// # Errors
    /// Reasons `NODE_NOT_FOUND`, `REFUSED` (no replica there, or one here already), `NO_QUORUM`, `TOPIC_NOT_FOUND`,
    /// `PARTITION_NOT_FOUND`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn move_replica(&self, topic: &str, partition: u32, from: &str, to: &str) -> Result<(), Error> {
        let request = v1::MoveReplicaRequest {
            topic: topic.to_owned(),
            partition,
            from_node: from.to_owned(),
            to_node: to.to_owned(),
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { cluster_client(channel).move_replica(request).await }
        };
        let action = format!("move partition {partition} of topic {topic} from {from} to {to}");
        let moved = self.caller.call(&action, Purpose::Admin, self.until(), call).await;
        moved.map(drop)
    }

    /// Has a partition go on from its replica on `node`, because the majority is gone for good; what only the others had is
    /// lost. With `accept_loss` false it changes nothing, and tells what that replica has.
    ///
    /// Not cancel safe: if the future is dropped, it may be done all the same; asking again, without accepting a loss,
    /// tells.
    ///
    /// If an attempt is done and its answer is lost, the next one is refused, for the group can help itself then. That looks like a
    /// group that never needed this, so it cannot be told apart here; `Cluster::describe` shows the partition.
    ///
    /// # Errors
    /// Reasons `REFUSED` (the group can still help itself, or that replica does not run), `TOPIC_NOT_FOUND`,
    /// `PARTITION_NOT_FOUND`, `PERMISSION_DENIED`; [`Error::Deadline`].
    pub async fn recover_partition(
        &self,
        topic: &str,
        partition: u32,
        node: &str,
        accept_loss: bool,
    ) -> Result<v1::RecoverPartitionResponse, Error> {
        let request = v1::RecoverPartitionRequest {
            topic: topic.to_owned(),
            partition,
            node: node.to_owned(),
            accept_loss,
        };
        let call = |channel, time_left| {
            let request = timed(request.clone(), time_left);
            async move { cluster_client(channel).recover_partition(request).await }
        };
        let action = format!("recover partition {partition} of topic {topic} from {node}");
        self.caller.call(&action, Purpose::Admin, self.until(), call).await
    }

    /// Changes settings of the cluster, and answers with all of them. A change of nothing just reads them.
    ///
    /// Not cancel safe: if the future is dropped, they may be changed all the same; a change of nothing tells.
    ///
    /// # Errors
    /// Reasons `INVALID_ARGUMENT`, `PERMISSION_DENIED`; [`Error::Deadline`], also while not every node of the cluster knows what
    /// is to be set.
    pub async fn change_settings(&self, change: ChangeSettings) -> Result<v1::Settings, Error> {
        let request = v1::UpdateSettingsRequest {
            timer_step: change.timer_step,
            replace_after_ms: change.replace_after_ms,
            catch_up_bytes_per_second: change.catch_up_bytes_per_second,
            balance: change.balance,
            groups_kept_ms: change.groups_kept_ms,
        };
        let call = |channel, time_left| {
            let request = timed(request, time_left);
            async move { cluster_client(channel).update_settings(request).await }
        };
        let answer = self.caller.call("change settings", Purpose::Admin, self.until(), call);
        Ok(answer.await?.settings.unwrap_or_default())
    }

    fn until(&self) -> Deadline {
        Deadline::after(self.deadline)
    }
}
