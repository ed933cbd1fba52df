//! What can be done to a cluster, and how often.

use std::fmt;

use super::links::Rule;
use super::random::Random;
use super::storage::{Change, Syncs};

/// Which nodes it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// Any one.
    One,
    /// The leader of some partition.
    Leader,
    /// A majority, the leader of some partition among them.
    Majority,
    /// All at once.
    All,
}

/// Which flows it happens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// All of one node, in both directions.
    Isolate(Whom),
    /// What a leader sends.
    FromLeader,
    /// What a leader hears.
    ToLeader,
    /// Between two nodes; all others still reach both.
    Bridge,
    /// Every node is alone.
    Shattered,
}

/// One thing that is done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// SIGKILL, and a start.
    Kill(Whom),
    /// The leader, and as soon as another one leads, that too.
    KillTwice,
    /// SIGSTOP, and SIGCONT.
    Pause(Whom),
    /// One node is paused, another loses power; the first goes on, and the third is paused.
    PauseAndCut,
    /// SIGTERM, and a start.
    Restart,
    /// The same on every node, one after the other.
    RollingRestart,
    /// Power is lost, and is back.
    Power(Whom),
    /// Of all nodes, and again of all while they recover.
    PowerTwice,
    /// Of all nodes, as soon as a segment has been sealed.
    PowerInRoll,
    /// Of all nodes, as soon as a log has been trimmed.
    PowerInTrim,
    /// Of all nodes while a killed leader's successor is elected.
    PowerInElection,
    /// Of all nodes while the leader is cut off.
    PowerInPartition,
    /// Links are cut: silently, or with resets.
    Links(Cut, Rule),
    /// One link goes up and down.
    Flap,
    /// All connections between nodes are reset once.
    ResetAll,
    /// What nodes say to each other arrives late.
    SlowLinks,
    /// Syncs of one node fail or crawl.
    Syncs(Whom, Syncs),
    /// Files of a stopped node change.
    AtRest(Whom, Change),
    /// A bit in a sealed segment flips under a running node.
    RotLive(Whom),
    /// Files of a running node cannot grow any more.
    DiskFull(Whom),
    /// A data directory is gone.
    Wipe,
    /// A data directory is as it was some time ago.
    OldCopy,
    /// One node's disk lies about syncs, and that node loses power.
    Lies,
}

impl Scenario {
    /// Whether it needs disks whose power can be cut, or that can be full.
    pub(crate) fn needs_images(self) -> bool {
        use Scenario::{
            DiskFull, Lies, PauseAndCut, Power, PowerInElection, PowerInPartition, PowerInRoll, PowerInTrim, PowerTwice,
        };
        matches!(
            self,
            Lies | Power(_)
                | PowerTwice
                | PowerInRoll
                | PowerInTrim
                | PowerInElection
                | PowerInPartition
                | PauseAndCut
                | DiskFull(_)
        )
    }

    /// Whether replicas can be lost by it for good.
    pub(crate) fn loses_replicas(self) -> bool {
        use Scenario::{AtRest, Lies, OldCopy, Wipe};
        matches!(self, Wipe | OldCopy | Lies | AtRest(_, Change::HardStateGone))
    }

    /// Whether a replica may be lost by it: also by damage above the commit index that the replica has noted, which one that has just
    /// caught up has far behind its end.
    pub(crate) fn may_lose_replicas(self) -> bool {
        let damages = matches!(self, Scenario::AtRest(_, Change::SealedBit | Change::SegmentGone));
        damages || self.loses_replicas()
    }

    /// Whether it needs to change calls of a running node.
    pub(crate) fn needs_strace(self) -> bool {
        matches!(self, Scenario::Syncs(..) | Scenario::Lies)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

const HOLD: Rule = Rule::Hold;
const RESET: Rule = Rule::Reset;

/// One round: each scenario, and how often it comes.
const ROUND: &[(Scenario, usize)] = &[
    (Scenario::Kill(Whom::One), 1),
    (Scenario::Kill(Whom::Leader), 2),
    (Scenario::Kill(Whom::Majority), 1),
    (Scenario::Kill(Whom::All), 2),
    (Scenario::KillTwice, 1),
    (Scenario::Pause(Whom::One), 1),
    (Scenario::Pause(Whom::Leader), 1),
    (Scenario::Pause(Whom::Majority), 1),
    (Scenario::PauseAndCut, 1),
    (Scenario::Restart, 1),
    (Scenario::RollingRestart, 1),
    (Scenario::Power(Whom::One), 1),
    (Scenario::Power(Whom::Leader), 1),
    (Scenario::Power(Whom::Majority), 1),
    (Scenario::Power(Whom::All), 2),
    (Scenario::PowerTwice, 1),
    (Scenario::PowerInRoll, 1),
    (Scenario::PowerInTrim, 1),
    (Scenario::PowerInElection, 1),
    (Scenario::PowerInPartition, 1),
    (Scenario::Links(Cut::Isolate(Whom::Leader), HOLD), 1),
    (Scenario::Links(Cut::Isolate(Whom::Leader), RESET), 1),
    (Scenario::Links(Cut::Isolate(Whom::One), HOLD), 1),
    (Scenario::Links(Cut::FromLeader, HOLD), 1),
    (Scenario::Links(Cut::ToLeader, HOLD), 1),
    (Scenario::Links(Cut::Bridge, RESET), 1),
    (Scenario::Links(Cut::Shattered, HOLD), 1),
    (Scenario::Flap, 1),
    (Scenario::ResetAll, 1),
    (Scenario::SlowLinks, 1),
    (Scenario::Syncs(Whom::Leader, Syncs::FailOnce), 1),
    (Scenario::Syncs(Whom::One, Syncs::FailOnce), 1),
    (Scenario::Syncs(Whom::One, Syncs::Crawl), 1),
    (Scenario::AtRest(Whom::One, Change::IndexBit), 1),
    (Scenario::AtRest(Whom::One, Change::CheckpointBit), 1),
    (Scenario::AtRest(Whom::All, Change::DerivedGone), 1),
    (Scenario::AtRest(Whom::One, Change::GarbageTail), 1),
    (Scenario::AtRest(Whom::One, Change::SealedBit), 1),
    (Scenario::AtRest(Whom::All, Change::SealedBit), 1),
    (Scenario::AtRest(Whom::One, Change::SegmentGone), 1),
    (Scenario::AtRest(Whom::One, Change::HardStateGone), 1),
    (Scenario::RotLive(Whom::One), 1),
    (Scenario::RotLive(Whom::All), 1),
    (Scenario::DiskFull(Whom::One), 1),
    (Scenario::DiskFull(Whom::All), 1),
    (Scenario::Wipe, 1),
    (Scenario::OldCopy, 1),
    (Scenario::Lies, 1),
];

/// A short run: a few of each kind.
const SHORT: &[(Scenario, usize)] = &[
    (Scenario::Kill(Whom::Leader), 1),
    (Scenario::Kill(Whom::All), 1),
    (Scenario::Pause(Whom::Leader), 1),
    (Scenario::Links(Cut::Isolate(Whom::Leader), HOLD), 1),
    (Scenario::Links(Cut::Bridge, RESET), 1),
    (Scenario::Power(Whom::One), 1),
    (Scenario::Power(Whom::All), 1),
    (Scenario::PowerTwice, 1),
    (Scenario::AtRest(Whom::One, Change::GarbageTail), 1),
    (Scenario::AtRest(Whom::One, Change::HardStateGone), 1),
    (Scenario::Wipe, 1),
    (Scenario::OldCopy, 1),
    (Scenario::DiskFull(Whom::One), 1),
    (Scenario::Restart, 1),
];

/// How much is done in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount {
    /// Only the scenarios whose names contain this, so many times.
    Only(String, usize),
    /// A few faults of each kind.
    Short,
    /// So many rounds of everything.
    Rounds(usize),
}

/// The scenarios of a run, in the order of its seed.
pub(crate) fn deck(amount: &Amount, random: &mut Random) -> Vec<Scenario> {
    match amount {
        Amount::Short => shuffled(SHORT, 1, |_| true, random),
        Amount::Rounds(rounds) => shuffled(ROUND, *rounds, |_| true, random),
        Amount::Only(name, times) => {
            let is_meant = |scenario: &Scenario| scenario.to_string().contains(name);
            shuffled(ROUND, *times, is_meant, random)
        }
    }
}

/// Each round in an order of its own.
fn shuffled(
    round: &[(Scenario, usize)],
    rounds: usize,
    wanted: impl Fn(&Scenario) -> bool,
    random: &mut Random,
) -> Vec<Scenario> {
    let mut deck = Vec::new();
    for _ in 0..rounds {
        let each = round
            .iter()
            .flat_map(|(scenario, times)| std::iter::repeat_n(*scenario, *times));
        let mut cards: Vec<Scenario> = each.filter(&wanted).collect();
        random.shuffle(&mut cards);
        deck.extend(cards);
    }
    deck
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_fixes_the_order() {
        let order = |seed| deck(&Amount::Rounds(2), &mut Random::new(seed));
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
