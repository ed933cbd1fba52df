//! One replica of one group: what the node holds, for data partitions and for the catalog alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use highwater_log::{Batch, Body, GroupId, Log, ReplicaId, Space};
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, ForwardToLeader, InitializeError, RaftError};
use tokio::sync::watch;

use crate::codec::kind;
use crate::codec::membership::{NODE_NAME_BYTES_MAX, REPLICAS_MAX};
use crate::config::Timers;
use crate::confirm::Edge;
use crate::contact::Ear;
use crate::error::{CommandError, Error};
use crate::hand_over::HandOver;
use crate::life::Life;
use crate::mending::Mending;
use crate::peers::{PeerStream, Peers};
use crate::progress::{Progress, Watermark};
use crate::responder::{Answer, BatchAnswer, InFlight, NotApplied, leader_hint};
use crate::runtime;
use crate::serve::{Server, unknown_kind};
use crate::stages::{ReplicaStages, Trace};
use crate::status::{Ending, Observer, Role, Status};
use crate::types::{Applied, Member, NodeName, Proposal, Raft, TypeConfig, body_bytes, nodes, voter_set};

/// How long `shutdown` waits for the core to end, and then for the log to close: a disk that hangs must not keep the process.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(3);

/// One replica of one group; cheap to clone.
///
/// Invariant: the Raft core, the task that observes it and the log live until `shutdown`; dropping all clones does not
/// stop them. It ends the tasks beside them, which trim, mend and verify.
#[derive(Clone)]
pub struct Partition {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) group_id: GroupId,
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) progress: Arc<Progress>,
    pub(crate) ear: Arc<Ear>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) server: Server,
    pub(crate) observer: Observer,
    pub(crate) hand_over: HandOver,
    pub(crate) mending: Arc<Mending>,
    pub(crate) has_machine: bool,
    pub(crate) timers: Timers,
    pub(crate) stages: ReplicaStages,
    pub(crate) changes: watch::Receiver<Status>,
    pub(crate) ending: watch::Receiver<Option<Ending>>,
    pub(crate) shutting_down: AtomicBool,
    /// The tasks beside the core; gone once the replica is being stopped.
    pub(crate) life: Mutex<Option<Life>>,
}

impl Partition {
    /// Makes the group's first membership; false for a group that has a history here. Any of the members may do it, also
    /// several of them: given the same members they make the same first entry, byte for byte, so it does not matter whose
    /// is replicated.
    pub async fn initialize(&self, members: Vec<Member>) -> Result<bool, Error> {
        check_members(&members)?;
        match self.inner.raft.initialize(nodes(&members)).await {
            Ok(()) => Ok(true),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(false),
            Err(err) => Err(Error::Raft(err.to_string())),
        }
    }

    /// Proposes a batch, and tells `trace` what stages it passes. Never blocks; `answer` is called exactly once, usually from the Raft
    /// task, and must be quick.
    pub fn propose(&self, batch: Batch, trace: Option<Trace>, answer: Box<dyn FnOnce(Answer) + Send>) {
        let inner = &self.inner;
        if inner.stopped() {
            return answer(Answer::NotApplied(NotApplied::Stopped));
        }
        let body = Body::Batch(batch);
        if let Err(err) = body.check() {
            return answer(Answer::NotApplied(NotApplied::Invalid(err.to_string())));
        }
        if inner.log.space() == Space::Full {
            return answer(Answer::NotApplied(NotApplied::DiskFull));
        }
        let Some(share) = inner.in_flight.take(body_bytes(&body)) else {
            return answer(Answer::NotApplied(NotApplied::Overloaded));
        };
        let term = inner.changes.borrow().term;
        let stopwatch = inner.stages.begin(trace.into_iter().collect());
        let answer = BatchAnswer {
            answer: Some(answer),
            log: inner.log.clone(),
            progress: inner.progress.clone(),
            term,
            share: Some(share),
            stopwatch: stopwatch.clone(),
        };
        // openraft's queue is longer than all that can be in flight, so handing over is done at the first poll. If it
        // ever is not, or the core is gone, the message is dropped, and the responder with it: unknown.
        let hand_over = inner
            .raft
            .client_write_ff(Proposal { body, stopwatch }, Some(answer.responder()));
        let _handed_over = tokio::task::unconstrained(hand_over).now_or_never();
    }

    /// Proposes a machine command; answered after it was applied here. Waits as long as there is no quorum: set a
    /// deadline around it.
    pub async fn command(&self, command: Bytes) -> Result<Bytes, CommandError> {
        let inner = &self.inner;
        if !inner.has_machine {
            return Err(CommandError::Refused("this group has no machine".to_owned()));
        }
        match inner.write(Body::Command(command)).await? {
            (_, Applied::Reply(reply)) => Ok(reply),
            (index, other) => Err(CommandError::Unknown(format!(
                "entry {index} was answered with {other:?}"
            ))),
        }
    }

    /// Lets go of all records below `offset`, which must be committed, on all replicas; the log start never goes back. Answered
    /// with the log start when that was applied here. The files follow by and by. Waits as long as there is no quorum: set a
    /// deadline around it.
    pub async fn trim(&self, offset: u64) -> Result<u64, CommandError> {
        let inner = &self.inner;
        if inner.has_machine {
            return Err(CommandError::Refused("a group with a machine trims itself".to_owned()));
        }
        let high_watermark = inner.progress.watermark().high_watermark;
        if offset > high_watermark {
            let why = format!("offset {offset} is above the high watermark {high_watermark}");
            return Err(CommandError::Refused(why));
        }
        inner.write(Body::Trim { offset }).await?;
        Ok(inner.progress.watermark().log_start)
    }

    /// The watermark, now and whenever it moves.
    pub fn watermark(&self) -> watch::Receiver<Watermark> {
        self.inner.progress.subscribe()
    }

    /// Bytes of proposals that wait for their answer here.
    pub fn in_flight_bytes(&self) -> usize {
        self.inner.in_flight.bytes()
    }

    /// The timers that this replica was started with.
    pub fn timers(&self) -> Timers {
        self.inner.timers
    }

    /// What this replica knows now.
    pub fn status(&self) -> Status {
        self.inner.observer.status()
    }

    /// Changes whenever role, leader, term or membership change.
    pub fn status_changes(&self) -> watch::Receiver<Status> {
        self.inner.changes.clone()
    }

    /// Adds a replica without a vote. Returns when that is committed; the replica may still be catching up.
    pub async fn add_learner(&self, member: Member) -> Result<(), CommandError> {
        check_members(std::slice::from_ref(&member)).map_err(|err| CommandError::Refused(err.to_string()))?;
        let node = NodeName(member.node);
        let added = self.inner.raft.add_learner(member.replica_id.0, node, false).await;
        added.map(drop).map_err(|err| self.inner.write_error(err))
    }

    /// The same, unless it is a member already: adding a voter again would take its vote.
    pub async fn ensure_learner(&self, member: Member) -> Result<(), CommandError> {
        let status = self.status();
        let mut members = status.voters.iter().chain(&status.learners);
        match members.any(|known| known.replica_id == member.replica_id) {
            true => Ok(()),
            false => self.add_learner(member).await,
        }
    }

    /// Makes exactly these replicas the voters; all must be members already. Those left out leave the group.
    pub async fn change_voters(&self, voters: Vec<ReplicaId>) -> Result<(), CommandError> {
        let changed = self.inner.raft.change_membership(voter_set(&voters), false).await;
        changed.map(drop).map_err(|err| self.inner.write_error(err))
    }

    /// Removes replicas without a vote from the group; those that are no members are none of its business.
    pub async fn remove_learners(&self, learners: &[ReplicaId]) -> Result<(), CommandError> {
        let known = self.status().learners;
        let gone = |id: &&ReplicaId| known.iter().any(|learner| learner.replica_id == **id);
        let gone = ChangeMembers::RemoveNodes(learners.iter().filter(gone).map(|id| id.0).collect());
        let changed = self.inner.raft.change_membership(gone, false).await;
        changed.map(drop).map_err(|err| self.inner.write_error(err))
    }

    /// To whom this replica's leadership can go, best first: the other voters that are to stay, those before the others that
    /// have answered lately. Empty if this replica does not lead.
    pub fn successors(&self) -> Vec<Member> {
        self.inner.hand_over.successors()
    }

    /// Asks the leader, which must be this replica, to hand over to the voter `to`. Waits a moment for a change of the
    /// voters to be done, and for a sign of life from `to`; without them it is refused, and this replica leads on.
    /// Returns when the hand-over has begun; `status_changes` tells when it is done.
    pub async fn transfer_leader(&self, to: ReplicaId) -> Result<(), CommandError> {
        let status = self.status();
        if status.role != Role::Leader {
            return Err(self.inner.not_leader(status));
        }
        let ready = self.inner.hand_over.prepare(to.0).await;
        ready.map_err(|obstacle| CommandError::Refused(obstacle.to_string()))?;
        let transfer = self.inner.raft.trigger().transfer_leader(to.0).await;
        transfer.map_err(|_| CommandError::Stopped)
    }

    /// A request from a peer's `Peers::call`. `from` is the authenticated node name.
    pub async fn handle_call(&self, from: &str, kind: u8, body: Bytes) -> Result<Vec<Bytes>, Error> {
        let server = &self.inner.server;
        match kind {
            kind::APPEND => server.append(from, body).await,
            kind::VOTE => server.vote(from, body).await,
            kind::PRE_VOTE => server.pre_vote(from, body).await,
            kind::TRANSFER => server.transfer(from, body).await,
            kind::CONFIRM_END => self.confirm(from, body, Edge::End).await,
            kind::CONFIRM_START => self.confirm(from, body, Edge::Start).await,
            kind::REMEMBER => server.remember(from, body),
            kind::REFILL | kind::MANIFEST => server.recall(from, kind, body).await,
            other => Err(unknown_kind(other)),
        }
    }

    /// A stream from a peer's `Peers::open_stream`; runs until either side ends.
    pub async fn handle_stream(&self, from: &str, kind: u8, stream: PeerStream) -> Result<(), Error> {
        match kind {
            kind::APPEND_STREAM => self.inner.server.append_stream(from, stream).await,
            kind::INSTALL_STREAM => self.inner.server.install_stream(from, stream).await,
            other => Err(unknown_kind(other)),
        }
    }

    /// Ends when the Raft core has ended; with the reason if it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        let mut ending = self.inner.ending.clone();
        let how = match ending.wait_for(Option::is_some).await {
            Ok(how) => how.clone(),
            Err(_) => Some(Ending::Failed("the replica's tasks were cut off".to_owned())),
        };
        match how {
            Some(Ending::Failed(why)) => Some(why),
            _ => None,
        }
    }

    /// Why this replica's id is dead, if that was found out while it ran: it has lost something that it had promised to keep.
    /// Its core ends over it; it must be replaced, and never started again.
    pub fn dead(&self) -> Option<String> {
        self.inner.mending.dead()
    }

    /// Stops the core, then notes the log's mark and checkpoint and closes it. Nothing of the replica runs afterwards. If the
    /// disk hangs this is an error after a few seconds; then the next start recovers as after a crash.
    pub async fn shutdown(&self) -> Result<(), Error> {
        self.shutdown_within(SHUTDOWN_TIMEOUT).await
    }

    /// `patience` is for each of the two steps.
    pub(crate) async fn shutdown_within(&self, patience: Duration) -> Result<(), Error> {
        match tokio::time::timeout(patience, self.halt()).await {
            Ok(halted) => halted?,
            Err(_) => return Err(Error::Raft(format!("the core did not end within {patience:?}"))),
        }
        let log = self.inner.log.clone();
        match runtime::blocking(move || log.close_within(patience)).await {
            Ok(closed) => Ok(closed?),
            Err(err) => Err(Error::Raft(format!("closing the log: {err}"))),
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> &crate::memory::Memory {
        self.inner.server.memory()
    }

    /// For tests that do by hand what openraft does in steps.
    #[cfg(test)]
    pub(crate) fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    /// Stops the core and leaves the log as it is.
    pub(crate) async fn halt(&self) -> Result<(), Error> {
        self.inner.shutting_down.store(true, Ordering::Release);
        self.inner.life.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stopped = self.inner.raft.shutdown().await;
        stopped.map_err(|err| Error::Raft(format!("stopping the core: {err}")))?;
        self.stopped().await;
        Ok(())
    }
}

impl Inner {
    pub(crate) fn stopped(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire) || self.ending.borrow().is_some() || self.observer.ended().is_some()
    }

    /// Proposes an entry and waits until it was applied here; answers its index and what came of it.
    pub(crate) async fn write(&self, body: Body) -> Result<(u64, Applied), CommandError> {
        if self.stopped() {
            return Err(CommandError::Stopped);
        }
        if let Err(err) = body.check() {
            return Err(CommandError::Refused(err.to_string()));
        }
        // a trim makes room
        if self.log.space() == Space::Full && !matches!(body, Body::Trim { .. }) {
            return Err(CommandError::DiskFull);
        }
        let Some(_share) = self.in_flight.take(body_bytes(&body)) else {
            return Err(CommandError::Refused("too many bytes in flight".to_owned()));
        };
        let stopwatch = self.stages.begin(Vec::new());
        let proposal = Proposal { body, stopwatch };
        let written = self.raft.client_write(proposal).await;
        written
            .map(|response| (response.log_id.index(), response.data))
            .map_err(|err| self.write_error(err))
    }

    fn not_leader(&self, status: Status) -> CommandError {
        match status.role {
            Role::Stopped => CommandError::Stopped,
            _ => CommandError::NotLeader {
                leader: status.leader,
                term: status.term,
            },
        }
    }

    pub(crate) fn forwarded(&self, forward: &ForwardToLeader<TypeConfig>) -> CommandError {
        CommandError::NotLeader {
            leader: leader_hint(forward),
            term: self.changes.borrow().term,
        }
    }

    fn write_error(&self, err: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> CommandError {
        match err {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => self.forwarded(&forward),
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)) | RaftError::Fatal(_) => {
                CommandError::Unknown(err.to_string())
            }
            RaftError::APIError(refused) => CommandError::Refused(refused.to_string()),
        }
    }
}

fn check_members(members: &[Member]) -> Result<(), Error> {
    if members.is_empty() || members.len() > REPLICAS_MAX {
        return Err(Error::Raft(format!(
            "{} replicas, 1 to {REPLICAS_MAX} are possible",
            members.len()
        )));
    }
    match members.iter().find(|member| member.node.len() > NODE_NAME_BYTES_MAX) {
        Some(member) => Err(Error::Raft(format!("the node name {:.40}… is too long", member.node))),
        None => Ok(()),
    }
}
