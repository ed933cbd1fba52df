//! Catching up at a limited speed, so that a replica that lacks much does not take the network and the disks away from
//! those who produce.
//!
//! How fast is for the node to say, for all followers of all the groups it leads together: they share one
//! [`CatchUpPace`], and take turns with it, one request a turn. Votes, heartbeats and manifests know nothing of it.
//!
//! * What is paid for is what the follower lacked when its stream was opened, counted in entries. As many entries as the
//!   log has grown by since are free. So the follower comes nearer with every byte that is paid for, however fast the
//!   log grows, and once it has caught up nothing is paid for any more.
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
use highwater_log::Log;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};

use crate::runtime;
use crate::snapshot::membership_in;

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

/// Whether a replica has a vote, as far as it is committed; a stream to a new one is opened before that.
pub(crate) fn is_voter(log: &Log, replica_id: u64) -> bool {
    let membership = log.committed(membership_in);
    membership.is_ok_and(|stored| stored.membership().voter_ids().any(|id| id == replica_id))
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
}

/// What one stream's follower still has to catch up on.
pub(crate) struct CatchUp {
    pace: CatchUpPace,
    is_learner: bool,
    /// Entries to be paid for; None before it is known where the follower is.
    lacking: Option<u64>,
    /// Entries that the log has grown by since, and that were not sent for free yet.
    grown: u64,
    end_index: u64,
    waiting: Option<BoxFuture<'static, Turn>>,
    turn: Option<Turn>,
}

impl CatchUp {
    pub(crate) fn new(pace: CatchUpPace, is_learner: bool) -> CatchUp {
        CatchUp {
            pace,
            is_learner,
            lacking: None,
            grown: 0,
            end_index: 0,
            waiting: None,
            turn: None,
        }
    }

    /// Ready when a request may be taken. Then [`CatchUp::give_up_turn`] if there is none, or else [`CatchUp::sent`].
    pub(crate) fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let needs_turn = match self.lacking {
            None => self.is_learner,
            Some(entries) => entries > 0,
        };
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
        let turn = self.turn.take();
        if self.lacking == Some(0) || sent.entries == 0 {
            return;
        }
        let bytes = self.account(sent);
        if bytes == 0 || (!self.is_learner && is_cached()) {
            return;
        }
        runtime::spawn(self.pace.clone().pay(turn, bytes));
    }

    /// Counts what is sent; answers the bytes of it that are not free.
    fn account(&mut self, sent: Sent) -> usize {
        let lacking = match self.lacking {
            Some(entries) => entries,
            None => {
                self.end_index = sent.end_index;
                sent.end_index.saturating_sub(sent.first_index)
            }
        };
        self.grown += sent.end_index.saturating_sub(self.end_index);
        self.end_index = self.end_index.max(sent.end_index);
        let free = sent.entries.min(self.grown);
        self.grown -= free;
        let paid = (sent.entries - free).min(lacking);
        self.lacking = Some(lacking - paid);
        (sent.bytes as u64 * paid / sent.entries) as usize
    }
}

#[cfg(test)]
mod tests;
