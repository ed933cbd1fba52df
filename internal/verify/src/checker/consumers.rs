//! I10: consumer groups.
//!
//! * A position or a claim that a partition's leader told never falls, in real time: what was told before somebody asked is the least
//!   that he is told.
//! * Everything below a position is done: each of those records was handed to a member that was done with it before the position
//!   was told. So whoever goes on from a position skips nothing.
//!
//! A record may be handed out any number of times, to one member after the other: that is the contract.

use std::collections::BTreeMap;

use super::findings::{At, Findings};
use super::tables::{Floors, Group, Told};
use crate::history::{EventRef, Position};
use crate::verdict::Invariant;

pub(crate) fn judge(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    findings.checked(Invariant::I10, group.positions.len() as u64);
    judge_order(findings, partition, group, "position fell", |position| position.offset);
    judge_order(findings, partition, group, "claim fell", |position| position.claim);
    judge_skips(findings, partition, group);
}

fn judge_order(
    findings: &mut Findings<'_>,
    partition: u32,
    group: &Group,
    what: &'static str,
    number: fn(&Position) -> u64,
) {
    let history = findings.history;
    let told = group.positions.iter().map(|row| {
        let position = &history.positions[*row as usize];
        Told {
            at_ns: position.span.returned_ns,
            end: number(position),
            event: EventRef::Position(*row),
        }
    });
    let floors = Floors::new(told.collect());
    for row in &group.positions {
        let position = &history.positions[*row as usize];
        let now = number(position);
        let floor = floors.before(position.span.invoked_ns).filter(|floor| now < floor.end);
        if let Some(floor) = floor {
            let at = At::partition(partition).offset(position.offset);
            let message = || format!("{} had been told, and then {now}", floor.end);
            findings.flag(
                Invariant::I10,
                what,
                at,
                &[floor.event, EventRef::Position(*row)],
                message,
            );
        }
    }
}

/// The lowest position that is told too early says most, and the others follow from it.
fn judge_skips(findings: &mut Findings<'_>, partition: u32, group: &Group) {
    let history = findings.history;
    let mut first_done: BTreeMap<u64, u64> = BTreeMap::new();
    for row in &group.handouts {
        let handout = &history.handouts[*row as usize];
        let done = first_done.entry(handout.offset).or_insert(handout.at_ns);
        *done = (*done).min(handout.at_ns);
    }
    let mut positions: Vec<(u64, u64, u32)> = group
        .positions
        .iter()
        .map(|row| {
            let position = &history.positions[*row as usize];
            (position.offset, position.span.returned_ns, *row)
        })
        .collect();
    positions.sort_unstable();
    let mut done = first_done.into_iter().peekable();
    // All below `end` are done since `since`.
    let (mut end, mut since) = (0, 0);
    for (offset, told_ns, row) in positions {
        while let Some((_, at_ns)) = done.next_if(|(done, _)| *done == end && end < offset) {
            since = since.max(at_ns);
            end += 1;
        }
        let at = At::partition(partition).offset(end.min(offset));
        let event = EventRef::Position(row);
        if end < offset {
            let message = || format!("everything below {offset} was said to be done, but {end} was handed to nobody");
            return findings.flag(Invariant::I10, "skipped by a group", at, &[event], message);
        }
        if since > told_ns {
            let message = || format!("everything below {offset} was said to be done before it was");
            return findings.flag(Invariant::I10, "committed before it was done", at, &[event], message);
        }
    }
}
