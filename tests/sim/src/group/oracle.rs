//! What the simulation knows better than any client: the inside of every replica, at every moment.
//!
//! * **Promises.** When a round of a disk begins, what the log holds in memory is what the round will make certain; when it
//!   ends, that is promised: others may have been told. Every later start must find it: the vote or a later one, and every
//!   entry that was not truncated since.
//! * **Contract.** When a round ends, the synced bytes alone are read again by a recovery of their own: always if the vote
//!   changed, otherwise now and then. This finds a missing sync without waiting for a crash at the right moment.
//! * **Not applied.** What a client was told is certainly not in the log must not stand in the log of any replica: one of them
//!   could lead some day.
//! * **Trims.** A manifest has the chain that the log was committed with; once its round has ended, it stays.
//! * **Agreement.** The chain at an index is the same wherever that index is committed, for ever; a term has one leader.
//!
//! It draws no random numbers: whether it looks must not change what happens.

use std::collections::BTreeMap;

use highwater_log::{EntryId, Error, Frame, Grade, Log, Vote};

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
    /// All entries in memory as of the last look, index by index. None: below a floor that came with a manifest, and never seen.
    entries: Vec<Option<Held>>,
    /// So many of them are promised.
    promised_end: usize,
    /// Where the log began as of the last look, and where it is promised to begin at least.
    floor_end: usize,
    promised_floor: usize,
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
    pub(crate) floor_end: usize,
    /// The last entry; its digest too, unless it is the floor.
    pub(crate) last: Option<EntryId>,
    held: Option<Held>,
    pub(crate) vote: Option<Vote>,
    /// Entries were cut since the round before: the new end of what is left.
    pub(crate) truncated_to: Option<usize>,
    pub(crate) vote_changed: bool,
    /// How many rounds this replica had.
    pub(crate) round: u64,
    /// A manifest of another replica took the place of entries that were never here.
    pub(crate) installed: bool,
    /// Entries were let go.
    pub(crate) purged: bool,
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
        let floor_before = replica.floor_end;
        let kept = replica.take_in(log)?;
        replica.promised_end = replica.promised_end.min(kept);
        let vote = log.vote();
        let vote_changed = vote != replica.seen_vote;
        replica.seen_vote = vote;
        replica.rounds += 1;
        Ok(Begun {
            index_end: replica.entries.len(),
            floor_end: replica.floor_end,
            last: log.last(),
            held: replica.entries.last().copied().flatten(),
            vote,
            truncated_to: (kept < before).then_some(kept),
            vote_changed,
            round: replica.rounds,
            installed: replica.floor_end > before,
            purged: (floor_before + 1..=before).contains(&replica.floor_end),
        })
    }

    /// The round has ended well.
    pub(crate) fn round_ends(&mut self, node: usize, begun: &Begun) {
        let replica = &mut self.replicas[node];
        replica.promised_end = replica.promised_end.max(begun.index_end);
        replica.promised_floor = replica.promised_floor.max(begun.floor_end);
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
        if floor_end_of(log) < replica.promised_floor {
            let (promised, found) = (replica.promised_floor, log.floor());
            return Err(format!(
                "the log was purged below {promised}, its floor is {found:?} now"
            ));
        }
        let last = promised.checked_sub(1).and_then(|last| replica.entries[last]);
        if let Some(last) = last.filter(|last| last.id.index as usize >= floor_end_of(log))
            && !is_there(log, &last).map_err(|error| error.to_string())?
        {
            let found = held(log, last.id.index);
            return Err(format!("entry {} was promised, {found:?} is there now", last.id));
        }
        if !follows(log.vote(), vote) {
            return Err(format!("the vote {vote:?} was promised, {:?} is there now", log.vote()));
        }
        replica.take_in(log).map_err(|error| error.to_string())?;
        replica.promised_end = replica.entries.len();
        replica.promised_floor = replica.floor_end;
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
        if floor_end_of(recovered) < begun.floor_end {
            let (said, found) = (begun.floor_end, recovered.floor());
            return Err(format!(
                "the purge below {said} was reported as done, the floor is {found:?}"
            ));
        }
        if recovered.last() < begun.last {
            let (said, found) = (begun.last, recovered.last());
            return Err(format!(
                "the log was reported as synced up to {said:?}, it ends at {found:?}"
            ));
        }
        let Some(last) = begun.held else { return Ok(()) };
        match is_there(recovered, &last) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "entry {} was reported as synced, the disk has another there",
                last.id
            )),
            Err(error) => Err(format!("the synced log cannot be read: {error}")),
        }
    }

    /// Whether a replica must hold everything below this index.
    pub(crate) fn has_promised(&self, node: usize, index_end: u64) -> bool {
        self.replicas[node].promised_end as u64 >= index_end
    }

    /// What this replica would lose with a disk that holds this log: entries that it has promised under the vote that stands there
    /// too, which is what others can remember.
    pub(crate) fn would_lose(&self, node: usize, log: &Log) -> Loss {
        let replica = &self.replicas[node];
        let found_end = log.last().map_or(0, |last| last.index as usize + 1);
        if log.vote() != replica.vote {
            return Loss::Vote;
        }
        match found_end < replica.promised_end {
            true => Loss::Entries,
            false => Loss::Nothing,
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
            let mut recent = replica.entries.iter().rev().take(RECENT).flatten();
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
        self.floor_end = floor_end_of(log);
        let mut kept = self.entries.len().min(end);
        while kept > self.floor_end
            && let Some(Some(entry)) = self.entries.get(kept - 1)
            && !is_there(log, entry)?
        {
            kept -= 1;
        }
        self.entries.truncate(kept);
        if kept < self.floor_end {
            self.entries.resize(self.floor_end, None);
        }
        while self.entries.len() < end {
            match log.read(self.entries.len() as u64, end as u64, 1024 * 1024) {
                Ok(frames) if frames.is_empty() => break,
                Ok(frames) => self.entries.extend(frames.iter().map(|frame| Some(Held::of(frame)))),
                Err(error) if error.grade() == Grade::Inside => break,
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

fn floor_end_of(log: &Log) -> usize {
    log.floor().map_or(0, |floor| floor.index as usize + 1)
}

fn held(log: &Log, index: u64) -> Result<Option<Held>, Error> {
    let frames = log.read(index, index + 1, 0)?;
    Ok(frames.first().map(Held::of))
}

/// Whether this entry stands in the log; one that is damaged there does.
fn is_there(log: &Log, entry: &Held) -> Result<bool, Error> {
    match held(log, entry.id.index) {
        Err(error) if error.grade() == Grade::Inside => Ok(true),
        found => Ok(found? == Some(*entry)),
    }
}

/// What a disk has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    Nothing,
    /// Entries, but not the vote under which they were promised.
    Entries,
    /// The vote.
    Vote,
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
