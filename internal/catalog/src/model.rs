//! The things that the catalog knows: nodes, topics, partitions and replicas.

use serde::{Deserialize, Serialize};

use crate::codec::hex16;
use crate::command::CatalogReplica;
use crate::levels::FIRST_LEVEL;
use crate::reply::Refusal;

/// The Raft group of the catalog itself; partitions have groups from 1 on.
pub const CATALOG_GROUP_ID: u64 = 0;

/// One life of a data directory: random, drawn when the directory was made.
pub type Incarnation = [u8; 16];

/// A node, under the incarnation that it registered last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Stable over restarts, address changes and new disks.
    pub name: String,
    /// Of the data directory in use.
    #[serde(with = "hex16")]
    pub incarnation: Incarnation,
    /// `host:port` of the one port, as it wants to be called.
    pub address: String,
    /// Empty if the node did not say.
    pub rack: String,
    /// Of the program; empty until the node has registered for the first time.
    pub version: String,
    /// The feature level that its program supports, as it registered it last; 1 until it has said more.
    #[serde(default = "first_level", skip_serializing_if = "is_first_level")]
    pub feature_level: u32,
    /// Its replica of the catalog group.
    pub catalog_replica_id: u64,
    /// Whether that one has run, so that it must never begin empty again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub catalog_replica_started: bool,
    /// Catalog replicas that are lost, of earlier incarnations and of this one, oldest first; see [`NODE_PAST_LIVES_MAX`](crate::limits::NODE_PAST_LIVES_MAX).
    pub past_lives: Vec<PastLife>,
    /// An operator takes it out of the cluster: it gets no replicas, and those that it has move to other nodes.
    #[serde(default, skip_serializing_if = "is_false")]
    pub leaving: bool,
    /// An operator wants no leaderships there. It keeps its replicas, and may get more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub drained: bool,
    /// It has left: it holds nothing, and counts nowhere. Then it is also `leaving`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removed: bool,
}

impl Node {
    /// Whether replicas may be placed there.
    pub(crate) fn is_placeable(&self) -> bool {
        !self.leaving && !self.removed
    }

    /// The first catalog replica of this incarnation. Every replica of this node with a smaller id belongs to an earlier
    /// incarnation and is dead, because ids are handed out in ascending order.
    pub(crate) fn first_catalog_replica_id(&self) -> u64 {
        let lost = self.past_lives.iter().find(|life| life.incarnation == self.incarnation);
        lost.map_or(self.catalog_replica_id, |life| life.catalog_replica_id)
    }

    /// Whether this incarnation goes on with the catalog replica that it has, if its data directory holds that; otherwise
    /// it needs another one.
    pub(crate) fn keeps_catalog_replica(&self, held: Option<CatalogReplica>) -> Result<bool, Refusal> {
        match held {
            Some(CatalogReplica::Runs(replica_id)) if replica_id != self.catalog_replica_id => {
                let node = self.name.clone();
                Err(Refusal::CatalogReplicaReplaced { node, replica_id })
            }
            Some(CatalogReplica::Runs(_)) => Ok(true),
            Some(CatalogReplica::Lost(replica_id)) if replica_id == self.catalog_replica_id => Ok(false),
            Some(CatalogReplica::Lost(_)) | None => Ok(!self.catalog_replica_started),
        }
    }

    pub(crate) fn runs(&self, held: Option<CatalogReplica>) -> bool {
        held == Some(CatalogReplica::Runs(self.catalog_replica_id))
    }

    pub(crate) fn has_past_life(&self, incarnation: &Incarnation) -> bool {
        self.past_lives.iter().any(|life| life.incarnation == *incarnation)
    }
}

/// A catalog replica of a node that is dead: of an earlier incarnation, or lost by the present one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastLife {
    /// Of the data directory that it was in.
    #[serde(with = "hex16")]
    pub incarnation: Incarnation,
    /// The replica of the catalog group that it held.
    pub catalog_replica_id: u64,
}

/// A topic of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// The owner.
    pub tenant: String,
    /// Unique among the tenant's topics.
    pub name: String,
    /// Never used again, also not for a topic of the same name.
    pub topic_id: u64,
    /// How many replicas each partition has.
    pub replication: u32,
    /// How long records are kept, milliseconds; 0: for ever.
    pub retention_ms: u64,
    /// How many bytes each partition keeps; 0: no bound.
    pub retention_bytes: u64,
    /// The rack that its partitions' leaders should stand in, where a replica does; empty: any.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub leader_rack: String,
    /// By partition number, from 0, without holes.
    pub partitions: Vec<Partition>,
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    /// Its number within the topic, from 0.
    pub partition: u32,
    /// Its Raft group; never used again.
    pub group_id: u64,
    /// On distinct nodes; the first is the preferred leader.
    pub replicas: Vec<Replica>,
    /// Former replicas, dead or not, until the group has let go of them: others have taken their place, or the topic has
    /// fewer replicas now. A node that holds one of them gets no further replica of the group, except in place of a dead
    /// one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<Replica>,
    /// Whether `replicas` differs from what the partition was created with. Then its group has members already, and
    /// nobody may give it first ones any more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub changed: bool,
}

/// One replica of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replica {
    /// Its Raft id; never used again, in no group.
    pub replica_id: u64,
    /// The name of the node that holds it.
    pub node: String,
    /// Whether its node has said that it is about to run for the first time, so that it must never begin empty again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub started: bool,
    /// Whether its node has said that it can never run again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reported_dead: bool,
    /// The replica on the same node whose log it goes on with, alone, instead of beginning empty: the rest of the group is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<u64>,
}

impl Replica {
    /// One that has not run yet.
    pub(crate) fn new(replica_id: u64, node: String) -> Replica {
        Replica {
            replica_id,
            node,
            started: false,
            reported_dead: false,
            continues: None,
        }
    }
}

pub(crate) fn first_level() -> u32 {
    FIRST_LEVEL
}

pub(crate) fn is_first_level(level: &u32) -> bool {
    *level == FIRST_LEVEL
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A replica of a partition as its node sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The Raft group.
    pub group_id: u64,
    /// The node's replica of it.
    pub replica_id: u64,
    /// The topic.
    pub topic_id: u64,
    /// The partition's number within the topic.
    pub partition: u32,
    /// It has run: a data directory that does not hold it has lost it.
    pub started: bool,
    /// The replica on the node whose log this one goes on with, instead of beginning empty.
    pub continues: Option<u64>,
    /// Placed on an earlier incarnation of the node, whose data directory is gone: never to be started again.
    pub dead: bool,
}

/// What still has to go from a node before it can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOn {
    /// Replicas that are placed there.
    pub placed: usize,
    /// Former replicas that their groups have not let go of.
    pub replaced: usize,
}
