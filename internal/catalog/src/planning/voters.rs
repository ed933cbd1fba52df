//! Which nodes should vote in the catalog's group.
//!
//! An even number of voters stands no more failures than one voter less, and many make every change of the catalog slow;
//! so there are 1, 3 or 5, as many as the cluster has nodes for. A vote moves only if there is a reason: its node leaves
//! or is gone, or another rack would have none. Nobody loses the vote for nothing in exchange, except when the cluster
//! itself has become smaller.

use std::collections::BTreeSet;

use crate::catalog::Catalog;
use crate::model::Node;
use crate::planning::View;

/// How many may vote, the most first.
const SIZES: [usize; 3] = [5, 3, 1];

/// Why somebody may vote; the best reason first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Merit {
    /// On a node that stays. Either it votes already and is not gone, or it could begin to.
    Good,
    /// It votes and its node is gone: it keeps its vote until there is somebody for it.
    Gone,
    /// It votes and its node is leaving: likewise.
    Leaving,
    /// It votes and will never run again: likewise.
    Lost,
}

#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    merit: Merit,
    is_new: bool,
    rack: &'a str,
    replica_id: u64,
}

impl Catalog {
    /// The catalog replicas that should vote, in ascending order; None if it is those that do, `voters`.
    ///
    /// There are 5, 3 or 1, at most one for each node that is not leaving, on as many racks as possible, and those that
    /// vote already before others. New voters are only replicas that have run, on usable nodes; where there are too few,
    /// nodes that are gone or leaving keep their votes. A node that is away for less than the grace keeps its vote, unless a
    /// rack without one can have it. At least one of the answer votes already: where all shall go, one stays at first, in addition.
    pub fn plan_catalog_voters(&self, voters: &[u64], view: &View) -> Option<Vec<u64>> {
        let now: BTreeSet<u64> = voters.iter().copied().collect();
        let mut chosen: Vec<Candidate> = Vec::new();
        let mut others = self.candidates(&now, view);
        let staying = self.members().filter(|node| node.is_placeable()).count();
        let size = size_for(staying.min(others.len()));
        while chosen.len() < size
            && let Some(next) = take_best(&mut others, &chosen)
        {
            chosen.push(next);
        }
        let stays = |candidate: &&Candidate| !candidate.is_new;
        if !chosen.iter().any(|candidate| !candidate.is_new) {
            let witness = others.iter().filter(stays).min_by_key(|it| (it.merit, it.replica_id));
            chosen.push(*witness?);
        }
        let wanted: BTreeSet<u64> = chosen.iter().map(|candidate| candidate.replica_id).collect();
        (wanted != now).then(|| wanted.into_iter().collect())
    }

    fn candidates(&self, now: &BTreeSet<u64>, view: &View) -> Vec<Candidate<'_>> {
        let mut candidates: Vec<Candidate> = self.members().filter_map(|node| candidate(node, now, view)).collect();
        let known: BTreeSet<u64> = candidates.iter().map(|candidate| candidate.replica_id).collect();
        let lost = now.difference(&known).map(|replica_id| Candidate {
            merit: Merit::Lost,
            is_new: false,
            rack: "",
            replica_id: *replica_id,
        });
        candidates.extend(lost);
        candidates
    }
}

/// None if the node neither votes nor could begin to.
fn candidate<'a>(node: &'a Node, now: &BTreeSet<u64>, view: &View) -> Option<Candidate<'a>> {
    let name = node.name.as_str();
    let is_new = !now.contains(&node.catalog_replica_id);
    let is_gone = view.gone.contains(name);
    let may_begin = node.is_placeable() && !is_gone && node.catalog_replica_started && view.usable.contains(name);
    let merit = match node.is_placeable() {
        true if is_gone => Merit::Gone,
        true => Merit::Good,
        false => Merit::Leaving,
    };
    (!is_new || may_begin).then_some(Candidate {
        merit,
        is_new,
        rack: &node.rack,
        replica_id: node.catalog_replica_id,
    })
}

fn size_for(nodes: usize) -> usize {
    SIZES.into_iter().find(|size| *size <= nodes).unwrap_or_default()
}

/// The candidate that adds most to those that are chosen.
fn take_best<'a>(others: &mut Vec<Candidate<'a>>, chosen: &[Candidate<'a>]) -> Option<Candidate<'a>> {
    let rank = |candidate: &Candidate| {
        let rack_uses = chosen.iter().filter(|other| other.rack == candidate.rack).count();
        let Candidate {
            merit,
            is_new,
            replica_id,
            ..
        } = *candidate;
        (merit, rack_uses > 0, is_new, rack_uses, replica_id)
    };
    let best = (0..others.len()).min_by_key(|at| rank(&others[*at]))?;
    Some(others.swap_remove(best))
}
