//! What the catalog can be told.

use serde::{Deserialize, Serialize};

use crate::access::{PolicyChange, QuotaChange};
use crate::codec::{self, Error, hex16};
use crate::levels::{CHANGES_LEVEL, FEATURE_LEVEL, FIRST_LEVEL, POLICIES_LEVEL};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::model::{Incarnation, first_level, is_first_level};

const WHAT: &str = "catalog command";

/// One change of the catalog, as it stands in the catalog group's log.
///
/// A command whose outcome is unknown may be sent again: `Found` and `RegisterNode` answer the same and change nothing
/// the second time, a second `CreateTopic` is refused with the id of the first, and a `DeleteTopic` that names the
/// topic's id can never hit a younger topic of the same name. The commands about replicas name ids that are never used
/// again, and say [`Reply::Done`](crate::Reply::Done) to what is done already. The others say what shall be, not what
/// shall be different: the second time it is so already.
///
/// Some commands need a [feature level](Command::feature_level): builds of a lower one cannot read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// The first command of a cluster: who it is, and the nodes that vote in its catalog.
    Found {
        /// Drawn by the founder.
        #[serde(with = "hex16")]
        cluster_id: [u8; 16],
        /// As configured on every node.
        cluster_name: String,
        /// All the founding nodes, in any order.
        nodes: Vec<FoundingNode>,
    },
    /// A node says that it is there and how to reach it. Sent at each start and when something of it changes.
    RegisterNode {
        /// Its stable name.
        name: String,
        /// Of its data directory. A new one makes its earlier replicas dead.
        #[serde(with = "hex16")]
        incarnation: Incarnation,
        /// `host:port` of its port.
        address: String,
        /// Empty: none.
        rack: String,
        /// Of the program.
        version: String,
        /// The feature level that the program supports. Not written, thus 1, until the catalog has level 2; from then on
        /// a node that supports less than the catalog's level is refused.
        #[serde(default = "first_level", skip_serializing_if = "is_first_level")]
        feature_level: u32,
        /// What its data directory holds of the catalog's group. None: nothing; if it ran a replica before, that one is
        /// lost, and the node gets another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        catalog_replica: Option<CatalogReplica>,
    },
    /// Makes a topic and places its replicas.
    CreateTopic {
        /// The owner.
        tenant: String,
        /// New among the tenant's topics.
        name: String,
        /// 0: [`PARTITIONS_DEFAULT`](crate::limits::PARTITIONS_DEFAULT).
        partitions: u32,
        /// 0: [`REPLICATION_DEFAULT`](crate::limits::REPLICATION_DEFAULT), or as many as there are nodes.
        replication: u32,
        /// 0: for ever. None: [`RETENTION_MS_DEFAULT`](crate::limits::RETENTION_MS_DEFAULT).
        retention_ms: Option<u64>,
        /// 0: no bound. None: [`RETENTION_BYTES_DEFAULT`](crate::limits::RETENTION_BYTES_DEFAULT).
        retention_bytes: Option<u64>,
        /// Nodes that are known to be away: they get replicas only if there are not enough others. Names that no node
        /// has are passed over. At most [`NODES_MAX`](crate::limits::NODES_MAX); level 2 if there are any.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        avoid: Vec<String>,
    },
    /// Changes a topic while it is in use; what is not given stays. The answer is the topic as it is then, also if
    /// nothing changes, so a repeated one answers the same. Level 2.
    ///
    /// A group whose replicas change must have members, because nobody gives it first ones afterwards: whoever proposes
    /// another replication has seen a leader of each of the topic's groups, and names the topic's id.
    UpdateTopic {
        /// The owner.
        tenant: String,
        /// Of the topic.
        name: String,
        /// If given, only a topic with this id is changed.
        topic_id: Option<u64>,
        /// How many partitions it has; they only become more.
        partitions: Option<u32>,
        /// How many replicas each partition has. New ones are placed like those of a new topic. Of those that there are,
        /// the dead, the avoided and the crowded go first, and the preferred leader stays if it is alive; they become
        /// `replaced`.
        replication: Option<u32>,
        /// As in [`Command::CreateTopic`].
        retention_ms: Option<u64>,
        /// As in [`Command::CreateTopic`].
        retention_bytes: Option<u64>,
        /// The rack that leaders should stand in; empty: any.
        leader_rack: Option<String>,
        /// As in [`Command::CreateTopic`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        avoid: Vec<String>,
    },
    /// Removes a topic; its groups get tombstones.
    DeleteTopic {
        /// The owner.
        tenant: String,
        /// Of the topic.
        name: String,
        /// If given, only a topic with this id is deleted.
        topic_id: Option<u64>,
    },
    /// A node says that replicas placed on it are about to run for the first time. Before this is decided they must not;
    /// from then on a data directory without them has lost them: it is a copy from before.
    ReportStarted {
        /// At most [`STARTED_REPLICAS_MAX`](crate::limits::STARTED_REPLICAS_MAX). Those that are no longer there are
        /// passed over.
        replicas: Vec<StartedReplica>,
    },
    /// A node says that a replica of its present incarnation can never run again: its vote or its log's end is lost.
    ReportDeadReplica {
        /// Its group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// Gives a dead replica's place to a new one on the same node, unless that node is leaving. Only the group's leader
    /// asks for it, which shows that the group has members.
    ReplaceReplica {
        /// Its group.
        group_id: u64,
        /// The dead replica.
        replica_id: u64,
    },
    /// The group's committed membership holds a replaced replica no longer: what is left of its data may go.
    RetireReplica {
        /// Its group.
        group_id: u64,
        /// The replaced replica.
        replica_id: u64,
    },
    /// Gives a replica's place, dead or not, to a new one on a node that holds none of the group; the old one becomes
    /// `replaced`. Asked for only while the group has a leader, which shows that it has members. One that names a replica
    /// whose place has been given away already, wherever to, is done. Level 2.
    MoveReplica {
        /// Its group.
        group_id: u64,
        /// The replica whose place is given away.
        replica_id: u64,
        /// Where the new one stands.
        node: String,
    },
    /// Makes a replica the preferred leader of its partition. Done if it is already. Level 2.
    PreferLeader {
        /// Its group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// Begins to take a node out of the cluster, or gives that up. It is refused if too few nodes would be left for some
    /// topic. Done if it is so already. Level 2.
    DecommissionNode {
        /// Its name.
        node: String,
        /// Whether it shall leave.
        leaving: bool,
    },
    /// Wants no leaderships on a node, or wants them again. Done if it is so already. Level 2.
    DrainNode {
        /// Its name.
        node: String,
        /// Whether it shall lead nothing.
        drained: bool,
    },
    /// The last step of a decommission, once the node holds nothing. Whoever proposes it has taken away its vote in the
    /// catalog group. Done if it is removed already; refused if it has come back since with a new data directory. Level 2.
    RemoveNode {
        /// Its name.
        node: String,
    },
    /// Changes settings of the cluster; what is not given stays. Level 2, and level 4 to say how long groups are kept.
    UpdateSettings {
        /// See [`Settings::timer_step`](crate::Settings::timer_step).
        timer_step: Option<u32>,
        /// See [`Settings::replace_after_ms`](crate::Settings::replace_after_ms).
        replace_after_ms: Option<u64>,
        /// See [`Settings::catch_up_bytes_per_second`](crate::Settings::catch_up_bytes_per_second).
        catch_up_bytes_per_second: Option<u64>,
        /// See [`Settings::balance`](crate::Settings::balance).
        balance: Option<bool>,
        /// See [`Settings::groups_kept_ms`](crate::Settings::groups_kept_ms).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        groups_kept_ms: Option<u64>,
    },
    /// Lets a partition go on from one replica, because the others are gone for good: all are declared dead, and their places
    /// go to new ones on the same nodes, of which the survivor's continues its log. Only an operator asks for it, while the
    /// group has no leader and cannot get one: what only the others had is lost. Level 2.
    RecoverPartition {
        /// Its group.
        group_id: u64,
        /// The replica that is left.
        replica_id: u64,
    },
    /// Begins with a policy: from then on it decides who may do what. Tenants that own topics are among the tenants in any case. Done if it
    /// has been set up already. Level 4.
    SetUpAccess {
        /// The tenants that there are, as far as they own no topics yet.
        tenants: Vec<String>,
        /// The rules of roles, and who has them: at least one operator.
        policy: PolicyChange,
    },
    /// Changes rules and grants. Level 4.
    ChangePolicy {
        /// The version that the change was made for; with another one it is refused.
        expected_version: u64,
        /// What to add and to remove.
        change: PolicyChange,
    },
    /// Makes a tenant. Level 4.
    CreateTenant {
        /// Its name.
        tenant: String,
        /// The role that all its clients have in it. None: an operator grants roles one by one.
        clients_role: Option<String>,
    },
    /// Shuts a tenant's clients out, or lets them in again. Done if it is so already. Level 4.
    SuspendTenant {
        /// Its name.
        tenant: String,
        /// Whether its clients are shut out.
        suspended: bool,
    },
    /// Changes how much a tenant, or a client of it, may use. What is set or cleared already is no error. Level 4.
    ChangeQuota {
        /// Its name.
        tenant: String,
        /// One of its clients, or [`EACH_CLIENT`](crate::EACH_CLIENT); None: all of them together.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client: Option<String>,
        /// What to set and to clear.
        change: QuotaChange,
    },
    /// Forgets a tenant without topics, and all rules and grants that are about it. Level 4.
    DeleteTenant {
        /// Its name.
        tenant: String,
    },
    /// Allows everything up to a feature level, for good. Builds of level 1 cannot even read it, so whoever proposes it
    /// has seen that every node supports the level. A level that has been reached is done; it never falls.
    RaiseFeatureLevel {
        /// At most [`FEATURE_LEVEL`](crate::FEATURE_LEVEL).
        level: u32,
    },
}

/// A node's replica of the catalog's group, as the node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogReplica {
    /// It runs.
    Runs(u64),
    /// It can never run again: its vote or its log's end is lost. The node gets another one, and keeps its other replicas.
    Lost(u64),
}

/// One replica in [`Command::ReportStarted`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartedReplica {
    /// Its group.
    pub group_id: u64,
    /// The replica.
    pub replica_id: u64,
}

/// A node that founds the cluster with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FoundingNode {
    /// Its stable name.
    pub name: String,
    /// Of its data directory.
    #[serde(with = "hex16")]
    pub incarnation: Incarnation,
    /// `host:port` of its port.
    pub address: String,
    /// Empty: none.
    pub rack: String,
    /// Of its catalog replica, chosen by the founder: the catalog's first membership is older than its first command.
    pub replica_id: u64,
}

impl Command {
    /// The feature level that the catalog must have before this is proposed. Raising the level needs none: that is how it
    /// begins.
    pub fn feature_level(&self) -> u32 {
        match self {
            Command::Found { .. }
            | Command::DeleteTopic { .. }
            | Command::ReportStarted { .. }
            | Command::ReportDeadReplica { .. }
            | Command::ReplaceReplica { .. }
            | Command::RetireReplica { .. }
            | Command::RaiseFeatureLevel { .. } => FIRST_LEVEL,
            Command::RegisterNode { feature_level, .. } if is_first_level(feature_level) => FIRST_LEVEL,
            Command::CreateTopic { avoid, .. } if avoid.is_empty() => FIRST_LEVEL,
            Command::UpdateSettings { groups_kept_ms, .. } if groups_kept_ms.is_some() => POLICIES_LEVEL,
            Command::RegisterNode { .. }
            | Command::CreateTopic { .. }
            | Command::UpdateTopic { .. }
            | Command::MoveReplica { .. }
            | Command::PreferLeader { .. }
            | Command::DecommissionNode { .. }
            | Command::DrainNode { .. }
            | Command::RemoveNode { .. }
            | Command::RecoverPartition { .. }
            | Command::UpdateSettings { .. } => CHANGES_LEVEL,
            Command::SetUpAccess { .. }
            | Command::ChangePolicy { .. }
            | Command::CreateTenant { .. }
            | Command::SuspendTenant { .. }
            | Command::ChangeQuota { .. }
            | Command::DeleteTenant { .. } => POLICIES_LEVEL,
        }
    }

    /// The stored form: a version byte and JSON.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(WHAT, self)
    }

    /// Reads the stored form. A replica that cannot decode a committed command must stop, never skip it.
    ///
    /// A level that this build does not know cannot be read either: it could not follow the rules that come into force.
    pub fn decode(bytes: &[u8]) -> Result<Command, Error> {
        match codec::decode(WHAT, bytes, MESSAGE_BYTES_MAX)? {
            Command::RaiseFeatureLevel { level } if level > FEATURE_LEVEL => Err(Error::Malformed {
                what: WHAT,
                why: format!("it raises the feature level to {level}, this program knows {FEATURE_LEVEL}"),
            }),
            command => Ok(command),
        }
    }
}
