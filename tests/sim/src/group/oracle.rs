//! What the simulation knows better than any client: the inside of every replica, at every moment.
//!
//! * **Promises.** When a round of a disk begins, what the log holds in memory is what the round will make certain; when it
//!   ends, that is promised: others may have been told. Every later start must find it: the vote or a later one, and every
//!   entry that was not truncated since.
//! * **Contract.** When a round ends, the synced bytes alone are read again by a recovery of their own: always if the vote
//!   changed, otherwise now and then. This finds a missing sync without waiting for a crash at the right moment.
//! * **Not applied.** What a client was told is certainly not in the log must not stand in the log of any replica: one of them
//!   could lead some day.
//! * **Agreement.** The chain at an index is the same wherever that index is committed, for ever; a term has one leader.
//!
//! It draws no random numbers: whether it looks must not change what happens.

use std::collections::BTreeMap;

use highwater_log::{EntryId, Error, Frame, Log, Vote};

/// An entry's name and the digest of the log up to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) id: EntryId,
    pub(crate) chain: u64,
    payload_crc: u32,
}

impl Held {
    fn of(frame: &Frame) -> Held {
        Held {
            id: frame.id(),
            chain: frame.header.chain,
            payload_crc: frame.header.payload_crc,
        }
    }
}

/// What a replica's log holds, vote and entries.
#[derive(Debug, Clone, Default)]
struct Replica {
    /// All entries in memory as of the last look; index by index.
    entries: Vec<Held>,
    /// So many of them are promised.
    promised_end: usize,
    vote: Option<Vote>,
    /// The vote as of the last look.
    seen_vote: Option<Vote>,
    /// The last term in which it voted, and for whom.
    voted: Option<(u64, u64)>,
    rounds: u64,
}

/// What a round makes certain when it ends.
#[derive(Debug, Clone)]
pub(crate) struct Begun {
    pub(crate) index_end: usize,
    pub(crate) last: Option<Held>,
    pub(crate) vote: Option<Vote>,
    /// Entries were cut since the round before: the new end of what is left.
    pub(crate) truncated_to: Option<usize>,
    pub(crate) vote_changed: bool,
    /// How many rounds this replica had.
    pub(crate) round: u64,
}

/// Everything known.
#[derive(Debug)]
pub(crate) struct Oracle {
    replicas: Vec<Replica>,
    /// Chain of the committed log before this index, and who said so first.
    committed: BTreeMap<u64, (u64, usize)>,
    /// Who led in a term.
    leaders: BTreeMap<u64, usize>,
}

impl Oracle {
    pub(crate) fn new(nodes: usize) -> Oracle {
        Oracle {
            replicas: vec![Replica::default(); nodes],
            committed: BTreeMap::new(),
            leaders: BTreeMap::new(),
        }
    }

    /// The node gets another replica, which has promised nothing.
    pub(crate) fn forget(&mut self, node: usize) {
        self.replicas[node] = Replica::default();
    }

    /// A round begins: everything queued so far is in it.
    pub(crate) fn round_begins(&mut self, node: usize, log: &Log) -> Result<Begun, Error> {
        let replica = &mut self.replicas[node];
        let before = replica.entries.len();
        let kept = replica.take_in(log)?;
        replica.promised_end = replica.promised_end.min(kept);
        let vote = log.vote();
        let vote_changed = vote != replica.seen_vote;
        replica.seen_vote = vote;
        replica.rounds += 1;
        Ok(Begun {
            index_end: replica.entries.len(),
            last: replica.entries.last().copied(),
            vote,
            truncated_to: (kept < before).then_some(kept),
            vote_changed,
            round: replica.rounds,
        })
    }

    /// The round has ended well.
    pub(crate) fn round_ends(&mut self, node: usize, begun: &Begun) {
        let replica = &mut self.replicas[node];
        replica.promised_end = replica.promised_end.max(begun.index_end);
        if follows(begun.vote, replica.vote) {
            replica.vote = begun.vote;
        }
        replica.note_voted(begun.vote);
    }

    /// For whom the vote that is found at a start was given, if for anybody: a leader that was recognised hides it.
    pub(crate) fn voted_for(&self, node: usize, found: Vote) -> Option<u64> {
        match self.replicas[node].voted {
            Some((term, candidate)) if found.committed && term == found.term => Some(candidate),
            _ => found.voted_for,
        }
    }

    /// A replica starts again with this log; it must keep what it promised.
    pub(crate) fn restarts(&mut self, node: usize, log: &Log) -> Result<(), String> {
        let replica = &mut self.replicas[node];
        let (promised, vote) = (replica.promised_end, replica.vote);
        let found_end = log.last().map_or(0, |last| last.index as usize + 1);
        if found_end < promised {
            return Err(format!(
                "promised entries are gone: {promised} were synced, {found_end} are left"
            ));
        }
        if let Some(last) = promised.checked_sub(1).map(|last| replica.entries[last]) {
            let found = held(log, last.id.index).map_err(|error| error.to_string())?;
            if found != Some(last) {
                return Err(format!("entry {} was promised, {found:?} is there now", last.id));
            }
        }
        if !follows(log.vote(), vote) {
            return Err(format!("the vote {vote:?} was promised, {:?} is there now", log.vote()));
        }
        replica.take_in(log).map_err(|error| error.to_string())?;
        replica.promised_end = replica.entries.len();
        replica.vote = log.vote();
        replica.seen_vote = replica.vote;
        replica.note_voted(replica.vote);
        Ok(())
    }

    /// What the synced bytes alone hold must be at least what the round promised.
    pub(crate) fn check_contract(&self, begun: &Begun, recovered: &Log) -> Result<(), String> {
        if !follows(recovered.vote(), begun.vote) {
            return Err(format!(
                "vote {:?} was reported as synced, the disk has {:?}",
                begun.vote,
                recovered.vote()
            ));
        }
        let Some(last) = begun.last else { return Ok(()) };
        match held(recovered, last.id.index) {
            Ok(found) if found == Some(last) => Ok(()),
            Ok(found) => Err(format!(
                "entry {} was reported as synced, the disk has {found:?} there",
                last.id
            )),
            Err(error) => Err(format!("the synced log cannot be read: {error}")),
        }
    }

    /// A replica says that its log is committed before `index_end`, with this chain there. True if nobody said so before.
    pub(crate) fn commits(&mut self, node: usize, index_end: u64, chain: u64) -> Result<bool, String> {
        let (known, first) = *self.committed.entry(index_end).or_insert((chain, node));
        if known != chain {
            return Err(format!(
                "n{node} has another log committed before {index_end} than n{first}: {chain:#x}, not {known:#x}"
            ));
        }
        Ok(first == node)
    }

    /// A replica acts as leader.
    pub(crate) fn leads(&mut self, node: usize, term: u64) -> Result<(), String> {
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            return Err(format!("n{first} and n{node} both lead in term {term}"));
        }
        Ok(())
    }

    /// Where an entry with this payload stands near the end of a log, if anywhere.
    pub(crate) fn find(&self, payload_crc: u32) -> Option<(usize, EntryId)> {
        /// Nothing older is looked at: the question comes right after the proposal.
        const RECENT: usize = 100;
        let logs = self.replicas.iter().enumerate();
        logs.into_iter().find_map(|(node, replica)| {
            let mut recent = replica.entries.iter().rev().take(RECENT);
            let found = recent.find(|entry| entry.payload_crc == payload_crc)?;
            Some((node, found.id))
        })
    }
}

impl Replica {
    fn note_voted(&mut self, vote: Option<Vote>) {
        if let Some(vote) = vote.filter(|vote| !vote.committed)
            && let Some(candidate) = vote.voted_for
        {
            self.voted = Some((vote.term, candidate));
        }
    }

    /// Brings `entries` up to date; returns how many of the old ones are still there.
    fn take_in(&mut self, log: &Log) -> Result<usize, Error> {
        let end = log.last().map_or(0, |last| last.index as usize + 1);
        let mut kept = self.entries.len().min(end);
        while kept > 0 && held(log, kept as u64 - 1)? != Some(self.entries[kept - 1]) {
            kept -= 1;
        }
        self.entries.truncate(kept);
        while self.entries.len() < end {
            let frames = log.read(self.entries.len() as u64, end as u64, 1024 * 1024)?;
            if frames.is_empty() {
                break;
            }
            self.entries.extend(frames.iter().map(Held::of));
        }
        Ok(kept)
    }
}

fn held(log: &Log, index: u64) -> Result<Option<Held>, Error> {
    let frames = log.read(index, index + 1, 0)?;
    Ok(frames.first().map(Held::of))
}

/// Whether whoever gave the vote `before` may give `after`. A committed one is no vote but a leader that was recognised: in its
/// term it may stand in the place of a vote for somebody else.
fn follows(after: Option<Vote>, before: Option<Vote>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return before.is_none();
    };
    if after.term != before.term {
        return after.term > before.term;
    }
    let recognised = after.committed && !before.committed;
    recognised || (after.voted_for == before.voted_for && after.committed == before.committed)
}
