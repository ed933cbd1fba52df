//! The state machine: one command in, one reply out.

use std::ops::Range;

use crate::checkpoint::{Cluster, State};
use crate::checks;
use crate::codec::Error;
use crate::command::{CatalogReplica, Command, FoundingNode};
use crate::index::Index;
use crate::limits::{
    CLUSTER_PARTITIONS_MAX, ID_MAX, NODE_PAST_LIVES_MAX, NODES_MAX, PARTITIONS_DEFAULT, REPLICATION_DEFAULT,
    REPLICATION_MAX, RETENTION_BYTES_DEFAULT, RETENTION_MS_DEFAULT, TENANT_TOPICS_MAX, TOPIC_PARTITIONS_MAX,
    VERSION_BYTES_MAX,
};
use crate::model::{Incarnation, Node, Partition, PastLife, Placement, Replica, Topic};
use crate::names;
use crate::placement::Placer;
use crate::reply::{Refusal, Reply};

/// The state of the catalog.
///
/// Invariants:
/// * Before the founding there is nothing; afterwards cluster id and name never change.
/// * Ids of topics, groups and replicas ascend and are never used again; group 0 is the catalog itself. A replica id is
///   unique over all groups.
/// * The replicas of a partition stand on distinct nodes, and every such node is known. Nodes are never forgotten.
/// * A replica id is in a partition's `replicas`, in its `replaced`, or retired; it goes this way and never back.
/// * Every group id ever handed out is either a partition's or has a tombstone, never both.
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
                catalog_replica,
            } => {
                let seen = Node {
                    name: name.clone(),
                    incarnation: *incarnation,
                    address: address.clone(),
                    rack: rack.clone(),
                    version: version.clone(),
                    catalog_replica_id: 0, // decided when it is registered
                    catalog_replica_started: false,
                    past_lives: Vec::new(),
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
            } => {
                let wanted = Topic {
                    tenant: tenant.clone(),
                    name: name.clone(),
                    topic_id: 0, // decided when it is created
                    replication: self.replication_or_default(*replication),
                    retention_ms: retention_ms.unwrap_or(RETENTION_MS_DEFAULT),
                    retention_bytes: retention_bytes.unwrap_or(RETENTION_BYTES_DEFAULT),
                    partitions: Vec::new(),
                };
                let partitions = if *partitions == 0 {
                    PARTITIONS_DEFAULT
                } else {
                    *partitions
                };
                self.create_topic(index, wanted, partitions)
            }
            Command::DeleteTopic { tenant, name, topic_id } => self.delete_topic(index, tenant, name, *topic_id),
            Command::ReportStarted { replicas } => self.report_started(index, replicas),
            Command::ReportDeadReplica { group_id, replica_id } => self.report_dead(index, *group_id, *replica_id),
            Command::ReplaceReplica { group_id, replica_id } => self.replace(index, *group_id, *replica_id),
            Command::RetireReplica { group_id, replica_id } => self.retire(index, *group_id, *replica_id),
        }
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
                catalog_replica_id: node.replica_id,
                catalog_replica_started: true, // its plan was recorded before this was proposed
                past_lives: Vec::new(),
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

    // --------------------------------------------------------------------------------------------------- the nodes

    /// `held`: what the node's data directory holds of the catalog's group.
    fn register_node(&mut self, index: u64, seen: Node, held: Option<CatalogReplica>) -> Result<Reply, Refusal> {
        self.cluster()?;
        checks::node(&seen.name, &seen.address, &seen.rack)?;
        checks::text("version", &seen.version, VERSION_BYTES_MAX)?;
        let node = match self.state.nodes.get(&seen.name) {
            None if self.state.nodes.len() >= NODES_MAX => return Err(Refusal::TooManyNodes { limit: NODES_MAX }),
            None => Node {
                catalog_replica_id: self.next_replica_id(),
                ..seen
            },
            Some(known) if known.incarnation != seen.incarnation && known.has_past_life(&seen.incarnation) => {
                return Err(Refusal::IncarnationReplaced { node: seen.name });
            }
            Some(known) if known.incarnation == seen.incarnation && known.keeps_catalog_replica(held)? => Node {
                catalog_replica_id: known.catalog_replica_id,
                catalog_replica_started: known.catalog_replica_started || known.runs(held),
                past_lives: known.past_lives.clone(),
                ..seen
            },
            Some(known) => {
                let past_lives = past_lives_before(&seen.incarnation, known);
                Node {
                    catalog_replica_id: self.next_replica_id(),
                    past_lives,
                    ..seen
                }
            }
        };
        let replica_id = node.catalog_replica_id;
        if self.state.nodes.get(&node.name) != Some(&node) {
            self.state.nodes.insert(node.name.clone(), node);
            self.state.revision = index;
        }
        Ok(Reply::Node { replica_id })
    }

    // -------------------------------------------------------------------------------------------------- the topics

    fn replication_or_default(&self, replication: u32) -> u32 {
        let nodes = u32::try_from(self.state.nodes.len()).unwrap_or(u32::MAX);
        if replication == 0 {
            REPLICATION_DEFAULT.min(nodes.max(1))
        } else {
            replication
        }
    }

    fn create_topic(&mut self, index: u64, mut topic: Topic, partitions: u32) -> Result<Reply, Refusal> {
        self.check_new_topic(&topic, partitions)?;
        self.place(&mut topic, partitions);
        self.index.insert(&topic);
        self.state.topics.insert(topic.topic_id, topic.clone());
        self.state.revision = index;
        Ok(Reply::Topic(topic))
    }

    fn check_new_topic(&self, topic: &Topic, partitions: u32) -> Result<(), Refusal> {
        let Topic {
            tenant,
            name,
            replication,
            ..
        } = topic;
        self.cluster()?;
        names::validate("tenant", tenant)?;
        names::validate("topic", name)?;
        if let Some(topic_id) = self.index.topic_id(tenant, name) {
            return Err(Refusal::TopicExists {
                tenant: tenant.clone(),
                name: name.clone(),
                topic_id,
            });
        }
        if *replication > REPLICATION_MAX {
            return Err(Refusal::TooManyReplicas {
                wanted: *replication,
                limit: REPLICATION_MAX,
            });
        }
        if *replication as usize > self.state.nodes.len() {
            return Err(Refusal::NotEnoughNodes {
                wanted: *replication,
                have: self.state.nodes.len(),
            });
        }
        if self.index.topic_count(tenant) >= TENANT_TOPICS_MAX {
            return Err(Refusal::TooManyTopics {
                tenant: tenant.clone(),
                limit: TENANT_TOPICS_MAX,
            });
        }
        let room = u32::try_from(CLUSTER_PARTITIONS_MAX.saturating_sub(self.index.groups.len())).unwrap_or(u32::MAX);
        let limit = TOPIC_PARTITIONS_MAX.min(room);
        if partitions > limit {
            return Err(Refusal::TooManyPartitions {
                wanted: partitions,
                limit,
            });
        }
        Ok(())
    }

    /// Gives the topic its id and its partitions their groups, replicas and nodes. Everything has been checked.
    fn place(&mut self, topic: &mut Topic, partitions: u32) {
        let nodes = self.state.nodes.values();
        let mut placer = Placer::new(nodes.map(|node| (&*node.name, &*node.rack, self.index.load(&node.name))));
        let placed: Vec<Vec<String>> = (0..partitions)
            .map(|_| {
                placer
                    .place(topic.replication as usize)
                    .into_iter()
                    .map(str::to_string)
                    .collect()
            })
            .collect();
        topic.topic_id = take(&mut self.state.next_topic_id);
        for (partition, nodes) in (0..).zip(placed) {
            let group_id = take(&mut self.state.next_group_id);
            let replica = |node| Replica {
                replica_id: take(&mut self.state.next_replica_id),
                node,
                started: false,
                reported_dead: false,
            };
            let replicas = nodes.into_iter().map(replica).collect();
            topic.partitions.push(Partition {
                partition,
                group_id,
                replicas,
                replaced: Vec::new(),
                changed: false,
            });
        }
    }

    fn delete_topic(&mut self, index: u64, tenant: &str, name: &str, wanted: Option<u64>) -> Result<Reply, Refusal> {
        self.cluster()?;
        let found = self.index.topic_id(tenant, name);
        let Some(topic_id) = found else {
            return Err(Refusal::TopicNotFound {
                tenant: tenant.to_string(),
                name: name.to_string(),
            });
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != topic_id) {
            let (tenant, name) = (tenant.to_string(), name.to_string());
            return Err(Refusal::TopicChanged {
                tenant,
                name,
                wanted,
                topic_id,
            });
        }
        let Some(topic) = self.state.topics.remove(&topic_id) else {
            unreachable!("topic {topic_id} is in the index, but not in the state");
        };
        self.index.remove(&topic);
        for partition in &topic.partitions {
            self.state.tombstones.insert(partition.group_id);
        }
        self.state.revision = index;
        Ok(Reply::Done)
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

    // ----------------------------------------------------------------------------------------------------- reading

    /// The cluster id; None before the founding.
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.state.cluster.as_ref().map(|cluster| cluster.id)
    }

    /// The cluster name; None before the founding.
    pub fn cluster_name(&self) -> Option<&str> {
        self.state.cluster.as_ref().map(|cluster| cluster.name.as_str())
    }

    /// Index of the last command that changed something; 0: none did. It stays when a command is refused or says
    /// nothing new, so whoever follows the catalog need only look when it moves.
    pub fn revision(&self) -> u64 {
        self.state.revision
    }

    /// Every node ever registered, by name.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Node> + '_ {
        self.state.nodes.values()
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.state.nodes.get(name)
    }

    /// The topics of a tenant, by name.
    pub fn topics(&self, tenant: &str) -> impl Iterator<Item = &Topic> + '_ {
        let ids = self
            .index
            .names
            .get(tenant)
            .into_iter()
            .flat_map(|names| names.values());
        ids.filter_map(|topic_id| self.state.topics.get(topic_id))
    }

    /// The topics of all tenants, by id, which is the order of their creation.
    pub fn all_topics(&self) -> impl ExactSizeIterator<Item = &Topic> + '_ {
        self.state.topics.values()
    }

    /// A topic by its name.
    pub fn topic(&self, tenant: &str, name: &str) -> Option<&Topic> {
        self.topic_by_id(self.index.topic_id(tenant, name)?)
    }

    /// A topic by its id.
    pub fn topic_by_id(&self, topic_id: u64) -> Option<&Topic> {
        self.state.topics.get(&topic_id)
    }

    /// The topic and the partition that a Raft group keeps; None for the catalog's own group, and for groups deleted or
    /// never made.
    pub fn partition_of_group(&self, group_id: u64) -> Option<(&Topic, &Partition)> {
        let (topic_id, partition) = self.index.groups.get(&group_id)?;
        let topic = self.topic_by_id(*topic_id)?;
        Some((topic, topic.partitions.get(*partition as usize)?))
    }

    /// The replicas of partitions that are placed on a node, by group id; its catalog replica is not among them.
    pub fn groups_on(&self, node: &str) -> impl Iterator<Item = Placement> + '_ {
        let name = node.to_string();
        self.index.groups.keys().filter_map(move |group_id| {
            let (topic, partition) = self.partition_of_group(*group_id)?;
            let replica = partition.replicas.iter().find(|replica| replica.node == name)?;
            Some(Placement {
                group_id: *group_id,
                replica_id: replica.replica_id,
                topic_id: topic.topic_id,
                partition: partition.partition,
                started: replica.started,
                dead: self.is_dead(replica),
            })
        })
    }

    /// Whether a replica must never be started again under this id: it was placed on an earlier incarnation of its node,
    /// whose data is gone, or its node has reported it.
    pub fn is_dead(&self, replica: &Replica) -> bool {
        let is_of_this_life = |node: &Node| replica.replica_id >= node.first_catalog_replica_id();
        replica.reported_dead || !self.node(&replica.node).is_some_and(is_of_this_life)
    }

    /// Whether a replica has been reported as started; None if it has no place in a partition, any more or at all.
    pub fn is_started(&self, group_id: u64, replica_id: u64) -> Option<bool> {
        let (_, partition) = self.partition_of_group(group_id)?;
        let mut replicas = partition.replicas.iter();
        replicas
            .find(|replica| replica.replica_id == replica_id)
            .map(|replica| replica.started)
    }

    /// The group ids of deleted partitions, as ascending ranges (end exclusive). Data of these groups, and of no
    /// others, may be deleted.
    pub fn tombstones(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.state.tombstones.ranges()
    }

    /// Whether a replica has been replaced and its group has let go of it.
    pub fn is_retired(&self, replica_id: u64) -> bool {
        self.state.retired_replicas.contains(replica_id)
    }

    /// Whether the group's partition was deleted.
    pub fn is_deleted(&self, group_id: u64) -> bool {
        self.state.tombstones.contains(group_id)
    }

    /// Whether a replica's data may be deleted: its group was, or it is retired.
    pub fn may_be_removed(&self, group_id: u64, replica_id: u64) -> bool {
        self.is_deleted(group_id) || self.is_retired(replica_id)
    }
}

/// Hands out the next id.
fn take(next: &mut u64) -> u64 {
    let taken = *next;
    assert!((1..ID_MAX).contains(&taken), "ids are exhausted: {taken}");
    *next += 1;
    taken
}

/// The past lives of a node that goes on as `next`, or with another catalog replica if that is what it is already.
fn past_lives_before(next: &Incarnation, node: &Node) -> Vec<PastLife> {
    let latest = PastLife {
        incarnation: node.incarnation,
        catalog_replica_id: node.catalog_replica_id,
    };
    let mut lives: Vec<PastLife> = node.past_lives.iter().cloned().chain([latest]).collect();
    if lives.len() > NODE_PAST_LIVES_MAX {
        // The first catalog replica of this life tells which replicas are of this life: it stays.
        let other = lives.iter().position(|life| life.incarnation != *next);
        lives.remove(other.unwrap_or(1));
    }
    lives
}
