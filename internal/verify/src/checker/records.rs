//! I2, I3, I12: every record that an acknowledgement, a read or a scan told of.
//!
//! Observations are taken in this order: acknowledgements, final scans, reads. The first one fills the slot of its offset
//! and the place of its record; later ones must agree. An offset that holds another value is I2 alone. A record that
//! nobody sent, or whose bytes differ, is I12; one at a second offset, in a foreign partition, or refused is I3.

use super::findings::{At, Findings};
use super::tables::{NOWHERE, Slot, Tables};
use crate::history::{EventRef, RecordId, Seen, SendOutcome};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, tables: &mut Tables) {
    let history = findings.history;
    for (number, row) in history.sends.iter().enumerate() {
        let SendOutcome::Appended { base_offset } = row.event.outcome else {
            continue;
        };
        let event = EventRef::Send(number as u32);
        for (place, digest) in (0u32..).zip(history.digests_of(row)) {
            let seen = Seen {
                offset: base_offset.saturating_add(u64::from(place)),
                id: RecordId {
                    producer: row.event.producer,
                    number: row.event.first_number + place,
                },
                digest: *digest,
            };
            observe(findings, tables, row.event.partition, seen, event);
        }
    }
    for (number, row) in history.scans.iter().enumerate() {
        let event = EventRef::Scan(number as u32);
        for seen in history.seen_of(row) {
            observe(findings, tables, row.event.partition, *seen, event);
        }
    }
    for (number, row) in history.polls.iter().enumerate() {
        let event = EventRef::Poll(number as u32);
        for seen in history.seen_of(row) {
            observe(findings, tables, row.event.partition, *seen, event);
        }
    }
}

fn observe(findings: &mut Findings<'_>, tables: &mut Tables, partition: u32, seen: Seen, event: EventRef) {
    let at = At::partition(partition).offset(seen.offset);
    let id = seen.id;
    findings.checked(Invariant::I2, 1);
    findings.checked(Invariant::I3, 1);
    findings.checked(Invariant::I12, 1);
    let Some(sent) = tables.sent(id) else {
        let what = if id == RecordId::UNREADABLE {
            "unreadable record"
        } else {
            "phantom record"
        };
        let message = || format!("offset {} holds {id}, which nobody sent", seen.offset);
        return findings.flag(Invariant::I12, what, at, &[event], message);
    };
    if !is_as_sent(findings, partition, seen, sent.send, event) {
        return;
    }
    let Some(slot) = tables.slot(partition, seen.offset) else {
        let message = || format!("{id} is said to be at {}: so many records were never sent", seen.offset);
        return findings.flag(Invariant::I4, "impossible offset", at, &[event], message);
    };
    match slot {
        Some(first) if first.id != id => {
            let first = *first;
            let message = || format!("offset {} was {} and is {id}", seen.offset, first.id);
            return findings.flag(
                Invariant::I2,
                "inconsistent offset",
                at,
                &[first.source, event],
                message,
            );
        }
        Some(_) => {}
        None => *slot = Some(Slot { id, source: event }),
    }
    if sent.offset == NOWHERE {
        return tables.set_offset(id, seen.offset);
    }
    if sent.offset != seen.offset {
        let first = tables.slot(partition, sent.offset).and_then(|slot| *slot);
        let events: Vec<EventRef> = first.map(|slot| slot.source).into_iter().chain([event]).collect();
        let message = || format!("{id} is at {} and again at {}", sent.offset, seen.offset);
        findings.flag(Invariant::I3, "duplicate", at, &events, message);
    }
}

/// Whether a record is where, and what, its sender meant, and may be in the log at all.
fn is_as_sent(findings: &mut Findings<'_>, partition: u32, seen: Seen, send: u32, event: EventRef) -> bool {
    let history = findings.history;
    let row = &history.sends[send as usize];
    let (at, id) = (At::partition(partition).offset(seen.offset), seen.id);
    let events = [EventRef::Send(send), event];
    if row.event.partition != partition {
        let message = || format!("{id} was sent to {}", history.partition_name(row.event.partition));
        findings.flag(Invariant::I3, "wrong partition", at, &events, message);
        return false;
    }
    let place = (id.number - row.event.first_number) as usize;
    let digest = history.digests_of(row).get(place).copied().unwrap_or_default();
    if digest != seen.digest {
        let message = || format!("{id} was sent as {digest:016x} and reads as {:016x}", seen.digest);
        findings.flag(Invariant::I12, "changed bytes", at, &events, message);
    }
    if row.event.outcome == SendOutcome::Refused {
        let message = || format!("{id} was refused as certainly not applied, and is there");
        findings.flag(Invariant::I3, "aborted read", at, &events, message);
    }
    true
}
