//! A partition whose majority is gone for good: what would be lost, and going on from what is left.
//!
//! Highwater never does this by itself, because it cannot tell a majority that is gone from one that is away, and what only
//! the majority had is lost. So it takes an operator who names the replica to go on from and accepts the loss, and it is
//! refused wherever the group could still help itself, and where another replica that is left has more (`recoveries`).
//!
//! The deed is one command to the catalog; the survivor's node follows it (`recoveries`). Whatever interrupts that, the call may
//! be made again.

use std::collections::BTreeSet;
use std::time::Duration;

use highwater_catalog::{Command, Partition, Replica};
use highwater_partition::log::GroupId;
use highwater_proto::v1;
use tokio::time::{Instant, sleep};

use super::Context;
use super::operate::{find_partition, replica_on};
use crate::access::{Principal, TopicName};
use crate::recoveries::{self, Silence, Standing, Standings};
use crate::status::Problem;

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
        let name = TopicName::parse(&request.topic, self.own_tenant(principal)?)?;
        let what = format!("partition {} of topic `{name}`", request.partition);
        let place = || {
            self.host.read(|catalog| {
                let partition = find_partition(catalog, &name, request.partition)?;
                let replica = replica_on(partition, &request.node)?.clone();
                Ok::<_, Problem>((partition.clone(), replica))
            })
        };
        let (partition, survivor) = place()?;
        // Asked before, and interrupted: it only has to be waited for.
        let is_former = |it: &Replica| Some(it.replica_id) == survivor.continues;
        let is_under_way = partition.replaced.iter().any(is_former);
        let mut before = None;
        if !is_under_way {
            let judged = self.judge(&partition, &request.node).await;
            let standing = judged.map_err(|why| Problem::Refused(format!("{what} is not recovered: {why}")))?;
            let found = answer(&standing, &partition, &survivor);
            if !request.accept_loss {
                return Ok(found);
            }
            tracing::warn!(
                target: "audit", %principal, partition = %what, node = %request.node, ?found,
                "an operator gives up the majority of a partition, and accepts the loss"
            );
            let command = Command::RecoverPartition {
                group_id: partition.group_id,
                replica_id: survivor.replica_id,
            };
            self.decide(&command, deadline).await?;
            before = Some(found);
        }
        let (partition, successor) = place()?;
        let standing = self.until_it_leads(&what, &partition, &successor, deadline).await?;
        Ok(v1::RecoverPartitionResponse {
            recovered: true,
            ..before.unwrap_or_else(|| answer(&standing, &partition, &successor))
        })
    }

    /// Asks every node that is there and holds a replica, also one that is to go, for it may vote still; what the survivor has.
    async fn judge(&self, partition: &Partition, survivor: &str) -> Result<Standing, String> {
        let holders = partition.replicas.iter().chain(&partition.replaced);
        let nodes: BTreeSet<&str> = holders.map(|it| it.node.as_str()).collect();
        let (mut standings, mut silent) = (Standings::new(), None);
        for node in nodes.into_iter().filter(|node| self.is_there(node)) {
            match self.leaders.standing(node, GroupId(partition.group_id)).await {
                Ok(standing) => drop(standings.insert(node.to_owned(), standing)),
                Err(Silence::NotRunning) => {}
                Err(Silence::NoAnswer(why)) => silent = Some((node, why)),
            }
        }
        let standing = recoveries::judge(survivor, &standings)?.clone();
        match silent {
            None => Ok(standing),
            Some((node, why)) => Err(format!(
                "{node} may hold a replica, too, and does not say what that has ({why}); stop the node if it is to be given up"
            )),
        }
    }

    fn is_there(&self, node: &str) -> bool {
        node == self.node || self.leaders.is_alive(node)
    }

    /// Waits until the survivor's successor leads, and until this node knows that: then the caller can go on anywhere.
    async fn until_it_leads(
        &self,
        what: &str,
        partition: &Partition,
        successor: &Replica,
        deadline: Instant,
    ) -> Result<Standing, Problem> {
        let (node, group) = (successor.node.as_str(), GroupId(partition.group_id));
        loop {
            let standing = self.leaders.standing(node, group).await;
            let is_known = self.leaders.leader(group).is_some_and(|leader| leader.node == node);
            if let Ok(standing) = standing
                && is_known
                && standing.leads
                && !standing.is_forsaken
                && standing.replica == successor.replica_id
            {
                return Ok(standing);
            }
            if Instant::now() + LOOK_PAUSE >= deadline {
                let why = format!("that {what} goes on from {node} is decided, but it does not lead there yet");
                return Err(Problem::Unknown(why));
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
        last_term: standing.last.0,
        last_index: standing.last.1,
        damaged: standing.is_damaged,
        given_up,
    }
}
