//! What operators do to the cluster: leaders, replicas that move, settings. Draining and leaving are in `leaving`.
//!
//! Any node takes these calls. What changes the target is a command to the catalog; the cluster follows by itself, and
//! asking again tells how far it is. Only a transfer is carried out at once: by the leader, whom the node asks.
//!
//! Deliberately absent: waiting until everything has moved. That is for those who ask, who can stop waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use highwater_catalog::{Catalog, Command, Partition, Replica, Reply, Settings};
use highwater_partition::log::{GroupId, ReplicaId};
use highwater_proto::v1;
use tokio::time::{Instant, sleep};

use super::Context;
use crate::access::{Action, Principal, Resource, TopicName};
use crate::leadership::transfer_here;
use crate::peer_calls::{self, TRANSFER, Transfer};
use crate::status::Problem;

/// How long a transfer that did not begin, or is not seen yet, is given before it is looked at again.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// How long the leader may take to hand over, before it is asked again.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

impl Context {
    /// Only operators pass.
    pub(super) fn operator(&self, principal: &Principal) -> Result<(), Problem> {
        self.authority.authorize(principal, Action::Admin, Resource::Cluster)?;
        Ok(())
    }

    /// Whether the caller is one, for what others may do, too; nobody is told that it is not.
    pub(super) fn is_operator(&self, principal: &Principal) -> bool {
        let asked = self.authority.check(principal, Action::Admin, &Resource::Cluster);
        asked.is_ok()
    }

    pub(super) async fn transfer_leader(
        &self,
        principal: &Principal,
        request: v1::TransferLeaderRequest,
        deadline: Instant,
    ) -> Result<v1::TransferLeaderResponse, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        let name = TopicName::parse(&request.topic, self.own_tenant(principal)?)?;
        let (group, to) = self.host.read(|catalog| {
            let partition = find_partition(catalog, &name, request.partition)?;
            let to = match request.node.as_str() {
                "" => None,
                node => Some(ReplicaId(replica_on(partition, node)?.replica_id)),
            };
            Ok::<_, Problem>((GroupId(partition.group_id), to))
        })?;
        let before = self.leaders.leader(group).map(|leader| leader.node);
        let mut obstacle = "it has no leader".to_owned();
        loop {
            let leader = self.leaders.leader(group).map(|leader| leader.node);
            if let Some(leader) = leader {
                let is_done = match request.node.as_str() {
                    "" => before.as_ref() != Some(&leader),
                    node => leader == node,
                };
                if is_done {
                    return Ok(v1::TransferLeaderResponse { leader });
                }
                if let Err(why) = self.ask_to_transfer(&leader, group, to).await {
                    obstacle = why;
                }
            }
            if Instant::now() + LOOK_PAUSE >= deadline {
                let what = format!("partition {} of topic `{name}`", request.partition);
                return Err(Problem::Refused(format!(
                    "leadership of {what} does not move: {obstacle}"
                )));
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Answers when the leader leads no longer.
    async fn ask_to_transfer(&self, leader: &str, group: GroupId, to: Option<ReplicaId>) -> Result<(), String> {
        let transfer = Transfer {
            group: group.0,
            to: to.map(|to| to.0),
        };
        if leader == self.node {
            return transfer_here(&self.registry, transfer).await;
        }
        let body = vec![peer_calls::encode_json(&transfer)?];
        let asked = self.link.call_node(leader, TRANSFER, body, TRANSFER_TIMEOUT).await;
        asked.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn move_replica(
        &self,
        principal: &Principal,
        request: v1::MoveReplicaRequest,
        deadline: Instant,
    ) -> Result<v1::MoveReplicaResponse, Problem> {
        self.operator(principal)?;
        self.know_catalog(deadline).await?;
        let name = TopicName::parse(&request.topic, self.own_tenant(principal)?)?;
        let (group_id, replica) = self.host.read(|catalog| {
            let partition = find_partition(catalog, &name, request.partition)?;
            let replica = match has_moved(partition, &request) {
                true => None, // decided before; who asks again has got no answer
                false => Some(replica_on(partition, &request.from_node)?.replica_id),
            };
            Ok::<_, Problem>((partition.group_id, replica))
        })?;
        let Some(replica_id) = replica else {
            return Ok(v1::MoveReplicaResponse {});
        };
        self.known_node(&request.to_node)?;
        if !self.is_led(GroupId(group_id), deadline).await {
            // Without members yet it could never get any, and without a leader that is followed nobody would move it.
            let what = format!("partition {} of topic `{name}`", request.partition);
            return Err(Problem::NoQuorum { what });
        }
        let command = Command::MoveReplica {
            group_id,
            replica_id,
            node: request.to_node,
        };
        self.decide(&command, deadline).await?;
        Ok(v1::MoveReplicaResponse {})
    }

    pub(super) async fn update_settings(
        &self,
        principal: &Principal,
        request: v1::UpdateSettingsRequest,
        deadline: Instant,
    ) -> Result<v1::UpdateSettingsResponse, Problem> {
        self.operator(principal)?;
        let command = Command::UpdateSettings {
            timer_step: request.timer_step,
            replace_after_ms: request.replace_after_ms,
            catch_up_bytes_per_second: request.catch_up_bytes_per_second,
            balance: request.balance,
            groups_kept_ms: request.groups_kept_ms,
        };
        self.decide(&command, deadline).await?;
        let settings = self.host.read(|catalog| settings(catalog.settings()));
        Ok(v1::UpdateSettingsResponse {
            settings: Some(settings),
        })
    }

    /// Has a command decided that is answered with nothing, and waits until its effect is known here.
    pub(super) async fn decide(&self, command: &Command, deadline: Instant) -> Result<(), Problem> {
        match self.catalog.command(command, deadline).await? {
            Reply::Done => {}
            Reply::Refused(refusal) => return Err(Problem::from_refusal(&refusal)),
            other => return Err(Problem::Internal(format!("the catalog answered {other:?}"))),
        }
        // The catalog's leadership may be moving, also by this very command.
        while !self.catalog.catch_up(deadline).await {
            if Instant::now() + LOOK_PAUSE >= deadline {
                let why = "it is decided, but what came of it is not known here yet";
                return Err(Problem::Unknown(why.to_owned()));
            }
            sleep(LOOK_PAUSE).await;
        }
        Ok(())
    }

    /// How many partitions each node leads, as far as this one knows.
    pub(super) fn leader_counts(&self) -> BTreeMap<String, u32> {
        let groups: Vec<u64> = self.host.read(|catalog| {
            let partitions = catalog.all_topics().flat_map(|topic| &topic.partitions);
            partitions.map(|partition| partition.group_id).collect()
        });
        let mut counts = BTreeMap::new();
        for leader in groups
            .into_iter()
            .filter_map(|group| self.leaders.leader(GroupId(group)))
        {
            *counts.entry(leader.node).or_default() += 1;
        }
        counts
    }
}

/// The settings as the wire shows them.
pub(super) fn settings(settings: &Settings) -> v1::Settings {
    v1::Settings {
        timer_step: settings.timer_step,
        replace_after_ms: settings.replace_after_ms,
        catch_up_bytes_per_second: settings.catch_up_bytes_per_second,
        balance: settings.balance,
        groups_kept_ms: Some(settings.groups_kept_ms),
    }
}

pub(super) fn find_partition<'a>(
    catalog: &'a Catalog,
    name: &TopicName,
    number: u32,
) -> Result<&'a Partition, Problem> {
    let topic = name.to_string();
    let Some(found) = catalog.topic(&name.tenant, &name.topic) else {
        return Err(Problem::TopicNotFound { topic });
    };
    let missing = || Problem::PartitionNotFound {
        topic,
        partition: number,
        count: found.partitions.len(),
    };
    found.partitions.get(number as usize).ok_or_else(missing)
}

/// Whether the replica is placed as wanted already.
fn has_moved(partition: &Partition, request: &v1::MoveReplicaRequest) -> bool {
    let holds = |node: &str| partition.replicas.iter().any(|replica| replica.node == node);
    holds(&request.to_node) && !holds(&request.from_node)
}

pub(super) fn replica_on<'a>(partition: &'a Partition, node: &str) -> Result<&'a Replica, Problem> {
    let found = partition.replicas.iter().find(|replica| replica.node == node);
    found.ok_or_else(|| {
        let nodes: Vec<&str> = partition.replicas.iter().map(|replica| replica.node.as_str()).collect();
        let why = format!("node `{node}` holds no replica of it; {} do", nodes.join(", "));
        Problem::Refused(why)
    })
}
