//! One replica that runs here: what may be asked of it, and what its leader may do with its group.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use highwater_partition::log::{GroupId, GroupState, ReplicaId, Scrubbed};
use highwater_partition::{Member, Partition, Role, Status, Timers, Watermark};
use tokio_util::sync::CancellationToken;

use crate::recoveries::Standing;

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

    /// Committed entries that are damaged here.
    pub(crate) fn damaged_entries(&self) -> u64 {
        let status = self.partition.status_changes();
        let status = status.borrow();
        let entries = status
            .damage
            .iter()
            .map(|range| range.end_index.saturating_sub(range.first_index));
        entries.sum()
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

    /// The replica is taken out; `for_good`: it leaves this node.
    pub(super) fn end(&self, for_good: bool) {
        self.removed.store(for_good, Ordering::Release);
        self.ended.cancel();
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

    /// For those who look after the replica itself; what users put into it is reached through an `Opened` only.
    pub(super) fn partition(&self) -> &Partition {
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
        let ensured = self.partition.ensure_learner(member).await;
        ensured.map_err(|error| error.to_string())
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

    /// Consumer groups that have neither claimed nor committed since `oldest_ms`, though there was something to consume for them all the
    /// time. One that has consumed everything may just have nothing to do, for however long.
    pub(crate) async fn unused_groups(&self, oldest_ms: u64) -> Result<Vec<(Bytes, GroupState)>, String> {
        let mut groups = self.partition.groups();
        groups.retain(|(_, state)| state.append_time_ms < oldest_ms);
        if groups.is_empty() {
            return Ok(groups);
        }
        let watermark = self.status().watermark;
        let found = self
            .partition
            .offset_at(oldest_ms)
            .await
            .map_err(|error| error.to_string())?;
        // Behind what was appended before then, and what is still there.
        groups.retain(|(_, state)| {
            state.offset.unwrap_or(0).max(watermark.log_start) < found.min(watermark.high_watermark)
        });
        Ok(groups)
    }

    /// How many entries each other node's replica has not acknowledged yet, if the replica here leads; a node comes once.
    pub(crate) fn lags(&self) -> Vec<(String, u64)> {
        let lags = self.partition.lags();
        lags.into_iter()
            .map(|(member, entries)| (member.node, entries))
            .collect()
    }

    /// What consumer groups have claimed and committed here.
    pub(crate) fn groups(&self) -> Vec<(Bytes, GroupState)> {
        self.partition.groups()
    }

    /// The consumer groups that keep offsets here.
    pub(crate) fn group_names(&self) -> Vec<Bytes> {
        let groups = self.partition.groups();
        groups.into_iter().map(|(name, _)| name).collect()
    }

    /// Forgets a consumer group, if it is still as it was seen.
    pub(crate) async fn forget_group(&self, name: Bytes, seen: &GroupState) -> Result<(), String> {
        let forgotten = self.partition.forget_group(name, seen).await;
        forgotten.map_err(|error| error.to_string())
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

    /// How far the scrubber has come with this replica's log.
    pub(crate) fn scrubbed(&self) -> Scrubbed {
        self.partition.scrubbed()
    }

    /// Whether this replica leads a group that somebody else could lead.
    pub(crate) fn leads_others(&self) -> bool {
        let status = self.status();
        status.role == Role::Leader && status.voters.len() > 1
    }

    /// Who could lead instead, best first; empty if this replica does not lead.
    pub(crate) fn successors(&self) -> Vec<Member> {
        self.partition.successors()
    }

    /// Begins to give leadership away to the best voter that will do, if this replica leads.
    pub(crate) async fn hand_over_to(&self, will_do: impl Fn(&Member) -> bool) -> Result<(), String> {
        let successors = self.partition.successors();
        let Some(best) = successors.iter().find(|voter| will_do(voter)) else {
            return Err("none of those that may lead is a voter".to_owned());
        };
        let begun = self.partition.transfer_leader(best.replica_id).await;
        begun.map_err(|error| error.to_string())
    }

    /// Whether it leads a group of which it hears no majority: nothing that it takes in will be committed.
    pub(crate) fn leads_in_vain(&self) -> bool {
        self.partition.leads_in_vain()
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
            last: last.map_or((0, 0), |last| (last.term, last.index)),
            entries_missing: contact
                .leader_committed_end
                .saturating_sub(last.map_or(0, |last| last.index + 1)),
            is_damaged: !status.damage.is_empty(),
            voters: status
                .voters
                .iter()
                .map(|voter| (voter.replica_id.0, voter.node.clone()))
                .collect(),
        }
    }

    /// Waits until another replica leads, or nobody.
    pub(crate) async fn led_by_another(&self) {
        let mut changes = self.partition.status_changes();
        // It ends with the replica, which then leads nothing.
        let _ = changes.wait_for(|status| status.role != Role::Leader).await;
    }
}
