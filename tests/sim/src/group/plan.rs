//! What one seed makes of a run: how hostile the world is, and in which ways.
//!
//! Every seed leaves some faults out wholly and exaggerates others (swarm testing): a world with everything in it hides the
//! mistakes that need one thing often.

use crate::random::Random;

/// Which faults there can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// One node is killed or loses power.
    CrashOne,
    /// A majority of the nodes loses power at once.
    CrashMajority,
    /// All nodes lose power at once.
    CrashAll,
    /// One node loses power in the middle of a round of its disk.
    CrashInRound,
    /// The nodes are split in two.
    Split,
    /// The leader is cut off.
    IsolateLeader,
    /// One direction of one link carries nothing.
    OneWay,
    /// For a while, every so often, any of the links carry nothing: each node sees another part of the group.
    Tangle,
    /// One disk becomes slow.
    SlowDisk,
    /// All links lose, double and delay.
    Lossy,
    /// A write or a sync of one disk fails, and the machine starts anew.
    DiskError,
    /// A write or a sync of one disk fails, and only the process starts anew: what the failed sync lost can still be read.
    SyncError,
    /// The leadership is handed over.
    Transfer,
    /// The leader is cut off, and some time later loses power.
    CutThenCrash,
    /// A disk is emptied.
    Wipe,
    /// Both copies of a vote are damaged.
    DamageVote,
    /// Committed entries rot on one disk, while others have them.
    Rot,
    /// The same, and the log cannot be opened before they are back.
    RotUnopenable,
    /// Disks are full for a while.
    FullDisk,
    /// A disk is restored from an older copy.
    OldCopy,
}

impl Act {
    /// The name in kebab-case.
    fn name(self) -> String {
        let mut name = String::new();
        for letter in format!("{self:?}").chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }
}

/// All that a plan may hold.
const ACTS: [Act; 20] = [
    Act::CrashOne,
    Act::CrashMajority,
    Act::CrashAll,
    Act::CrashInRound,
    Act::Split,
    Act::IsolateLeader,
    Act::OneWay,
    Act::Tangle,
    Act::SlowDisk,
    Act::Lossy,
    Act::DiskError,
    Act::SyncError,
    Act::Transfer,
    Act::CutThenCrash,
    Act::Wipe,
    Act::DamageVote,
    Act::Rot,
    Act::RotUnopenable,
    Act::FullDisk,
    Act::OldCopy,
];

/// A run before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Everything follows from it.
    pub(crate) seed: u64,
    /// How many replicas.
    pub(crate) nodes: usize,
    /// How long there are faults, simulated milliseconds.
    pub(crate) run_ms: u64,
    /// What happens how often.
    pub(crate) weights: Vec<(Act, u64)>,
    /// Mean time between faults.
    pub(crate) gap_ms: u64,
    /// Mean time that a node stays down.
    pub(crate) down_ms: u64,
    /// How long a sync takes, at most.
    pub(crate) sync_ms: u64,
    /// How long a message takes, at most.
    pub(crate) delay_ms: u64,
    /// Producers of each kind, and readers.
    pub(crate) producers: u64,
    /// Mean pause of a client between two calls.
    pub(crate) pause_ms: u64,
    /// Bytes of the node's tail cache.
    pub(crate) cache_bytes: usize,
    /// Size of segments.
    pub(crate) segment_bytes: u64,
    /// Mean time between trims; 0: nothing is trimmed.
    pub(crate) trim_ms: u64,
    /// At the end one record is damaged on every replica.
    pub(crate) damage_everywhere: bool,
    /// How many openings are interrupted by another power cut, of a thousand.
    pub(crate) crash_in_recovery_permille: u64,
}

impl Plan {
    /// What follows from a seed.
    pub(crate) fn new(seed: u64, nodes: usize, run_ms: u64) -> Plan {
        let mut random = Random::stream(seed, "plan", nodes as u64);
        let mut weights: Vec<(Act, u64)> = Vec::new();
        for act in ACTS {
            let weight = if random.permille(400) { 0 } else { random.between(1, 8) };
            weights.push((act, weight));
        }
        if weights.iter().all(|(_, weight)| *weight == 0) {
            weights[0].1 = 1;
        }
        Plan {
            seed,
            nodes,
            run_ms,
            weights,
            gap_ms: random.pick(&[250, 800, 2_500]),
            down_ms: random.pick(&[60, 400, 2_500]),
            sync_ms: random.pick(&[2, 4, 20]),
            delay_ms: random.pick(&[2, 4, 15]),
            producers: random.between(3, 8),
            pause_ms: random.pick(&[30, 100, 250]),
            cache_bytes: random.pick(&[0, 16 * 1024, 1024 * 1024]),
            segment_bytes: random.pick(&[8 * 1024, 24 * 1024, 64 * 1024]),
            crash_in_recovery_permille: random.pick(&[0, 150, 500]),
            trim_ms: random.pick(&[0, 700, 2_500, 8_000]),
            damage_everywhere: random.permille(200),
        }
    }

    /// The same with these faults only, all as often as each other. Names are those of [`Act`], in kebab-case.
    pub(crate) fn only(mut self, names: &[String]) -> Plan {
        let known = ACTS.iter().copied();
        self.weights = known
            .filter(|act| names.iter().any(|name| *name == act.name()))
            .map(|act| (act, 1))
            .collect();
        assert!(
            self.weights.len() == names.len(),
            "{names:?}: some of these faults are not known"
        );
        self
    }

    /// What to do next.
    pub(crate) fn draw(&self, random: &mut Random) -> Act {
        let total: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut place = random.below(total);
        for (act, weight) in &self.weights {
            if place < *weight {
                return *act;
            }
            place -= weight;
        }
        Act::CrashOne
    }
}
