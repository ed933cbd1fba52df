//! Logs in a form that a program can read.

use highwater_log::inspect::{
    Depth, Finding, FrameReport, HardStateReport, IndexReport, Inspection, SegmentReport, StateReport,
};
use serde_json::{Value, json};

use super::text::hex;

pub(super) fn document(log: &Inspection, frames: Option<Vec<Value>>) -> Value {
    let mut document = json!({
        "directory": log.dir.display().to_string(),
        "frames_read": log.depth == Depth::Frames,
        "changed_meanwhile": log.changed,
        "hard_state": log.hard_state.as_ref().map(hard_state),
        "checkpoint": log.checkpoint.as_ref().map(state),
        "manifest": log.manifest.as_ref().map(state),
        "segments": log.segments.iter().map(segment).collect::<Vec<_>>(),
        "damage": log.damage.iter().map(finding).collect::<Vec<_>>(),
    });
    if let Some(frames) = frames {
        document["frames"] = frames.into();
    }
    document
}

fn hard_state(hard_state: &HardStateReport) -> Value {
    let vote = hard_state
        .vote
        .map(|vote| json!({ "term": vote.term, "voted_for": vote.voted_for, "committed": vote.committed }));
    let mark = hard_state.mark;
    json!({
        "cluster_id": hex(&hard_state.identity.cluster_id.0),
        "group_id": hard_state.identity.group_id.0,
        "replica_id": hard_state.identity.replica_id.0,
        "sequence": hard_state.sequence,
        "good_slots": hard_state.good_slots,
        "vote": vote,
        "mark": {
            "segment_first_index": mark.segment_first_index,
            "position": mark.position,
            "last_term": mark.last_term,
            "end_index": mark.end_index,
            "commit_end": mark.commit_end,
            "chain": format!("{:016x}", mark.chain),
        },
    })
}

fn state(state: &StateReport) -> Value {
    json!({
        "bytes": state.bytes,
        "last": state.last.map(|last| json!({ "term": last.term, "index": last.index })),
        "log_start": state.log_start,
        "log_end": state.log_end,
        "chain": format!("{:016x}", state.chain),
        "append_time_ms": state.append_time_ms,
        "producers": state.producers,
        "groups": state.groups,
        "machine_bytes": state.machine_bytes,
    })
}

fn segment(segment: &SegmentReport) -> Value {
    let index = match segment.index {
        IndexReport::Good { points } => json!({ "state": "good", "points": points }),
        IndexReport::Missing => json!({ "state": "missing" }),
        IndexReport::Bad => json!({ "state": "bad" }),
    };
    json!({
        "file": segment.path.display().to_string(),
        "first_index": segment.first_index,
        "end_index": segment.end_index,
        "base_offset": segment.base_offset,
        "end_offset": segment.end_offset,
        "first_append_time_ms": segment.times_ms.map(|(first, _)| first),
        "last_append_time_ms": segment.times_ms.map(|(_, last)| last),
        "bytes": segment.bytes,
        "frames": segment.frames,
        "records": segment.records,
        "unfinished_bytes": segment.unfinished_bytes,
        "index": index,
    })
}

fn finding(finding: &Finding) -> Value {
    json!({
        "file": finding.path.display().to_string(),
        "position": finding.position,
        "first_index": finding.entries.map(|(first, _)| first),
        "end_index": finding.entries.map(|(_, end)| end),
        "why": finding.why,
    })
}

pub(super) fn frame(frame: &FrameReport) -> Value {
    let header = &frame.header;
    json!({
        "position": frame.position,
        "index": header.id.index,
        "term": header.id.term,
        "kind": format!("{:?}", header.kind).to_lowercase(),
        "verdict": format!("{:?}", header.verdict).to_lowercase(),
        "base_offset": header.base_offset,
        "record_count": header.record_count,
        "payload_bytes": header.payload_bytes,
        "payload_crc": header.payload_crc,
        "append_time_ms": header.append_time_ms,
        "chain": format!("{:016x}", header.chain),
    })
}
