//! I13, I14, and the quorum of I15: what replicas promised, against what they hold later.
//!
//! * I13: a replica that starts again holds everything that it acknowledged. A truncation takes back an acknowledgement only
//!   on the word of a leader of a later term than the entries that it cuts. This is the sharpest rule there is for a
//!   missing sync: a quorum hides the loss of one replica from every client, not from this.
//! * I14: a replica votes once in a term, its term and vote never go back, restarts included; one that is dead does not
//!   speak; a term has one leader.
//! * I15: what is first said to be committed is held, by their own acknowledgements, by a quorum.
//!
//! All promises of a partition are read once, in order of time.

use std::collections::BTreeMap;

use super::findings::{At, Findings};
use super::tables::Group;
use crate::history::{EventRef, Promise, PromiseKind};
use crate::verdict::Invariant;

/// An acknowledgement that still binds.
#[derive(Debug, Clone, Copy)]
struct Acked {
    index_end: u64,
    term: u64,
    event: EventRef,
}

/// What one replica is bound to.
#[derive(Debug, Default)]
struct Bound {
    /// Rising in index and term.
    acked: Vec<Acked>,
    /// The highest term that it knew, and how that is known.
    term: Option<(u64, EventRef)>,
    /// The candidate that has its vote in that term.
    vote: Option<(u64, u64, EventRef)>,
    died: Option<EventRef>,
}

pub(crate) fn judge(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    judge_leaders(findings, partition, group);
    let history = findings.history;
    let mut numbers = group.promises.clone();
    numbers.sort_by_key(|number| history.promises[*number as usize].at_ns);
    let mut replicas: BTreeMap<u64, Bound> = BTreeMap::new();
    let mut published_end = 0;
    for number in numbers {
        let promise = history.promises[number as usize];
        let event = EventRef::Promise(number);
        if let PromiseKind::Published { index_end, quorum } = promise.kind {
            if index_end > published_end {
                published_end = index_end;
                judge_quorum(findings, &replicas, promise, (index_end, quorum), event);
            }
            continue;
        }
        let bound = replicas.entry(promise.replica).or_default();
        judge_life(findings, bound, promise, event);
        match promise.kind {
            PromiseKind::Acked { index_end, term } => bound.acknowledge(findings, promise, (index_end, term), event),
            PromiseKind::Voted { term, candidate } => bound.vote(findings, promise, (term, candidate), event),
            PromiseKind::Truncated { index_end, leader_term } => {
                bound.truncate(findings, promise, (index_end, leader_term), event);
            }
            PromiseKind::Restarted { .. } => bound.restart(findings, promise, event),
            PromiseKind::Died => bound.died = Some(event),
            PromiseKind::Published { .. } => {}
        }
    }
}

fn at(promise: Promise) -> At {
    At::partition(promise.partition).replica(promise.replica)
}

fn judge_leaders(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let mut numbers = group.leaders.clone();
    numbers.sort_by_key(|number| (history.leaders[*number as usize].term, *number));
    findings.checked(Invariant::I14, numbers.len() as u64);
    let term_of = |number: &u32| history.leaders[*number as usize].term;
    for term in numbers.chunk_by(|one, other| term_of(one) == term_of(other)) {
        let replica_of = |number: &u32| history.leaders[*number as usize].replica;
        let [first, others @ ..] = term else { continue };
        let Some(other) = others.iter().find(|other| replica_of(other) != replica_of(first)) else {
            continue;
        };
        let place = At::partition(partition).replica(replica_of(other));
        let message = || {
            format!(
                "{} and {} both lead in term {}",
                replica_of(first),
                replica_of(other),
                term_of(first)
            )
        };
        findings.flag(
            Invariant::I14,
            "two leaders",
            place,
            &[EventRef::Leader(*first), EventRef::Leader(*other)],
            message,
        );
    }
}

fn judge_quorum(
    findings: &mut Findings<'_>,
    replicas: &BTreeMap<u64, Bound>,
    promise: Promise,
    (index_end, quorum): (u64, u32),
    event: EventRef,
) {
    findings.checked(Invariant::I15, 1);
    let holds = |bound: &&Bound| bound.acked.last().is_some_and(|acked| acked.index_end >= index_end);
    let holding = replicas.values().filter(holds).count();
    if holding < quorum as usize {
        let message =
            || format!("all below {index_end} is said to be committed, {holding} of {quorum} replicas hold it");
        let place = at(promise).index(index_end);
        findings.flag(Invariant::I15, "committed without a quorum", place, &[event], message);
    }
}

/// The dead do not speak.
fn judge_life(findings: &mut Findings<'_>, bound: &Bound, promise: Promise, event: EventRef) {
    let speaks = matches!(promise.kind, PromiseKind::Acked { .. } | PromiseKind::Voted { .. });
    if let Some(died) = bound.died.filter(|_| speaks) {
        let message = || "a dead replica still acknowledges or votes".to_owned();
        findings.flag(
            Invariant::I14,
            "dead replica speaks",
            at(promise),
            &[died, event],
            message,
        );
    }
}

impl Bound {
    fn acknowledge(
        &mut self,
        findings: &mut Findings<'_>,
        promise: Promise,
        (index_end, term): (u64, u64),
        event: EventRef,
    ) {
        findings.checked(Invariant::I13, 1);
        if self.acked.last().is_none_or(|last| index_end > last.index_end) {
            // What it says of a newer term covers what it said before at the same term.
            self.acked.retain(|acked| acked.term < term);
            self.acked.push(Acked { index_end, term, event });
        }
        if self.term.is_none_or(|(known, _)| term > known) {
            self.term = Some((term, event));
        }
        debug_assert!(
            self.acked.is_sorted_by_key(|acked| acked.index_end),
            "{:?} of {promise:?}",
            self.acked
        );
    }

    fn vote(&mut self, findings: &mut Findings<'_>, promise: Promise, (term, candidate): (u64, u64), event: EventRef) {
        findings.checked(Invariant::I14, 1);
        if let Some((known, before)) = self.term.filter(|(known, _)| term < *known) {
            let message = || format!("votes in term {term} after it knew of term {known}");
            findings.flag(Invariant::I14, "term fell", at(promise), &[before, event], message);
            return;
        }
        if let Some((_, other, before)) = self
            .vote
            .filter(|(voted, other, _)| *voted == term && *other != candidate)
        {
            let message = || format!("votes in term {term} for {candidate}, and before for {other}");
            findings.flag(Invariant::I14, "two votes", at(promise), &[before, event], message);
        }
        self.term = Some((term, event));
        self.vote = Some((term, candidate, event));
    }

    fn truncate(
        &mut self,
        findings: &mut Findings<'_>,
        promise: Promise,
        (index_end, leader_term): (u64, u64),
        event: EventRef,
    ) {
        findings.checked(Invariant::I13, 1);
        while let Some(last) = self.acked.last().copied().filter(|last| last.index_end > index_end) {
            if last.term >= leader_term {
                let message = || {
                    format!(
                        "cut to {index_end} for a leader of term {leader_term}, after it acknowledged {} of term {}",
                        last.index_end, last.term
                    )
                };
                findings.flag(
                    Invariant::I13,
                    "cut without proof",
                    at(promise).index(index_end),
                    &[last.event, event],
                    message,
                );
            }
            self.acked.pop();
            // What lies below the cut is still promised, whichever term it is of.
            if self.acked.last().is_none_or(|below| below.index_end < index_end) && index_end > 0 {
                let term = self.acked.last().map_or(0, |below| below.term);
                let kept = Acked {
                    index_end,
                    term,
                    event: last.event,
                };
                self.acked.push(kept);
            }
        }
    }

    fn restart(&mut self, findings: &mut Findings<'_>, promise: Promise, event: EventRef) {
        let PromiseKind::Restarted {
            index_end,
            last_term,
            vote_term,
            voted_for,
        } = promise.kind
        else {
            return;
        };
        findings.checked(Invariant::I13, 1);
        findings.checked(Invariant::I14, 1);
        if let Some(acked) = self.acked.last().copied()
            && (index_end < acked.index_end || last_term < acked.term)
        {
            let message = || {
                let (said, term) = (acked.index_end, acked.term);
                format!(
                    "acknowledged all below {said} (term {term}), came back with all below {index_end} (term {last_term})"
                )
            };
            let place = at(promise).index(index_end);
            findings.flag(
                Invariant::I13,
                "acknowledged and lost",
                place,
                &[acked.event, event],
                message,
            );
            // Told once; from here on it is bound to what it has.
            self.acked.retain(|acked| acked.index_end <= index_end);
        }
        if let Some((known, before)) = self.term.filter(|(known, _)| vote_term < *known) {
            let message = || format!("knew of term {known}, came back in term {vote_term}");
            findings.flag(Invariant::I14, "vote lost", at(promise), &[before, event], message);
        } else if let Some((term, candidate, before)) = self.vote
            && term == vote_term
            && voted_for != Some(candidate)
        {
            let message = || format!("voted in term {term} for {candidate}, came back with {voted_for:?}");
            findings.flag(Invariant::I14, "vote lost", at(promise), &[before, event], message);
        }
        self.term = Some((vote_term, event));
        self.vote = voted_for.map(|candidate| (vote_term, candidate, event));
    }
}
