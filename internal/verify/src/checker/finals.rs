//! I1, I4, I9: what the final scans must hold.
//!
//! * A scan holds every offset from its log start to its end. A missing one that was acknowledged is lost (I1); any other
//!   is a hole (I4).
//! * What was acknowledged at or above a scan's end is lost on that replica (I1).
//! * Scans of a partition end at the same offset (I16), unless that difference is already a loss.
//! * Of a batch of unknown outcome, all records are next to each other, or none is there (I9). What lies below the log
//!   start may be gone. A torn batch that was acknowledged is a loss.

use super::findings::{At, Findings};
use super::tables::{Extent, Group, Slot, Tables};
use crate::history::{EventRef, History, Pooled, Send, SendOutcome};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group) {
    let mut lost = false;
    for number in &group.scans {
        lost |= judge_scan(findings, tables, partition, *number);
    }
    if let Some(last) = group.last {
        if !lost {
            judge_ends(findings, partition, group, last);
        }
        judge_batches(findings, tables, partition, group, last);
    }
}

/// Whether acknowledged records are missing.
fn judge_scan(findings: &mut Findings<'_>, tables: &Tables, partition: u32, number: u32) -> bool {
    let history = findings.history;
    let row = &history.scans[number as usize];
    let scan = row.event;
    let event = EventRef::Scan(number);
    findings.checked(Invariant::I4, u64::from(row.count));
    findings.checked(Invariant::I8, u64::from(row.count));
    let mut due = scan.log_start;
    let mut lost = false;
    for seen in history.seen_of(row) {
        if seen.offset < due {
            let at = At::partition(partition).offset(seen.offset);
            let message = || format!("a scan that was due at {due} came to {}", seen.offset);
            findings.flag(Invariant::I8, "scan out of order", at, &[event], message);
            continue;
        }
        lost |= judge_hole(findings, tables, partition, (due, seen.offset), event);
        due = seen.offset.saturating_add(1);
    }
    lost |= judge_hole(findings, tables, partition, (due, scan.end), event);
    let acknowledged = tables.slots_in(partition, scan.log_start, u64::MAX);
    let acknowledged = acknowledged.filter(|(_, slot)| Slot::is_acknowledged(slot)).count();
    findings.checked(Invariant::I1, acknowledged as u64);
    let beyond = scan.end.max(due);
    lost | (flag_lost(findings, tables, partition, (beyond, u64::MAX), event) > 0)
}

/// Judges offsets (end exclusive) that a scan passed over. Whether acknowledged records are among them.
fn judge_hole(
    findings: &mut Findings<'_>,
    tables: &Tables,
    partition: u32,
    (start, end): (u64, u64),
    event: EventRef,
) -> bool {
    if start >= end {
        return false;
    }
    let lost = flag_lost(findings, tables, partition, (start, end), event);
    if lost < end - start {
        let at = At::partition(partition).offset(start);
        let message = || format!("of the offsets {start}..{end} {} are not there", end - start - lost);
        findings.flag(Invariant::I4, "hole", at, &[event], message);
    }
    lost > 0
}

/// Flags what was acknowledged in a range (end exclusive) that a scan does not have; how many that is.
fn flag_lost(
    findings: &mut Findings<'_>,
    tables: &Tables,
    partition: u32,
    (start, end): (u64, u64),
    event: EventRef,
) -> u64 {
    let mut lost = 0;
    for (offset, slot) in tables.slots_in(partition, start, end) {
        let Some(slot) = slot.filter(|slot| matches!(slot.source, EventRef::Send(_))) else {
            continue;
        };
        lost += 1;
        let at = At::partition(partition).offset(offset);
        let message = || format!("{} was acknowledged at {offset} and is not there", slot.id);
        findings.flag(Invariant::I1, "lost write", at, &[slot.source, event], message);
    }
    lost
}

fn judge_ends(findings: &mut Findings<'_>, partition: u32, group: &Group, last: Extent) {
    let history = findings.history;
    let [first, others @ ..] = group.scans.as_slice() else {
        return;
    };
    findings.checked(Invariant::I16, others.len() as u64);
    let shortest = group
        .scans
        .iter()
        .min_by_key(|number| history.scans[**number as usize].event.end);
    let longest = group
        .scans
        .iter()
        .max_by_key(|number| history.scans[**number as usize].event.end);
    let (shortest, longest) = (*shortest.unwrap_or(first), *longest.unwrap_or(first));
    let end = history.scans[shortest as usize].event.end;
    if end != last.end {
        let at = At::partition(partition).offset(end);
        let message = || format!("at rest one replica ends at {end}, another at {}", last.end);
        let events = [EventRef::Scan(shortest), EventRef::Scan(longest)];
        findings.flag(Invariant::I16, "replicas differ", at, &events, message);
    }
}

fn judge_batches(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group, last: Extent) {
    let history = findings.history;
    for number in &group.sends {
        let row = &history.sends[*number as usize];
        if row.count < 2 || row.event.outcome != SendOutcome::Unknown {
            continue;
        }
        findings.checked(Invariant::I9, 1);
        if let Some((offset, problem)) = torn(tables, row, last) {
            let at = At::partition(partition).offset(offset);
            findings.flag(Invariant::I9, "torn batch", at, &[EventRef::Send(*number)], || problem);
        }
    }
}

/// Where and how a batch is torn, if it is.
fn torn(tables: &Tables, row: &Pooled<Send>, last: Extent) -> Option<(u64, String)> {
    let places = 0..row.count;
    let (first_place, first_offset) = places
        .clone()
        .find_map(|place| tables.offset_of(&row.event, place).map(|offset| (place, offset)))?;
    for place in places {
        let due = first_offset
            .wrapping_sub(u64::from(first_place))
            .wrapping_add(u64::from(place));
        match tables.offset_of(&row.event, place) {
            Some(offset) if offset != due => {
                let problem = format!("record {place} of {} is at {offset}, due at {due}", row.count);
                return Some((offset, problem));
            }
            None if (last.start..u64::MAX).contains(&due) => {
                let problem = format!(
                    "record {first_place} of {} is at {first_offset}, record {place} nowhere",
                    row.count
                );
                return Some((due, problem));
            }
            _ => {}
        }
    }
    None
}

/// How many records of unknown outcome were found.
pub(crate) fn unknown_found(history: &History, tables: &Tables) -> u64 {
    let unknown = history
        .sends
        .iter()
        .filter(|row| row.event.outcome == SendOutcome::Unknown);
    unknown
        .map(|row| {
            (0..row.count)
                .filter(|place| tables.offset_of(&row.event, *place).is_some())
                .count() as u64
        })
        .sum()
}
