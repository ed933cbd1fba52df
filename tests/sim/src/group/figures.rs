//! What happened in runs, counted: for people, and so that a fault that never did anything is noticed.

use highwater_verify::history::FaultKind;

/// The kinds of faults that the nemesis knows, and what is counted of them.
pub(crate) const KINDS: [(FaultKind, &str); 9] = [
    (FaultKind::Kill, "kills"),
    (FaultKind::PowerCut, "power cuts with bytes unsynced"),
    (FaultKind::LinkCut, "cuts of links"),
    (FaultKind::LinkLossy, "lossy spells"),
    (FaultKind::DiskSlow, "slow disks"),
    (FaultKind::DiskError, "failed writes and syncs"),
    (FaultKind::DiskFull, "full disks"),
    (FaultKind::BitRot, "rotten places"),
    (FaultKind::Wipe, "wiped or replaced disks"),
];

/// Counts of one run, or of many.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// Of each of [`KINDS`]: how many faults, and how many of them did something.
    faults: [(u64, u64); KINDS.len()],
    pub(crate) recoveries: u64,
    pub(crate) contract_checks: u64,
    /// Logs that were mended before they could be opened.
    pub(crate) mended: u64,
    /// Rotten places that were whole again, or not needed any more.
    pub(crate) healed: u64,
    pub(crate) trims: u64,
    /// Rounds with a purge in them.
    pub(crate) purges: u64,
    /// Replicas that were brought up with a manifest.
    pub(crate) installs: u64,
    /// Batches refused because a disk was full.
    pub(crate) refused_full: u64,
    /// Restored disks that had lost something, and were found out.
    pub(crate) old_copies: u64,
    /// Replicas replaced under a new id.
    pub(crate) replaced: u64,
    /// Records damaged on every replica, and reported.
    pub(crate) everywhere: u64,
}

impl Figures {
    /// Counts a fault.
    pub(crate) fn note(&mut self, kind: FaultKind, bitten: u64) {
        let known = KINDS.iter().position(|(known, _)| *known == kind);
        if let Some((faults, bit)) = known.and_then(|place| self.faults.get_mut(place)) {
            *faults += 1;
            *bit += u64::from(bitten > 0);
        }
    }

    /// How many faults did something.
    pub(crate) fn bitten(&self) -> u64 {
        self.faults.iter().map(|(_, bit)| bit).sum()
    }

    /// Of each kind: its name, how many, and how many did something.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let names = KINDS.iter().map(|(_, name)| *name);
        names.zip(self.faults).map(|(name, (faults, bit))| (name, faults, bit))
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Figures) {
        for ((faults, bit), (more, more_bit)) in self.faults.iter_mut().zip(other.faults) {
            *faults += more;
            *bit += more_bit;
        }
        self.recoveries += other.recoveries;
        self.contract_checks += other.contract_checks;
        self.mended += other.mended;
        self.healed += other.healed;
        self.trims += other.trims;
        self.purges += other.purges;
        self.installs += other.installs;
        self.refused_full += other.refused_full;
        self.old_copies += other.old_copies;
        self.replaced += other.replaced;
        self.everywhere += other.everywhere;
    }
}
