//! What a replica says about itself, and how others learn that it changed or died.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use highwater_log::{DamagedRange, Log, ReplicaId};
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::caught_up::FormerEnd;
use crate::mending::Mending;
use crate::progress::{Progress, Watermark};
use crate::runtime;
use crate::types::{Member, Membership, Raft, member};

/// What a replica is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes proposals.
    Leader,
    /// Votes and follows.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Follows without a vote.
    Learner,
    /// Its core has ended.
    Stopped,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 5] = [
        Role::Leader,
        Role::Follower,
        Role::Candidate,
        Role::Learner,
        Role::Stopped,
    ];

    /// The word for it, wherever people or programs read it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
            Role::Learner => "learner",
            Role::Stopped => "stopped",
        }
    }
}

/// A replica's view of its group and of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What this replica is.
    pub role: Role,
    /// The term it is in.
    pub term: u64,
    /// Who leads, if known.
    pub leader: Option<Member>,
    /// Replicas with a vote; of both sets while the membership changes.
    pub voters: Vec<Member>,
    /// Whether the membership described here is committed. A leader follows the last one in its log, which a later leader
    /// can still take back.
    pub is_membership_committed: bool,
    /// The change of voters that is under way. It stays so until a leader finishes it.
    pub voter_change: Option<VoterChange>,
    /// Replicas without a vote.
    pub learners: Vec<Member>,
    /// Exclusive end of the records appended here, committed or not.
    pub log_end: u64,
    /// What may be read here.
    pub watermark: Watermark,
    /// Index of the last committed entry; also 0 before there is one.
    pub committed_index: u64,
    /// Committed entries that are damaged on this disk and wait for a refill.
    pub damage: Vec<DamagedRange>,
    /// Of those, the ones that no other member has either.
    pub damage_everywhere: Vec<DamagedRange>,
}

/// A group between two sets of voters: until the change is finished, every decision needs a majority of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoterChange {
    /// The voters before.
    pub from: Vec<ReplicaId>,
    /// The voters afterwards.
    pub to: Vec<ReplicaId>,
}

impl Status {
    /// Whether the replica has a vote now and keeps it.
    pub fn is_lasting_voter(&self, replica_id: ReplicaId) -> bool {
        match &self.voter_change {
            Some(change) => change.from.contains(&replica_id) && change.to.contains(&replica_id),
            None => self.voters.iter().any(|voter| voter.replica_id == replica_id),
        }
    }

    /// Whether a reader of `status_changes` should hear of the difference.
    fn differs(&self, other: &Status) -> bool {
        self.role != other.role
            || self.term != other.term
            || self.leader != other.leader
            || self.voters != other.voters
            || self.voter_change != other.voter_change
            || self.is_membership_committed != other.is_membership_committed
            || self.learners != other.learners
            || self.damage != other.damage
            || self.damage_everywhere != other.damage_everywhere
    }
}

/// How a core ended: `asked` if someone shut it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    Asked,
    Failed(String),
}

/// Who has a vote as far as this replica knows, committed or not; nobody before its core runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Voters(watch::Sender<BTreeSet<u64>>);

impl Voters {
    pub(crate) fn set(&self, voters: impl Iterator<Item = u64>) {
        let now: BTreeSet<u64> = voters.collect();
        self.0.send_if_modified(|voters| {
            let before = std::mem::replace(voters, now);
            before != *voters
        });
    }

    pub(crate) fn include(&self, replica_id: u64) -> bool {
        self.0.borrow().contains(&replica_id)
    }

    /// Waits until the replica has a vote.
    pub(crate) async fn wait_for(&self, replica_id: u64) {
        let mut voters = self.0.subscribe();
        // the sender lives as long as `self`
        let _ = voters.wait_for(|voters| voters.contains(&replica_id)).await;
    }
}

/// Since when a replica leads.
#[derive(Debug, Default)]
pub(crate) struct Leadership(Mutex<Option<(u64, Instant)>>);

impl Leadership {
    fn lock(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, status: &Status) {
        let mut since = self.lock();
        if status.role != Role::Leader {
            *since = None;
        } else if since.is_none_or(|(term, _)| term != status.term) {
            *since = Some((status.term, Instant::now()));
        }
    }

    pub(crate) fn since(&self) -> Option<Instant> {
        self.lock().map(|(_, since)| since)
    }
}

/// Reads the status of one replica.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) progress: Arc<Progress>,
    pub(crate) mending: Arc<Mending>,
    /// Kept up to date by `watch`.
    pub(crate) voters: Voters,
    /// Noted by `watch`.
    pub(crate) former_end: Arc<FormerEnd>,
    /// Noted by `watch`.
    pub(crate) leadership: Arc<Leadership>,
}

impl Observer {
    pub(crate) fn status(&self) -> Status {
        let metrics = self.raft.server_metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let role = match self.ended() {
            Some(_) => Role::Stopped,
            None => role(metrics.state),
        };
        Status {
            role,
            term: metrics.vote.leader_id.term,
            leader: metrics.current_leader.and_then(|id| member(membership, id)),
            voters: members(membership, membership.voter_ids()),
            is_membership_committed: metrics
                .membership_config
                .log_id()
                .is_some_and(|id| id.index() < self.progress.committed_end()),
            voter_change: voter_change(membership),
            learners: members(membership, membership.learner_ids()),
            log_end: self.log.log_end(),
            watermark: self.progress.watermark(),
            committed_index: self.progress.committed_end().saturating_sub(1),
            damage: self.mending.damage(),
            damage_everywhere: self.mending.nowhere(),
        }
    }

    /// How the core ended, if it has.
    pub(crate) fn ended(&self) -> Option<Ending> {
        let metrics = self.raft.metrics();
        match &metrics.borrow_watched().running_state {
            Ok(()) => None,
            Err(Fatal::Stopped) => Some(Ending::Asked),
            Err(fatal) => Some(Ending::Failed(fatal.to_string())),
        }
    }

    /// Keeps `changes` up to date until the core ends, then says how it ended. Also gives the log its tick.
    pub(crate) async fn watch(self, changes: watch::Sender<Status>, ending: watch::Sender<Option<Ending>>) {
        /// How often the log may note its mark and its checkpoint, and its end is noted here.
        const LOG_TICK: Duration = Duration::from_secs(1);
        let mut metrics = self.raft.server_metrics();
        let mut damage = self.mending.changes();
        let mut ticks = runtime::ticks(LOG_TICK);
        self.publish(&changes);
        loop {
            tokio::select! {
                biased;
                changed = metrics.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.publish(&changes);
                }
                Ok(()) = damage.changed() => self.publish(&changes),
                _ = ticks.tick() => {
                    self.log.tick();
                    self.former_end.note(&self.log);
                }
            }
        }
        // the core's senders are gone; without a reason it was cut off, by a panic or by the end of the runtime
        let how = self
            .ended()
            .unwrap_or_else(|| Ending::Failed("the core broke off".to_owned()));
        if let Ending::Failed(why) = &how {
            tracing::error!(replica = self.raft.node_id(), why, "the raft core has ended");
        }
        // who hears of the end must not find an older status
        changes.send_modify(|status| {
            status.role = Role::Stopped;
            status.leader = None;
            self.leadership.note(status);
        });
        ending.send_replace(Some(how));
    }

    fn publish(&self, changes: &watch::Sender<Status>) {
        let now = self.status();
        self.leadership.note(&now);
        self.voters.set(now.voters.iter().map(|voter| voter.replica_id.0));
        changes.send_if_modified(|last| {
            let differs = last.differs(&now);
            if differs {
                *last = now;
            }
            differs
        });
    }
}

fn role(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn voter_change(membership: &Membership) -> Option<VoterChange> {
    let ids = |set: &BTreeSet<u64>| set.iter().copied().map(ReplicaId).collect();
    match membership.get_joint_config().as_slice() {
        [from, .., to] => Some(VoterChange {
            from: ids(from),
            to: ids(to),
        }),
        _ => None,
    }
}

fn members(membership: &Membership, ids: impl Iterator<Item = u64>) -> Vec<Member> {
    ids.map(|id| {
        member(membership, id).unwrap_or(Member {
            replica_id: ReplicaId(id),
            node: String::new(),
        })
    })
    .collect()
}
