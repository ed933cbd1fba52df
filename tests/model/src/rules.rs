//! What can go wrong in a case, and which rule is broken on purpose.

use crate::disk::Ids;

/// A rule broken on purpose. The checker must find what comes of it: one that has never found anything proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mistake {
    /// A replica whose directory is gone starts empty, as if it had never run.
    WipedVotes,
    /// A replica does not ask the others what they remember of it.
    Unasked,
    /// The others remember votes only, not how far the log went.
    LogEndsForgotten,
    /// What is remembered of the log counts also under a later vote.
    LogEndsOfAnyVote,
    /// A leader does not show how much of its own log is on its disk.
    LeaderShowsNothing,
    /// A replica that has lost its vote goes on with none.
    LostVoteVotes,
    /// A replica that has lost its log's end goes on without it.
    LostEndVotes,
    /// A refill takes what is not committed where it comes from.
    RefillUncommitted,
    /// A refill takes what does not follow on.
    RefillUnchecked,
    /// What is damaged is served.
    DamageServed,
    /// What the new id says counts for the one whose place it takes.
    NewCountsAsOld,
    /// The voters are swapped without a majority of the old ones.
    SwapInOneStep,
}

/// Of which others an old copy that is put back can be sure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StayedUp {
    /// Whoever it has promised something since the copy was taken; they all answer.
    Witnesses,
    /// One of the others, whoever that is.
    One,
    /// All, but only one of them answers.
    AllOneAnswers,
}

/// How large a world is, and what may happen in it. All of it happens to replica 0, but crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// The highest term.
    pub terms: u8,
    /// The longest log.
    pub entries: usize,
    /// Crashes, each with or without a start behind it.
    pub crashes: u8,
    /// Who can crash.
    pub crash_of: Ids,
    /// Whether a directory can be wiped.
    pub wipe: bool,
    /// Whether an old copy can be put back, and who stays up meanwhile.
    pub copy: Option<StayedUp>,
    /// Whether vote or log end can be lost.
    pub lose: bool,
    /// Entries that can rot.
    pub rot: u8,
    /// Whether replicas that are dead or away are replaced.
    pub replace: bool,
}

impl Bounds {
    /// Nothing but crashes.
    pub const fn new(terms: u8, entries: usize, crashes: u8) -> Bounds {
        Bounds {
            terms,
            entries,
            crashes,
            crash_of: !0,
            wipe: false,
            copy: None,
            lose: false,
            rot: 0,
            replace: false,
        }
    }
}
