//! What the members of a group remember of each other's promises.
//!
//! A replica's vote and its acknowledgements are worth what its disk keeps of them. A disk can lose them without knowing:
//! restored from an old copy, or having lied about a sync. Nothing on it tells then, but the others may: every replica
//! keeps in memory, per member, the highest vote it has seen that member take and, under that vote, the highest log end
//! that member has shown or acknowledged. After a start, before its Raft core runs and so before it can vote, campaign or
//! acknowledge anything, a replica asks all members. If one remembers more than its own disk holds, its id is dead.
//!
//! * What counts as seen was on that member's disk by then: a granted vote, a candidate's own vote and log end, a leader's
//!   vote, an acknowledged log end, an installed manifest, and what a leader says is certain on its own disk.
//! * Votes are compared by term, then by whether a quorum had granted them. Log ends are compared only under the same
//!   vote, because under a later leader a log may rightly have become shorter; under one and the same leader what was
//!   acknowledged to it stays.
//! * A member that does not answer within `PATIENCE` is left out, and one that has just started remembers nothing: when
//!   all are down together nobody can tell, and the group must come back.
//!
//! Deliberately absent: keeping this on disk. It would be as old as the disk.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use highwater_log::{GroupId, Kind, Log, mutant};

use crate::codec::membership::REPLICAS_MAX;
use crate::codec::{kind, membership as membership_codec, recall};
use crate::error::Error;
use crate::peers::{Lane, PeerError, Peers};
use crate::runtime;
use crate::types::{LogEntry, LogId, Member, Membership, Vote, log_id, member};

/// How long a member is waited for that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);
/// How soon to ask again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Most replicas remembered: all that a group can have, and as many that were replaced.
const REMEMBERED_MAX: usize = 2 * REPLICAS_MAX;

/// The highest promise seen of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The highest vote.
    pub(crate) vote: Vote,
    /// The highest log end under that vote.
    pub(crate) last: Option<LogId>,
}

/// Votes in the order in which one replica can take them; those of one rank are the same vote.
fn rank(vote: &Vote) -> (u64, bool) {
    (vote.leader_id.term, vote.committed)
}

impl Seen {
    fn merge(&mut self, new: Seen) {
        if self.vote.leader_id == new.vote.leader_id {
            self.last = self.last.max(new.last);
            self.vote.committed |= new.vote.committed;
        } else if rank(&new.vote) > rank(&self.vote) {
            *self = new;
        }
    }

    /// What of this a disk that holds `vote` and a log up to `last` has lost.
    fn lost(&self, vote: &Vote, last: Option<LogId>) -> Option<String> {
        if rank(&self.vote) > rank(vote) {
            return Some(format!("its vote {}, the disk holds {vote}", self.vote));
        }
        let same_vote = self.vote.leader_id == vote.leader_id;
        if rank(&self.vote) == rank(vote) && !same_vote {
            return Some(format!(
                "its vote {}, the disk holds {vote} of the same term",
                self.vote
            ));
        }
        match self.last {
            Some(end) if same_vote && last < Some(end) => {
                let last = last.map_or("nothing".to_owned(), |last| last.to_string());
                Some(format!(
                    "its log up to {end} under the vote {vote}, the disk holds {last}"
                ))
            }
            _ => None,
        }
    }
}

/// What this replica has seen of the others since it started.
///
/// Invariant: what is remembered of a replica never becomes less; at most `REMEMBERED_MAX` replicas, those with the
/// highest ids.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<BTreeMap<u64, Seen>>);

impl Memory {
    /// Notes that `replica` has this vote on its disk, and under it a log up to `last`.
    pub(crate) fn note(&self, replica: u64, vote: &Vote, last: Option<LogId>) {
        let new = Seen { vote: *vote, last };
        let mut members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.entry(replica).and_modify(|seen| seen.merge(new)).or_insert(new);
        if members.len() > REMEMBERED_MAX {
            members.pop_first();
        }
    }

    /// Notes what a leader shows by leading: that it voted for itself, and what is on its own disk, which counts for commits
    /// as its followers' acknowledgements do.
    pub(crate) fn note_leader(&self, vote: &Vote, certain: Option<LogId>) {
        let own = Vote::new(vote.leader_id.term, vote.leader_id.voted_for);
        self.note(vote.leader_id.voted_for, &own, certain);
    }

    /// The highest promise seen of `replica`.
    pub(crate) fn of(&self, replica: u64) -> Option<Seen> {
        let members = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        members.get(&replica).copied()
    }
}

/// Asks all of `members` what they remember of this replica. `Error::Dead` if it is more than its log holds.
pub(crate) async fn check_promises(
    peers: &dyn Peers,
    group_id: GroupId,
    own: u64,
    members: &[Member],
    log: &Log,
) -> Result<(), Error> {
    let others = members.iter().filter(|member| member.replica_id.0 != own);
    let questions = others.map(|member| async move {
        let asked = tokio::time::timeout(PATIENCE, ask(peers, group_id, own, member));
        (member, asked.await.unwrap_or(None))
    });
    let answers = join_all(questions).await;
    let vote = stored_vote(log, own);
    let last = log.last().map(log_id);
    for (member, seen) in answers {
        let Some(lost) = seen.and_then(|seen| seen.lost(&vote, last)) else {
            continue;
        };
        if mutant!("dead replica votes") || mutant!("memory not asked") {
            continue;
        }
        let id = member.replica_id.0;
        return Err(Error::Dead(format!(
            "replica {own} is dead: replica {id} remembers {lost}"
        )));
    }
    Ok(())
}

/// What one member remembers; asked until it answers. A node that has no such replica remembers nothing.
async fn ask(peers: &dyn Peers, group_id: GroupId, own: u64, member: &Member) -> Option<Seen> {
    loop {
        let body = vec![recall::encode_remember(member.replica_id.0, own)];
        let call = peers.call(
            &member.node,
            group_id,
            Lane::Control,
            kind::REMEMBER,
            body,
            CALL_TIMEOUT,
        );
        match call.await.map(recall::decode_seen) {
            Ok(Ok(seen)) => return seen,
            Ok(Err(error)) => {
                tracing::warn!(node = %member.node, %error, "a member's memory cannot be read");
                return None;
            }
            Err(PeerError::Refused { .. }) => return None,
            Err(PeerError::Unreachable { .. } | PeerError::NoAnswer { .. }) => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}

fn stored_vote(log: &Log, own: u64) -> Vote {
    let Some(vote) = log.vote() else {
        return Vote::new(0, own);
    };
    let replica = vote.voted_for.unwrap_or(own);
    match vote.committed {
        true => Vote::new_committed(vote.term, replica),
        false => Vote::new(vote.term, replica),
    }
}

/// All members that the log names in its last committed membership and in those behind it. Reads the disk.
fn members_in(log: &Log) -> Result<Vec<Member>, Error> {
    let (stored, mut next) = log.committed(|state| (state.membership.clone(), state.next_index));
    let mut found = BTreeMap::new();
    if let Some((_, bytes)) = stored {
        collect(&mut found, &membership_codec::decode(bytes)?);
    }
    loop {
        let frames = log.read(next, u64::MAX, crate::storage::READ_BYTES_MAX)?;
        let Some(last) = frames.last() else { break };
        next = last.header.id.index + 1;
        for frame in frames.into_iter().filter(|frame| frame.header.kind == Kind::Membership) {
            let entry = LogEntry::stored(frame)?;
            if let Some(membership) = openraft::entry::RaftEntry::get_membership(&entry) {
                collect(&mut found, &membership);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// The members that the log names, and those that are known otherwise.
pub(crate) async fn all_members(log: &Log, known: &[Member]) -> Result<Vec<Member>, Error> {
    let log = log.clone();
    let named = runtime::blocking(move || members_in(&log)).await;
    let mut members = named.map_err(|err| Error::Raft(format!("reading the members: {err}")))??;
    for member in known {
        if members.iter().all(|other| other.replica_id != member.replica_id) {
            members.push(member.clone());
        }
    }
    Ok(members)
}

fn collect(found: &mut BTreeMap<u64, Member>, membership: &Membership) {
    let members = membership.nodes().filter_map(|(id, _)| member(membership, *id));
    found.extend(members.map(|member| (member.replica_id.0, member)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::CommittedLeaderId;

    fn id(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term), index))
    }

    fn memory(notes: &[(Vote, Option<LogId>)]) -> Seen {
        let memory = Memory::default();
        notes.iter().for_each(|(vote, last)| memory.note(5, vote, *last));
        assert_eq!(memory.of(6), None);
        memory.of(5).unwrap_or_else(|| panic!("nothing is remembered"))
    }

    #[test]
    fn the_highest_vote_is_remembered_and_the_log_end_under_it() {
        let seen = memory(&[
            (Vote::new(3, 1), None),
            (Vote::new_committed(3, 1), id(2, 9)),
            (Vote::new_committed(3, 1), id(3, 12)),
            (Vote::new_committed(3, 1), id(3, 11)),
            (Vote::new(2, 2), id(2, 90)),
        ]);
        assert_eq!((seen.vote, seen.last), (Vote::new_committed(3, 1), id(3, 12)));
        let seen = memory(&[(Vote::new_committed(3, 1), id(3, 12)), (Vote::new(4, 2), None)]);
        assert_eq!(
            (seen.vote, seen.last),
            (Vote::new(4, 2), None),
            "under another leader a log may become shorter"
        );
    }

    #[test]
    fn a_disk_that_holds_less_than_is_remembered_has_lost_it() {
        let seen = memory(&[(Vote::new_committed(3, 1), id(3, 12))]);
        let lost = |vote: Vote, last| seen.lost(&vote, last).is_some();
        assert!(lost(Vote::new(0, 5), None));
        assert!(lost(Vote::new_committed(2, 4), id(2, 90)), "an older vote");
        assert!(
            lost(Vote::new(3, 1), id(3, 12)),
            "the vote before it was known to be granted by a quorum"
        );
        assert!(lost(Vote::new_committed(3, 1), id(3, 11)), "a shorter log");
        assert!(lost(Vote::new_committed(3, 1), id(2, 12)), "an older log end");
        assert!(lost(Vote::new_committed(3, 1), None));
        assert!(lost(Vote::new_committed(3, 2), id(3, 12)), "two votes in one term");
    }

    #[test]
    fn a_disk_that_holds_as_much_or_went_on_since_is_whole() {
        let seen = memory(&[(Vote::new_committed(3, 1), id(3, 12))]);
        let lost = |vote: Vote, last| seen.lost(&vote, last);
        assert_eq!(lost(Vote::new_committed(3, 1), id(3, 12)), None);
        assert_eq!(lost(Vote::new_committed(3, 1), id(3, 13)), None);
        assert_eq!(
            lost(Vote::new(4, 2), id(2, 7)),
            None,
            "truncated by a later leader, perhaps"
        );
        let candidate = memory(&[(Vote::new(3, 5), id(2, 12))]);
        assert_eq!(
            candidate.lost(&Vote::new_committed(3, 2), id(2, 4)),
            None,
            "it lost to another candidate"
        );
        assert!(candidate.lost(&Vote::new(3, 5), id(2, 4)).is_some());
    }

    #[test]
    fn the_memory_is_bounded() {
        let memory = Memory::default();
        for replica in 0..2 * REMEMBERED_MAX as u64 {
            memory.note(replica, &Vote::new(1, replica), None);
        }
        assert_eq!(memory.of(0), None);
        assert!(memory.of(2 * REMEMBERED_MAX as u64 - 1).is_some());
        assert!(memory.of(REMEMBERED_MAX as u64).is_some());
    }
}
