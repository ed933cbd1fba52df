//! Nodes and replicas that have not served well lately, and are left alone for a while.
//!
//! Two things are told apart, because they last differently and concern different callers:
//!
//! * A **node** that breaks off, falls silent or cannot be reached will not serve the next caller better. It is set aside
//!   for everybody who has a choice (readers, and calls that any node answers), for a second at first.
//! * A **replica** that hands its readers over does not keep up with its leader, or is cut off from it. That says nothing of
//!   the node's other partitions, so only readers of this one avoid it; but for longer, as it may take long to catch up, and
//!   who comes back too early is served old records for as long as the node has patience with its replica (5 s). If two
//!   partitions are behind on one node at the same time, it is the node after all.
//!
//! What that is worth, in the test cluster of this library (three nodes in one process, of which one hands readers of one
//! partition over at once, for 20 s; every 100 ms a new reader of that partition and one of another): as long as the node was
//! set aside, all 200 readers of the other partition were kept from their nearest node, and five readers were handed
//! over; now none, and two. With a node gone that nobody has called dead yet, 75 of 200 calls that any node answers were
//! retried; now no more than the test allows, which is 6.
//!
//! Each time that it happens again it is for longer. What is set aside is still better than nothing, and writes go to
//! their leader whatever is said of it here.
//!
//! That is all that a client knows of lag before it reads. Replicas that keep up are behind by milliseconds, which is less
//! than the age of anything that a client could have been told about them; so there is no measure of lag to choose by,
//! only the verdict of those who watch over the replicas.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long something is set aside.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// The first time; it doubles with every further one.
    first: Duration,
    /// At most.
    longest: Duration,
    /// Whoever was good for so long after its return begins anew.
    forgotten_after: Duration,
    /// How many are remembered; then the one that is back for the longest time is forgotten.
    most: usize,
}

const NODES: Terms = Terms {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
    forgotten_after: Duration::from_secs(60),
    most: 256,
};
const REPLICAS: Terms = Terms {
    first: Duration::from_secs(10),
    longest: Duration::from_secs(120),
    forgotten_after: Duration::from_secs(120),
    most: 4_096,
};
/// With so many partitions behind at the same time it is the node that is set aside.
const REPLICAS_OF_A_NODE: usize = 2;

/// A replica of a partition, by topic id, partition and node.
type Replica = (u64, u32, String);

/// What is set aside.
#[derive(Debug)]
pub(crate) struct Aside {
    nodes: Mutex<Absences<String>>,
    replicas: Mutex<Absences<Replica>>,
}

impl Default for Aside {
    fn default() -> Self {
        Self {
            nodes: Mutex::new(Absences::new(NODES)),
            replicas: Mutex::new(Absences::new(REPLICAS)),
        }
    }
}

impl Aside {
    /// Sets a node aside. Says for how long, unless it is already.
    pub(crate) fn put_node(&self, node: &str, now: Instant) -> Option<Duration> {
        lock(&self.nodes).put(node.to_owned(), now)
    }

    /// Sets a replica aside. Says for how long, unless it is already.
    pub(crate) fn put_replica(&self, topic_id: u64, partition: u32, node: &str, now: Instant) -> Option<Duration> {
        lock(&self.replicas).put((topic_id, partition, node.to_owned()), now)
    }

    /// Whether so many replicas of a node are set aside that it must be the node.
    pub(crate) fn is_behind(&self, node: &str, now: Instant) -> bool {
        let replicas = lock(&self.replicas);
        let of_node = replicas.at(now).filter(|(_, _, other)| other == node);
        of_node.count() >= REPLICAS_OF_A_NODE
    }

    /// The nodes that are set aside at the moment `now`.
    pub(crate) fn nodes(&self, now: Instant) -> Vec<String> {
        lock(&self.nodes).at(now).cloned().collect()
    }

    /// The nodes that readers of a partition should avoid at the moment `now`.
    pub(crate) fn for_readers(&self, topic_id: u64, partition: u32, now: Instant) -> Vec<String> {
        let replicas = lock(&self.replicas);
        let of_partition = replicas
            .at(now)
            .filter(|(topic, number, _)| (*topic, *number) == (topic_id, partition));
        let mut nodes: Vec<String> = of_partition.map(|(_, _, node)| node.clone()).collect();
        drop(replicas);
        nodes.extend(self.nodes(now));
        nodes
    }
}

fn lock<K>(absences: &Mutex<Absences<K>>) -> MutexGuard<'_, Absences<K>> {
    absences.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who is set aside until when.
#[derive(Debug)]
struct Absences<K> {
    terms: Terms,
    known: HashMap<K, Absence>,
}

#[derive(Debug, Clone, Copy)]
struct Absence {
    until: Instant,
    length: Duration,
}

impl<K: Clone + Eq + Hash> Absences<K> {
    fn new(terms: Terms) -> Self {
        Self {
            terms,
            known: HashMap::new(),
        }
    }

    /// Sets somebody aside from `now` on, unless that is so already: one bad moment is noticed by many.
    fn put(&mut self, who: K, now: Instant) -> Option<Duration> {
        let terms = self.terms;
        let before = self.known.get(&who).copied();
        if before.is_some_and(|before| now < before.until) {
            return None;
        }
        let length = match before {
            Some(before) if now < before.until + terms.forgotten_after => (before.length * 2).min(terms.longest),
            _ => terms.first,
        };
        if before.is_none() && self.known.len() >= terms.most {
            let oldest = self.known.iter().min_by_key(|(_, absence)| absence.until);
            if let Some(oldest) = oldest.map(|(who, _)| who.clone()) {
                self.known.remove(&oldest);
            }
        }
        let until = now + length;
        self.known.insert(who, Absence { until, length });
        Some(length)
    }

    /// Who is set aside at the moment `now`.
    fn at(&self, now: Instant) -> impl Iterator<Item = &K> {
        let absent = self.known.iter().filter(move |(_, absence)| now < absence.until);
        absent.map(|(who, _)| who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    #[test]
    fn a_node_is_set_aside_for_longer_each_time_and_begins_anew_when_it_was_good_for_a_while() {
        let aside = Aside::default();
        let mut now = Instant::now();
        let mut length = NODES.first;
        for _ in 0..8 {
            assert_eq!(aside.put_node("a", now), Some(length));
            assert_eq!(aside.put_node("a", now + MOMENT), None, "the same bad moment");
            assert_eq!(aside.nodes(now + length - MOMENT), ["a"], "{length:?}");
            now += length;
            assert!(aside.nodes(now).is_empty(), "{length:?}");
            length = (length * 2).min(NODES.longest);
        }
        now += NODES.forgotten_after;
        assert_eq!(aside.put_node("a", now), Some(NODES.first));
    }

    #[test]
    fn only_so_many_nodes_are_remembered() {
        let aside = Aside::default();
        let began = Instant::now();
        for number in 0..=NODES.most as u32 {
            aside.put_node(&format!("n{number}"), began + number * MOMENT);
        }
        let absent = aside.nodes(began + NODES.most as u32 * MOMENT);
        assert!(absent.len() == NODES.most && !absent.contains(&"n0".to_owned()));
    }

    #[test]
    fn a_replica_that_is_behind_is_avoided_by_readers_of_its_partition_only() {
        let aside = Aside::default();
        let now = Instant::now();
        assert_eq!(aside.put_replica(7, 0, "b", now), Some(REPLICAS.first));
        assert_eq!(aside.for_readers(7, 0, now), ["b"]);
        for (topic_id, partition) in [(7, 1), (8, 0)] {
            assert!(aside.for_readers(topic_id, partition, now).is_empty());
        }
        assert!(aside.nodes(now).is_empty() && !aside.is_behind("b", now));
        assert!(aside.for_readers(7, 0, now + REPLICAS.first).is_empty(), "for a while");
    }

    #[test]
    fn two_partitions_that_are_behind_at_the_same_time_speak_of_the_node() {
        let aside = Aside::default();
        let now = Instant::now();
        aside.put_replica(7, 0, "b", now);
        aside.put_replica(7, 1, "c", now);
        assert!(!aside.is_behind("b", now));
        let later = now + REPLICAS.first / 2;
        aside.put_replica(7, 1, "b", later);
        assert!(aside.is_behind("b", later) && !aside.is_behind("c", later));
        assert!(!aside.is_behind("b", now + REPLICAS.first), "the first one is back");
    }
}
