//! A partition whose majority is gone for good: what would be lost, and going on from what is left.
//!
//! Highwater never does this by itself, because it cannot tell a majority that is gone from one that is away, and what only
//! the majority had is lost. So it takes an operator who names the replica to go on from and accepts the loss, and it is
//! refused wherever the group could still help itself: while it has a leader, and while nodes with a majority of its living
//! replicas are there.
//!
//! First the catalog declares the other replicas dead, then the one that is left becomes the only member of its group. Whatever
//! interrupts that, the call may be made again.

use highwater_catalog::{Catalog, Command, Partition, Replica};
use highwater_partition::log::GroupId;
use highwater_proto::v1;
use tokio::time::{Duration, Instant, sleep};

use super::operate::{find_partition, replica_on};
use super::{Context, own_tenant};
use crate::access::{Principal, TopicName};
use crate::peer_calls::{self, RECOVER};
use crate::recoveries::{Recover, Standing};
use crate::status::Problem;

/// How long the node that holds the replica may take to restart it.
const RECOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often to look whether the partition has a leader again.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

impl Context {
    pub(super) async fn recover_partition(
        &self,
        principal: &Principal,
        request: v1::RecoverPartitionRequest,
        deadline: Instant,
    ) -> Result<v1::RecoverPartitionResponse, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        let name = TopicName::parse(&request.topic, own_tenant(principal)?)?;
        let what = format!("partition {} of topic `{name}`", request.partition);
        let (partition, replica) = self.host.read(|catalog| {
            let partition = find_partition(catalog, &name, request.partition)?;
            Ok::<_, Problem>((partition.clone(), replica_on(partition, &request.node)?))
        })?;
        self.check_lost(&what, &partition, &request.node)?;
        let mut asked = Recover {
            group: partition.group_id,
            replica: replica.0,
            go_on: false,
        };
        let standing = self.ask_to_recover(&request.node, asked).await?;
        let others = partition.replicas.iter().filter(|it| it.replica_id != replica.0);
        let mut given_up: Vec<String> = others.map(|it| it.node.clone()).collect();
        given_up.sort();
        let answer = v1::RecoverPartitionResponse {
            recovered: request.accept_loss,
            log_start: standing.log_start,
            high_watermark: standing.high_watermark,
            log_end: standing.log_end,
            last_append_ms: standing.last_append_ms,
            entries_missing: standing.entries_missing,
            damaged: standing.is_damaged,
            given_up,
        };
        if request.accept_loss {
            tracing::warn!(
                target: "audit", %principal, partition = %what, node = %request.node, ?answer,
                "an operator gives up the majority of a partition, and accepts the loss"
            );
            let command = Command::RecoverPartition {
                group_id: asked.group,
                replica_id: asked.replica,
            };
            self.decide(&command, deadline).await?;
            asked.go_on = true;
            self.ask_to_recover(&request.node, asked).await?;
            self.until_led(&what, &request.node, GroupId(asked.group), deadline)
                .await?;
        }
        Ok(answer)
    }

    /// Refuses what would cost records without need. A survivor that leads in vain says so itself.
    fn check_lost(&self, what: &str, partition: &Partition, survivor: &str) -> Result<(), Problem> {
        let leader = self.leaders.leader(GroupId(partition.group_id));
        let is_other = |node: &str| node != survivor && self.is_there(node);
        if let Some(leader) = leader.filter(|leader| is_other(&leader.node)) {
            let why = format!("{what} is led by {}: nothing is to be recovered", leader.node);
            return Err(Problem::Refused(why));
        }
        let majority = partition.replicas.len() / 2 + 1;
        let present = self.host.read(|catalog| self.present(catalog, partition));
        if present.len() >= majority {
            let why = format!(
                "a majority of the replicas of {what} is on nodes that are there ({}): they elect a leader by \
                 themselves; if they cannot, stop those that are to be given up",
                present.join(", ")
            );
            return Err(Problem::Refused(why));
        }
        Ok(())
    }

    /// The nodes that are there and hold a living replica of the partition.
    fn present(&self, catalog: &Catalog, partition: &Partition) -> Vec<String> {
        let is_present = |it: &&Replica| it.started && !catalog.is_dead(it) && self.is_there(&it.node);
        let present = partition.replicas.iter().filter(is_present);
        present.map(|it| it.node.clone()).collect()
    }

    fn is_there(&self, node: &str) -> bool {
        node == self.node || self.leaders.is_alive(node)
    }

    async fn ask_to_recover(&self, node: &str, asked: Recover) -> Result<Standing, Problem> {
        let refused = |why: String| Problem::Refused(format!("node `{node}` cannot go on with it: {why}"));
        if node == self.node {
            return self.recoveries.recover(asked).await.map_err(refused);
        }
        let body = vec![peer_calls::encode_json(&asked).map_err(Problem::Internal)?];
        let answered = self.link.call_node(node, RECOVER, body, RECOVER_TIMEOUT).await;
        let answer = answered.map_err(|error| refused(error.to_string()))?;
        peer_calls::decode_json(&answer).map_err(Problem::Internal)
    }

    /// Waits until this node, too, knows the new leader: then the caller can go on anywhere.
    async fn until_led(&self, what: &str, by: &str, group: GroupId, deadline: Instant) -> Result<(), Problem> {
        while self.leaders.leader(group).is_none_or(|leader| leader.node != by) {
            if Instant::now() + LOOK_PAUSE >= deadline {
                let why = format!("{what} goes on from {by}, but that is not known here yet");
                return Err(Problem::Unavailable { why, hint: None });
            }
            sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }
}
