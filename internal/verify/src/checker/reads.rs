//! I8, I11: streams without gaps, and trimming.
//!
//! * I8: the records of a read begin where the reader is due to go on, and follow each other without gap or repeat.
//! * I11: a confirmed log start never falls, in real time; none lies above what retention allows; *out of range* is said
//!   only of offsets below the log start; a read of records that are there gets records or *out of range*, never nothing.

use super::findings::{At, Findings};
use super::tables::{Floors, Group, Told};
use crate::history::{EventRef, History, OffsetKind, PollAnswer};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    for number in &group.polls {
        judge_stream(findings, partition, *number);
        judge_range(findings, partition, *number);
    }
    judge_starts(findings, partition, group);
}

fn judge_stream(findings: &mut Findings<'_>, partition: u32, number: u32) {
    let history = findings.history;
    let row = &history.polls[number as usize];
    let seen = history.seen_of(row);
    findings.checked(Invariant::I8, seen.len() as u64);
    let due = (0u64..).map(|place| row.event.from.saturating_add(place));
    let Some((seen, due)) = seen.iter().zip(due).find(|(seen, due)| seen.offset != *due) else {
        return;
    };
    let at = At::partition(partition).offset(due);
    let what = if seen.offset > due {
        "skipped by a reader"
    } else {
        "repeated to a reader"
    };
    let message = || format!("a reader that was due at {due} got {}", seen.offset);
    findings.flag(Invariant::I8, what, at, &[EventRef::Poll(number)], message);
}

/// Answers that say, or should say, what can be read.
fn judge_range(findings: &mut Findings<'_>, partition: u32, number: u32) {
    let history = findings.history;
    let row = &history.polls[number as usize];
    let from = row.event.from;
    let at = At::partition(partition).offset(from);
    let event = EventRef::Poll(number);
    match row.event.answer {
        PollAnswer::OutOfRange {
            log_start,
            high_watermark,
        } => {
            findings.checked(Invariant::I11, 1);
            if from >= log_start {
                let message = || format!("{from} was refused, although {log_start} to {high_watermark} can be read");
                findings.flag(Invariant::I11, "out of range above the start", at, &[event], message);
            }
        }
        PollAnswer::Records { high_watermark } if row.count == 0 && high_watermark > from => {
            let message =
                || format!("nothing was served from {from}, although all below {high_watermark} is committed");
            findings.flag(Invariant::I11, "emptiness", at, &[event], message);
        }
        PollAnswer::Records { .. } | PollAnswer::Failed => {}
    }
}

/// A log start as somebody was told it.
struct Start {
    /// Before this it cannot have been found.
    invoked_ns: u64,
    told: Told,
    /// Whether it must be at or above all starts told before.
    confirmed: bool,
}

fn starts(history: &History, group: &Group) -> Vec<Start> {
    let start = |span: crate::history::Span, end, event, confirmed| Start {
        invoked_ns: span.invoked_ns,
        told: Told {
            at_ns: span.returned_ns,
            end,
            event,
        },
        confirmed,
    };
    let polls = group.polls.iter().filter_map(|number| {
        let poll = &history.polls[*number as usize].event;
        let PollAnswer::OutOfRange { log_start, .. } = poll.answer else {
            return None;
        };
        Some(start(poll.span, log_start, EventRef::Poll(*number), false))
    });
    let offsets = group.offsets.iter().filter_map(|number| {
        let answer = &history.offsets[*number as usize];
        let earliest = answer.kind == OffsetKind::Earliest;
        earliest.then(|| start(answer.span, answer.offset, EventRef::Offset(*number), true))
    });
    let scans = group.scans.iter().map(|number| {
        let scan = &history.scans[*number as usize].event;
        start(scan.span, scan.log_start, EventRef::Scan(*number), true)
    });
    polls.chain(offsets).chain(scans).collect()
}

fn judge_starts(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let starts = starts(history, group);
    findings.checked(Invariant::I11, starts.len() as u64);
    let of_partition = history
        .retention
        .iter()
        .filter(|allowed| allowed.partition == partition);
    let mut allowed: Vec<(u64, u64)> = of_partition.map(|allowed| (allowed.at_ns, allowed.up_to)).collect();
    allowed.sort_unstable();
    let floors = Floors::new(starts.iter().map(|start| start.told).collect());
    for start in &starts {
        let at = At::partition(partition).offset(start.told.end);
        let by_then = allowed.iter().take_while(|(at_ns, _)| *at_ns <= start.told.at_ns);
        let up_to = by_then.map(|(_, up_to)| *up_to).max().unwrap_or(0);
        if start.told.end > up_to {
            let message = || {
                format!(
                    "the log starts at {}, trimming is allowed up to {up_to}",
                    start.told.end
                )
            };
            findings.flag(Invariant::I11, "trimmed too much", at, &[start.told.event], message);
        }
        let floor = floors
            .before(start.invoked_ns)
            .filter(|floor| start.confirmed && start.told.end < floor.end);
        if let Some(floor) = floor {
            let message = || format!("the log started at {}, and then at {}", floor.end, start.told.end);
            findings.flag(
                Invariant::I11,
                "log start fell",
                at,
                &[floor.event, start.told.event],
                message,
            );
        }
    }
}
