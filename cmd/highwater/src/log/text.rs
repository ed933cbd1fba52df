//! Logs in a form that a person can read.

use highwater_log::inspect::{Depth, Finding, FrameReport, HardStateReport, IndexReport, Inspection, StateReport};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::exit::Result;
use crate::output::{self, Table};

/// All of a log but its frames.
pub(super) fn print(log: &Inspection) -> Result<()> {
    output::line(format!("Log         {}", log.dir.display()))?;
    match &log.hard_state {
        Some(hard_state) => print_hard_state(hard_state)?,
        None => output::line("Hard state  cannot be read")?,
    }
    print_state("Checkpoint", log.checkpoint.as_ref())?;
    print_state("Manifest", log.manifest.as_ref())?;
    output::line("")?;
    segments(log).print()?;
    print_damage(log)
}

/// In a line whether a log is whole; and what is not.
pub(super) fn judge(log: &Inspection) -> Result<()> {
    let frames: u64 = log.segments.iter().filter_map(|segment| segment.frames).sum();
    let bytes: u64 = log.segments.iter().map(|segment| segment.bytes).sum();
    let verdict = if log.damage.is_empty() { "whole" } else { "DAMAGED" };
    output::line(format!(
        "{}: {verdict}, {frames} good frames, {} segment files, {bytes} bytes",
        log.dir.display(),
        log.segments.len()
    ))?;
    log.damage.iter().try_for_each(finding)
}

fn print_hard_state(hard_state: &HardStateReport) -> Result<()> {
    let identity = hard_state.identity;
    output::line(format!(
        "Identity    cluster {}, group {}, replica {}",
        hex(&identity.cluster_id.0),
        identity.group_id.0,
        identity.replica_id.0
    ))?;
    let vote = hard_state.vote.map_or("none".to_owned(), |vote| {
        let whom = vote.voted_for.map_or("nobody".to_owned(), |id| format!("replica {id}"));
        let kind = if vote.committed { ", which led" } else { "" };
        format!("term {} for {whom}{kind}", vote.term)
    });
    output::line(format!("Vote        {vote}"))?;
    let mark = hard_state.mark;
    output::line(format!(
        "Mark        synced to entry {} (byte {} of segment {}), committed to {}",
        before(mark.end_index),
        mark.position,
        mark.segment_first_index,
        before(mark.commit_end)
    ))?;
    match hard_state.good_slots {
        2 => Ok(()),
        good => output::line(format!("            {good} of 2 slots are good")),
    }
}

/// The last one, of an exclusive end.
fn before(end: u64) -> String {
    end.checked_sub(1).map_or("none".to_owned(), |last| last.to_string())
}

fn print_state(name: &str, state: Option<&StateReport>) -> Result<()> {
    let text = state.map_or("none".to_owned(), |state| {
        let last = state.last.map_or("nothing".to_owned(), |last| format!("entry {last}"));
        format!(
            "up to {last}: offsets {} to {}, {} producers, {} bytes",
            state.log_start,
            before(state.log_end),
            state.producers,
            state.bytes
        )
    });
    output::line(format!("{name:<11} {text}"))
}

fn segments(log: &Inspection) -> Table {
    let mut table = Table::new(&[
        "SEGMENT",
        "BYTES",
        "BASE OFFSET",
        "INDEX",
        "FRAMES",
        "RECORDS",
        "FIRST APPEND",
    ]);
    for segment in &log.segments {
        let or_dash = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        table.row([
            segment.first_index.to_string(),
            segment.bytes.to_string(),
            segment
                .base_offset
                .map_or("header BAD".to_owned(), |offset| offset.to_string()),
            match segment.index {
                IndexReport::Good { points } => format!("{points} points"),
                IndexReport::Missing => "-".to_owned(),
                IndexReport::Bad => "BAD, is rebuilt".to_owned(),
            },
            or_dash(segment.frames),
            or_dash(segment.records),
            segment.times_ms.map_or("-".to_owned(), |(first, _)| time(first)),
        ]);
    }
    table
}

fn print_damage(log: &Inspection) -> Result<()> {
    output::line("")?;
    if log.damage.is_empty() {
        return match log.depth {
            Depth::Headers => {
                output::line("No damage in files and headers; `highwater log verify` reads the frames, too.")
            }
            Depth::Frames => output::line("No damage."),
        };
    }
    output::line("DAMAGE")?;
    log.damage.iter().try_for_each(finding)
}

fn finding(finding: &Finding) -> Result<()> {
    let entries = match finding.entries {
        Some((first, end)) if end > first + 1 => format!("entries {first} to {}", end - 1),
        Some((first, _)) => format!("entry {first}"),
        None => "no entries".to_owned(),
    };
    output::line(format!(
        "  {} at byte {}: {} ({entries})",
        finding.path.display(),
        finding.position,
        finding.why
    ))
}

pub(super) fn frames_heading(segment: u64) -> Result<()> {
    output::line(format!("Frames of segment {segment}"))?;
    output::line(format!(
        "{:>12}  {:>10}  {:>6}  {:<12}  {:<16}  {:>12}  {:>8}  {:>9}  APPENDED",
        "BYTE", "INDEX", "TERM", "KIND", "VERDICT", "OFFSET", "RECORDS", "BYTES"
    ))
}

pub(super) fn frame(frame: &FrameReport) -> Result<()> {
    let header = &frame.header;
    output::line(format!(
        "{:>12}  {:>10}  {:>6}  {:<12}  {:<16}  {:>12}  {:>8}  {:>9}  {}",
        frame.position,
        header.id.index,
        header.id.term,
        format!("{:?}", header.kind),
        format!("{:?}", header.verdict),
        header.base_offset,
        header.record_count,
        header.payload_bytes,
        time(header.append_time_ms)
    ))
}

/// A time as people write it, or the number if it is none.
pub(crate) fn time(time_ms: u64) -> String {
    if time_ms == 0 {
        return "-".to_owned();
    }
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_ms) * 1_000_000);
    let text = time.ok().and_then(|time| time.format(&Rfc3339).ok());
    text.unwrap_or_else(|| time_ms.to_string())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_people_do_and_nonsense_stays_a_number() {
        assert_eq!(time(0), "-");
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(u64::MAX), u64::MAX.to_string());
    }
}
