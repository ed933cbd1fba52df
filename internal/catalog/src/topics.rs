//! Topics: made, changed while in use, and deleted.
//!
//! Everything about a command is checked before the first id is handed out. New partitions and replicas are placed without
//! ids, which they get at the end, all at once. Deliberately absent: which replicas a partition gets or loses when its
//! topic's replication changes (`resizing`), and on which nodes replicas stand (`placement`).

use std::collections::BTreeSet;

use crate::catalog::{Catalog, take};
use crate::checks;
use crate::limits::{
    CLUSTER_PARTITIONS_MAX, RACK_BYTES_MAX, REPLICATION_DEFAULT, REPLICATION_MAX, TENANT_TOPICS_MAX,
    TOPIC_PARTITIONS_MAX,
};
use crate::model::{Node, Partition, Replica, Topic};
use crate::names;
use crate::placement::{Placer, Site, Standing};
use crate::reply::{Refusal, Reply};

/// Stands where an id will be handed out.
pub(crate) const UNNUMBERED: u64 = 0;

/// The topic that a command names.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    tenant: &'a str,
    name: &'a str,
    /// If given, a topic with another id is not meant.
    topic_id: Option<u64>,
}

impl<'a> Named<'a> {
    pub(crate) fn new(tenant: &'a str, name: &'a str, topic_id: Option<u64>) -> Named<'a> {
        Named { tenant, name, topic_id }
    }
}

/// What changes of a topic; None: stays.
#[derive(Debug)]
pub(crate) struct Update<'a> {
    pub(crate) partitions: Option<u32>,
    pub(crate) replication: Option<u32>,
    pub(crate) retention_ms: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) leader_rack: Option<&'a str>,
    /// Nodes that are known to be away.
    pub(crate) avoid: &'a [String],
}

impl Catalog {
    // -------------------------------------------------------------------------------------------------------- made

    pub(crate) fn replication_or_default(&self, replication: u32) -> u32 {
        let nodes = u32::try_from(self.placeable_count()).unwrap_or(u32::MAX);
        if replication == 0 {
            REPLICATION_DEFAULT.min(nodes.max(1))
        } else {
            replication
        }
    }

    pub(crate) fn create_topic(
        &mut self,
        index: u64,
        mut topic: Topic,
        partitions: u32,
        avoid: &[String],
    ) -> Result<Reply, Refusal> {
        self.require_active_tenant(&topic.tenant)?;
        self.check_new_topic(&topic)?;
        self.check_partitions(0, partitions)?;
        self.check_tenant_quota(&topic.tenant, 1, partitions.into())?;
        checks::avoided(avoid)?;
        add_partitions(&mut topic, partitions, &mut self.placer(avoid));
        topic.topic_id = take(&mut self.state.next_topic_id);
        self.number(&mut topic);
        self.index.insert(&topic);
        self.state.topics.insert(topic.topic_id, topic.clone());
        self.state.revision = index;
        Ok(Reply::Topic(topic))
    }

    fn check_new_topic(&self, topic: &Topic) -> Result<(), Refusal> {
        let Topic { tenant, name, .. } = topic;
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
        self.check_replication(topic.replication)?;
        if self.index.topic_count(tenant) >= TENANT_TOPICS_MAX {
            return Err(Refusal::TooManyTopics {
                tenant: tenant.clone(),
                limit: TENANT_TOPICS_MAX,
            });
        }
        Ok(())
    }

    fn check_replication(&self, wanted: u32) -> Result<(), Refusal> {
        let (limit, have) = (REPLICATION_MAX, self.placeable_count());
        if wanted > limit {
            return Err(Refusal::TooManyReplicas { wanted, limit });
        }
        if wanted as usize > have {
            return Err(Refusal::NotEnoughNodes { wanted, have });
        }
        Ok(())
    }

    /// Whether a topic that has so many partitions may have `wanted`.
    fn check_partitions(&self, have: u32, wanted: u32) -> Result<(), Refusal> {
        let room = CLUSTER_PARTITIONS_MAX.saturating_sub(self.index.groups.len());
        let room = u32::try_from(room).unwrap_or(u32::MAX);
        let limit = TOPIC_PARTITIONS_MAX.min(room.saturating_add(have));
        if wanted > limit {
            return Err(Refusal::TooManyPartitions { wanted, limit });
        }
        Ok(())
    }

    fn placeable_count(&self) -> usize {
        self.members().filter(|node| node.is_placeable()).count()
    }

    fn placer(&self, avoid: &[String]) -> Placer<'_> {
        let avoid: BTreeSet<&String> = avoid.iter().collect();
        Placer::new(self.members().map(|node| self.site(node, avoid.contains(&node.name))))
    }

    fn site<'a>(&self, node: &'a Node, is_avoided: bool) -> Site<'a> {
        Site {
            name: &node.name,
            rack: &node.rack,
            load: self.index.load(&node.name),
            standing: match node.is_placeable() {
                true if is_avoided => Standing::Avoided,
                true => Standing::Open,
                false => Standing::Closed,
            },
        }
    }

    /// Hands out the ids of the groups and replicas that have none yet.
    fn number(&mut self, topic: &mut Topic) {
        for partition in &mut topic.partitions {
            if partition.group_id == UNNUMBERED {
                partition.group_id = take(&mut self.state.next_group_id);
            }
            let new = partition.replicas.iter_mut().filter(|it| it.replica_id == UNNUMBERED);
            new.for_each(|replica| replica.replica_id = take(&mut self.state.next_replica_id));
        }
    }

    // ----------------------------------------------------------------------------------------------------- changed

    pub(crate) fn update_topic(&mut self, index: u64, named: Named, update: &Update) -> Result<Reply, Refusal> {
        let topic = self.named_topic(named)?;
        self.check_update(topic, update)?;
        let mut changed = topic.clone();
        changed.retention_ms = update.retention_ms.unwrap_or(topic.retention_ms);
        changed.retention_bytes = update.retention_bytes.unwrap_or(topic.retention_bytes);
        changed.leader_rack = update.leader_rack.unwrap_or(&topic.leader_rack).to_string();
        let mut placer = self.placer(update.avoid);
        if let Some(replication) = update.replication {
            self.resize(&mut changed, replication, &mut placer)?;
        }
        let missing = update.partitions.unwrap_or(0).saturating_sub(partition_count(topic));
        add_partitions(&mut changed, missing, &mut placer);
        if changed == *topic {
            return Ok(Reply::Topic(changed));
        }
        self.number(&mut changed);
        if let Some(before) = self.state.topics.insert(changed.topic_id, changed.clone()) {
            self.index.remove(&before);
        }
        self.index.insert(&changed);
        self.state.revision = index;
        Ok(Reply::Topic(changed))
    }

    fn check_update(&self, topic: &Topic, update: &Update) -> Result<(), Refusal> {
        checks::avoided(update.avoid)?;
        checks::text("leader_rack", update.leader_rack.unwrap_or(""), RACK_BYTES_MAX)?;
        if let Some(wanted) = update.partitions {
            let have = partition_count(topic);
            if wanted < have {
                return Err(Refusal::FewerPartitions { wanted, have });
            }
            self.check_partitions(have, wanted)?;
            self.check_tenant_quota(&topic.tenant, 0, u64::from(wanted - have))?;
        }
        match update.replication {
            Some(0) => Err(checks::invalid(
                "replication",
                "a partition has at least one replica".to_string(),
            )),
            Some(wanted) => self.check_replication(wanted),
            None => Ok(()),
        }
    }

    // ----------------------------------------------------------------------------------------------------- deleted

    pub(crate) fn delete_topic(&mut self, index: u64, named: Named) -> Result<Reply, Refusal> {
        let topic_id = self.named_topic(named)?.topic_id;
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

    fn named_topic(&self, named: Named) -> Result<&Topic, Refusal> {
        self.cluster()?;
        let (tenant, name) = (named.tenant.to_string(), named.name.to_string());
        let Some(topic) = self.topic(named.tenant, named.name) else {
            return Err(Refusal::TopicNotFound { tenant, name });
        };
        match named.topic_id {
            Some(wanted) if wanted != topic.topic_id => Err(Refusal::TopicChanged {
                tenant,
                name,
                wanted,
                topic_id: topic.topic_id,
            }),
            _ => Ok(topic),
        }
    }
}

fn partition_count(topic: &Topic) -> u32 {
    u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX)
}

/// There must be as many nodes as the topic has replicas.
fn add_partitions(topic: &mut Topic, count: u32, placer: &mut Placer) {
    let first = partition_count(topic);
    for partition in first..first + count {
        let nodes = placer.place(topic.replication as usize);
        let replica = |node: &str| Replica::new(UNNUMBERED, node.to_string());
        topic.partitions.push(Partition {
            partition,
            group_id: UNNUMBERED,
            replicas: nodes.into_iter().map(replica).collect(),
            replaced: Vec::new(),
            changed: false,
        });
    }
}
