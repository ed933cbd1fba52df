//! Whether a member has caught up, which is asked before it gets a vote or the leadership.
//!
//! Under load even the best follower lacks whatever is on its way to it. So the log's end of this moment is the wrong
//! measure, and a number of entries as well: how many are on their way depends on the load. What counts is that it has
//! acknowledged all that the log held a moment ago. The log's end is noted every second; the note before the last one is at
//! least a second old, and at most two. Who is further behind than that has not caught up, however little it lacks.
//!
//! What came since must be little, and still in the tail cache: then the member could have it at once if nothing more came.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater_log::{Log, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;

use crate::hand_over::matching;
use crate::partition::Partition;

/// Who lacks no more bytes than this has them in a moment.
const LITTLE_BYTES: usize = 4 * 1024 * 1024;

/// Where a replica's log ended a moment ago: when it was noted the time before last, or when this was made.
#[derive(Debug)]
pub(crate) struct FormerEnd {
    noted_last: AtomicU64,
    noted_before: AtomicU64,
}

impl FormerEnd {
    pub(crate) fn new(log: &Log) -> FormerEnd {
        let end_index = end_index(log);
        FormerEnd {
            noted_last: AtomicU64::new(end_index),
            noted_before: AtomicU64::new(end_index),
        }
    }

    /// Notes where the log ends now.
    pub(crate) fn note(&self, log: &Log) {
        let before = self.noted_last.swap(end_index(log), Ordering::Relaxed);
        self.noted_before.store(before, Ordering::Relaxed);
    }

    fn index(&self) -> u64 {
        self.noted_before.load(Ordering::Relaxed)
    }
}

impl Partition {
    /// How many of the log's entries a member has not acknowledged yet. None unless this replica leads and has heard of
    /// the member's log.
    pub fn entries_behind(&self, replica_id: ReplicaId) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matching = matching(&metrics, replica_id.0)?;
        Some(metrics.last_log_index?.saturating_sub(matching.index()))
    }

    /// Whether a member keeps up with the log: it has acknowledged what the log held one to two seconds ago, and lacks so
    /// little of what came since, all of it still in the tail cache, that it has that in a moment. False unless this replica
    /// leads and has heard of the member's log.
    pub fn has_caught_up(&self, replica_id: ReplicaId) -> bool {
        let metrics = self.inner.raft.metrics();
        let matching = matching(&metrics.borrow_watched(), replica_id.0);
        let former_end = self.inner.observer.former_end.index();
        matching.is_some_and(|matching| keeps_up(&self.inner.log, matching.index() + 1, former_end))
    }
}

/// Whether who has acknowledged the entries below `next` keeps up with the log.
fn keeps_up(log: &Log, next: u64, former_end: u64) -> bool {
    let end = end_index(log);
    if next >= end {
        return true;
    }
    if next < former_end {
        return false;
    }
    let cached = log.read_cached(next, end, LITTLE_BYTES);
    let reached = cached.and_then(|frames| frames.last().map(|frame| frame.header.id.index + 1));
    reached >= Some(end)
}

/// Index behind the log's last entry.
fn end_index(log: &Log) -> u64 {
    log.last().map_or(0, |last| last.index + 1)
}

#[cfg(test)]
mod tests;
