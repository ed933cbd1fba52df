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

/// How often a picker that does not say what is better is asked for a choice before it counts as decided.
const CHOICES: usize = 32;

/// Chooses the node for a call.
pub trait Picker: fmt::Debug + Send + Sync + 'static {
    /// The node to call, or `None` if no node is known. `avoid` names nodes that have failed lately, or are behind with this
    /// partition; one of them is still better than none.
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node>;

    /// The node that a reader should move to although `current` serves it well; `None` if it should stay, also because all
    /// others are no better than equals. Readers ask this about once a minute. `avoid` is as for [`Picker::pick`] and does
    /// not name `current`.
    ///
    /// Unless a picker says otherwise, that is the node that it picks, if it never picks `current` when it has only the two to
    /// choose from. So a picker that decides alike each time need not implement this.
    fn pick_better<'a>(
        &self,
        picture: &'a Picture,
        purpose: Purpose<'_>,
        avoid: &[String],
        current: &str,
    ) -> Option<&'a v1::Node> {
        let better = self.pick(picture, purpose, avoid)?;
        let others = picture.nodes().map(|node| &node.name);
        let others: Vec<String> = others
            .filter(|name| **name != better.name && *name != current)
            .cloned()
            .collect();
        // Of two equals, chance takes the same one so often in a row once in four thousand million times.
        let is_decided = (0..CHOICES).all(|_| {
            let choice = self.pick(picture, purpose, &others);
            choice.is_some_and(|choice| choice.name != current)
        });
        (better.name != current && is_decided).then_some(better)
    }
}

/// The default picker. Reads go to a follower in the reader's own rack if there is one, then to the leader if that is in it,
/// then to any follower; among equals, and for other calls, chance decides.
///
/// A reader that was sent to a worse node goes back when a better one can be had: alive, nearer, or a follower.
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
        let leader = leader(picture, topic, partition);
        let chosen = best(replicas(picture, topic, partition), |node| {
            let is_leader = node.name == leader;
            match reads {
                // A leader is asked whatever gossip says of it: it is known from the partition itself.
                false => (!avoid.contains(&node.name), is_leader, node.alive, false),
                true => self.rank_for_readers(node, is_leader, avoid),
            }
        });
        chosen.or_else(|| best(picture.nodes(), |node| usability(node, avoid)))
    }

    fn pick_better<'a>(
        &self,
        picture: &'a Picture,
        purpose: Purpose<'_>,
        avoid: &[String],
        current: &str,
    ) -> Option<&'a v1::Node> {
        let Purpose::Read { topic, partition } = purpose else {
            return None;
        };
        let leader = leader(picture, topic, partition);
        let rank = |node: &v1::Node| self.rank_for_readers(node, node.name == leader, avoid);
        let mut nodes = replicas(picture, topic, partition);
        let least = nodes.find(|node| node.name == current).map(rank);
        let better = best(replicas(picture, topic, partition), rank)?;
        (Some(rank(better)) > least).then_some(better)
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

    /// The higher the better: usable, alive, near, a follower.
    fn rank_for_readers(&self, node: &v1::Node, is_leader: bool, avoid: &[String]) -> (bool, bool, bool, bool) {
        let (usable, alive) = usability(node, avoid);
        (usable, alive, self.is_near(node), !is_leader)
    }
}

/// The name of the node that leads a partition; empty if that is not known.
fn leader<'a>(picture: &'a Picture, topic: &TopicRef, partition: u32) -> &'a str {
    picture.leader(topic, partition).map_or("", |leader| leader.node)
}

/// The nodes that have a partition.
fn replicas<'a>(picture: &'a Picture, topic: &TopicRef, partition: u32) -> impl Iterator<Item = &'a v1::Node> {
    let leader = leader(picture, topic, partition);
    let known = picture.partition(topic, partition);
    let replicas = known.map_or(&[][..], |known| &known.replicas);
    picture
        .nodes()
        .filter(move |node| node.name == leader || replicas.contains(&node.name))
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

    /// Says that `current` is to be left for `better`.
    fn assert_better(picker: &dyn Picker, leader: &str, (current, avoid): (&str, &[&str]), better: &[&str]) {
        let (picture, topic) = picture(leader, &[]);
        let read = Purpose::Read {
            topic: &topic,
            partition: 0,
        };
        let avoid: Vec<String> = avoid.iter().map(|name| (*name).to_owned()).collect();
        let picks = (0..100).filter_map(|_| picker.pick_better(&picture, read, &avoid, current));
        let picks: BTreeSet<String> = picks.map(|node| node.name.clone()).collect();
        assert_eq!(picks, set(better), "{picker:?}: {current} of {leader}, not {avoid:?}");
    }

    #[test]
    fn a_reader_leaves_a_node_for_a_better_one_and_never_for_an_equal() {
        /// Says only what it picks, by chance among the nodes that are to be preferred.
        #[derive(Debug)]
        struct Terse;
        impl Picker for Terse {
            fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a v1::Node> {
                DefaultPicker::default().pick(picture, purpose, avoid)
            }
        }
        for picker in [&DefaultPicker::default() as &dyn Picker, &Terse] {
            assert_better(picker, "b", ("b", &[]), &["a", "c"]);
            assert_better(picker, "b", ("b", &["a"]), &["c"]);
            assert_better(picker, "b", ("a", &[]), &[]);
            assert_better(picker, "b", ("a", &["c"]), &[]);
            assert_better(picker, "b", ("d", &[]), &["a", "c"]);
        }
        assert_better(&DefaultPicker::default(), "b", ("b", &["a", "c"]), &[]);
    }

    #[test]
    fn other_calls_go_to_any_living_node() {
        let (picture, _) = picture("b", &["d"]);
        assert_eq!(picks(&picture, Purpose::Admin, &["a"]), set(&["b", "c"]));
    }
}
