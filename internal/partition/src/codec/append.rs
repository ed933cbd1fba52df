//! Appends and their answers: the message of the hot path.
//!
//! ```text
//! request   head | vote | optional previous log id | optional commit log id | optional certain log id | entries u32 | frames …
//! answer    head | tag u8 | 1: optional log id   2: conflicting log id   3: higher vote
//! ```
//!
//! The certain log id is an entry that the sender has on its own disk, with all before it: what it has promised by leading.
//!
//! A request travels as parts, its head and then each frame's head and payload as they lie in the cache; nothing is
//! copied together. The receiver cuts all frames out of the one buffer that the request arrived in.

use bytes::Bytes;
use highwater_log::Frame;
use openraft::entry::RaftEntry;
use openraft::raft::StreamAppendError;

use super::{Reader, Writer, bad};
use crate::error::Error;
use crate::types::{AppendRequest, AppendResult, LogEntry, LogId, LogPayload};

/// Most entries in one request.
pub(crate) const ENTRIES_MAX: u32 = 4096;

const TAG_MATCHING: u8 = 1;
const TAG_CONFLICT: u8 = 2;
const TAG_HIGHER_VOTE: u8 = 3;

/// The parts of a request for the replica `to`, and their bytes in all. Entries must come from the log and follow on.
pub(crate) fn encode_request(
    to: u64,
    request: AppendRequest,
    certain: Option<LogId>,
) -> Result<(Vec<Bytes>, usize), Error> {
    let previous = request.prev_log_id;
    let mut writer = Writer::request(to);
    writer.vote(&request.vote);
    writer.optional_log_id(previous.as_ref());
    writer.optional_log_id(request.leader_commit.as_ref());
    writer.optional_log_id(certain.as_ref());
    match u32::try_from(request.entries.len()) {
        Ok(count) if count <= ENTRIES_MAX => writer.u32(count),
        _ => return Err(bad(format!("{} entries in one request", request.entries.len()))),
    }
    check_contiguous(previous.as_ref(), &request.entries)?;
    let mut parts = Vec::with_capacity(1 + 2 * request.entries.len());
    parts.push(writer.finish());
    for entry in request.entries {
        let frame = stored_frame(entry)?;
        parts.push(frame.head);
        if !frame.payload.is_empty() {
            parts.push(frame.payload);
        }
    }
    let bytes = parts.iter().map(Bytes::len).sum();
    Ok((parts, bytes))
}

/// The replica that a request is meant for, the request, and what is certain on its sender's disk.
pub(crate) fn decode_request(message: Bytes) -> Result<(u64, AppendRequest, Option<LogId>), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let vote = reader.vote()?;
    let prev_log_id = reader.optional_log_id("previous log id")?;
    let leader_commit = reader.optional_log_id("commit log id")?;
    let certain = reader.optional_log_id("certain log id")?;
    if certain.is_some_and(|certain| certain.committed_leader_id().term > vote.leader_id.term) {
        return Err(bad("a leader has entries of a later term than its own"));
    }
    let count = reader.u32("entries")?;
    if count > ENTRIES_MAX {
        return Err(bad(format!(
            "{count} entries in one request, at most {ENTRIES_MAX} are possible"
        )));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let frame = Frame::decode(reader.rest()).map_err(|err| bad(format!("frame: {err}")))?;
        entries.push(LogEntry::stored(frame)?);
    }
    reader.end()?;
    check_contiguous(prev_log_id.as_ref(), &entries)?;
    let request = AppendRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit,
    };
    Ok((to, request, certain))
}

/// The bytes of an answer.
pub(crate) fn encode_result(result: &AppendResult) -> Bytes {
    let mut writer = Writer::reply();
    match result {
        Ok(matching) => {
            writer.u8(TAG_MATCHING);
            writer.optional_log_id(matching.as_ref());
        }
        Err(StreamAppendError::Conflict(id)) => {
            writer.u8(TAG_CONFLICT);
            writer.log_id(id);
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            writer.u8(TAG_HIGHER_VOTE);
            writer.vote(vote);
        }
    }
    writer.finish()
}

/// The answer in `message`.
pub(crate) fn decode_result(message: Bytes) -> Result<AppendResult, Error> {
    let mut reader = Reader::reply(message)?;
    let result = match reader.u8("answer")? {
        TAG_MATCHING => Ok(reader.optional_log_id("matching log id")?),
        TAG_CONFLICT => Err(StreamAppendError::Conflict(reader.log_id()?)),
        TAG_HIGHER_VOTE => Err(StreamAppendError::HigherVote(reader.vote()?)),
        other => return Err(bad(format!("unknown answer {other}"))),
    };
    reader.end()?;
    Ok(result)
}

/// The entries must follow the previous one and each other. openraft asserts this in debug builds only, and a hole
/// that gets through here would corrupt a follower.
fn check_contiguous(previous: Option<&LogId>, entries: &[LogEntry]) -> Result<(), Error> {
    let mut last_term = previous.map_or(0, |id| id.committed_leader_id().term);
    let first_index = previous.map_or(0, |id| id.index() + 1);
    for (next_index, entry) in (first_index..).zip(entries) {
        let (leader_id, index) = entry.log_id_parts();
        if index != next_index {
            return Err(bad(format!("entry {index} where {next_index} must follow")));
        }
        if leader_id.term < last_term {
            let term = leader_id.term;
            return Err(bad(format!("entry {index} has term {term} after term {last_term}")));
        }
        last_term = leader_id.term;
    }
    Ok(())
}

fn stored_frame(entry: LogEntry) -> Result<Frame, Error> {
    match entry.payload {
        LogPayload::Stored(frame) | LogPayload::StoredMembership(_, frame) => Ok(frame),
        other => Err(bad(format!("an entry to replicate is not stored: {other}"))),
    }
}
