//! Which events are there: the state that decides about duplicates.
//!
//! Of each event a server keeps where it is, its times, and the length and a fingerprint of its message, for ever: that is what decisions
//! and pages need, and with the two maps it is less than [`EVENT_BYTES_MAX`](crate::limits::EVENT_BYTES_MAX). Messages are kept only as long as
//! they are among the newest, within a budget of bytes for the whole server: live readers are served from memory however many they are, and
//! what is older is read from the log again (`archive`), which has it anyway.
//!
//! Invariants: the first record of an id is the event; later ones are nothing, whoever wrote them. Positions of a deployment ascend. What
//! is forgotten of the messages is the oldest first.

use std::collections::hash_map::{self, HashMap, RandomState};
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use highwater::ConsumedRecord;
use highwater_service::State;

use crate::event::{Posted, partition_of};

/// What is known of an event.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Which one of its deployment.
    pub id: u64,
    /// Its offset in the partition of its deployment.
    pub position: u64,
    /// When it was sent, milliseconds since 1970-01-01 UTC.
    pub sent_at_ms: u64,
    /// When it was received, milliseconds since 1970-01-01 UTC.
    pub received_at_ms: u64,
    /// Its message, if it is one of the newest.
    pub message: Option<Arc<str>>,
    message_bytes: u32,
    fingerprint: u64,
}

/// What a message in memory takes besides its bytes: its count and place, and those of the queue of the newest.
const MESSAGE_OVERHEAD_BYTES: usize = 64;
/// Up to so many events a deployment takes no memory for more: many deployments have few.
const FEW: usize = 4;

/// The state of the topic.
#[derive(Debug)]
pub struct Index {
    partitions: u32,
    /// By deployment, its events in order of position.
    deployments: BTreeMap<u64, Vec<Entry>>,
    /// By deployment and id, the place among those of the deployment. One map for all is smaller than one for each.
    places: HashMap<(u64, u64), usize>,
    /// Whose messages are in memory, oldest first: deployment and place.
    newest: VecDeque<(u64, usize)>,
    newest_bytes: usize,
    newest_bytes_max: usize,
    /// With keys of this process, so that nobody can make two messages that look the same.
    hashing: RandomState,
}

impl Index {
    /// An empty one, of a topic with so many partitions, that takes up to so many bytes for messages.
    #[must_use]
    pub fn new(partitions: u32, newest_bytes_max: usize) -> Self {
        Self {
            partitions,
            deployments: BTreeMap::new(),
            places: HashMap::new(),
            newest: VecDeque::new(),
            newest_bytes: 0,
            newest_bytes_max,
            hashing: RandomState::new(),
        }
    }

    /// How many events there are.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.places.len() as u64
    }

    /// The event of that id, if there is one.
    #[must_use]
    pub fn find(&self, deployment_id: u64, id: u64) -> Option<&Entry> {
        let place = self.places.get(&(deployment_id, id))?;
        self.entries(deployment_id).get(*place)
    }

    /// Whether a message is another one than that of the entry.
    #[must_use]
    pub fn differs(&self, entry: &Entry, message: &str) -> bool {
        self.hashing.hash_one(message) != entry.fingerprint
    }

    /// Up to `limit` events of a deployment from a position on, whose messages have up to `bytes_max` bytes, but at least one if there is
    /// any; and whether there are more.
    #[must_use]
    pub fn page(&self, deployment_id: u64, from_position: u64, limit: usize, bytes_max: usize) -> (Vec<Entry>, bool) {
        let entries = self.entries(deployment_id);
        let first = entries.partition_point(|entry| entry.position < from_position);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0; // no message is empty
            bytes += entry.message_bytes as usize;
            is_first || bytes <= bytes_max
        };
        let page: Vec<Entry> = entries
            .iter()
            .skip(first)
            .take(limit)
            .take_while(fits)
            .cloned()
            .collect();
        let has_more = first + page.len() < entries.len();
        (page, has_more)
    }

    /// The position from which on a deployment has `count` events, or all that it has.
    #[must_use]
    pub fn last(&self, deployment_id: u64, count: usize) -> u64 {
        let entries = self.entries(deployment_id);
        let first = entries.get(entries.len().saturating_sub(count));
        first.map_or(0, |entry| entry.position)
    }

    /// Up to `limit` deployments that have events, those with the highest ids first.
    #[must_use]
    pub fn deployments(&self, limit: usize) -> Vec<u64> {
        self.deployments.keys().rev().take(limit).copied().collect()
    }

    fn entries(&self, deployment_id: u64) -> &[Entry] {
        self.deployments.get(&deployment_id).map_or(&[], Vec::as_slice)
    }

    fn take(&mut self, posted: Posted, record: &ConsumedRecord) {
        let entries = self.deployments.entry(posted.deployment_id).or_default();
        let place = entries.len();
        match self.places.entry((posted.deployment_id, posted.id)) {
            hash_map::Entry::Occupied(_) => {
                let (deployment_id, id) = (posted.deployment_id, posted.id);
                tracing::warn!(
                    deployment_id,
                    id,
                    position = record.offset,
                    "a duplicate that no server of ours wrote; it is nothing"
                );
                return;
            }
            hash_map::Entry::Vacant(vacant) => vacant.insert(place),
        };
        if entries.len() < FEW {
            entries.reserve_exact(1);
        }
        self.newest_bytes += posted.message.len() + MESSAGE_OVERHEAD_BYTES;
        self.newest.push_back((posted.deployment_id, place));
        entries.push(Entry {
            id: posted.id,
            position: record.offset,
            sent_at_ms: posted.sent_at_ms,
            received_at_ms: record.append_time_ms,
            fingerprint: self.hashing.hash_one(posted.message.as_str()),
            message_bytes: posted.message.len() as u32,
            message: Some(posted.message.into()),
        });
        self.forget_old();
    }

    /// Lets go of messages until the rest is within the budget.
    fn forget_old(&mut self) {
        while self.newest_bytes > self.newest_bytes_max
            && let Some((deployment_id, place)) = self.newest.pop_front()
        {
            let entries = self.deployments.get_mut(&deployment_id);
            let entry = entries.and_then(|entries| entries.get_mut(place));
            let message = entry.and_then(|entry| entry.message.take());
            self.newest_bytes -= message.map_or(0, |message| message.len() + MESSAGE_OVERHEAD_BYTES);
        }
    }
}

impl State for Index {
    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        for record in records {
            match Posted::from_record(record) {
                // In another partition it would be decided about at two places.
                Ok(posted) if partition_of(posted.deployment_id, self.partitions) != partition => {
                    tracing::warn!(
                        partition,
                        position = record.offset,
                        "an event in the wrong partition; it is nothing"
                    );
                }
                Ok(posted) => self.take(posted, record),
                Err(error) => {
                    tracing::warn!(partition, position = record.offset, %error, "this is no event; it is nothing")
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::EVENT_BYTES_MAX;

    fn record(offset: u64, deployment_id: u64, id: u64, message: &str) -> ConsumedRecord {
        let posted = Posted {
            deployment_id,
            id,
            message: message.to_owned(),
            sent_at_ms: 1,
        };
        let record = posted.to_record().unwrap();
        ConsumedRecord {
            partition: 0,
            offset,
            key: record.key,
            value: record.value,
            headers: Vec::new(),
            timestamp_ms: 1,
            append_time_ms: 100 + offset,
        }
    }

    fn index(records: &[ConsumedRecord]) -> Index {
        let mut index = Index::new(1, 2 * (5 + MESSAGE_OVERHEAD_BYTES));
        index.apply(0, records);
        index
    }

    #[test]
    fn the_first_of_an_id_is_the_event() {
        let index = index(&[
            record(0, 1, 7, "first"),
            record(1, 1, 7, "other"),
            record(2, 2, 7, "another"),
        ]);
        assert_eq!(index.events(), 2);
        let entry = index.find(1, 7).unwrap();
        assert_eq!((entry.position, entry.received_at_ms), (0, 100));
        assert!(!index.differs(entry, "first") && index.differs(entry, "other"));
        assert_eq!(index.find(2, 7).unwrap().position, 2);
        assert!(index.find(1, 8).is_none() && index.find(3, 7).is_none());
        assert_eq!(index.deployments(1), [2]);
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let records: Vec<ConsumedRecord> = (0..7)
            .map(|offset| record(offset, 1 + offset % 2, offset + 1, "m"))
            .collect();
        let index = index(&records); // deployment 1 is at 0, 2, 4, 6
        let positions = |from, limit| {
            let (page, has_more) = index.page(1, from, limit, 1_000);
            (page.iter().map(|entry| entry.position).collect::<Vec<_>>(), has_more)
        };
        assert_eq!(positions(0, 2), (vec![0, 2], true));
        assert_eq!(positions(3, 2), (vec![4, 6], false));
        assert_eq!(positions(6, 0), (vec![], true));
        assert_eq!(positions(7, 2), (vec![], false));
        assert_eq!((index.last(1, 3), index.last(1, 9), index.last(9, 3)), (2, 0, 0));
    }

    #[test]
    fn a_page_is_bounded_in_bytes_also_of_messages_that_are_not_in_memory() {
        let records: Vec<ConsumedRecord> = (0..5).map(|offset| record(offset, 1, offset + 1, "12345678")).collect();
        let index = index(&records);
        let count = |bytes_max| {
            let (page, has_more) = index.page(1, 0, 100, bytes_max);
            (page.len(), has_more)
        };
        assert_eq!((count(16), count(23), count(24)), ((2, true), (2, true), (3, true)));
        assert_eq!((count(40), count(39)), ((5, false), (4, true)));
        assert_eq!(count(0), (1, true), "otherwise nobody would come past it");
    }

    /// Resident memory of this process, bytes.
    #[cfg(target_os = "linux")]
    fn resident_bytes() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// At the counts at which the maps have just grown, for deployments of one event, of one too many for its memory, and of all; ids and
    /// deployments come in no order.
    #[test]
    #[cfg(target_os = "linux")]
    fn an_event_takes_no_more_memory_than_is_said() {
        const EVENTS: u64 = 115_000; // 7/8 of 2^17 is 114,688
        let mut all = Vec::new(); // kept: memory that is free again would not be seen when it is taken
        for events_each in [1, 2, 3, 5, EVENTS] {
            let before = resident_bytes();
            let mut index = Index::new(1, 0);
            for number in 0..EVENTS {
                let number = number * 7_919 % EVENTS;
                let (deployment_id, id) = (number / events_each + 1, number % events_each + 1);
                index.apply(0, &[record(number, deployment_id, id, "m")]);
            }
            assert_eq!(index.events(), EVENTS);
            let bytes = resident_bytes().saturating_sub(before) / EVENTS;
            println!("{events_each} a deployment: {bytes} bytes an event");
            assert!(
                bytes < EVENT_BYTES_MAX,
                "{events_each} a deployment: {bytes} bytes an event"
            );
            all.push(index);
        }
    }

    #[test]
    fn only_the_newest_messages_are_in_memory() {
        let records: Vec<ConsumedRecord> = (0..4)
            .map(|offset| record(offset, 1 + offset % 2, offset + 1, "four"))
            .collect();
        let index = index(&records);
        let has_message = |deployment, id| index.find(deployment, id).unwrap().message.is_some();
        assert_eq!(
            (
                has_message(1, 1),
                has_message(2, 2),
                has_message(1, 3),
                has_message(2, 4)
            ),
            (false, false, true, true)
        );
        assert_eq!(index.newest_bytes, 2 * (4 + MESSAGE_OVERHEAD_BYTES));
        assert!(index.differs(index.find(1, 1).unwrap(), "five") && !index.differs(index.find(1, 1).unwrap(), "four"));
    }

    #[test]
    fn what_is_no_event_or_at_the_wrong_place_is_nothing() {
        let mut index = Index::new(3, 10);
        let here = partition_of(1, 3);
        let mut wrong = record(0, 1, 1, "m");
        wrong.value = "{}".into();
        index.apply(here, &[wrong]);
        index.apply((here + 1) % 3, &[record(0, 1, 1, "m")]);
        assert_eq!(index.events(), 0);
        index.apply(here, &[record(1, 1, 1, "m")]);
        assert_eq!(index.events(), 1);
    }
}
