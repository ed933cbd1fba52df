//! What the catalog answers.

use serde::{Deserialize, Serialize};

use crate::access::Limit;
use crate::codec::{self, Error, hex16};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::model::Topic;
use crate::names::InvalidName;

const WHAT: &str = "catalog reply";

/// The answer to one command, equal on every replica.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// Done, and nothing more to say (`DeleteTopic` and the commands about replicas).
    Done,
    /// The cluster is founded with this id (`Found`).
    Founded {
        /// As commanded.
        #[serde(with = "hex16")]
        cluster_id: [u8; 16],
    },
    /// The node is known (`RegisterNode`).
    Node {
        /// Its replica of the catalog group under the incarnation that it registered.
        replica_id: u64,
    },
    /// The topic as created or changed (`CreateTopic`, `UpdateTopic`).
    Topic(Topic),
    /// The policy's version by now (the commands about tenants and policy).
    Policy {
        /// For the next change.
        version: u64,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a command changed nothing. Sending the same again gets the same, until something else has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Refusal {
    /// A second founding with another id: the sender's cluster is not this one.
    #[error("the cluster is founded already, with id {}", hex16::to_text(cluster_id))]
    AlreadyFounded {
        /// Of the cluster that is.
        #[serde(with = "hex16")]
        cluster_id: [u8; 16],
    },
    /// Any other command before the founding.
    #[error("the cluster is not founded yet")]
    NotFounded,
    /// The node has been seen with a newer data directory since: this one is out of date.
    #[error("node {node} has registered with a newer data directory since; this one must not be used any more")]
    IncarnationReplaced {
        /// The node's name.
        node: String,
    },
    /// The node runs a catalog replica whose place was given to another one: its data directory is an old copy.
    #[error(
        "node {node} runs catalog replica {replica_id}, which was lost and replaced; its data directory is an old copy"
    )]
    CatalogReplicaReplaced {
        /// The node's name.
        node: String,
        /// The replica that must not run.
        replica_id: u64,
    },
    /// The cluster is full.
    #[error("the cluster has {limit} nodes, as many as it may")]
    TooManyNodes {
        /// The most nodes.
        limit: usize,
    },
    /// The tenant has a topic of this name.
    #[error("topic {tenant}/{name} exists already")]
    TopicExists {
        /// The owner.
        tenant: String,
        /// Of the topic.
        name: String,
        /// Of the topic that exists.
        topic_id: u64,
    },
    /// The tenant has no topic of this name.
    #[error("topic {tenant}/{name} does not exist")]
    TopicNotFound {
        /// The owner.
        tenant: String,
        /// Of the topic.
        name: String,
    },
    /// The tenant has a topic of this name, but it is not the one that was meant.
    #[error("topic {tenant}/{name} was deleted and created again: it has id {topic_id} now, not {wanted}")]
    TopicChanged {
        /// The owner.
        tenant: String,
        /// Of the topic.
        name: String,
        /// The id that was meant.
        wanted: u64,
        /// The id that it has.
        topic_id: u64,
    },
    /// Replicas of a partition stand on distinct nodes, and there are not as many.
    #[error("{wanted} replicas need as many nodes, the cluster has {have}")]
    NotEnoughNodes {
        /// The replicas asked for.
        wanted: u32,
        /// The nodes there are that may get replicas.
        have: usize,
    },
    /// The tenant has as many topics as it may.
    #[error("tenant {tenant} has {limit} topics, as many as it may")]
    TooManyTopics {
        /// The owner.
        tenant: String,
        /// The most topics.
        limit: usize,
    },
    /// More partitions than a topic may have, or than the cluster has room for.
    #[error("{wanted} partitions are too many: {limit} are possible")]
    TooManyPartitions {
        /// The partitions asked for.
        wanted: u32,
        /// The most that would be accepted.
        limit: u32,
    },
    /// More replicas than a partition may have.
    #[error("{wanted} replicas are too many: a partition may have {limit}")]
    TooManyReplicas {
        /// The replicas asked for.
        wanted: u32,
        /// The most replicas.
        limit: u32,
    },
    /// The group does not exist, or never had this replica.
    #[error("group {group_id} has no replica {replica_id}")]
    ReplicaNotFound {
        /// The group asked for.
        group_id: u64,
        /// The replica asked for.
        replica_id: u64,
    },
    /// The catalog's feature level does not allow it: not every node supports it yet.
    #[error("it needs feature level {needed}, the cluster has {level}; every node must run a build that supports it")]
    FeatureLevel {
        /// The level that it needs.
        needed: u32,
        /// The catalog's.
        level: u32,
    },
    /// The node's program is older than the rules that the cluster uses.
    #[error("node {node} supports feature level {level}, the cluster has {needed}: it needs a newer build")]
    TooOld {
        /// The node's name.
        node: String,
        /// The level that it supports.
        level: u32,
        /// The catalog's.
        needed: u32,
    },
    /// No node of this name has ever registered.
    #[error("node {node} does not exist")]
    NodeNotFound {
        /// The name asked for.
        node: String,
    },
    /// The node has left the cluster; only with a new data directory it may come back.
    #[error("node {node} was removed from the cluster; with a new data directory it may join again")]
    NodeRemoved {
        /// The node's name.
        node: String,
    },
    /// The node gets no replicas any more.
    #[error("node {node} is leaving the cluster")]
    NodeLeaving {
        /// The node's name.
        node: String,
    },
    /// Only a node that is leaving can be removed.
    #[error("node {node} is not leaving: decommission it first")]
    NodeNotLeaving {
        /// The node's name.
        node: String,
    },
    /// The node still holds something.
    #[error("node {node} still holds {placed} replicas, and {replaced} that their groups have not let go of")]
    NodeInUse {
        /// The node's name.
        node: String,
        /// Replicas that are placed there.
        placed: usize,
        /// Former replicas that their groups have not let go of.
        replaced: usize,
    },
    /// Without the node, a topic's replicas could not stand on distinct nodes.
    #[error("node {node} is needed: topic {tenant}/{name} has {replication} replicas, and {nodes} nodes would be left")]
    NodeNeeded {
        /// The node's name.
        node: String,
        /// The topic's owner.
        tenant: String,
        /// The topic.
        name: String,
        /// How many replicas its partitions have.
        replication: u32,
        /// How many nodes would be left.
        nodes: usize,
    },
    /// A cluster has at least one node.
    #[error("node {node} is the last one that is not leaving")]
    LastNode {
        /// The node's name.
        node: String,
    },
    /// Partitions are never merged.
    #[error("the topic has {have} partitions; they can become more, not {wanted}")]
    FewerPartitions {
        /// The partitions asked for.
        wanted: u32,
        /// The partitions that it has.
        have: u32,
    },
    /// A node has at most one replica of a group.
    #[error("node {node} holds a replica of group {group_id}, or one that the group has not let go of")]
    ReplicaHeld {
        /// The group.
        group_id: u64,
        /// The node's name.
        node: String,
    },
    /// There are enough nodes, but some still hold former replicas of the group.
    #[error("group {group_id} has not let go of former replicas yet, whose nodes are needed")]
    Unfinished {
        /// The group.
        group_id: u64,
    },
    /// Only dead replicas are replaced.
    #[error("replica {replica_id} of group {group_id} is not dead")]
    ReplicaAlive {
        /// Its group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// Only a replica that can run can be gone on from.
    #[error("replica {replica_id} of group {group_id} is dead: its votes or the end of its log are lost")]
    ReplicaDead {
        /// Its group.
        group_id: u64,
        /// The replica.
        replica_id: u64,
    },
    /// The group has not let go of earlier ones yet.
    #[error("{limit} replaced replicas of group {group_id} still wait to be retired")]
    TooManyReplaced {
        /// The group.
        group_id: u64,
        /// The most that may wait.
        limit: usize,
    },
    /// Access has not been set up yet: every node must run a build that knows it.
    #[error("access is not set up yet: the cluster's rules are raised once every node runs this version")]
    AccessNotSetUp,
    /// Somebody else has changed the policy since.
    #[error("the policy has changed since: it has version {version} now, not {expected}")]
    PolicyChanged {
        /// The version that the change was made for.
        expected: u64,
        /// The version that it has.
        version: u64,
    },
    /// More tenants, rules or grants than there may be.
    #[error("there would be more {what} than {limit}")]
    PolicyTooLarge {
        /// Of what.
        what: String,
        /// The most that there may be.
        limit: usize,
    },
    /// A role that no rule is about.
    #[error("role {role} does not exist: no rule is about it")]
    RoleNotFound {
        /// The name asked for.
        role: String,
    },
    /// Without an operator nobody could change anything any more.
    #[error("nobody would be an operator of the cluster any more")]
    LastOperator,
    /// No operator has made a tenant of this name.
    #[error("tenant {tenant} does not exist")]
    TenantNotFound {
        /// The name asked for.
        tenant: String,
    },
    /// There is a tenant of this name.
    #[error("tenant {tenant} exists already")]
    TenantExists {
        /// Its name.
        tenant: String,
    },
    /// An operator has shut the tenant's clients out.
    #[error("tenant {tenant} is suspended")]
    TenantSuspended {
        /// Its name.
        tenant: String,
    },
    /// The tenant would own more than its quota allows.
    #[error("tenant {tenant} may have {limit} {of}; its quota can be changed by an operator")]
    OverQuota {
        /// Its name.
        tenant: String,
        /// What it would have more of.
        of: Limit,
        /// How much it may have.
        limit: u64,
    },
    /// Only a tenant without topics can be deleted.
    #[error("tenant {tenant} has {topics} topics; delete them first")]
    TenantInUse {
        /// Its name.
        tenant: String,
        /// How many topics it owns.
        topics: usize,
    },
    /// A name breaks the rule of [`names`](crate::names).
    #[error("{why}")]
    InvalidName {
        /// What the name is for: topic, tenant, node, cluster.
        field: String,
        /// The whole message: field, flaw and rule.
        why: String,
    },
    /// Another value is not acceptable.
    #[error("{field}: {why}")]
    InvalidValue {
        /// Which one.
        field: String,
        /// What is wrong with it.
        why: String,
    },
}

impl From<InvalidName> for Refusal {
    fn from(invalid: InvalidName) -> Refusal {
        Refusal::InvalidName {
            field: invalid.field.to_string(),
            why: invalid.to_string(),
        }
    }
}

impl Reply {
    /// The encoded form: a version byte and JSON.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(WHAT, self)
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Reply, Error> {
        codec::decode(WHAT, bytes, MESSAGE_BYTES_MAX)
    }
}
