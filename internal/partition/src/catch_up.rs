//! Catching up at a limited speed, so that a replica that lacks much does not take the network and the disks away from
//! those who produce.
//!
//! How fast is for the node to say, for all followers of all the groups it leads together: they share one
//! [`CatchUpPace`], and take turns with it, one request a turn. Votes, heartbeats and manifests know nothing of it.
//!
//! * What is paid for is what the follower lacks when its stream is opened. As many bytes as the log has grown by since
//!   are free. So the follower comes nearer with every byte that is paid for, however fast the log grows, and once it has
//!   caught up nothing is paid for any more. Bytes, not entries: old entries may be large where new ones are small.
//! * Entries that are still in the tail cache are free for a voter: one that was away for a moment, or is a bit slow, is
//!   needed for commits. For a learner nothing but growth is free: many small partitions come from the cache altogether.
//! * A stream that may have to pay takes a request only when it is its turn. The turn lasts as long as the bytes of that
//!   request take at the pace; then it goes to whoever has waited longest.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use highwater_log::{Log, ReplicaId};
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};

use crate::partition::Partition;
use crate::runtime;

/// The default pace.
const BYTES_PER_SECOND: u64 = 20_000_000;

type Turn = OwnedMutexGuard<()>;

/// How fast a node lets others catch up, in bytes a second. Clones share the pace; it may be changed at any time.
#[derive(Debug, Clone)]
pub struct CatchUpPace {
    /// Held while a turn lasts.
    turn: Arc<Mutex<()>>,
    bytes_per_second: watch::Sender<u64>,
}

impl CatchUpPace {
    /// At most so many bytes a second, over all followers that share this pace; at least 1.
    pub fn new(bytes_per_second: u64) -> CatchUpPace {
        CatchUpPace {
            turn: Arc::default(),
            bytes_per_second: watch::Sender::new(bytes_per_second.max(1)),
        }
    }

    /// Changes the pace, also for who is waiting now.
    pub fn set(&self, bytes_per_second: u64) {
        let wanted = bytes_per_second.max(1);
        self.bytes_per_second.send_if_modified(|now| {
            let before = std::mem::replace(now, wanted);
            before != wanted
        });
    }

    /// Keeps the turn for as long as these bytes take; waits for one if there is none.
    async fn pay(self, turn: Option<Turn>, bytes: usize) {
        let _turn = match turn {
            Some(turn) => turn,
            None => self.turn.clone().lock_owned().await,
        };
        let mut pace = self.bytes_per_second.subscribe();
        let mut bytes_left = bytes as u64;
        loop {
            let bytes_per_second = *pace.borrow_and_update();
            let lasts = Duration::from_micros(bytes_left.saturating_mul(1_000_000) / bytes_per_second);
            let begin = Instant::now();
            if timeout(lasts, pace.changed()).await.is_err() {
                return;
            }
            let passed_us = begin.elapsed().as_micros() as u64;
            let paid = passed_us.saturating_mul(bytes_per_second) / 1_000_000;
            bytes_left = bytes_left.saturating_sub(paid);
        }
    }
}

impl Default for CatchUpPace {
    /// 20 MB a second.
    fn default() -> CatchUpPace {
        CatchUpPace::new(BYTES_PER_SECOND)
    }
}

/// Who lacks no more entries than this, nor more bytes, has caught up: it has them before anybody notices.
const LITTLE_ENTRIES: u64 = 256;
const LITTLE_BYTES: usize = 4 * 1024 * 1024;

impl Partition {
    /// How many of the log's entries a member has not acknowledged yet. None unless this replica leads and has heard of
    /// the member's log.
    pub fn entries_behind(&self, replica_id: ReplicaId) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matching = metrics.replication.as_ref()?.get(&replica_id.0).copied().flatten()?;
        Some(metrics.last_log_index?.saturating_sub(matching.index()))
    }

    /// Whether a member lacks so little of the log that it has caught up; all of that must still be in the tail cache, so that
    /// it is sent at once. False unless this replica leads and has heard of the member's log.
    pub fn has_caught_up(&self, replica_id: ReplicaId) -> bool {
        let log = &self.inner.log;
        let end = log.last().map_or(0, |last| last.index + 1);
        let behind = self.entries_behind(replica_id);
        behind.is_some_and(|behind| lacks_little(log, end.saturating_sub(behind), end))
    }
}

fn lacks_little(log: &Log, next: u64, end: u64) -> bool {
    if next >= end {
        return true;
    }
    if end - next > LITTLE_ENTRIES {
        return false;
    }
    let cached = log.read_cached(next, end, LITTLE_BYTES);
    let reached = cached.and_then(|frames| frames.last().map(|frame| frame.header.id.index + 1));
    reached >= Some(end)
}

/// Entries of the leader's log that a request carries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Index of the first.
    pub(crate) first_index: u64,
    pub(crate) entries: u64,
    pub(crate) bytes: usize,
    /// Index behind the last entry of the log at this moment.
    pub(crate) end_index: u64,
    /// Bytes that the log has appended by this moment ([`Log::appended_bytes`]).
    pub(crate) appended_bytes: u64,
}

/// What one stream's follower still has to catch up on.
pub(crate) struct CatchUp {
    pace: CatchUpPace,
    is_learner: bool,
    /// Whether there is something to be paid for; None before it is known where the follower is.
    is_behind: Option<bool>,
    /// Bytes that the log has grown by since, and that were not sent for free yet.
    grown_bytes: u64,
    /// What the log had appended when that was last counted.
    appended_bytes: u64,
    waiting: Option<BoxFuture<'static, Turn>>,
    turn: Option<Turn>,
}

impl CatchUp {
    pub(crate) fn new(pace: CatchUpPace, is_learner: bool) -> CatchUp {
        CatchUp {
            pace,
            is_learner,
            is_behind: None,
            grown_bytes: 0,
            appended_bytes: 0,
            waiting: None,
            turn: None,
        }
    }

    /// Ready when a request may be taken. Then [`CatchUp::give_up_turn`] if there is none, or else [`CatchUp::sent`].
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let needs_turn = self.is_behind.unwrap_or(self.is_learner);
        if !needs_turn || self.turn.is_some() {
            return Poll::Ready(());
        }
        let pace = &self.pace;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(pace.turn.clone().lock_owned()));
        match Pin::new(waiting).poll(cx) {
            Poll::Ready(turn) => {
                self.waiting = None;
                self.turn = Some(turn);
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }

    /// Nothing is sent in this turn.
    pub(crate) fn give_up_turn(&mut self) {
        self.turn = None;
    }

    /// Waits for no turn at present.
    pub(crate) fn leave_queue(&mut self) {
        self.waiting = None;
        self.turn = None;
    }

    /// Accounts for entries that were sent.
    pub(crate) fn sent(&mut self, sent: Sent, is_cached: impl FnOnce() -> bool) {
        // A commit point that goes along with a request leaves the turn to that.
        if self.is_behind == Some(false) || sent.entries == 0 {
            return;
        }
        let turn = self.turn.take();
        let bytes = self.account(sent);
        if bytes == 0 || (!self.is_learner && is_cached()) {
            return;
        }
        runtime::spawn(self.pace.clone().pay(turn, bytes));
    }

    /// Counts what is sent; answers the bytes of it that are not free.
    fn account(&mut self, sent: Sent) -> usize {
        if self.is_behind.is_none() {
            self.appended_bytes = sent.appended_bytes;
        }
        self.grown_bytes += sent.appended_bytes.saturating_sub(self.appended_bytes);
        self.appended_bytes = self.appended_bytes.max(sent.appended_bytes);
        let free = self.grown_bytes.min(sent.bytes as u64);
        self.grown_bytes -= free;
        self.is_behind = Some(sent.first_index + sent.entries < sent.end_index);
        sent.bytes - free as usize
    }
}

#[cfg(test)]
mod tests;
