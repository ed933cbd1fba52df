//! What needs attention, in words: from what was seen of a cluster to sentences that say what is, what it means, and what to do.
//!
//! A pure function, so that the console and `highwater top` say the same, and that each sentence can be tested. What concerns many partitions
//! alike is one finding with some examples: a thousand lines would hide the one that counts.
//!
//! Deliberately absent: where what was seen comes from, and alarms that remember what was so before; Prometheus has those.

mod nodes;
mod partitions;
#[cfg(test)]
mod tests;

use serde::Serialize;

/// Free below this part of the whole, a disk is told of before the node itself says that it is low.
const DISK_FREE_PERCENT_LEAST: u64 = 15;
/// Partitions that a finding names; of others it gives the number.
const EXAMPLES_MAX: usize = 3;
/// A replica that lacks so many records is told of.
const LAG_RECORDS_MAX: u64 = 100_000;

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something does not work, or data is at risk: now.
    Critical,
    /// It works, but one more failure may be too much: soon.
    Warning,
    /// Good to know.
    Notice,
}

/// One thing that needs attention.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about, in a word or two, such as a node's name.
    pub about: String,
    /// What is.
    pub what: String,
    /// What it means.
    pub meaning: String,
    /// What to do.
    pub action: String,
}

/// A cluster as one node saw it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// Who saw it.
    pub by: String,
    /// Who leads the catalog; empty: nobody that is known.
    pub catalog_leader: String,
    /// The members of the cluster.
    pub nodes: Vec<NodeSeen>,
    /// The partitions that are known.
    pub partitions: Vec<PartitionSeen>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Whether it is heard of.
    pub alive: bool,
    /// Whether its replica of the catalog votes.
    pub votes: bool,
    /// Why it is not ready, in its own words; empty if it is.
    pub not_ready: String,
    /// What else it has to say.
    pub notices: Vec<String>,
    /// Its disk, if it told.
    pub disk: Option<DiskSeen>,
    /// It is on its way out of the cluster.
    pub leaving: bool,
    /// An operator keeps leaderships away from it.
    pub drained: bool,
}

/// The disk of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskSeen {
    /// Free, bytes.
    pub free_bytes: u64,
    /// In all, bytes.
    pub total_bytes: u64,
    /// The node calls it low.
    pub low: bool,
    /// The node takes no records.
    pub full: bool,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionSeen {
    /// `tenant/topic`.
    pub topic: String,
    /// Its number.
    pub partition: u32,
    /// Who leads it; empty: nobody that is known.
    pub leader: String,
    /// Where its replicas are placed.
    pub replicas: Vec<ReplicaSeen>,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReplicaSeen {
    /// On which node.
    pub node: String,
    /// What it said to be; empty: it said nothing.
    pub role: String,
    /// How many records it lacks, if that is known.
    pub lag_records: Option<u64>,
    /// Entries that are damaged there and wait for another replica's.
    pub damaged_entries: u64,
    /// Some of them are damaged on every replica.
    pub damaged_everywhere: bool,
}

/// Whether a replica of this role is there and takes part.
pub fn takes_part(role: &str) -> bool {
    ["leader", "follower", "candidate", "learner"].contains(&role)
}

/// All that needs attention, what matters most first.
pub fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    nodes::look(seen, &mut findings);
    partitions::look(seen, &mut findings);
    findings.sort_by_key(|finding| finding.severity); // stable: the order of looking stays
    findings
}

fn finding(severity: Severity, about: &str, [what, meaning, action]: [String; 3]) -> Finding {
    Finding {
        severity,
        about: about.to_owned(),
        what,
        meaning,
        action,
    }
}

/// A number with its noun: `1 partition`, `3 partitions`.
fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}
