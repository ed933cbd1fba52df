//! I6: what is served is committed, and as fresh as was asked for.
//!
//! * A record that is read lies below the high watermark told with it.
//! * A watermark, and a record that is read, lie below the end of the final log: committed never vanishes.
//! * A confirmed answer (linearizable read, confirmed end) is at or above all that was acknowledged, or told as committed,
//!   before it was asked for.
//! * A read of at least an offset reaches it.
//! * What one client is told as committed never shrinks, in that client's own order.
//! * What was told as committed before a send began does not reach beyond that send's offset.

use super::findings::{At, Findings};
use super::tables::{Floors, Group, Slot, Tables, Told, acknowledged, watermarks};
use crate::history::{EventRef, Freshness, OffsetKind, PollAnswer, SendOutcome};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group) {
    let told = watermarks(findings.history, group);
    findings.checked(Invariant::I6, told.len() as u64);
    judge_final(findings, tables, partition, group, &told);
    judge_served(findings, partition, group);
    let committed = Floors::new(told);
    let acknowledged = Floors::new(acknowledged(findings.history, group));
    judge_confirmed(findings, partition, group, [&acknowledged, &committed]);
    judge_sends(findings, partition, group, &committed);
    judge_own_order(findings, partition, group);
}

/// Watermarks and reads against the final log.
fn judge_final(findings: &mut Findings<'_>, tables: &Tables, partition: u32, group: &Group, told: &[Told]) {
    let Some(last) = group.last else { return };
    for told in told.iter().filter(|told| told.end > last.end) {
        let at = At::partition(partition).offset(last.end);
        let message = || format!("told as committed to {}, but the log ends at {}", told.end, last.end);
        findings.flag(Invariant::I6, "watermark above the log", at, &[told.event], message);
    }
    for (offset, slot) in tables.slots_in(partition, last.end, u64::MAX) {
        let Some(slot) = slot else { continue };
        if Slot::is_acknowledged(&Some(*slot)) {
            continue; // A loss, judged as such.
        }
        let at = At::partition(partition).offset(offset);
        let message = || format!("{} was served at {offset}, but the log ends at {}", slot.id, last.end);
        findings.flag(Invariant::I6, "served uncommitted", at, &[slot.source], message);
    }
}

/// Each read in itself.
fn judge_served(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    for number in &group.polls {
        let row = &history.polls[*number as usize];
        let PollAnswer::Records { high_watermark } = row.event.answer else {
            continue;
        };
        let event = EventRef::Poll(*number);
        let above = history.seen_of(row).iter().find(|seen| seen.offset >= high_watermark);
        if let Some(seen) = above {
            let at = At::partition(partition).offset(seen.offset);
            let message = || {
                format!(
                    "served offset {} above the high watermark {high_watermark}",
                    seen.offset
                )
            };
            findings.flag(Invariant::I6, "served above commit", at, &[event], message);
        }
        if let Freshness::MinOffset { offset } = row.event.freshness
            && high_watermark < offset
        {
            let at = At::partition(partition).offset(offset);
            let message = || format!("everything below {offset} was asked for, answered with {high_watermark}");
            findings.flag(Invariant::I6, "not fresh enough", at, &[event], message);
        }
    }
}

/// Linearizable reads and confirmed ends.
fn judge_confirmed(findings: &mut Findings<'_>, partition: u32, group: &Group, floors: [&Floors; 2]) {
    let history = findings.history;
    let polls = group.polls.iter().filter_map(|number| {
        let poll = &history.polls[*number as usize].event;
        match (poll.freshness, poll.answer) {
            (Freshness::Linearizable, PollAnswer::Records { high_watermark }) => {
                Some((poll.span.invoked_ns, high_watermark, EventRef::Poll(*number)))
            }
            _ => None,
        }
    });
    let ends = group.offsets.iter().filter_map(|number| {
        let answer = &history.offsets[*number as usize];
        let latest = answer.kind == OffsetKind::Latest;
        latest.then_some((answer.span.invoked_ns, answer.offset, EventRef::Offset(*number)))
    });
    for (invoked_ns, end, event) in polls.chain(ends) {
        findings.checked(Invariant::I6, 1);
        let floor = floors
            .iter()
            .filter_map(|floors| floors.before(invoked_ns))
            .max_by_key(|told| told.end);
        let Some(floor) = floor.filter(|floor| end < floor.end) else {
            continue;
        };
        let at = At::partition(partition).offset(end);
        let message = || format!("told {end} after it was known that the log reaches to {}", floor.end);
        findings.flag(Invariant::I6, "stale read", at, &[floor.event, event], message);
    }
}

/// Sends against what had been told before they began.
fn judge_sends(findings: &mut Findings<'_>, partition: u32, group: &Group, committed: &Floors) {
    let history = findings.history;
    for number in &group.sends {
        let send = &history.sends[*number as usize].event;
        let SendOutcome::Appended { base_offset } = send.outcome else {
            continue;
        };
        let Some(floor) = committed.before(send.span.invoked_ns) else {
            continue;
        };
        if base_offset < floor.end {
            let at = At::partition(partition).offset(base_offset);
            let message = || {
                format!(
                    "told as committed to {} before this was sent to {base_offset}",
                    floor.end
                )
            };
            findings.flag(
                Invariant::I6,
                "watermark too high",
                at,
                &[floor.event, EventRef::Send(*number)],
                message,
            );
        }
    }
}

/// What each client was told, in its own order.
fn judge_own_order(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let mut told: Vec<(u32, u64, Told)> = Vec::new();
    for number in &group.polls {
        let poll = &history.polls[*number as usize].event;
        if let PollAnswer::Records { high_watermark } | PollAnswer::OutOfRange { high_watermark, .. } = poll.answer {
            let one = Told {
                at_ns: poll.span.returned_ns,
                end: high_watermark,
                event: EventRef::Poll(*number),
            };
            told.push((poll.span.process, poll.span.invoked_ns, one));
        }
    }
    told.sort_by_key(|(process, invoked_ns, _)| (*process, *invoked_ns));
    for client in told.chunk_by(|one, other| one.0 == other.0) {
        let floors = Floors::new(client.iter().map(|(_, _, told)| *told).collect());
        for (process, invoked_ns, told) in client {
            let Some(floor) = floors.before(*invoked_ns).filter(|floor| told.end < floor.end) else {
                continue;
            };
            let at = At::partition(partition).offset(told.end);
            let message = || format!("process {process} was told {}, and then {}", floor.end, told.end);
            findings.flag(Invariant::I6, "watermark fell", at, &[floor.event, told.event], message);
        }
    }
}
