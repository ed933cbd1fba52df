//! Catching up at a limited speed, so that a replica that lacks much does not take the network and the disks away from
//! those who produce.
//!
//! How fast is for the node to say, for all followers of all the groups it leads together: they share one
//! [`CatchUpPace`], and take turns with it, one request a turn. Votes, heartbeats and manifests know nothing of it.
//!
//! * What is paid for is what the follower lacks when its stream is opened. As many bytes as the log has grown by since
//!   are free. So the follower comes nearer with every byte that is paid for, however fast the log grows and however many
//!   wait for their turns, and once it has caught up nothing is paid for any more. Bytes, not entries: old entries may be
//!   large where new ones are small.
//! * Entries that are still in the tail cache are free for a voter: one that was away for a moment, or is a bit slow, is
//!   needed for commits. So is a learner that gets a vote, from the moment on that its leader counts it; the change of the
//!   voters itself may need it. For a learner nothing but growth is free: many small partitions come from the cache
//!   altogether.
//! * What is free waits for nobody. Only a request that is known and has to be paid for waits for its turn, and then goes
//!   as soon as it is read, so no turn is held by who has nothing to send. A request is paid for as a whole or free as a
//!   whole, and one that waits is paid for even if the log has grown enough meanwhile: otherwise the turns of a fast group
//!   would go by without bringing its follower nearer. The turn lasts as long as its bytes take at the pace; then it goes
//!   to whoever has waited longest.
//! * The first request of a stream to a voter does not wait, but is paid for afterwards: a new leader may have to send a
//!   dozen of them, old entries too, to find out where the voter is.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{Instant, timeout};

use crate::runtime;
use crate::status::Voters;

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

/// What a request carries of the leader's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Index behind the last entry.
    pub(crate) end_index: u64,
    /// Bytes of the entries; 0 if there are none.
    pub(crate) bytes: usize,
}

/// The leader's log at this moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Index behind the last entry.
    pub(crate) end_index: u64,
    /// Bytes that the log has appended ([`highwater_log::Log::appended_bytes`]).
    pub(crate) appended_bytes: u64,
    /// Whether the entries in question are still in the tail cache.
    pub(crate) is_cached: bool,
}

/// What one stream's follower still has to catch up on.
pub(crate) struct CatchUp {
    pace: CatchUpPace,
    replica_id: u64,
    voters: Voters,
    /// Whether the follower was sent the end of the log; from then on all is free.
    has_arrived: bool,
    /// Up to where the log's growth was sent for free, in bytes that it has appended; None before the first request.
    free_up_to: Option<u64>,
    /// Ends with a turn, or with none once a learner gets a vote.
    waiting: Option<BoxFuture<'static, Option<Turn>>>,
}

impl CatchUp {
    pub(crate) fn new(pace: CatchUpPace, replica_id: u64, voters: Voters) -> CatchUp {
        CatchUp {
            pace,
            replica_id,
            voters,
            has_arrived: false,
            free_up_to: None,
            waiting: None,
        }
    }

    /// Ready when a request with this load is to be sent, with what is to be paid for it: None if it is free. Until then it
    /// must be asked for with the same load, or the queue be left.
    pub(crate) fn poll_clear(
        &mut self,
        load: Load,
        look: impl Fn() -> Look,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Payment>> {
        // Nearly all requests end here, without a look: that takes the log's lock.
        if self.has_arrived || load.bytes == 0 {
            return Poll::Ready(None);
        }
        let payment = ready!(self.poll_payment(load, &look, cx));
        self.has_arrived = load.end_index >= look().end_index;
        Poll::Ready(payment)
    }

    fn poll_payment(&mut self, load: Load, look: impl Fn() -> Look, cx: &mut Context<'_>) -> Poll<Option<Payment>> {
        let is_first = self.free_up_to.is_none();
        loop {
            if let Some(waiting) = &mut self.waiting {
                let turn = ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                if turn.is_some() {
                    return Poll::Ready(Some(self.payment(turn, load)));
                }
            }
            let is_voter = self.voters.include(self.replica_id);
            if self.is_free(load, look(), is_voter) {
                return Poll::Ready(None);
            }
            if is_first && is_voter {
                return Poll::Ready(Some(self.payment(None, load)));
            }
            self.waiting = Some(self.wait(is_voter));
        }
    }

    /// Waits for no turn at present.
    pub(crate) fn leave_queue(&mut self) {
        self.waiting = None;
    }

    /// Whether this is free; then it is counted as sent.
    fn is_free(&mut self, load: Load, look: Look, is_voter: bool) -> bool {
        let free_up_to = self.free_up_to.get_or_insert(look.appended_bytes);
        let wanted = *free_up_to + load.bytes as u64;
        let is_free = wanted <= look.appended_bytes || (is_voter && look.is_cached);
        if is_free {
            *free_up_to = wanted.min(look.appended_bytes);
        }
        is_free
    }

    fn wait(&self, is_voter: bool) -> BoxFuture<'static, Option<Turn>> {
        let turn = self.pace.turn.clone().lock_owned();
        let (voters, replica_id) = (self.voters.clone(), self.replica_id);
        Box::pin(async move {
            tokio::select! {
                biased;
                turn = turn => Some(turn),
                () = voters.wait_for(replica_id), if !is_voter => None,
            }
        })
    }

    fn payment(&self, turn: Option<Turn>, load: Load) -> Payment {
        Payment {
            pace: self.pace.clone(),
            turn,
            bytes: load.bytes,
        }
    }
}

/// What is to be paid for one request. It holds the turn, if it came with one; dropped unpaid, it gives the turn back.
#[must_use]
pub(crate) struct Payment {
    pace: CatchUpPace,
    turn: Option<Turn>,
    bytes: usize,
}

impl Payment {
    /// Begins to pay: the request is on its way.
    pub(crate) fn begin(self) {
        runtime::spawn(self.pace.pay(self.turn, self.bytes));
    }
}

#[cfg(test)]
mod tests;
