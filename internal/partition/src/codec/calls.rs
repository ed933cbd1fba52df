//! Votes, pre-votes, the hand-over of leadership and the confirmed edges of the log.
//!
//! ```text
//! vote        head | vote | optional last log id | transfer u8      answer: head | vote | granted u8 | optional last
//! hand-over   head | next leader u64 | vote | optional last log id  answer: head | tag u8 | 1: nothing
//!                                                                     2: expected vote, actual vote
//!                                                                     3: optional expected id, optional actual id
//! confirm     head                                                  answer: head | tag u8 | 1: offset u64
//!                                                                     2: term u64 (not the leader)   3: nothing
//! ```

use bytes::Bytes;
use openraft::raft::TransferLeaderError;

use super::{Reader, Writer, bad};
use crate::error::Error;
use crate::types::{TransferRequest, TransferResponse, VoteRequest, VoteResponse};

const TAG_DONE: u8 = 1;
const TAG_VOTE_CHANGED: u8 = 2;
const TAG_NOT_FLUSHED: u8 = 3;

const TAG_OFFSET: u8 = 1;
const TAG_NOT_LEADER: u8 = 2;
const TAG_NO_QUORUM: u8 = 3;

/// A leader's answer to the question for its confirmed high watermark, or log start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// Exclusive end of what was committed when the question arrived, or more; or the offset of the first record that could be read
    /// then, or of a later one.
    Offset(u64),
    /// Another replica leads.
    NotLeader { term: u64 },
    /// It could not confirm that it still leads.
    Unconfirmed,
}

pub(crate) fn encode_vote_request(to: u64, request: &VoteRequest) -> Bytes {
    let mut writer = Writer::request(to);
    writer.vote(&request.vote);
    writer.optional_log_id(request.last_log_id.as_ref());
    writer.u8(u8::from(request.leadership_transfer));
    writer.finish()
}

pub(crate) fn decode_vote_request(message: Bytes) -> Result<(u64, VoteRequest), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let vote = reader.vote()?;
    let last_log_id = reader.optional_log_id("last log id")?;
    let mut request = VoteRequest::new(vote, last_log_id);
    request.leadership_transfer = reader.flag("transfer")?;
    reader.end()?;
    Ok((to, request))
}

pub(crate) fn encode_vote_response(response: &VoteResponse) -> Bytes {
    let mut writer = Writer::reply();
    writer.vote(&response.vote);
    writer.u8(u8::from(response.vote_granted));
    writer.optional_log_id(response.last_log_id.as_ref());
    writer.finish()
}

pub(crate) fn decode_vote_response(message: Bytes) -> Result<VoteResponse, Error> {
    let mut reader = Reader::reply(message)?;
    let vote = reader.vote()?;
    let granted = reader.flag("granted")?;
    let last_log_id = reader.optional_log_id("last log id")?;
    reader.end()?;
    Ok(VoteResponse::new(vote, last_log_id, granted))
}

pub(crate) fn encode_transfer_request(to: u64, request: &TransferRequest) -> Bytes {
    let mut writer = Writer::request(to);
    writer.u64(*request.to_node_id());
    writer.vote(request.from_leader());
    writer.optional_log_id(request.last_log_id());
    writer.finish()
}

/// The replica a hand-over is meant for, and the hand-over; every member hears of it, not only the next leader.
pub(crate) fn decode_transfer_request(message: Bytes) -> Result<(u64, TransferRequest), Error> {
    let (mut reader, to) = Reader::request(message)?;
    let next_leader = reader.number("replica id")?;
    let vote = reader.vote()?;
    let last_log_id = reader.optional_log_id("last log id")?;
    reader.end()?;
    Ok((to, TransferRequest::new(vote, next_leader, last_log_id)))
}

pub(crate) fn encode_transfer_response(response: &TransferResponse) -> Bytes {
    let mut writer = Writer::reply();
    match response {
        Ok(()) => writer.u8(TAG_DONE),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            writer.u8(TAG_VOTE_CHANGED);
            writer.vote(expected);
            writer.vote(actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            writer.u8(TAG_NOT_FLUSHED);
            writer.optional_log_id(expected.as_ref());
            writer.optional_log_id(actual.as_ref());
        }
    }
    writer.finish()
}

pub(crate) fn decode_transfer_response(message: Bytes) -> Result<TransferResponse, Error> {
    let mut reader = Reader::reply(message)?;
    let response = match reader.u8("answer")? {
        TAG_DONE => Ok(()),
        TAG_VOTE_CHANGED => Err(TransferLeaderError::VoteChanged {
            expected: reader.vote()?,
            actual: reader.vote()?,
        }),
        TAG_NOT_FLUSHED => Err(TransferLeaderError::LogNotFlushed {
            expected: reader.optional_log_id("expected log id")?,
            actual: reader.optional_log_id("actual log id")?,
        }),
        other => return Err(bad(format!("unknown answer {other}"))),
    };
    reader.end()?;
    Ok(response)
}

pub(crate) fn encode_confirm_request(to: u64) -> Bytes {
    Writer::request(to).finish()
}

pub(crate) fn decode_confirm_request(message: Bytes) -> Result<u64, Error> {
    let (reader, to) = Reader::request(message)?;
    reader.end()?;
    Ok(to)
}

pub(crate) fn encode_confirmation(confirmation: &Confirmation) -> Bytes {
    let mut writer = Writer::reply();
    match confirmation {
        Confirmation::Offset(offset) => {
            writer.u8(TAG_OFFSET);
            writer.u64(*offset);
        }
        Confirmation::NotLeader { term } => {
            writer.u8(TAG_NOT_LEADER);
            writer.u64(*term);
        }
        Confirmation::Unconfirmed => writer.u8(TAG_NO_QUORUM),
    }
    writer.finish()
}

pub(crate) fn decode_confirmation(message: Bytes) -> Result<Confirmation, Error> {
    let mut reader = Reader::reply(message)?;
    let confirmation = match reader.u8("answer")? {
        TAG_OFFSET => Confirmation::Offset(reader.u64("offset")?),
        TAG_NOT_LEADER => Confirmation::NotLeader {
            term: reader.number("term")?,
        },
        TAG_NO_QUORUM => Confirmation::Unconfirmed,
        other => return Err(bad(format!("unknown answer {other}"))),
    };
    reader.end()?;
    Ok(confirmation)
}
