//! I15, I16, and I1, I4, I9 once more: the logs of the replicas.
//!
//! * In one log indexes follow each other and terms never fall (I15); base offsets continue where the entry before ended,
//!   so offsets are dense (I4).
//! * Two entries of the same index and term are the same entry, chain included, so everything before them is the same
//!   too (log matching); two entries of the same index that are both committed have the same term (I15). This holds over
//!   all dumps, of all replicas and times: what was committed in an early one is not another entry in a late one.
//!   Leader completeness is judged by this consequence: a leader that lacked a committed entry would put another one there.
//! * The last dumps end with the same entry and the same chain (I16), and hold everything acknowledged (I1); a batch that
//!   was acknowledged on the wire is one entry (I9).

use super::findings::{At, Findings};
use super::tables::{Group, Slot, Tables};
use crate::history::{Dump, EventRef, LogEntry, Numbering, Pooled, SendOutcome};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group) {
    for number in &group.dumps {
        judge_inside(findings, partition, *number);
    }
    judge_matching(findings, partition, group);
    let history = findings.history;
    let is_last = |number: &&u32| history.dumps[**number as usize].event.last;
    let last: Vec<u32> = group.dumps.iter().filter(is_last).copied().collect();
    judge_equal(findings, partition, &last);
    for number in last {
        judge_acknowledged(findings, tables, partition, group, number);
    }
}

fn judge_inside(findings: &mut Findings<'_>, partition: u32, number: u32) {
    let history = findings.history;
    let row = &history.dumps[number as usize];
    let entries = history.entries_of(row);
    findings.checked(Invariant::I15, entries.len() as u64);
    findings.checked(Invariant::I4, entries.len() as u64);
    let at = At::partition(partition).replica(row.event.replica);
    for pair in entries.windows(2) {
        let [one, next] = pair else { continue };
        let at = at.index(next.index);
        let events = [EventRef::Dump(number)];
        if Some(next.index) != one.index.checked_add(1) || next.term < one.term {
            let (before, after) = (name(one), name(next));
            let message = || format!("entry {after} follows entry {before}");
            findings.flag(Invariant::I15, "broken log", at, &events, message);
            return;
        }
        let due = one.base_offset.saturating_add(u64::from(one.record_count));
        if next.base_offset != due {
            let message = || {
                format!(
                    "entry {} begins at offset {}, due at {due}",
                    name(next),
                    next.base_offset
                )
            };
            findings.flag(Invariant::I4, "offsets not dense", at.offset(due), &events, message);
            return;
        }
    }
    let end = entries
        .last()
        .map_or(row.event.committed_end, |entry| entry.index.saturating_add(1));
    if row.event.committed_end > end {
        let message = || {
            format!(
                "committed below {} by its own word, but it ends at {end}",
                row.event.committed_end
            )
        };
        findings.flag(
            Invariant::I15,
            "committed and missing",
            at.index(end),
            &[EventRef::Dump(number)],
            message,
        );
    }
}

/// Term and index, as Raft names an entry.
fn name(entry: &LogEntry) -> String {
    format!("{}.{}", entry.term, entry.index)
}

/// An entry of some dump.
struct Dumped {
    entry: LogEntry,
    dump: u32,
    committed: bool,
}

fn judge_matching(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let mut all = Vec::new();
    for number in &group.dumps {
        let row = &history.dumps[*number as usize];
        all.extend(history.entries_of(row).iter().map(|entry| Dumped {
            entry: *entry,
            dump: *number,
            committed: entry.index < row.event.committed_end,
        }));
    }
    all.sort_by_key(|dumped| (dumped.entry.index, dumped.entry.term, dumped.dump));
    let mut flagged = 0;
    for same_index in all.chunk_by(|one, other| one.entry.index == other.entry.index) {
        let differing = same_index.windows(2).find_map(|pair| match pair {
            [one, other] if one.entry.term == other.entry.term && one.entry != other.entry => Some((one, other)),
            _ => None,
        });
        if let Some((one, other)) = differing {
            flag_pair(findings, partition, "logs do not match", one, other);
            flagged += 1;
        }
        let mut committed = same_index.iter().filter(|dumped| dumped.committed);
        let first = committed.next();
        let other = committed.find(|other| first.is_some_and(|first| first.entry.term != other.entry.term));
        if let (Some(first), Some(other)) = (first, other) {
            flag_pair(findings, partition, "committed entry changed", first, other);
            flagged += 1;
        }
        if flagged > 1 {
            return; // Behind the first difference everything differs.
        }
    }
}

fn flag_pair(findings: &mut Findings<'_>, partition: u32, what: &'static str, one: &Dumped, other: &Dumped) {
    let at = At::partition(partition)
        .index(one.entry.index)
        .offset(one.entry.base_offset);
    let events = [EventRef::Dump(one.dump), EventRef::Dump(other.dump)];
    let message = || format!("entry {:?} against {:?}", one.entry, other.entry);
    findings.flag(Invariant::I15, what, at, &events, message);
}

fn judge_equal(findings: &mut Findings<'_>, partition: u32, last: &[u32]) {
    let history = findings.history;
    let [first, others @ ..] = last else { return };
    let end_of = |number: u32| {
        let row = &history.dumps[number as usize];
        let entry = history.entries_of(row).last();
        entry.map(|entry| (entry.index, entry.term, entry.chain))
    };
    let end = end_of(*first);
    for other in others {
        findings.checked(Invariant::I16, 1);
        if end_of(*other) != end {
            let at = At::partition(partition).replica(history.dumps[*other as usize].event.replica);
            let message = || "at rest two replicas do not end with the same entry".to_owned();
            findings.flag(
                Invariant::I16,
                "replicas differ",
                at,
                &[EventRef::Dump(*first), EventRef::Dump(*other)],
                message,
            );
        }
    }
}

fn judge_acknowledged(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group, number: u32) {
    let history = findings.history;
    let row = &history.dumps[number as usize];
    let entries = history.entries_of(row);
    let end = entries.last().map_or(0, |entry| {
        entry.base_offset.saturating_add(u64::from(entry.record_count))
    });
    let start = entries.first().map_or(0, |entry| entry.base_offset);
    let dump = EventRef::Dump(number);
    let acknowledged = tables.slots_in(partition, 0, u64::MAX);
    let acknowledged = acknowledged.filter(|(_, slot)| Slot::is_acknowledged(slot)).count();
    findings.checked(Invariant::I1, acknowledged as u64);
    for (offset, slot) in tables.slots_in(partition, end, u64::MAX) {
        let Some(slot) = slot.filter(|slot| matches!(slot.source, EventRef::Send(_))) else {
            continue;
        };
        let at = At::partition(partition).offset(offset).replica(row.event.replica);
        let message = || format!("{} was acknowledged at {offset}, this replica ends at {end}", slot.id);
        findings.flag(Invariant::I1, "lost write", at, &[slot.source, dump], message);
    }
    judge_entries(findings, partition, group, (row, dump), (start, end));
}

/// A batch that was acknowledged on the wire is one entry, here too.
fn judge_entries(
    findings: &mut Findings<'_>,
    partition: u32,
    group: &Group,
    (dump_row, dump): (&Pooled<Dump>, EventRef),
    (start, end): (u64, u64),
) {
    let history = findings.history;
    let entries = history
        .entries_of(dump_row)
        .iter()
        .filter(|entry| entry.record_count > 0);
    let batches: Vec<(u64, u32)> = entries.map(|entry| (entry.base_offset, entry.record_count)).collect();
    for number in &group.sends {
        let row = &history.sends[*number as usize];
        let SendOutcome::Appended { base_offset } = row.event.outcome else {
            continue;
        };
        if row.event.numbering != Numbering::Wire || !(start..end).contains(&base_offset) {
            continue;
        }
        findings.checked(Invariant::I9, 1);
        if batches.binary_search(&(base_offset, row.count)).is_err() {
            let at = At::partition(partition)
                .offset(base_offset)
                .replica(dump_row.event.replica);
            let message = || format!("no entry holds exactly the {} records from {base_offset} on", row.count);
            findings.flag(
                Invariant::I9,
                "torn batch",
                at,
                &[EventRef::Send(*number), dump],
                message,
            );
        }
    }
}
