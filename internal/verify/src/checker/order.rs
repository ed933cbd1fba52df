//! I5, I7: the order of what was sent.
//!
//! * I5: if a send was acknowledged before another began, it has the lower offset.
//! * I7, for batches on the wire: those of one producer that are in the log stand in the order of their sequences, and none
//!   whose outcome is unknown is missing below one that is there. (Judged where nothing was trimmed, since a missing
//!   batch may have been.) For calls to the library: the acknowledged ones stand in order.

use super::findings::{At, Findings};
use super::tables::{Floors, Group, Tables, acknowledged};
use crate::history::{EventRef, History, Numbering, SendOutcome};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group) {
    judge_real_time(findings, partition, group);
    judge_producers(findings, tables, partition, group);
}

fn judge_real_time(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let floors = Floors::new(acknowledged(history, group));
    for number in &group.sends {
        let send = &history.sends[*number as usize].event;
        let SendOutcome::Appended { base_offset } = send.outcome else {
            continue;
        };
        findings.checked(Invariant::I5, 1);
        let Some(floor) = floors.before(send.span.invoked_ns) else {
            continue;
        };
        if base_offset < floor.end {
            let at = At::partition(partition).offset(base_offset);
            let message = || {
                format!(
                    "sent when the log already reached to {}, and yet at {base_offset}",
                    floor.end
                )
            };
            findings.flag(
                Invariant::I5,
                "order in real time",
                at,
                &[floor.event, EventRef::Send(*number)],
                message,
            );
        }
    }
}

/// A producer's send, and where it is.
struct Sequenced {
    producer: u32,
    sequence: u64,
    send: u32,
    /// First offset and exclusive end, if it is in the log.
    found: Option<(u64, u64)>,
}

fn judge_producers(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group) {
    let history = findings.history;
    let numbers = group.sends.iter();
    let mut sends: Vec<Sequenced> = numbers
        .filter_map(|number| sequenced(history, tables, *number))
        .collect();
    sends.sort_by_key(|send| (send.producer, send.sequence));
    findings.checked(Invariant::I7, sends.len() as u64);
    let untrimmed = group.last.is_some_and(|last| last.start == 0);
    for producer in sends.chunk_by(|one, other| one.producer == other.producer) {
        judge_producer(findings, partition, producer, untrimmed);
    }
}

/// A send whose place in its producer's order says something.
fn sequenced(history: &History, tables: &Tables, number: u32) -> Option<Sequenced> {
    let row = &history.sends[number as usize];
    let start = match (row.event.outcome, row.event.numbering) {
        (SendOutcome::Appended { base_offset }, _) => Some(base_offset),
        (SendOutcome::Unknown, Numbering::Wire) => tables.offset_of(&row.event, 0),
        (SendOutcome::Unknown, Numbering::Calls) | (SendOutcome::Refused, _) => return None,
    };
    Some(Sequenced {
        producer: row.event.producer,
        sequence: row.event.sequence,
        send: number,
        found: start.map(|start| (start, start.saturating_add(u64::from(row.count)))),
    })
}

fn judge_producer(findings: &mut Findings<'_>, partition: u32, sends: &[Sequenced], untrimmed: bool) {
    let mut before: Option<(&Sequenced, u64)> = None;
    let mut missing: Option<&Sequenced> = None;
    for send in sends {
        let Some((start, end)) = send.found else {
            missing = missing.or(Some(send));
            continue;
        };
        let at = At::partition(partition).offset(start);
        if let Some(skipped) = missing.take().filter(|_| untrimmed) {
            let events = [EventRef::Send(skipped.send), EventRef::Send(send.send)];
            let message = || {
                let producer = send.producer;
                format!(
                    "sequence {} of producer {producer} is missing before {}",
                    skipped.sequence, send.sequence
                )
            };
            findings.flag(Invariant::I7, "skipped sequence", at, &events, message);
        }
        if let Some((earlier, earlier_end)) = before.filter(|(_, earlier_end)| start < *earlier_end) {
            let events = [EventRef::Send(earlier.send), EventRef::Send(send.send)];
            let message = || {
                let (first, second) = (earlier.sequence, send.sequence);
                format!("sequence {first} ends at {earlier_end}, but sequence {second} is at {start}")
            };
            findings.flag(Invariant::I7, "order of a producer", at, &events, message);
        }
        before = Some((send, end));
    }
}
