//! I16 healing, I17 incidents, I18: whether the run proves anything; and the figures.

use std::collections::BTreeMap;

use super::Requirements;
use super::findings::{At, Findings};
use crate::history::{EventRef, Fault, History, PollAnswer, SendOutcome};
use crate::verdict::{Counts, FaultFigure, Invariant};

/// How long a partition may take to serve again after the last fault, nanoseconds.
pub(crate) const HEALING_NS_MAX: u64 = 30_000_000_000;

pub(crate) fn judge(findings: &mut Findings<'_>, counts: &Counts, requirements: &Requirements) {
    judge_healing(findings);
    judge_incidents(findings);
    findings.checked(Invariant::I18, 1);
    judge_amounts(findings, counts, requirements);
    judge_final_evidence(findings, requirements);
    judge_faults(findings, requirements);
    for invariant in &requirements.judged {
        if !findings.was_checked(*invariant) {
            findings.void(format!("no evidence about {invariant:?} ({})", invariant.name()));
        }
    }
}

fn judge_healing(findings: &mut Findings<'_>) {
    let history = findings.history;
    for (number, healing) in history.healings.iter().enumerate() {
        findings.checked(Invariant::I16, 1);
        let events = [EventRef::Healing(number as u32)];
        let at = At::partition(healing.partition);
        let took = healing.served_ns.map(|served| served.saturating_sub(healing.healed_ns));
        if took.is_none_or(|took| took > HEALING_NS_MAX) {
            let limit = HEALING_NS_MAX / 1_000_000_000;
            let message = || format!("did not serve writes and reads within {limit} s after the last fault");
            findings.flag(Invariant::I16, "does not heal", at, &events, message);
        }
        if healing.leaders != 1 {
            let message = || format!("has {} leaders at rest", healing.leaders);
            findings.flag(Invariant::I16, "not one leader", at, &events, message);
        }
        if healing.memberships != 1 {
            let message = || {
                format!(
                    "its replicas know {} different memberships at rest",
                    healing.memberships
                )
            };
            findings.flag(Invariant::I16, "memberships differ", at, &events, message);
        }
    }
}

fn judge_incidents(findings: &mut Findings<'_>) {
    let history = findings.history;
    if history.incidents_watched {
        findings.checked(Invariant::I17, 1 + history.incidents.len() as u64);
    }
    for (number, incident) in history.incidents.iter().enumerate() {
        let events = [EventRef::Incident(number as u32)];
        let message = || {
            format!(
                "{:?} on {}: {}",
                incident.kind,
                history.node_name(incident.node),
                incident.text
            )
        };
        findings.flag(Invariant::I17, "incident", At::default(), &events, message);
    }
}

fn judge_amounts(findings: &mut Findings<'_>, counts: &Counts, requirements: &Requirements) {
    let amounts = [
        (
            "acknowledged",
            counts.records_acknowledged,
            requirements.acknowledged_min,
        ),
        ("seen by readers", counts.records_read, requirements.read_min),
    ];
    for (what, there, wanted) in amounts {
        if there < wanted {
            findings.void(format!("{there} records were {what}, at least {wanted} are wanted"));
        }
    }
}

/// Loss cannot be seen in a partition of which nobody looked at the end.
fn judge_final_evidence(findings: &mut Findings<'_>, requirements: &Requirements) {
    let history = findings.history;
    let partitions = history.partition_count();
    let mut acknowledged = vec![false; partitions];
    for row in &history.sends {
        acknowledged[row.event.partition as usize] |= matches!(row.event.outcome, SendOutcome::Appended { .. });
    }
    let mut scans = vec![0u64; partitions];
    let mut dumps = vec![0u64; partitions];
    history
        .scans
        .iter()
        .for_each(|row| scans[row.event.partition as usize] += 1);
    let last_dumps = history.dumps.iter().filter(|row| row.event.last);
    last_dumps.for_each(|row| dumps[row.event.partition as usize] += 1);
    for partition in (0..partitions).filter(|partition| acknowledged[*partition]) {
        let (there, wanted) = (scans[partition].max(dumps[partition]), requirements.replicas_min);
        if there < wanted {
            let name = history.partition_name(partition as u32);
            findings.void(format!(
                "{name} was looked at on {there} replicas at the end, at least {wanted} are wanted"
            ));
        }
    }
}

fn judge_faults(findings: &mut Findings<'_>, requirements: &Requirements) {
    let history = findings.history;
    for (kind, wanted) in &requirements.faults {
        let of_kind = history.faults.iter().filter(|fault| fault.kind == *kind);
        let (count, bit) = of_kind.fold((0, 0), |(count, bit), fault| {
            (count + 1, bit + u64::from(fault.bitten > 0))
        });
        if bit < *wanted {
            findings.void(format!(
                "{bit} of {count} faults of kind {kind:?} did something, at least {wanted} are wanted"
            ));
        }
    }
    if requirements.around_fault_min == 0 || requirements.faults.is_empty() {
        return;
    }
    let mut times: Vec<u64> = Vec::new();
    for row in &history.sends {
        if matches!(row.event.outcome, SendOutcome::Appended { .. }) {
            times.push(row.event.span.returned_ns);
        }
    }
    times.sort_unstable();
    let (mut idle, mut counted) = (0u64, 0u64);
    for fault in history.faults.iter().filter(|fault| fault.bitten > 0) {
        counted += 1;
        idle += u64::from(is_idle_around(fault, &times, requirements));
    }
    if idle > 0 {
        let (least, seconds) = (
            requirements.around_fault_min,
            requirements.around_fault_ns / 1_000_000_000,
        );
        findings.void(format!(
            "around {idle} of {counted} faults fewer than {least} sends were acknowledged within {seconds} s before or after"
        ));
    }
}

fn is_idle_around(fault: &Fault, times: &[u64], requirements: &Requirements) -> bool {
    let within = |start: u64, end: u64| {
        let below = |at_ns: u64| times.partition_point(|time| *time < at_ns) as u64;
        below(end).saturating_sub(below(start))
    };
    let window = requirements.around_fault_ns;
    let before = within(fault.begin_ns.saturating_sub(window), fault.begin_ns);
    let after = within(fault.end_ns, fault.end_ns.saturating_add(window));
    before.min(after) < requirements.around_fault_min
}

/// How much there was.
pub(crate) fn count(history: &History) -> Counts {
    let mut counts = Counts {
        sends: history.sends.len() as u64,
        records_sent: history.digests.len() as u64,
        offsets: history.offsets.len() as u64,
        scans: history.scans.len() as u64,
        dumps: history.dumps.len() as u64,
        entries: history.entries.len() as u64,
        promises: (history.promises.len() + history.leaders.len()) as u64,
        ..Counts::default()
    };
    for row in &history.sends {
        let total = match row.event.outcome {
            SendOutcome::Appended { .. } => &mut counts.records_acknowledged,
            SendOutcome::Refused => &mut counts.records_refused,
            SendOutcome::Unknown => &mut counts.records_unknown,
        };
        *total += u64::from(row.count);
    }
    for row in &history.polls {
        match row.event.answer {
            PollAnswer::Failed => counts.reads_failed += 1,
            PollAnswer::Records { .. } | PollAnswer::OutOfRange { .. } => counts.reads += 1,
        }
        counts.records_read += u64::from(row.count);
    }
    counts.records_scanned = history.scans.iter().map(|row| u64::from(row.count)).sum();
    counts
}

/// The faults, by kind.
pub(crate) fn fault_figures(history: &History) -> Vec<FaultFigure> {
    let mut kinds: BTreeMap<_, (u64, u64, BTreeMap<String, u64>)> = BTreeMap::new();
    for fault in &history.faults {
        let (count, bit, effects) = kinds.entry(fault.kind).or_default();
        *count += 1;
        *bit += u64::from(fault.bitten > 0);
        let effect = effects.entry(fault.evidence.clone()).or_default();
        *effect = effect.saturating_add(fault.bitten);
    }
    let figure = |(kind, (count, bit, effects)): (_, (u64, u64, BTreeMap<String, u64>))| FaultFigure {
        kind,
        count,
        bit,
        effects: effects.into_iter().collect(),
    };
    kinds.into_iter().map(figure).collect()
}

/// From the first event of a client to the last, nanoseconds.
pub(crate) fn duration_ns(history: &History) -> u64 {
    let spans = || {
        let sends = history.sends.iter().map(|row| row.event.span);
        let polls = history.polls.iter().map(|row| row.event.span);
        let scans = history.scans.iter().map(|row| row.event.span);
        sends.chain(polls).chain(scans)
    };
    let begin = spans().map(|span| span.invoked_ns).min().unwrap_or(0);
    let end = spans()
        .map(|span| span.returned_ns)
        .filter(|ns| *ns != u64::MAX)
        .max()
        .unwrap_or(0);
    end.saturating_sub(begin)
}
