//! Which node to call: writes go to the leader, reads to a follower, everything else to any node.

use std::fmt;

use highwater_proto::v1;

use crate::picture::{Picture, TopicRef};

/// What a call is for.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Purpose<'a> {
    /// Appending to a partition, or asking its leader.
    Write {
        /// The topic.
        topic: &'a TopicRef,
        /// The partition.
        partition: u32,
    },
    /// Reading from a partition.
    Read {
        /// The topic.
        topic: &'a TopicRef,
        /// The partition.
        partition: u32,
    },
    /// A call that any node answers.
    Admin,
}

/// Chooses the node for a call.
pub trait Picker: fmt::Debug + Send + Sync + 'static {
    /// The node to call, or `None` if no node is known. `avoid` names nodes that have failed lately, or are behind with this
    /// partition; one of them is still better than none.
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node>;
}

/// The default picker. Reads go to a follower in the reader's own rack if there is one, then to the leader if that is in it,
/// then to any follower; among equals, and for other calls, chance decides.
///
/// How far a replica is behind is not known before it is read from; one that turns out to be left behind is avoided for a
/// while by readers of its partition, and nodes that fail by everybody: they stand in `avoid`, which outranks the rack.
///
/// A write whose leader is unknown, or has just failed, goes to another replica: that one knows the leader, or is it.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DefaultPicker {
    /// The failure domain that the client stands in; empty if it is not known, or does not matter.
    pub rack: String,
}

impl Picker for DefaultPicker {
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node> {
        let (topic, partition, reads) = match purpose {
            Purpose::Write { topic, partition } => (topic, partition, false),
            Purpose::Read { topic, partition } => (topic, partition, true),
            Purpose::Admin => return best(picture.nodes(), |node| usability(node, avoid)),
        };
        let leader = picture.leader(topic, partition).map_or("", |leader| leader.node);
        let replicas = picture
            .partition(topic, partition)
            .map_or(&[][..], |known| &known.replicas);
        let candidates = picture
            .nodes()
            .filter(|node| node.name == leader || replicas.contains(&node.name));
        let chosen = best(candidates, |node| {
            let usable = usability(node, avoid);
            let preferred = (node.name == leader) != reads;
            // A leader is asked whatever gossip says of it: it is known from the partition itself.
            match reads {
                false => (!avoid.contains(&node.name), preferred, usable.1, false),
                true => (usable.0, usable.1, self.is_near(node), preferred),
            }
        });
        chosen.or_else(|| best(picture.nodes(), |node| usability(node, avoid)))
    }
}

impl DefaultPicker {
    /// The picker of a client that stands in this failure domain.
    #[must_use]
    pub fn in_rack(rack: impl Into<String>) -> Self {
        Self { rack: rack.into() }
    }

    fn is_near(&self, node: &v1::Node) -> bool {
        !self.rack.is_empty() && node.rack == self.rack
    }
}

/// Not failed just now, and alive as far as is known.
fn usability(node: &v1::Node, avoid: &[String]) -> (bool, bool) {
    (!avoid.contains(&node.name), node.alive)
}

/// One of those with the highest rank, by chance.
fn best<'a, R: Ord>(nodes: impl Iterator<Item = &'a v1::Node>, rank: impl Fn(&v1::Node) -> R) -> Option<&'a v1::Node> {
    nodes
        .filter(|node| !node.address.is_empty())
        .max_by_key(|node| (rank(node), rand::random::<u32>()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    fn picture(leader: &str, dead: &[&str]) -> (Picture, TopicRef) {
        let node = |name: &str| v1::Node {
            name: name.to_owned(),
            address: format!("{name}:7100"),
            alive: !dead.contains(&name),
            ..Default::default()
        };
        let topic = v1::Topic {
            name: "numbers".to_owned(),
            topic_id: 7,
            partitions: vec![v1::Partition {
                leader: leader.to_owned(),
                replicas: ["a", "b", "c"].map(str::to_owned).to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let reference = TopicRef::from(&topic);
        let mut picture = Picture::default();
        picture.apply(v1::WatchClusterResponse {
            full: true,
            nodes: ["a", "b", "c", "d"].map(node).to_vec(),
            topics: vec![topic],
            ..Default::default()
        });
        (picture, reference)
    }

    fn picks(picture: &Picture, purpose: Purpose<'_>, avoid: &[&str]) -> BTreeSet<String> {
        let avoid: Vec<String> = avoid.iter().map(|name| (*name).to_owned()).collect();
        let pick = |_| {
            DefaultPicker::default()
                .pick(picture, purpose, &avoid)
                .unwrap()
                .name
                .clone()
        };
        (0..100).map(pick).collect()
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn writes_go_to_the_leader_and_after_its_failure_to_another_replica() {
        let (picture, topic) = picture("b", &["b"]);
        let write = Purpose::Write {
            topic: &topic,
            partition: 0,
        };
        assert_eq!(picks(&picture, write, &[]), set(&["b"]));
        assert_eq!(picks(&picture, write, &["b"]), set(&["a", "c"]));
        assert_eq!(picks(&picture, write, &["a", "b", "c"]), set(&["b"]));
    }

    #[test]
    fn reads_are_spread_over_living_followers() {
        let (all_alive, topic) = picture("b", &[]);
        let read = Purpose::Read {
            topic: &topic,
            partition: 0,
        };
        assert_eq!(picks(&all_alive, read, &[]), set(&["a", "c"]));
        let (a_dead, topic) = picture("b", &["a"]);
        let read = Purpose::Read {
            topic: &topic,
            partition: 0,
        };
        assert_eq!(picks(&a_dead, read, &[]), set(&["c"]));
        assert_eq!(picks(&a_dead, read, &["c"]), set(&["b"]));
    }

    #[test]
    fn reads_go_to_the_nearest_rack_that_serves() {
        let (mut picture, topic) = picture("b", &[]);
        let read = Purpose::Read {
            topic: &topic,
            partition: 0,
        };
        let nodes = picture.nodes().cloned().map(|node| v1::Node {
            rack: if node.name == "a" { "north" } else { "south" }.to_owned(),
            ..node
        });
        let nodes = nodes.collect();
        picture.apply(v1::WatchClusterResponse {
            nodes,
            ..Default::default()
        });
        let pick = |rack: &str, avoid: &[String]| {
            let picker = DefaultPicker { rack: rack.to_owned() };
            picker.pick(&picture, read, avoid).unwrap().name.clone()
        };
        for _ in 0..20 {
            assert_eq!(pick("north", &[]), "a");
            assert_eq!(pick("south", &[]), "c");
            assert_eq!(
                pick("south", &["c".to_owned()]),
                "b",
                "the leader is nearer than a follower elsewhere"
            );
            assert_ne!(pick("east", &[]), "b");
        }
    }

    #[test]
    fn other_calls_go_to_any_living_node() {
        let (picture, _) = picture("b", &["d"]);
        assert_eq!(picks(&picture, Purpose::Admin, &["a"]), set(&["b", "c"]));
    }
}
