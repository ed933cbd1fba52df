//! What the catalog can be told.

use serde::{Deserialize, Serialize};

use crate::codec::{self, Error, hex16};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::model::Incarnation;

const WHAT: &str = "catalog command";

/// One change of the catalog, as it stands in the catalog group's log.
///
/// A command whose outcome is unknown may be sent again: `Found` and `RegisterNode` answer the same and change nothing
/// the second time, a second `CreateTopic` is refused with the id of the first, and a `DeleteTopic` that names the
/// topic's id can never hit a younger topic of the same name. The commands about replicas name ids that are never used
/// again, and say [`Reply::Done`](crate::Reply::Done) to what is done already.
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
    /// Gives a dead replica's place to a new one on the same node. Only the group's leader asks for it, which shows that
    /// the group has members.
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
    /// The stored form: a version byte and JSON.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(WHAT, self)
    }

    /// Reads the stored form. A replica that cannot decode a committed command must stop, never skip it.
    pub fn decode(bytes: &[u8]) -> Result<Command, Error> {
        codec::decode(WHAT, bytes, MESSAGE_BYTES_MAX)
    }
}
