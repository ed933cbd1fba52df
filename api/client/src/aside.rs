//! Nodes that readers have left lately.
//!
//! A replica that does not serve one reader well will not serve the next one better: it is cut off, or slow, or gone. So
//! whoever leaves a node sets it aside for all readers of the client, for a second at first and for longer each time that it
//! happens again. A node that is set aside is still better than none.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a node is set aside the first time; it doubles with every further one.
const FIRST: Duration = Duration::from_secs(1);
/// For how long at most.
const LONGEST: Duration = Duration::from_secs(30);
/// A node that nobody has left for so long after its return begins anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How many nodes are remembered; then the one that is back for the longest time is forgotten.
const NODES_MAX: usize = 256;

/// Which nodes are set aside.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    nodes: Mutex<HashMap<String, Absence>>,
}

#[derive(Debug, Clone, Copy)]
struct Absence {
    until: Instant,
    length: Duration,
}

impl Aside {
    /// Sets a node aside from `now` on, unless it is already: one bad moment of a node is noticed by many. Says for how
    /// long, if it does.
    pub(crate) fn put(&self, node: &str, now: Instant) -> Option<Duration> {
        let mut nodes = self.lock();
        let before = nodes.get(node).copied();
        if before.is_some_and(|before| now < before.until) {
            return None;
        }
        let length = match before {
            Some(before) if now < before.until + FORGOTTEN_AFTER => (before.length * 2).min(LONGEST),
            _ => FIRST,
        };
        if before.is_none() && nodes.len() >= NODES_MAX {
            let oldest = nodes.iter().min_by_key(|(_, absence)| absence.until);
            if let Some(oldest) = oldest.map(|(node, _)| node.clone()) {
                nodes.remove(&oldest);
            }
        }
        let until = now + length;
        nodes.insert(node.to_owned(), Absence { until, length });
        Some(length)
    }

    /// The nodes that are set aside at the moment `now`.
    pub(crate) fn at(&self, now: Instant) -> Vec<String> {
        let nodes = self.lock();
        let absent = nodes.iter().filter(|(_, absence)| now < absence.until);
        absent.map(|(node, _)| node.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Absence>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut length = FIRST;
        for _ in 0..8 {
            aside.put("a", now);
            aside.put("a", now + MOMENT); // the same bad moment
            assert_eq!(aside.at(now + length - MOMENT), ["a"], "{length:?}");
            now += length;
            assert!(aside.at(now).is_empty(), "{length:?}");
            length = (length * 2).min(LONGEST);
        }
        now += FORGOTTEN_AFTER;
        aside.put("a", now);
        assert!(aside.at(now + FIRST).is_empty());
    }

    #[test]
    fn only_so_many_nodes_are_remembered() {
        let aside = Aside::default();
        let began = Instant::now();
        for number in 0..=NODES_MAX as u32 {
            aside.put(&format!("n{number}"), began + number * MOMENT);
        }
        let absent = aside.at(began + NODES_MAX as u32 * MOMENT);
        assert!(absent.len() == NODES_MAX && !absent.contains(&"n0".to_owned()));
    }
}
