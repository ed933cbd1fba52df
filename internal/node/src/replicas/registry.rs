//! The replicas that run, and those that do not run yet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use highwater_catalog::Catalog;
use highwater_partition::log::{GroupId, ReplicaId};
use highwater_partition::{Partition, Unstarted};
use tokio::sync::watch;
use tokio::time::timeout;

use super::Hosted;
use crate::access::{Action, Permit};
use crate::status::Problem;

/// The catalog's own group.
pub(crate) const CATALOG_GROUP: GroupId = GroupId(highwater_catalog::CATALOG_GROUP_ID);
/// How long a peer's message waits for a replica that is being made here: a new group's first votes arrive early.
const NEW_REPLICA_PATIENCE: Duration = Duration::from_millis(250);

/// A partition opened with a permit.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) hosted: Arc<Hosted>,
    /// The partition, for messages.
    pub(crate) what: Arc<str>,
    /// Whose the topic is.
    pub(crate) tenant: Arc<str>,
    topic: Arc<str>,
}

impl Opened {
    pub(crate) fn partition(&self) -> &Partition {
        self.hosted.partition()
    }

    /// Why the replica does not answer: its topic was deleted, which is for good, or the node stops.
    pub(crate) fn gone(&self) -> Problem {
        if self.hosted.is_removed() {
            let topic = self.topic.to_string();
            return Problem::TopicNotFound { topic };
        }
        Problem::Unavailable {
            why: format!("the replica of {} here is stopping; go on at another one", self.what),
            hint: None,
        }
    }
}

/// Where a permitted partition is.
pub(crate) enum Place {
    Here(Opened),
    /// It exists, but this node holds no running replica of it.
    Elsewhere {
        group_id: GroupId,
        what: String,
    },
}

/// A second replica of a group cannot run beside the first.
#[derive(Debug, thiserror::Error)]
#[error("replica {running} of the same group runs here already")]
pub(crate) struct Occupied {
    running: u64,
}

/// The running replicas, by group. A node has at most one of each group.
pub(crate) struct Registry {
    groups: RwLock<BTreeMap<GroupId, Arc<Hosted>>>,
    /// Replicas from the begin of their opening until they run, or until that has failed.
    unstarted: Mutex<BTreeMap<(GroupId, ReplicaId), Unstarted>>,
    /// Counts up whenever a replica comes or goes, or its role, leader, term or membership changes.
    changes: watch::Sender<u64>,
    leaderships_begun: AtomicU64,
}

/// A replica that is being opened or started; that is over when this is dropped.
pub(crate) struct Announced {
    registry: Arc<Registry>,
    which: (GroupId, ReplicaId),
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.registry.lock_unstarted().remove(&self.which);
    }
}

impl Registry {
    pub(crate) fn new() -> Arc<Registry> {
        Arc::new(Registry {
            groups: RwLock::new(BTreeMap::new()),
            unstarted: Mutex::default(),
            changes: watch::Sender::new(0),
            leaderships_begun: AtomicU64::new(0),
        })
    }

    /// Takes in a replica that runs from now on.
    pub(crate) fn insert(&self, hosted: Hosted) -> Result<(), Occupied> {
        match self.write().entry(hosted.group_id) {
            Entry::Occupied(other) => {
                let running = other.get().replica_id.0;
                return Err(Occupied { running });
            }
            Entry::Vacant(place) => place.insert(Arc::new(hosted)),
        };
        self.note_change();
        Ok(())
    }

    /// Takes a replica out for good. Another replica of the same group, which has taken its place, stays.
    pub(crate) fn remove(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<Hosted>> {
        self.take_out(group, replica, true)
    }

    /// Takes a replica out that will be back: whoever holds it is sent elsewhere, and it does not count as deleted.
    pub(crate) fn suspend(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<Hosted>> {
        self.take_out(group, replica, false)
    }

    fn take_out(&self, group: GroupId, replica: ReplicaId, for_good: bool) -> Option<Arc<Hosted>> {
        let mut all = self.write();
        all.get(&group).filter(|hosted| hosted.replica_id == replica)?;
        let hosted = all.remove(&group)?;
        drop(all);
        hosted.end(for_good);
        self.note_change();
        Some(hosted)
    }

    /// Takes in a replica that is going to run, until what this answers is dropped.
    pub(crate) fn announce(self: &Arc<Self>, group: GroupId, unstarted: Unstarted) -> Announced {
        let replica = unstarted.replica_id();
        self.lock_unstarted().insert((group, replica), unstarted);
        Announced {
            registry: self.clone(),
            which: (group, replica),
        }
    }

    /// Whether this replica is being opened or started.
    pub(crate) fn is_unstarted(&self, group: GroupId, replica: ReplicaId) -> bool {
        self.lock_unstarted().contains_key(&(group, replica))
    }

    /// This node's replica of the group, if none runs yet. Of several the newest: it stands in for the others.
    pub(crate) fn unstarted(&self, group: GroupId) -> Option<Unstarted> {
        if self.hosted(group).is_some() {
            return None;
        }
        let all = self.lock_unstarted();
        let mut of_group = all.range((group, ReplicaId(0))..=(group, ReplicaId(u64::MAX)));
        of_group.next_back().map(|(_, unstarted)| unstarted.clone())
    }

    fn lock_unstarted(&self) -> MutexGuard<'_, BTreeMap<(GroupId, ReplicaId), Unstarted>> {
        self.unstarted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Hosted>> {
        self.read().values().cloned().collect()
    }

    pub(crate) fn hosted(&self, group: GroupId) -> Option<Arc<Hosted>> {
        self.read().get(&group).cloned()
    }

    /// This node's replica of the catalog, once it is in a cluster.
    pub(crate) fn catalog(&self) -> Option<Partition> {
        self.hosted(CATALOG_GROUP).map(|hosted| hosted.partition().clone())
    }

    /// The replica that a message of the node `from` is meant for. Waits a moment for one that is about to be made.
    pub(crate) async fn for_peer(&self, from: &str, group: GroupId) -> Result<Partition, String> {
        let mut changes = self.changes.subscribe();
        let found = timeout(NEW_REPLICA_PATIENCE, changes.wait_for(|_| self.hosted(group).is_some())).await;
        drop(found);
        match self.hosted(group) {
            Some(hosted) => Ok(hosted.partition().clone()),
            None => Err(format!("no replica of group {} is here for {from}", group.0)),
        }
    }

    /// The partition that a permit for `action` names.
    pub(crate) fn open(
        &self,
        permit: &Permit,
        action: Action,
        catalog: &Catalog,
        topic_id: Option<u64>,
        partition: u32,
    ) -> Result<Place, Problem> {
        let Some(name) = permit.topic(action) else {
            return Err(Problem::Internal(format!(
                "a permit that is not for {action:?} on a topic"
            )));
        };
        let topic = name.to_string();
        let Some(found) = catalog.topic(&name.tenant, &name.topic) else {
            return Err(Problem::TopicNotFound { topic });
        };
        if let Some(wanted) = topic_id.filter(|wanted| *wanted != found.topic_id) {
            return Err(Problem::TopicChanged { topic, wanted });
        }
        let count = found.partitions.len();
        let Some(placed) = found.partitions.get(partition as usize) else {
            return Err(Problem::PartitionNotFound {
                topic,
                partition,
                count,
            });
        };
        let what = format!("partition {partition} of topic `{topic}`");
        let group_id = GroupId(placed.group_id);
        Ok(match self.hosted(group_id) {
            Some(hosted) => Place::Here(Opened {
                hosted,
                what: what.into(),
                tenant: name.tenant.as_str().into(),
                topic: topic.into(),
            }),
            None => Place::Elsewhere { group_id, what },
        })
    }

    /// Counts up with every change of what runs here and how.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn note_change(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// How often replicas here became leaders.
    pub(crate) fn leaderships_begun(&self) -> u64 {
        self.leaderships_begun.load(Ordering::Relaxed)
    }

    pub(crate) fn note_leadership(&self) {
        self.leaderships_begun.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<GroupId, Arc<Hosted>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<GroupId, Arc<Hosted>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}
