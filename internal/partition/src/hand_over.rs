//! Giving leadership away: to whom, and when.
//!
//! A leader of openraft that hands over goes mute: from then on it refuses proposals and sends no heartbeats, and only
//! another leader ends that. If the chosen voter does not campaign, the others do once the lease is over, so a bad choice
//! costs a failover; but a leader told to hand over to itself, as in a group of one voter, would be mute for ever. And a
//! leader that goes mute while the voters are being changed never makes the second half of the change, which leaves the
//! group in need of both quorums.
//!
//! So leadership goes only to another voter that stays one, that has answered within the lease, and not before the
//! voters are settled.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;

use crate::mending::Mending;
use crate::status::{Role, Status};
use crate::types::{LogId, Member, Raft, RaftMetrics, member};

/// How long a hand-over waits for a change of voters to end, and for a sign of life of the next leader.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Why leadership does not go where it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Obstacle {
    #[error("replica {0} leads already")]
    LeadsAlready(u64),
    #[error("replica {0} is no voter")]
    NoVoter(u64),
    #[error("the voters are being changed")]
    VotersChange,
    #[error("replica {0} has not answered for {1:?}")]
    Silent(u64, Duration),
}

impl Obstacle {
    fn may_go(&self) -> bool {
        matches!(self, Obstacle::VotersChange | Obstacle::Silent(..))
    }
}

/// How soon a leader that is to step aside tries again.
const STEP_ASIDE_PAUSE: Duration = Duration::from_secs(1);

/// Picks and prepares a hand-over of one replica's leadership.
#[derive(Clone)]
pub(crate) struct HandOver {
    raft: Raft,
    /// Who answered longer ago than this may be gone.
    lease: Duration,
}

impl HandOver {
    pub(crate) fn new(raft: Raft, lease_ms: u64) -> HandOver {
        HandOver {
            raft,
            lease: Duration::from_millis(lease_ms),
        }
    }

    /// The other voters that stay, those first that have answered lately and have most of the log. Empty if this replica
    /// does not lead.
    pub(crate) fn successors(&self) -> Vec<Member> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.state != ServerState::Leader {
            return Vec::new();
        }
        let mut voters = staying_voters(&metrics);
        voters.sort_by_key(|id| Reverse((self.has_answered(&metrics, *id), matching(&metrics, *id))));
        let membership = metrics.membership_config.membership();
        let others = voters.into_iter().filter(|id| *id != metrics.id);
        others.filter_map(|id| member(membership, id)).collect()
    }

    /// Gives leadership away while entries are damaged here, if this replica leads: it could not serve them, and its followers
    /// would wait for them. Once each time that damage appears, so that leadership does not go round in a group in which all
    /// are damaged. Runs until the core has ended.
    pub(crate) async fn step_aside(self, mending: Arc<Mending>, mut status: watch::Receiver<Status>) {
        let mut damage = mending.changes();
        let mut stepped_aside = false;
        loop {
            let whole = mending.damage().is_empty();
            stepped_aside &= !whole;
            let due = !whole && !stepped_aside && status.borrow_and_update().role == Role::Leader;
            if due {
                stepped_aside = self.give_away().await;
            }
            let again = due && !stepped_aside;
            tokio::select! {
                biased;
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                Ok(()) = damage.changed() => {}
                () = tokio::time::sleep(STEP_ASIDE_PAUSE), if again => {}
            }
        }
    }

    /// Whether leadership is on its way to somebody, or there is nobody to give it to.
    async fn give_away(&self) -> bool {
        let successors = self.successors();
        for successor in &successors {
            let to = successor.replica_id.0;
            if self.prepare(to).await.is_ok() && self.raft.trigger().transfer_leader(to).await.is_ok() {
                tracing::warn!(
                    replica = self.raft.node_id(),
                    to,
                    "leadership goes to a replica without damage"
                );
                return true;
            }
        }
        successors.is_empty()
    }

    /// Waits until leadership can go to `to`. Or what is in the way, which leaves this replica leading as before.
    pub(crate) async fn prepare(&self, to: u64) -> Result<(), Obstacle> {
        let done = |metrics: &RaftMetrics| !matches!(self.obstacle(metrics, to), Some(obstacle) if obstacle.may_go());
        // whether in time or not, what is seen then counts
        let _ = self
            .raft
            .wait(Some(READY_TIMEOUT))
            .metrics(done, "ready to hand over")
            .await;
        let metrics = self.raft.metrics();
        let obstacle = self.obstacle(&metrics.borrow_watched(), to);
        obstacle.map_or(Ok(()), Err)
    }

    fn obstacle(&self, metrics: &RaftMetrics, to: u64) -> Option<Obstacle> {
        if metrics.state != ServerState::Leader {
            return None; // leadership has moved by itself
        }
        if metrics.id == to {
            return Some(Obstacle::LeadsAlready(to));
        }
        if metrics.membership_config.membership().get_joint_config().len() > 1 {
            return Some(Obstacle::VotersChange);
        }
        if !staying_voters(metrics).contains(&to) {
            return Some(Obstacle::NoVoter(to));
        }
        (!self.has_answered(metrics, to)).then_some(Obstacle::Silent(to, self.lease))
    }

    fn has_answered(&self, metrics: &RaftMetrics, id: u64) -> bool {
        let answered = metrics
            .heartbeat
            .as_ref()
            .and_then(|last| last.get(&id).copied().flatten());
        answered.is_some_and(|at| at.elapsed() < self.lease)
    }
}

/// The voters when the change under way, if any, is done.
fn staying_voters(metrics: &RaftMetrics) -> Vec<u64> {
    let voters = metrics.membership_config.membership().get_joint_config().last();
    voters.into_iter().flatten().copied().collect()
}

/// The last entry that a replica has acknowledged to this one.
pub(crate) fn matching(metrics: &RaftMetrics, id: u64) -> Option<LogId> {
    metrics.replication.as_ref()?.get(&id).copied().flatten()
}
