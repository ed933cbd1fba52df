//! What happened lately, each thing typed and in words: a ring that the watcher fills and `GET /api/v1/events` reads.
//!
//! Events are numbered from 1 on since the node's start, so a number says nothing without the start that it belongs to: each has a name of its own,
//! which whoever asks gives back.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::extract::{RawQuery, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::{Desk, answer};
use crate::clock::now_ms;
use crate::gateway::Query;

/// Events that are kept; the oldest go first.
const EVENTS_MAX: usize = 1_000;
/// Events in one answer, the newest.
const ANSWER_EVENTS_MAX: usize = 200;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Happening {
    /// This node began to watch; what was before it does not know.
    WatchBegan,
    /// A partition has another leader.
    Elected { what: String, from: String, to: String },
    /// Several partitions have another leader, from the same one to the same one.
    ElectedMany {
        partitions: usize,
        from: String,
        to: String,
    },
    /// Partitions have no leader that is known.
    LeaderLost {
        what: String,
        partitions: usize,
        from: String,
    },
    /// The catalog has another leader.
    CatalogElected { from: String, to: String },
    /// The catalog has none that is known.
    CatalogLeaderLost { from: String },
    /// A node is a member now.
    NodeJoined { node: String },
    /// A node is a member no more.
    NodeLeft { node: String },
    /// A node is not heard of any more.
    NodeGone { node: String },
    /// It is heard of again.
    NodeBack { node: String },
    /// Its process is another one, and was hardly missed.
    NodeRestarted { node: String },
    /// An operator set something about a node.
    NodeSet { node: String, what: &'static str },
    /// Entries are damaged on this node's disk.
    DamageFound { what: String, entries: u64 },
    /// They were fetched from another replica.
    DamageMended { what: String },
    /// A replica has lost what it had promised to keep.
    ReplicaDied { what: String, node: String },
    /// Another one has taken its place.
    ReplicaReplaced { what: String, node: String },
    /// This node is not ready.
    NotReady { why: String },
    /// This node is ready.
    Ready,
    /// This node has something to say.
    Noticed { notice: String },
    /// This node takes no records, or takes them again.
    DiskRoom { has_room: bool },
    /// A topic was made.
    TopicMade { topic: String },
    /// A topic was deleted.
    TopicDeleted { topic: String },
}

/// Whether it is good, bad, or neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Tone {
    Good,
    Bad,
    Plain,
}

impl Happening {
    /// For a person.
    pub(super) fn words(&self, by: &str) -> String {
        use Happening as H;
        match self {
            H::WatchBegan => format!("{by} began to watch."),
            H::Elected { what, from, to } if from.is_empty() => format!("{to} leads {what}."),
            H::Elected { what, from, to } => format!("{to} leads {what} now, after {from}."),
            H::ElectedMany { partitions, from, to } if from.is_empty() => {
                format!("{to} leads {partitions} partitions.")
            }
            H::ElectedMany { partitions, from, to } => format!("{to} leads {partitions} partitions now, after {from}."),
            H::LeaderLost {
                what,
                partitions: 1,
                from,
            } => format!("{what} has no leader; it was {from}."),
            H::LeaderLost { what, partitions, from } => {
                format!("{partitions} partitions have no leader, {what} among them; it was {from}.")
            }
            H::CatalogElected { from, to } if from.is_empty() => format!("{to} leads the catalog."),
            H::CatalogElected { from, to } => format!("{to} leads the catalog now, after {from}."),
            H::CatalogLeaderLost { from } => format!("The catalog has no leader; it was {from}."),
            H::NodeJoined { node } => format!("{node} has joined the cluster."),
            H::NodeLeft { node } => format!("{node} has left the cluster."),
            H::NodeGone { node } => format!("{node} is not heard of any more."),
            H::NodeRestarted { node } => format!("{node} was restarted."),
            H::NodeBack { node } => format!("{node} is back."),
            H::NodeSet { node, what } => format!("{node} {what}."),
            H::DamageFound { what, entries } => {
                format!("{entries} entries of {what} are damaged on {by}; it fetches them from another replica.")
            }
            H::DamageMended { what } => format!("{what} is whole again on {by}."),
            H::ReplicaDied { what, node } => {
                format!("The replica of {what} on {node} is dead; another one takes its place.")
            }
            H::ReplicaReplaced { what, node } => format!("The dead replica of {what} on {node} has been replaced."),
            H::NotReady { why } => format!("{by} is not ready: {why}."),
            H::Ready => format!("{by} is ready."),
            H::Noticed { notice } => format!("{by}: {notice}."),
            H::DiskRoom { has_room: true } => format!("The disk of {by} has room again."),
            H::DiskRoom { has_room: false } => format!("The disk of {by} is full; it takes no records."),
            H::TopicMade { topic } => format!("Topic {topic} was made."),
            H::TopicDeleted { topic } => format!("Topic {topic} was deleted."),
        }
    }

    pub(super) fn tone(&self) -> Tone {
        use Happening as H;
        match self {
            H::LeaderLost { .. }
            | H::CatalogLeaderLost { .. }
            | H::NodeGone { .. }
            | H::DamageFound { .. }
            | H::ReplicaDied { .. }
            | H::NotReady { .. }
            | H::Noticed { .. }
            | H::DiskRoom { has_room: false } => Tone::Bad,
            H::NodeJoined { .. }
            | H::NodeBack { .. }
            | H::DamageMended { .. }
            | H::ReplicaReplaced { .. }
            | H::Ready
            | H::DiskRoom { has_room: true } => Tone::Good,
            _ => Tone::Plain,
        }
    }
}

/// An event as it is kept.
#[derive(Debug, Clone, Serialize)]
struct Event {
    number: u64,
    at_ms: u64,
    tone: Tone,
    words: String,
    #[serde(flatten)]
    happening: Happening,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    events: VecDeque<Event>,
}

/// The last events.
#[derive(Debug)]
pub(super) struct Events {
    /// Which start of the node they belong to; no other start of any node has the same.
    start: String,
    ring: Mutex<Ring>,
}

/// What is new to somebody.
#[derive(Debug, Serialize)]
struct News {
    start: String,
    /// The number of the last event.
    last: u64,
    /// What was known before is of another start.
    restarted: bool,
    /// The newest of those that were not known, in their order.
    events: Vec<Event>,
}

impl Events {
    pub(super) fn new() -> Events {
        Events {
            start: format!("{:016x}", rand::random::<u64>()),
            ring: Mutex::default(),
        }
    }

    pub(super) fn add(&self, by: &str, happenings: Vec<Happening>) {
        let mut ring = self.lock();
        for happening in happenings {
            ring.last += 1;
            let event = Event {
                number: ring.last,
                at_ms: now_ms(),
                tone: happening.tone(),
                words: happening.words(by),
                happening,
            };
            ring.events.push_back(event);
            if ring.events.len() > EVENTS_MAX {
                ring.events.pop_front();
            }
        }
    }

    /// What is new to somebody who knows the events up to `after` of the start `start`; if that is another one than this, everything is. Who
    /// does not say of which start is taken to mean this one, unless `after` is more than there is.
    fn since(&self, after: u64, start: Option<&str>) -> News {
        let ring = self.lock();
        let restarted = start.map_or(after > ring.last, |start| start != self.start);
        let after = if restarted { 0 } else { after };
        let newer = ring.events.iter().rev().take_while(|event| event.number > after);
        let mut events: Vec<Event> = newer.take(ANSWER_EVENTS_MAX).cloned().collect();
        events.reverse();
        News {
            start: self.start.clone(),
            last: ring.last,
            restarted,
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) async fn since(State(console): Desk, RawQuery(query): RawQuery) -> Response {
    let news = Query::read(query.as_deref().unwrap_or_default(), &["after", "start"]).and_then(|query| {
        let start = query.text("start").filter(|start| !start.is_empty());
        Ok(console.events.since(query.number("after", 0)?, start))
    });
    answer::answer(news.map(|News { start, last, restarted, events }| {
        json!({ "node": console.context.node, "start": start, "last": last, "restarted": restarted, "events": events })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_topics(count: usize) -> Events {
        let events = Events::new();
        for number in 0..count {
            let topic = number.to_string();
            events.add("a", vec![Happening::TopicMade { topic }]);
        }
        events
    }

    fn numbers(news: &News) -> Vec<u64> {
        news.events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn the_ring_keeps_the_newest_and_gives_what_is_new() {
        let events = with_topics(EVENTS_MAX + 5);
        let all = events.since(0, None);
        let last = (EVENTS_MAX + 5) as u64;
        assert_eq!((all.last, all.events.len()), (last, ANSWER_EVENTS_MAX));
        assert_eq!(numbers(&all).last(), Some(&last));
        assert_eq!(events.lock().events.len(), EVENTS_MAX);
        assert_eq!(numbers(&events.since(last - 2, Some(&all.start))), [last - 1, last]);
    }

    #[test]
    fn a_restarted_node_tells_everything_also_if_it_has_more_events_by_now_than_were_known() {
        let known = with_topics(3).since(0, None);
        assert!(!known.restarted, "nothing was known before");
        let restarted = with_topics(5);
        let news = restarted.since(known.last, Some(&known.start));
        assert!(news.restarted && news.start != known.start);
        assert_eq!(numbers(&news), [1, 2, 3, 4, 5]);
        let next = restarted.since(4, Some(&news.start));
        assert!(!next.restarted);
        assert_eq!(numbers(&next), [5]);
    }

    #[test]
    fn who_names_no_start_is_told_everything_only_by_a_node_that_has_fewer_events() {
        let events = with_topics(3);
        let news = events.since(4, None);
        assert_eq!((news.restarted, numbers(&news)), (true, vec![1, 2, 3]));
        let news = events.since(2, None);
        assert_eq!((news.restarted, numbers(&news)), (false, vec![3]));
    }
}
