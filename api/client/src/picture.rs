//! The picture of the cluster that a client works from: nodes, topics, leaders.
//!
//! A picture is immutable; each piece of news makes a new one. News may come late and from different nodes, so a
//! leader of a lower term never replaces one of a higher term of the same topic id.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_proto::v1;

use crate::resolver::News;

/// Tenant and name of a topic.
type TopicKey = (String, String);

/// What a client knows about the cluster at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    cluster_id: String,
    nodes: BTreeMap<String, v1::Node>,
    topics: BTreeMap<TopicKey, Arc<v1::Topic>>,
}

/// Who leads a partition, and since which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leader<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The term in which it leads.
    pub term: u64,
}

impl Picture {
    /// The cluster's id, random at its founding; empty if not known.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// All known nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &v1::Node> {
        self.nodes.values()
    }

    /// The node of that name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&v1::Node> {
        self.nodes.get(name)
    }

    /// Forgets the nodes that are not to be kept, for a [`Resolver`](crate::Resolver) that leaves some out. Topics go on naming them.
    pub fn retain_nodes(&mut self, mut keep: impl FnMut(&v1::Node) -> bool) {
        self.nodes.retain(|_, node| keep(node));
    }

    /// All known topics, by tenant and name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<v1::Topic>> {
        self.topics.values()
    }

    /// The topic of that name in that tenant.
    #[must_use]
    pub fn topic(&self, tenant: &str, name: &str) -> Option<&Arc<v1::Topic>> {
        self.topics.get(&(tenant.to_owned(), name.to_owned()))
    }

    /// One partition of the topic with that id, if the topic is known and still has that id.
    #[must_use]
    pub fn partition(&self, topic: &TopicRef, partition: u32) -> Option<&v1::Partition> {
        let known = self.topic(&topic.tenant, &topic.name)?;
        if known.topic_id != topic.topic_id {
            return None;
        }
        known.partitions.iter().find(|known| known.partition == partition)
    }

    /// Who leads a partition, if anybody is known to.
    #[must_use]
    pub fn leader(&self, topic: &TopicRef, partition: u32) -> Option<Leader<'_>> {
        let partition = self.partition(topic, partition)?;
        (!partition.leader.is_empty()).then_some(Leader {
            node: &partition.leader,
            term: partition.term,
        })
    }

    /// Takes in a message of WatchCluster.
    pub(crate) fn apply(&mut self, message: v1::WatchClusterResponse) {
        if message.full {
            let before = std::mem::take(&mut self.topics);
            self.nodes.clear();
            self.cluster_id = message.cluster_id;
            for topic in message.topics {
                let key = (topic.tenant.clone(), topic.name.clone());
                let topic = merge(before.get(&key), topic);
                self.topics.insert(key, Arc::new(topic));
            }
        } else {
            self.topics
                .retain(|_, topic| !message.removed_topic_ids.contains(&topic.topic_id));
            for topic in message.topics {
                self.put_topic(topic);
            }
        }
        for node in message.nodes {
            self.nodes.insert(node.name.clone(), node);
        }
    }

    /// Takes in what an answer told; says whether it was news.
    pub(crate) fn learn(&mut self, news: News) -> bool {
        match news {
            News::Leader { topic, partition, hint } => self.put_leader(&topic, partition, &hint),
            News::Topic(topic) => {
                self.put_topic(topic);
                true
            }
            News::TopicRemoved(topic_id) => {
                self.topics.retain(|_, topic| topic.topic_id != topic_id);
                true
            }
        }
    }

    fn put_topic(&mut self, topic: v1::Topic) {
        let key = (topic.tenant.clone(), topic.name.clone());
        let topic = merge(self.topics.get(&key), topic);
        self.topics.insert(key, Arc::new(topic));
    }

    fn put_leader(&mut self, topic: &TopicRef, partition: u32, hint: &v1::LeaderHint) -> bool {
        if hint.node.is_empty() {
            return false;
        }
        let mut news = self.put_hinted_node(hint);
        let key = (topic.tenant.clone(), topic.name.clone());
        let Some(known) = self
            .topics
            .get_mut(&key)
            .filter(|known| known.topic_id == topic.topic_id)
        else {
            return news;
        };
        let Some(place) = known.partitions.iter().position(|known| known.partition == partition) else {
            return news;
        };
        let before = &known.partitions[place];
        let newer = hint.term > before.term || (hint.term == before.term && before.leader.is_empty());
        if newer {
            news |= before.leader != hint.node;
            let partition = &mut Arc::make_mut(known).partitions[place];
            partition.leader = hint.node.clone();
            partition.term = hint.term;
        }
        news
    }

    /// A hint may name a node that has just joined.
    fn put_hinted_node(&mut self, hint: &v1::LeaderHint) -> bool {
        if hint.address.is_empty() || self.nodes.contains_key(&hint.node) {
            return false;
        }
        let node = v1::Node {
            name: hint.node.clone(),
            address: hint.address.clone(),
            alive: true,
            ..Default::default()
        };
        self.nodes.insert(hint.node.clone(), node);
        true
    }
}

/// `topic`, with the leaders of `before` where those are of a higher term.
fn merge(before: Option<&Arc<v1::Topic>>, mut topic: v1::Topic) -> v1::Topic {
    let Some(before) = before.filter(|before| before.topic_id == topic.topic_id) else {
        return topic;
    };
    for partition in &mut topic.partitions {
        let known = before
            .partitions
            .iter()
            .find(|known| known.partition == partition.partition);
        let Some(known) = known else { continue };
        let keep = known.term > partition.term || (known.term == partition.term && partition.leader.is_empty());
        if keep {
            partition.leader.clone_from(&known.leader);
            partition.term = known.term;
        }
    }
    topic
}

/// The one topic that a producer or consumer means: its name may be reused, its id never is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicRef {
    /// The tenant that owns the topic.
    pub tenant: String,
    /// The topic's name within the tenant.
    pub name: String,
    /// The topic's id.
    pub topic_id: u64,
}

impl From<&v1::Topic> for TopicRef {
    fn from(topic: &v1::Topic) -> Self {
        Self {
            tenant: topic.tenant.clone(),
            name: topic.name.clone(),
            topic_id: topic.topic_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(topic_id: u64, leader: &str, term: u64) -> v1::Topic {
        v1::Topic {
            tenant: "acme".to_owned(),
            name: "numbers".to_owned(),
            topic_id,
            partitions: vec![v1::Partition {
                leader: leader.to_owned(),
                term,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn full(topics: Vec<v1::Topic>) -> v1::WatchClusterResponse {
        v1::WatchClusterResponse {
            full: true,
            topics,
            ..Default::default()
        }
    }

    fn leader(picture: &Picture, topic_id: u64) -> Option<(&str, u64)> {
        let topic = TopicRef::from(&topic(topic_id, "", 0));
        picture.leader(&topic, 0).map(|leader| (leader.node, leader.term))
    }

    fn hint(node: &str, term: u64) -> v1::LeaderHint {
        v1::LeaderHint {
            node: node.to_owned(),
            address: format!("{node}:7100"),
            term,
        }
    }

    #[test]
    fn a_leader_of_a_lower_term_never_replaces_one_of_a_higher_term() {
        let mut picture = Picture::default();
        picture.apply(full(vec![topic(1, "b", 5)]));
        picture.apply(full(vec![topic(1, "a", 4)]));
        assert_eq!(leader(&picture, 1), Some(("b", 5)));
        picture.put_topic(topic(1, "", 5));
        assert_eq!(leader(&picture, 1), Some(("b", 5)));
        picture.put_topic(topic(1, "", 6));
        assert_eq!(leader(&picture, 1), None, "term 6 has no leader yet");
    }

    #[test]
    fn a_topic_made_anew_starts_with_its_own_terms() {
        let mut picture = Picture::default();
        picture.apply(full(vec![topic(1, "b", 5)]));
        picture.put_topic(topic(2, "a", 1));
        assert_eq!(leader(&picture, 2), Some(("a", 1)));
        assert_eq!(leader(&picture, 1), None);
    }

    #[test]
    fn a_hint_is_news_once_and_brings_unknown_nodes() {
        let mut picture = Picture::default();
        picture.apply(full(vec![topic(1, "a", 1)]));
        let which = TopicRef::from(&topic(1, "", 0));
        assert!(picture.put_leader(&which, 0, &hint("c", 2)));
        assert!(!picture.put_leader(&which, 0, &hint("c", 2)));
        assert!(!picture.put_leader(&which, 0, &hint("a", 1)) || picture.node("a").is_some());
        assert_eq!(leader(&picture, 1), Some(("c", 2)));
        assert_eq!(picture.node("c").map(|node| node.address.as_str()), Some("c:7100"));
    }

    #[test]
    fn removed_topics_and_missing_nodes_are_forgotten() {
        let mut picture = Picture::default();
        picture.apply(full(vec![topic(1, "a", 1)]));
        picture.apply(v1::WatchClusterResponse {
            removed_topic_ids: vec![1],
            ..Default::default()
        });
        assert!(picture.topic("acme", "numbers").is_none());
    }
}
