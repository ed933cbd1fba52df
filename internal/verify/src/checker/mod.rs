//! The checker: from evidence to a verdict, by sorting and scanning.
//!
//! | module | judges |
//! |---|---|
//! | `records` | I2 one value an offset, I3 no duplicates, I12 bytes as sent: every record that anybody told of |
//! | `finals` | I1 nothing acknowledged is lost, I4 no holes, I9 whole batches: the final scans |
//! | `order` | I5 real time, I7 producers |
//! | `fresh` | I6 watermarks and freshness |
//! | `reads` | I8 streams without gap, I11 trimming |
//! | `consumers` | I10 consumer groups |
//! | `replicas` | I15 matching logs, I16 equal at rest, and I1, I4, I9 once more from the replicas' own logs |
//! | `promises` | I13 what a replica acknowledged, I14 votes and leaders, and the quorum of I15 |
//! | `validity` | I16 healing, I17 incidents, I18 whether the run proves anything |
//!
//! One cause is reported under one invariant where that is possible: an offset with two values is I2, and what that
//! observation says about duplicates is not looked at; an acknowledged record missing in a scan is I1, any other hole I4.
//!
//! The checker trusts what recorders say about their own actions and nothing that the cluster told. It allocates by the
//! size of the evidence, never by a number in it: an offset that could only exist if records had been stored many times
//! over is a violation, not a table size.

mod consumers;
mod finals;
mod findings;
mod fresh;
mod order;
mod promises;
mod reads;
mod records;
mod replicas;
mod tables;
mod validity;

use self::findings::Findings;
use self::tables::{Groups, Tables};
use crate::history::{FaultKind, History};
use crate::verdict::{Invariant, Verdict};

/// What a run must have had to count (I18).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirements {
    /// How many records must have been acknowledged.
    pub acknowledged_min: u64,
    /// How many records readers must have seen, final scans aside.
    pub read_min: u64,
    /// How many final scans or final dumps each partition with acknowledged records must have.
    pub replicas_min: u64,
    /// Kinds of faults, and how many of each must have done something.
    pub faults: Vec<(FaultKind, u64)>,
    /// How many sends must have been acknowledged shortly before, and shortly after, each fault that counts.
    pub around_fault_min: u64,
    /// What shortly means, nanoseconds.
    pub around_fault_ns: u64,
    /// Invariants about which there must be evidence.
    pub judged: Vec<Invariant>,
}

impl Default for Requirements {
    /// One acknowledged record, one final scan; no faults.
    fn default() -> Self {
        Self {
            acknowledged_min: 1,
            read_min: 0,
            replicas_min: 1,
            faults: Vec::new(),
            around_fault_min: 0,
            around_fault_ns: 10_000_000_000,
            judged: Vec::new(),
        }
    }
}

/// Judges the evidence of one run. A pure function: the same evidence gives the same verdict.
pub fn check(history: &History, requirements: &Requirements) -> Verdict {
    let mut findings = Findings::new(history);
    let tables = match &history.unusable {
        Some(problem) => Err(format!("the history cannot be judged: {problem}")),
        None => Tables::new(history).map_err(|problem| format!("the history cannot be judged: {problem}")),
    };
    let counts = match tables {
        Ok(tables) => judge(&mut findings, tables),
        Err(problem) => {
            findings.void(problem);
            validity::count(history)
        }
    };
    validity::judge(&mut findings, &counts, requirements);
    findings.into_verdict(counts)
}

fn judge(findings: &mut Findings<'_>, mut tables: Tables) -> crate::verdict::Counts {
    let groups = Groups::new(findings.history);
    records::judge(findings, &mut tables);
    for (partition, group) in groups.partitions.iter().enumerate() {
        let partition = partition as u32;
        finals::judge(findings, &tables, partition, group);
        order::judge(findings, &tables, partition, group);
        fresh::judge(findings, &tables, partition, group);
        reads::judge(findings, partition, group);
        consumers::judge(findings, partition, group);
        replicas::judge(findings, &tables, partition, group);
        promises::judge(findings, partition, group);
    }
    let mut counts = validity::count(findings.history);
    counts.records_unknown_found = finals::unknown_found(findings.history, &tables);
    counts
}
