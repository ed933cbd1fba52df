//! One state of the world: three replicas and the one that may take a place, what they remember, and what has been promised.

use crate::disk::{Disk, End, Entry, Id, Ids, REPLICAS};
use crate::few::Few;

/// What a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Life {
    /// It does not exist yet.
    Absent,
    /// It does not run.
    Down,
    /// It never runs again.
    Dead,
    /// It follows.
    Follower,
    /// It has these votes.
    Candidate(Ids),
    /// It leads, and has these acknowledgements.
    Leader([u8; REPLICAS]),
}

/// What has happened to a disk since its replica last ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Harm {
    /// Nothing.
    None,
    /// The whole directory is gone.
    Wiped,
    /// It has been replaced by an old copy.
    OldCopy,
    /// The vote is lost, and that is known.
    VoteLost,
    /// The end of the log is lost, and that is known.
    EndLost,
}

/// A replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replica {
    /// What it is doing.
    pub life: Life,
    /// What it keeps.
    pub disk: Disk,
    /// What has happened to that.
    pub harm: Harm,
}

impl Replica {
    /// Whether it takes part.
    pub fn runs(&self) -> bool {
        !matches!(self.life, Life::Absent | Life::Down | Life::Dead)
    }
}

/// The highest promise of replica 0 that another one has seen since it started: as `internal/partition/src/memory.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The term of its vote.
    pub term: u8,
    /// For whom it voted.
    pub voted_for: Id,
    /// Whether that one led.
    pub is_led: bool,
    /// The highest log end under that vote.
    pub end: Option<End>,
}

impl Seen {
    /// Adds what is seen now.
    pub fn merge(&mut self, new: Seen) {
        if (self.term, self.voted_for) == (new.term, new.voted_for) {
            self.end = self.end.max(new.end);
            self.is_led |= new.is_led;
        } else if (new.term, new.is_led) > (self.term, self.is_led) {
            *self = new;
        }
    }

    /// Whether the disk holds less than that.
    pub fn is_more_than(&self, disk: &Disk, of_any_vote: bool) -> bool {
        let same_vote = (self.term, Some(self.voted_for)) == (disk.term, disk.voted_for);
        let rank = (self.term, self.is_led);
        rank > disk.rank()
            || (rank == disk.rank() && !same_vote)
            || ((same_vote || of_any_vote) && self.end > Some(disk.end()))
    }
}

/// What must never be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A term has had two leaders.
    TwoLeaders,
    /// What was committed is missing or different.
    CommittedLost,
    /// A replica that has lost nothing was declared dead.
    DeadForNothing,
}

/// The world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    /// The replicas by id.
    pub replicas: [Replica; REPLICAS],
    /// What each remembers of replica 0.
    pub seen: [Option<Seen>; REPLICAS],
    /// Whether that is followed: only where something can come of it.
    pub is_followed: bool,
    /// An old copy of replica 0's directory.
    pub copy: Option<Disk>,
    /// A copy was taken and is not put back and started yet.
    pub is_copied: bool,
    /// Since the copy was taken: whom replica 0 promised something.
    pub witnesses: Ids,
    /// Since then: who crashed.
    pub crashed: Ids,
    /// Whose place is being given to the new one.
    pub replaced: Option<Id>,
    /// Crashes left.
    pub crashes: u8,
    /// Harm to a whole disk left.
    pub harms: u8,
    /// Entries that may still rot.
    pub rot: u8,
    /// All that was ever committed.
    pub committed: Few<Entry>,
    /// The highest term in which something was committed.
    pub committed_term: u8,
    /// Terms that have had a leader.
    pub led: u8,
    /// What has happened that must not.
    pub broken: Option<Broken>,
}

impl World {
    /// Three empty replicas, all running.
    pub fn new(crashes: u8, rot: u8, is_followed: bool) -> World {
        let replica = |life| Replica {
            life,
            disk: Disk::default(),
            harm: Harm::None,
        };
        World {
            replicas: [Life::Follower, Life::Follower, Life::Follower, Life::Absent].map(replica),
            seen: [None; REPLICAS],
            is_followed,
            copy: None,
            is_copied: false,
            witnesses: 0,
            crashed: 0,
            replaced: None,
            crashes,
            harms: 1,
            rot,
            committed: Few::default(),
            committed_term: 0,
            led: 0,
            broken: None,
        }
    }

    /// Whether every replica that runs serves only what was committed. What is damaged is served only `with_damage`.
    pub fn serves_truth(&self, with_damage: bool) -> bool {
        self.replicas.iter().filter(|replica| replica.runs()).all(|replica| {
            let served = replica.disk.committed().iter().enumerate();
            let mut wrong = served.filter(|(index, slot)| match slot.bad {
                true => with_damage,
                false => self.committed.get(*index) != Some(&slot.entry),
            });
            wrong.next().is_none()
        })
    }

    /// Notes what `by` has seen of replica 0's vote and log.
    pub fn note(&mut self, by: Id, end: Option<End>) {
        let disk = &self.replicas[0].disk;
        let Some(voted_for) = disk.voted_for.filter(|_| self.is_followed) else {
            return;
        };
        let new = Seen {
            term: disk.term,
            voted_for,
            is_led: disk.is_led,
            end,
        };
        match &mut self.seen[usize::from(by)] {
            Some(seen) => seen.merge(new),
            none => *none = Some(new),
        }
        if self.is_copied {
            self.witnesses |= 1 << by;
        }
    }
}
