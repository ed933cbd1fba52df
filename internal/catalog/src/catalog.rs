//! The state machine: one command in, one reply out.

use crate::checkpoint::{Cluster, State};
use crate::checks;
use crate::codec::Error;
use crate::command::{Command, FoundingNode};
use crate::index::Index;
use crate::levels::FEATURE_LEVEL;
use crate::limits::{ID_MAX, PARTITIONS_DEFAULT, RETENTION_BYTES_DEFAULT, RETENTION_MS_DEFAULT};
use crate::model::{Node, Topic};
use crate::names;
use crate::reply::{Refusal, Reply};
use crate::settings::Settings;
use crate::topics::{Named, Update};

/// The state of the catalog.
///
/// Invariants:
/// * Before the founding there is nothing; afterwards cluster id and name never change.
/// * Ids of topics, groups and replicas ascend and are never used again; group 0 is the catalog itself. A replica id is
///   unique over all groups.
/// * The replicas of a partition stand on distinct nodes, and every such node is known and was not removed. Nodes are
///   never forgotten.
/// * A topic has at most as many replicas as there are nodes that are not leaving.
/// * A replica id is in a partition's `replicas`, in its `replaced`, or retired; it goes this way and never back.
/// * Every group id ever handed out is either a partition's or has a tombstone, never both.
/// * The feature level never falls, and nothing of a higher level is in the state.
/// * A refused command changes nothing, not even the revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    pub(crate) state: State,
    pub(crate) index: Index,
}

impl Catalog {
    /// The catalog before its first command.
    pub fn new() -> Catalog {
        Catalog::default()
    }

    /// Applies the committed command that stands at `index` of the catalog group's log, and answers it. The same
    /// commands give the same states and replies on every replica. Each command is applied once, in log order.
    pub fn apply(&mut self, index: u64, command: &Command) -> Reply {
        let revision = self.state.revision;
        assert!(
            index > revision,
            "command {index} applied when {revision} was applied already"
        );
        self.decide(index, command).unwrap_or_else(Reply::Refused)
    }

    fn decide(&mut self, index: u64, command: &Command) -> Result<Reply, Refusal> {
        self.check_level(command)?;
        match command {
            Command::Found {
                cluster_id,
                cluster_name,
                nodes,
            } => self.found(index, *cluster_id, cluster_name, nodes),
            Command::RegisterNode {
                name,
                incarnation,
                address,
                rack,
                version,
                feature_level,
                catalog_replica,
            } => {
                let seen = Node {
                    name: name.clone(),
                    incarnation: *incarnation,
                    address: address.clone(),
                    rack: rack.clone(),
                    version: version.clone(),
                    feature_level: *feature_level,
                    catalog_replica_id: 0, // decided when it is registered, as is the rest
                    catalog_replica_started: false,
                    past_lives: Vec::new(),
                    leaving: false,
                    drained: false,
                    removed: false,
                };
                self.register_node(index, seen, *catalog_replica)
            }
            Command::CreateTopic {
                tenant,
                name,
                partitions,
                replication,
                retention_ms,
                retention_bytes,
                avoid,
            } => {
                let wanted = Topic {
                    tenant: tenant.clone(),
                    name: name.clone(),
                    topic_id: 0, // decided when it is created
                    replication: self.replication_or_default(*replication),
                    retention_ms: retention_ms.unwrap_or(RETENTION_MS_DEFAULT),
                    retention_bytes: retention_bytes.unwrap_or(RETENTION_BYTES_DEFAULT),
                    leader_rack: String::new(),
                    partitions: Vec::new(),
                };
                let partitions = if *partitions == 0 {
                    PARTITIONS_DEFAULT
                } else {
                    *partitions
                };
                self.create_topic(index, wanted, partitions, avoid)
            }
            Command::UpdateTopic {
                tenant,
                name,
                topic_id,
                partitions,
                replication,
                retention_ms,
                retention_bytes,
                leader_rack,
                avoid,
            } => {
                let update = Update {
                    partitions: *partitions,
                    replication: *replication,
                    retention_ms: *retention_ms,
                    retention_bytes: *retention_bytes,
                    leader_rack: leader_rack.as_deref(),
                    avoid,
                };
                self.update_topic(index, Named::new(tenant, name, *topic_id), &update)
            }
            Command::DeleteTopic { tenant, name, topic_id } => {
                self.delete_topic(index, Named::new(tenant, name, *topic_id))
            }
            Command::ReportStarted { replicas } => self.report_started(index, replicas),
            Command::ReportDeadReplica { group_id, replica_id } => self.report_dead(index, *group_id, *replica_id),
            Command::ReplaceReplica { group_id, replica_id } => self.replace(index, *group_id, *replica_id),
            Command::RetireReplica { group_id, replica_id } => self.retire(index, *group_id, *replica_id),
            Command::MoveReplica {
                group_id,
                replica_id,
                node,
            } => self.move_replica(index, *group_id, *replica_id, node),
            Command::RecoverPartition { group_id, replica_id } => self.recover_partition(index, *group_id, *replica_id),
            Command::PreferLeader { group_id, replica_id } => self.prefer_leader(index, *group_id, *replica_id),
            Command::DecommissionNode { node, leaving } => self.decommission(index, node, *leaving),
            Command::DrainNode { node, drained } => self.drain(index, node, *drained),
            Command::RemoveNode { node } => self.remove_node(index, node),
            Command::UpdateSettings {
                timer_step,
                replace_after_ms,
                catch_up_bytes_per_second,
                balance,
                groups_kept_ms,
            } => {
                let now = &self.state.settings;
                let wanted = Settings {
                    timer_step: timer_step.unwrap_or(now.timer_step),
                    replace_after_ms: replace_after_ms.unwrap_or(now.replace_after_ms),
                    catch_up_bytes_per_second: catch_up_bytes_per_second.unwrap_or(now.catch_up_bytes_per_second),
                    balance: balance.unwrap_or(now.balance),
                    groups_kept_ms: groups_kept_ms.unwrap_or(now.groups_kept_ms),
                };
                self.update_settings(index, wanted)
            }
            Command::SetUpAccess { tenants, policy } => self.set_up_access(index, tenants, policy),
            Command::ChangePolicy {
                expected_version,
                change,
            } => self.change_policy(index, *expected_version, change),
            Command::CreateTenant { tenant, clients_role } => {
                self.create_tenant(index, tenant, clients_role.as_deref())
            }
            Command::SuspendTenant { tenant, suspended } => self.suspend_tenant(index, tenant, *suspended),
            Command::ChangeQuota { tenant, client, change } => {
                self.change_quota(index, tenant, client.as_deref(), change)
            }
            Command::DeleteTenant { tenant } => self.delete_tenant(index, tenant),
            Command::RaiseFeatureLevel { level } => self.raise_feature_level(index, *level),
        }
    }

    // ------------------------------------------------------------------------------------------- the feature level

    /// Whoever proposes a command has looked already. All the same nothing of a higher level may ever enter the state:
    /// nodes of a lower level could not read its checkpoints.
    fn check_level(&self, command: &Command) -> Result<(), Refusal> {
        let (needed, level) = (command.feature_level(), self.state.feature_level);
        if needed <= level {
            return Ok(());
        }
        self.cluster()?;
        Err(Refusal::FeatureLevel { needed, level })
    }

    fn raise_feature_level(&mut self, index: u64, level: u32) -> Result<Reply, Refusal> {
        self.cluster()?;
        checks::within("level", level, &(1..=FEATURE_LEVEL))?;
        if level > self.state.feature_level {
            self.state.feature_level = level;
            self.state.revision = index;
        }
        Ok(Reply::Done)
    }

    // ------------------------------------------------------------------------------------------------- the cluster

    fn found(
        &mut self,
        index: u64,
        cluster_id: [u8; 16],
        cluster_name: &str,
        nodes: &[FoundingNode],
    ) -> Result<Reply, Refusal> {
        if let Ok(cluster) = self.cluster() {
            return if cluster.id == cluster_id {
                Ok(Reply::Founded { cluster_id })
            } else {
                Err(Refusal::AlreadyFounded { cluster_id: cluster.id })
            };
        }
        names::validate("cluster", cluster_name)?;
        checks::founding_nodes(nodes)?;
        let last_replica_id = nodes.iter().map(|node| node.replica_id).max().unwrap_or(0);
        self.state.cluster = Some(Cluster {
            id: cluster_id,
            name: cluster_name.to_string(),
        });
        self.state.next_replica_id = last_replica_id + 1;
        for node in nodes {
            let node = Node {
                name: node.name.clone(),
                incarnation: node.incarnation,
                address: node.address.clone(),
                rack: node.rack.clone(),
                version: String::new(),
                feature_level: 1,
                catalog_replica_id: node.replica_id,
                catalog_replica_started: true, // its plan was recorded before this was proposed
                past_lives: Vec::new(),
                leaving: false,
                drained: false,
                removed: false,
            };
            self.state.nodes.insert(node.name.clone(), node);
        }
        self.state.revision = index;
        Ok(Reply::Founded { cluster_id })
    }

    /// Whoever the cluster is, or the refusal of everything before it is.
    pub(crate) fn cluster(&self) -> Result<&Cluster, Refusal> {
        self.state.cluster.as_ref().ok_or(Refusal::NotFounded)
    }

    pub(crate) fn next_replica_id(&mut self) -> u64 {
        take(&mut self.state.next_replica_id)
    }

    // -------------------------------------------------------------------------------------------------- checkpoint

    /// The checkpoint: all of the state. Equal states have equal checkpoints.
    pub fn encode(&self) -> Vec<u8> {
        self.state.encode()
    }

    /// Reads a checkpoint and checks every invariant in it.
    pub fn decode(bytes: &[u8]) -> Result<Catalog, Error> {
        let state = State::decode(bytes)?;
        let mut index = Index::default();
        state.topics.values().for_each(|topic| index.insert(topic));
        Ok(Catalog { state, index })
    }
}

/// Hands out the next id.
pub(crate) fn take(next: &mut u64) -> u64 {
    let taken = *next;
    assert!((1..ID_MAX).contains(&taken), "ids are exhausted: {taken}");
    *next += 1;
    taken
}
