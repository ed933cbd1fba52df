//! The replicas that run, and those that do not run yet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use highwater_catalog::Catalog;
use highwater_partition::log::{GroupId, ReplicaId};
use highwater_partition::{Member, Partition, Role, Status, Timers, Unstarted, Watermark};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::access::{Action, Permit};
use crate::recoveries::Standing;
use crate::status::Problem;

/// The catalog's own group.
pub(crate) const CATALOG_GROUP: GroupId = GroupId(highwater_catalog::CATALOG_GROUP_ID);
/// How long a peer's message waits for a replica that is being made here: a new group's first votes arrive early.
const NEW_REPLICA_PATIENCE: Duration = Duration::from_millis(250);

/// One running replica, with its counters since the process started.
pub(crate) struct Hosted {
    pub(crate) group_id: GroupId,
    pub(crate) replica_id: ReplicaId,
    partition: Partition,
    records_served: AtomicU64,
    records_appended: AtomicU64,
    /// A log start, and when the record there was appended: what decides whether a trim by time is due.
    first_record: Mutex<Option<(u64, u64)>>,
    /// Cancelled when this is over: the replica leaves this node, or runs on as another `Hosted`.
    ended: CancellationToken,
    /// The replica has left this node.
    removed: AtomicBool,
}

impl Hosted {
    pub(crate) fn new(group_id: GroupId, replica_id: ReplicaId, partition: Partition) -> Hosted {
        Hosted {
            group_id,
            replica_id,
            partition,
            records_served: AtomicU64::new(0),
            records_appended: AtomicU64::new(0),
            first_record: Mutex::default(),
            ended: CancellationToken::new(),
            removed: AtomicBool::new(false),
        }
    }

    /// The same replica after it was stopped and opened again: it goes on counting.
    pub(crate) fn reopened(&self, partition: Partition) -> Hosted {
        let hosted = Hosted::new(self.group_id, self.replica_id, partition);
        hosted.count_served(self.records_served());
        hosted.count_appended(self.records_appended());
        hosted
    }

    /// The timers that it runs with.
    pub(crate) fn timers(&self) -> Timers {
        self.partition.timers()
    }

    pub(crate) fn status(&self) -> Status {
        self.partition.status()
    }

    /// The term of this replica, and the node that leads in it, if known.
    pub(crate) fn believed_leader(&self) -> (u64, Option<String>) {
        let status = self.partition.status_changes();
        let status = status.borrow();
        (status.term, status.leader.as_ref().map(|leader| leader.node.clone()))
    }

    /// The term in which this replica leads, if it does.
    pub(crate) fn led_term(&self) -> Option<u64> {
        let status = self.partition.status_changes();
        let status = status.borrow();
        (status.role == Role::Leader).then_some(status.term)
    }

    pub(crate) fn count_served(&self, records: u64) {
        self.records_served.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn count_appended(&self, records: u64) {
        self.records_appended.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn records_served(&self) -> u64 {
        self.records_served.load(Ordering::Relaxed)
    }

    pub(crate) fn records_appended(&self) -> u64 {
        self.records_appended.load(Ordering::Relaxed)
    }

    /// Waits until the replica leaves this node, or is opened anew: who holds this must look for the partition again.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether this is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Whether the replica has left this node, because its partition was deleted or moved.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// For those who look after the replica itself, not after what users put into it.
    pub(in crate::replicas) fn partition(&self) -> &Partition {
        &self.partition
    }

    /// Whether a member lacks so little that it has it before anybody notices; false unless this replica leads.
    pub(crate) fn has_caught_up(&self, replica: ReplicaId) -> bool {
        self.partition.has_caught_up(replica)
    }

    /// Adds a replica without a vote.
    pub(crate) async fn add_learner(&self, member: Member) -> Result<(), String> {
        let added = self.partition.add_learner(member).await;
        added.map_err(|error| error.to_string())
    }

    /// The same, unless it is a member already: adding a voter again would take its vote.
    pub(crate) async fn ensure_learner(&self, member: Member) -> Result<(), String> {
        let status = self.status();
        let mut members = status.voters.iter().chain(&status.learners);
        match members.any(|known| known.replica_id == member.replica_id) {
            true => Ok(()),
            false => self.add_learner(member).await,
        }
    }

    /// Makes exactly these members the voters.
    pub(crate) async fn change_voters(&self, voters: Vec<ReplicaId>) -> Result<(), String> {
        let changed = self.partition.change_voters(voters).await;
        changed.map_err(|error| error.to_string())
    }

    /// Removes members without a vote.
    pub(crate) async fn remove_learners(&self, learners: &[ReplicaId]) -> Result<(), String> {
        let removed = self.partition.remove_learners(learners).await;
        removed.map_err(|error| error.to_string())
    }

    /// Lets go of records as the topic wants it, if it is time; answers the new log start. `oldest_ms` and `bytes` say what
    /// is kept: records appended since then, and at least so much of the newest log files.
    pub(crate) async fn trim(&self, oldest_ms: Option<u64>, bytes: Option<u64>) -> Result<Option<u64>, String> {
        let partition = &self.partition;
        let log_start = self.status().watermark.log_start;
        let mut wanted = log_start;
        if let Some(oldest_ms) = oldest_ms
            && self
                .first_append_ms()
                .await
                .is_some_and(|first_ms| first_ms < oldest_ms)
        {
            let found = partition.offset_at(oldest_ms).await;
            wanted = wanted.max(found.map_err(|error| error.to_string())?);
        }
        if let Some(bytes) = bytes {
            let found = partition.offset_keeping(bytes).await;
            wanted = wanted.max(found.map_err(|error| error.to_string())?);
        }
        if wanted == log_start && !partition.is_worth_rolling() {
            return Ok(None);
        }
        let trimmed = partition.trim(wanted).await;
        trimmed.map(Some).map_err(|error| error.to_string())
    }

    /// When the first record was appended, or 0 if it cannot be read; None: there is none. Reads the disk once per log
    /// start: a quiet log must be able to rest.
    async fn first_append_ms(&self) -> Option<u64> {
        let Watermark {
            log_start,
            high_watermark,
        } = self.status().watermark;
        if log_start >= high_watermark {
            return None;
        }
        let known = *self.lock_first_record();
        if let Some((_, append_time_ms)) = known.filter(|(offset, _)| *offset == log_start) {
            return Some(append_time_ms);
        }
        let Ok(batches) = self.partition.read(log_start, 1).await else {
            return Some(0); // whoever looks for a time steps over damage
        };
        let append_time_ms = batches.first()?.append_time_ms;
        *self.lock_first_record() = Some((log_start, append_time_ms));
        Some(append_time_ms)
    }

    fn lock_first_record(&self) -> MutexGuard<'_, Option<(u64, u64)>> {
        self.first_record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of this replica's log files, if they can be told.
    pub(crate) async fn bytes(&self) -> Option<u64> {
        self.partition.bytes().await.ok()
    }

    /// Whether this replica leads a group that somebody else could lead.
    pub(crate) fn leads_others(&self) -> bool {
        let status = self.status();
        status.role == Role::Leader && status.voters.len() > 1
    }

    /// Who could lead instead, best first; empty if this replica does not lead.
    pub(crate) fn successors(&self) -> Vec<ReplicaId> {
        let successors = self.partition.successors();
        successors.into_iter().map(|voter| voter.replica_id).collect()
    }

    /// Begins to give leadership away to the best of these voters, if this replica leads.
    pub(crate) async fn hand_over_to(&self, voters: &[ReplicaId]) -> Result<(), String> {
        let successors = self.partition.successors();
        let best = successors.iter().find(|voter| voters.contains(&voter.replica_id));
        let Some(best) = best else {
            return Err("none of those that may lead is a voter".to_owned());
        };
        let begun = self.partition.transfer_leader(best.replica_id).await;
        begun.map_err(|error| error.to_string())
    }

    /// Whether it hears from no leader: too few of the others are there, or its group has let go of it while it was away.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.partition.contact().is_lost()
    }

    /// What this replica has, for who considers to go on from it alone.
    pub(crate) async fn standing(&self) -> Standing {
        let (status, contact) = (self.status(), self.partition.contact());
        let last = self.partition.last_entry().await;
        Standing {
            replica: self.replica_id.0,
            leads: status.role == Role::Leader,
            is_forsaken: match status.role {
                Role::Leader => self.partition.leads_in_vain(),
                _ => contact.is_lost(),
            },
            log_start: status.watermark.log_start,
            high_watermark: status.watermark.high_watermark,
            log_end: status.log_end,
            last_append_ms: last.map_or(0, |last| last.append_time_ms),
            entries_missing: contact
                .leader_committed_end
                .saturating_sub(last.map_or(0, |last| last.index + 1)),
            is_damaged: !status.damage.is_empty(),
        }
    }

    /// Waits until another replica leads, or nobody.
    pub(crate) async fn led_by_another(&self) {
        let mut changes = self.partition.status_changes();
        // It ends with the replica, which then leads nothing.
        let _ = changes.wait_for(|status| status.role != Role::Leader).await;
    }

    /// Begins to give leadership away to the best voter on a node that is alive, if this replica leads. Whether it began.
    pub(crate) async fn hand_over(&self, is_alive: impl Fn(&str) -> bool) -> bool {
        if !self.leads_others() {
            return false;
        }
        let successors = self.partition.successors();
        let Some(other) = successors.iter().find(|voter| is_alive(&voter.node)) else {
            return false;
        };
        let begun = self.partition.transfer_leader(other.replica_id).await;
        if let Err(error) = &begun {
            tracing::debug!(group = self.group_id.0, to = %other.node, %error, "leadership stays here");
        }
        begun.is_ok()
    }
}

/// A partition opened with a permit.
#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) hosted: Arc<Hosted>,
    /// The partition, for messages.
    pub(crate) what: Arc<str>,
    topic: Arc<str>,
}

impl Opened {
    pub(crate) fn partition(&self) -> &Partition {
        &self.hosted.partition
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
        hosted.removed.store(for_good, Ordering::Release);
        hosted.ended.cancel();
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
        self.hosted(CATALOG_GROUP).map(|hosted| hosted.partition.clone())
    }

    /// The replica that a message of the node `from` is meant for. Waits a moment for one that is about to be made.
    pub(crate) async fn for_peer(&self, from: &str, group: GroupId) -> Result<Partition, String> {
        let mut changes = self.changes.subscribe();
        let found = timeout(NEW_REPLICA_PATIENCE, changes.wait_for(|_| self.hosted(group).is_some())).await;
        drop(found);
        match self.hosted(group) {
            Some(hosted) => Ok(hosted.partition.clone()),
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

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<GroupId, Arc<Hosted>>> {
        self.groups.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<GroupId, Arc<Hosted>>> {
        self.groups.write().unwrap_or_else(PoisonError::into_inner)
    }
}
