//! A partition whose majority is gone for good: what would be lost, and going on from what is left.
//!
//! Highwater never does this by itself, because it cannot tell a majority that is gone from one that is away, and what only
//! the majority had is lost. So it takes an operator who names the replica to go on from and accepts the loss, and it is
//! refused wherever the group could still help itself: while it has a leader that a majority follows, and while nodes with a
//! majority of its living replicas are there.
//!
//! The deed is one command to the catalog; the survivor's node follows it (`recoveries`). Whatever interrupts that, the call may
//! be made again.

use std::time::Duration;

use highwater_catalog::{Catalog, Command, Partition, Replica};
use highwater_partition::log::GroupId;
use highwater_proto::v1;
use tokio::time::{Instant, sleep};

use super::operate::{find_partition, replica_on};
use super::{Context, own_tenant};
use crate::access::{Principal, TopicName};
use crate::peer_calls::{self, STANDING};
use crate::recoveries::{self, Standing};
use crate::status::Problem;

/// How long the survivor's node may take to say what its replica has.
const STANDING_TIMEOUT: Duration = Duration::from_secs(3);
/// How often to look whether the partition has a leader again.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

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
        let place = || {
            self.host.read(|catalog| {
                let partition = find_partition(catalog, &name, request.partition)?;
                let replica = replica_on(partition, &request.node)?.clone();
                Ok::<_, Problem>((partition.clone(), replica))
            })
        };
        let (partition, survivor) = place()?;
        let group = partition.group_id;
        // Asked before, and interrupted: it only has to be waited for.
        let is_former = |it: &Replica| Some(it.replica_id) == survivor.continues;
        let is_under_way = partition.replaced.iter().any(is_former);
        let mut before = None;
        if !is_under_way {
            let standing = self.check_lost(&what, &partition, &request.node).await?;
            let found = answer(&standing, &partition, &survivor);
            if !request.accept_loss {
                return Ok(found);
            }
            tracing::warn!(
                target: "audit", %principal, partition = %what, node = %request.node, ?found,
                "an operator gives up the majority of a partition, and accepts the loss"
            );
            let command = Command::RecoverPartition {
                group_id: group,
                replica_id: survivor.replica_id,
            };
            self.decide(&command, deadline).await?;
            before = Some(found);
        }
        let (partition, successor) = place()?;
        let standing = self
            .until_it_leads(&what, &request.node, group, &successor, deadline)
            .await?;
        Ok(v1::RecoverPartitionResponse {
            recovered: true,
            ..before.unwrap_or_else(|| answer(&standing, &partition, &successor))
        })
    }

    /// Refuses what would cost records without need. Otherwise, what the survivor has.
    async fn check_lost(&self, what: &str, partition: &Partition, survivor: &str) -> Result<Standing, Problem> {
        let group = partition.group_id;
        let leader = self.leaders.leader(GroupId(group));
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
        let refused = |why: String| Problem::Refused(format!("{what} cannot go on from {survivor}: {why}"));
        let standing = self.ask_standing(survivor, group).await.map_err(refused)?;
        if standing.leads && !standing.is_forsaken {
            let why = format!("{what} is led by {survivor}: nothing is to be recovered");
            return Err(Problem::Refused(why));
        }
        if !standing.is_forsaken {
            let why = "its replica there has heard from the others a moment ago; look again in some seconds";
            return Err(refused(why.to_owned()));
        }
        Ok(standing)
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

    async fn ask_standing(&self, node: &str, group: u64) -> Result<Standing, String> {
        if node == self.node {
            return recoveries::standing(&self.registry, group).await;
        }
        let body = vec![peer_calls::encode_number(group)];
        let answered = self.link.call_node(node, STANDING, body, STANDING_TIMEOUT).await;
        peer_calls::decode_json(&answered.map_err(|error| error.to_string())?)
    }

    /// Waits until the survivor's successor leads, and until this node knows that: then the caller can go on anywhere.
    async fn until_it_leads(
        &self,
        what: &str,
        node: &str,
        group: u64,
        successor: &Replica,
        deadline: Instant,
    ) -> Result<Standing, Problem> {
        loop {
            let standing = self.ask_standing(node, group).await;
            let is_known = self
                .leaders
                .leader(GroupId(group))
                .is_some_and(|leader| leader.node == node);
            if let Ok(standing) = standing
                && is_known
                && standing.leads
                && standing.replica == successor.replica_id
            {
                return Ok(standing);
            }
            if Instant::now() + LOOK_PAUSE >= deadline {
                let why = format!("{what} is to go on from {node}, but does not lead there yet; ask again");
                return Err(Problem::Unavailable { why, hint: None });
            }
            sleep(LOOK_PAUSE).await;
        }
    }
}

fn answer(standing: &Standing, partition: &Partition, survivor: &Replica) -> v1::RecoverPartitionResponse {
    let others = partition.replicas.iter().filter(|it| it.node != survivor.node);
    let mut given_up: Vec<String> = others.map(|it| it.node.clone()).collect();
    given_up.sort();
    v1::RecoverPartitionResponse {
        recovered: false,
        log_start: standing.log_start,
        high_watermark: standing.high_watermark,
        log_end: standing.log_end,
        last_append_ms: standing.last_append_ms,
        entries_missing: standing.entries_missing,
        damaged: standing.is_damaged,
        given_up,
    }
}
