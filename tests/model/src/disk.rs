//! What lies on one replica's disk: its vote, its log, and what of it is known to be committed.

use crate::few::Few;

/// A replica's id. 0, 1 and 2 found the group; 3 takes the place of one of them.
pub type Id = u8;

/// So many replicas can there be.
pub(crate) const REPLICAS: usize = 4;
/// The id that takes another's place.
pub(crate) const NEW: Id = 3;

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum What {
    /// A record of a user.
    #[default]
    Record,
    /// From here on a majority of the old voters and one of the new are needed; this one is to leave.
    Joint(Id),
    /// From here on this one has left.
    Swapped(Id),
}

/// An entry. A leader makes at most one of a kind at an index, so that equal means the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: u8,
    /// That leader.
    pub leader: Id,
    /// What it says.
    pub what: What,
}

/// An entry where it lies. If it is bad, what it says is not known any more; `chain` still stands in what comes behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Slot {
    /// The entry.
    pub entry: Entry,
    /// A number for the whole prefix up to here.
    pub chain: u32,
    /// Whether it has rotted.
    pub bad: bool,
}

/// Where a log ends: the last entry's term, and how many there are.
pub type End = (u8, u8);

/// Set of ids as bits.
pub type Ids = u8;

/// Who must agree: a majority of each of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voters(pub [Ids; 2]);

impl Voters {
    /// Whether these are a quorum.
    pub fn agree(self, ids: Ids) -> bool {
        self.0
            .iter()
            .all(|voters| 2 * (voters & ids).count_ones() > voters.count_ones())
    }

    /// Whether the replica has a vote.
    pub fn hold(self, id: Id) -> bool {
        self.0.iter().any(|voters| voters & (1 << id) != 0)
    }
}

const FOUNDERS: Ids = 0b0111;

/// What a replica keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Disk {
    /// The highest term it has voted in.
    pub term: u8,
    /// For whom.
    pub voted_for: Option<Id>,
    /// Whether that one became leader, as far as is known here.
    pub is_led: bool,
    /// The log.
    pub log: Few<Slot>,
    /// So many entries are known to be committed.
    pub commit: u8,
}

impl Disk {
    /// The vote in the order in which one replica can take them.
    pub fn rank(&self) -> (u8, bool) {
        (self.term, self.is_led)
    }

    /// Puts an entry behind the last.
    pub fn push(&mut self, entry: Entry) {
        let chain = chain(self.chain_before(self.log.len()), entry);
        self.log.push(Slot {
            entry,
            chain,
            bad: false,
        });
    }

    /// The chain of what lies before `index`.
    pub fn chain_before(&self, index: usize) -> u32 {
        index.checked_sub(1).map_or(0, |last| self.log[last].chain)
    }

    /// Term and end of the first `end` entries; compares as Raft compares logs.
    pub fn end_at(&self, end: usize) -> End {
        (
            end.checked_sub(1).map_or(0, |last| self.log[last].entry.term),
            end as u8,
        )
    }

    /// Term and end of the whole log.
    pub fn end(&self) -> End {
        self.end_at(self.log.len())
    }

    /// The part that is known to be committed.
    pub fn committed(&self) -> &[Slot] {
        &self.log[..usize::from(self.commit)]
    }

    /// The first bad entry.
    pub fn first_bad(&self) -> Option<usize> {
        self.log.iter().position(|slot| slot.bad)
    }

    /// How many entries at the start are the same as there.
    pub fn common(&self, other: &Disk) -> usize {
        let pairs = self.log.iter().zip(other.log.iter());
        pairs.take_while(|(ours, theirs)| ours.chain == theirs.chain).count()
    }

    /// Who votes, as far as this log says.
    pub fn voters(&self) -> Voters {
        let swapped = |dead: Id| (FOUNDERS & !(1 << dead)) | (1 << NEW);
        let last = self.log.iter().rev().find(|slot| slot.entry.what != What::Record);
        Voters(match last.map(|slot| slot.entry.what) {
            Some(What::Joint(dead)) => [FOUNDERS, swapped(dead)],
            Some(What::Swapped(dead)) => [swapped(dead); 2],
            _ => [FOUNDERS; 2],
        })
    }
}

/// The chain behind an entry: different for different prefixes, as a good digest's is.
pub(crate) fn chain(before: u32, entry: Entry) -> u32 {
    let what = match entry.what {
        What::Record => 0,
        What::Joint(dead) => 1 + u32::from(dead),
        What::Swapped(dead) => 5 + u32::from(dead),
    };
    before * 1024 + u32::from(entry.term) * 64 + u32::from(entry.leader) * 16 + what + 1
}
