//! Who of a consumer group should consume which partitions.
//!
//! A group's coordinator is the leader of partition 0 of its topic. It keeps the members in memory, one task per group that has any,
//! and shares the partitions out (`table`); a member keeps its stream and its session here (`members`). When the leadership goes,
//! the streams end with NOT_LEADER, and the members join the next leader with what they have; for a moment after it came to lead,
//! that one leaves everything as it is, so that all can come before shares are final.
//!
//! All of this is advice. What counts is the claim in each partition's own log (`highwater_partition`): two coordinators at once,
//! or one that is wrong, cause claims that nobody needed, and never two members whose commits are both taken.
//!
//! Invariant: a group has one task at most on a node, and a task that is in the register takes every event that was sent to it.
//!
//! Deliberately absent: offsets, claims, and anything on disk.

mod members;
mod table;
mod task;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_partition::log::GroupId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub(crate) use self::members::{ANSWERS_MAX, Joining, MemberView, StreamId};
pub(crate) use self::table::{Assignment, Partitions};
pub(crate) use self::task::Home;
use crate::catalog::CatalogHost;
use crate::leaders::Leaders;
use crate::replicas::Opened;
use crate::status::Problem;

/// How many groups a node coordinates.
const GROUPS_MAX: usize = 16 * 1024;
/// How many members it coordinates, over all groups.
const MEMBERS_TOTAL_MAX: usize = 64 * 1024;
/// How many events may wait for a group's task; streams wait for room.
const EVENTS_MAX: usize = 256;

/// What happens to a group.
pub(crate) enum Event {
    Join(Joining),
    Report {
        member: String,
        stream: StreamId,
        version: u64,
        held: Partitions,
    },
    Leave {
        member: String,
        stream: StreamId,
    },
    /// It is gone, or is not listened to any more, for a reason that it is told.
    LoseStream {
        member: String,
        stream: StreamId,
        why: Option<Problem>,
    },
    Describe(oneshot::Sender<Vec<MemberView>>),
}

/// A group: the Raft group of its home partition, whose id is never given twice, and its name.
type Key = (GroupId, String);

/// The groups that this node coordinates. Clones share them.
#[derive(Clone)]
pub(crate) struct Coordinator {
    host: Arc<CatalogHost>,
    leaders: Leaders,
    /// The node's streams are to end.
    stopping: CancellationToken,
    register: Arc<Mutex<HashMap<Key, mpsc::Sender<Event>>>>,
    room: Arc<Semaphore>,
    streams: Arc<AtomicU64>,
}

impl Coordinator {
    pub(crate) fn new(host: Arc<CatalogHost>, leaders: Leaders, stopping: CancellationToken) -> Coordinator {
        Coordinator {
            host,
            leaders,
            stopping,
            register: Arc::default(),
            room: Arc::new(Semaphore::new(MEMBERS_TOTAL_MAX)),
            streams: Arc::default(),
        }
    }

    pub(crate) fn next_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// The home of the groups of a topic, which is tenant and name, if this node leads its first partition.
    pub(crate) fn home(&self, first_partition: Opened, topic: (String, String)) -> Result<Home, Problem> {
        Home {
            opened: first_partition,
            term: 0,
            topic,
            host: self.host.clone(),
            leaders: self.leaders.clone(),
            stopping: self.stopping.clone(),
        }
        .led()
    }

    /// Room for one more member.
    pub(crate) fn room(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let room = self.room.clone().try_acquire_owned();
        room.map_err(|_| Problem::Overloaded(format!("this node coordinates {MEMBERS_TOTAL_MAX} members of groups")))
    }

    /// The group's task, which is started if there is none.
    pub(crate) fn group(&self, name: &str, home: Home) -> Result<mpsc::Sender<Event>, Problem> {
        let mut register = self.lock();
        let count = register.len();
        match register.entry((home.group_id(), name.to_owned())) {
            Entry::Occupied(running) => Ok(running.get().clone()),
            Entry::Vacant(_) if count >= GROUPS_MAX => Err(Problem::Overloaded(format!(
                "this node coordinates {GROUPS_MAX} groups"
            ))),
            Entry::Vacant(place) => {
                let (sender, events) = mpsc::channel(EVENTS_MAX);
                tokio::spawn(task::run(self.clone(), name.to_owned(), home, events));
                Ok(place.insert(sender).clone())
            }
        }
    }

    /// The group's task, if there is one.
    pub(crate) fn known_group(&self, name: &str, home: &Home) -> Option<mpsc::Sender<Event>> {
        self.lock().get(&(home.group_id(), name.to_owned())).cloned()
    }

    /// The members of a group, by the Raft group of its home partition; none if it is not coordinated here, or does not answer in time.
    pub(crate) async fn members(&self, home: GroupId, name: &str, patience: Duration) -> Vec<MemberView> {
        let Some(group) = self.lock().get(&(home, name.to_owned())).cloned() else {
            return Vec::new();
        };
        let asked = async {
            let (answer, answered) = oneshot::channel();
            group.send(Event::Describe(answer)).await.ok()?;
            answered.await.ok()
        };
        timeout(patience, asked).await.ok().flatten().unwrap_or_default()
    }

    /// Takes a task out of the register, if nobody can have sent it anything more; it may end then.
    fn retire(&self, key: &Key, events: &mpsc::Receiver<Event>) -> bool {
        let mut register = self.lock();
        let is_alone = events.sender_strong_count() <= 1 && events.is_empty();
        if is_alone {
            register.remove(key);
        }
        is_alone
    }

    /// Takes a task out of the register that ends in any case.
    fn remove(&self, key: &Key) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, mpsc::Sender<Event>>> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
