//! The one place that says how what went wrong looks to a client: gRPC code, reason, outcome, and what helps it on; in
//! `http`, how that looks over HTTP; in `refusals`, what the catalog's refusals are; in `refused`, how often there was what.

mod http;
mod refusals;
mod refused;

use std::time::Duration;

use highwater_catalog::names::InvalidName;
use highwater_partition::log::{Decision, Verdict};
use highwater_partition::{CommandError, ReadError, Watermark};
use highwater_proto::detail;
use highwater_proto::limits::MESSAGE_BYTES_MAX;
use highwater_proto::v1::{ErrorDetail, LeaderHint, OffsetRange, Outcome, Reason};
use tonic::{Code, Status};

pub(crate) use refused::Refused;

use crate::access::Denied;
use crate::quotas::OverQuota;

/// How soon a client should come back when something bounded is used up, milliseconds.
const RETRY_AFTER_MS: u64 = 100;

/// The longest message, bytes.
const MESSAGE_TEXT_BYTES_MAX: usize = 1024;

/// What went wrong with a call. Messages are one sentence for a person.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("`{field}`: {why}")]
    Invalid { field: &'static str, why: String },
    #[error("`{field}` is {found}, at most {limit} is accepted")]
    TooLarge {
        field: &'static str,
        found: u64,
        limit: u64,
    },
    #[error("the request cannot be read: {0}; nothing was done")]
    Unreadable(String),
    #[error("the request has more than {MESSAGE_BYTES_MAX} bytes; nothing was done")]
    RequestTooLarge,
    #[error("the batch is corrupt: {0}; nothing was appended")]
    Corrupt(String),
    #[error("topic `{topic}` does not exist; create it first, or check its name")]
    TopicNotFound { topic: String },
    #[error("topic `{topic}` is not the one with id {wanted} any more; look it up again")]
    TopicChanged { topic: String, wanted: u64 },
    #[error("topic `{topic}` exists already")]
    TopicExists { topic: String },
    #[error("topic `{topic}` has no partition {partition}: it has {count}, counted from 0")]
    PartitionNotFound {
        topic: String,
        partition: u32,
        count: usize,
    },
    #[error("{what} is led by another node ({}); nothing was appended here", hint.node)]
    NotLeader { what: String, hint: LeaderHint },
    #[error("{what} has no leader at the moment, because too few of its replicas can reach each other")]
    NoQuorum { what: String },
    #[error("whether it was applied is not known: {0}; try the same again to learn it")]
    Unknown(String),
    #[error("offset {offset} is below the log start; offsets {} to {} can be read", range.log_start, range.high_watermark)]
    OutOfRange { offset: u64, range: OffsetRange },
    #[error("the log end is {log_end}, not the expected offset; nothing was appended")]
    OffsetMismatch { log_end: u64 },
    #[error("sequence {expected} comes next for this producer; nothing was appended")]
    SequenceGap { expected: u64 },
    #[error("this producer is not known (any more) and its sequence is not 0; begin again with a new producer id")]
    UnknownProducer,
    #[error("the producer id belongs to another principal, or the sequence was used for another batch")]
    ProducerConflict,
    #[error("{0}")]
    Denied(String),
    #[error("{0}; try again shortly")]
    Overloaded(String),
    #[error("this replica knows of offsets up to {}, not yet of {wanted}", range.high_watermark)]
    ReplicaBehind { wanted: u64, range: OffsetRange },
    /// A read that waits here in vain is to go on at another replica.
    #[error("{why}")]
    HandOver {
        why: String,
        range: OffsetRange,
        hint: Option<LeaderHint>,
    },
    #[error(
        "the record at offset {offset} is damaged on every replica; restore a node's data that has it, or go on behind it \
         yourself: it is not skipped for you"
    )]
    Damaged { offset: u64 },
    /// A batch that was stored as its producer sent it, and that no consumer can open.
    #[error("the records at offsets {} to {} cannot be read, as their producer has sent them so: {why}; go on at offset {}",
        range.log_start, range.high_watermark, range.high_watermark)]
    BrokenBatch { why: String, range: OffsetRange },
    /// A record that is there, and longer than the gateway gives.
    #[error("the record at offset {offset} has {found} bytes as JSON, at most {limit} are given; read it over gRPC, or go on at offset {}",
        offset + 1)]
    RecordTooLarge { offset: u64, found: u64, limit: u64 },
    #[error("{why}")]
    Unavailable { why: String, hint: Option<LeaderHint> },
    #[error("{wanted} replicas need as many nodes, and the cluster has {have}")]
    NotEnoughNodes { wanted: u32, have: usize },
    #[error("the cluster has no node `{node}`")]
    NodeNotFound { node: String },
    #[error("{0}; nothing was changed")]
    Refused(String),
    #[error("group `{group}` does not hold {what} by this claim any more; claim it again; nothing was committed")]
    StaleClaim { group: String, what: String },
    #[error(
        "member `{member}` of group `{group}` has joined from elsewhere since; every member needs a name of its own"
    )]
    MemberReplaced { group: String, member: String },
    #[error("member `{member}` was taken out of group `{group}`: {why}; it may join again")]
    SessionOver {
        group: String,
        member: String,
        why: &'static str,
    },
    #[error("there is no method {0:?}")]
    NoSuchMethod(String),
    #[error("the policy was changed since: it has version {version} now; look again")]
    PolicyChanged { version: u64 },
    #[error("tenant `{tenant}` does not exist")]
    TenantNotFound { tenant: String },
    #[error("{who} has reached its quota: {limit} = {most}; nothing was done")]
    OverQuota {
        who: String,
        limit: &'static str,
        most: u64,
        retry_after: Option<Duration>,
    },
    #[error("internal error: {0}")]
    Internal(String),
}

impl Problem {
    /// The gRPC code, the reason, and what became of a write.
    fn class(&self) -> (Code, Reason, Outcome) {
        use {Code as C, Outcome as O, Reason as R};
        match self {
            Problem::Invalid { .. } => (C::InvalidArgument, R::InvalidArgument, O::NotApplied),
            Problem::Unreadable(_) => (C::InvalidArgument, R::InvalidArgument, O::NotApplied),
            Problem::RequestTooLarge => (C::InvalidArgument, R::TooLarge, O::NotApplied),
            Problem::TooLarge { .. } => (C::InvalidArgument, R::TooLarge, O::NotApplied),
            Problem::Corrupt(_) => (C::InvalidArgument, R::CorruptBatch, O::NotApplied),
            Problem::TopicNotFound { .. } => (C::NotFound, R::TopicNotFound, O::NotApplied),
            Problem::TopicChanged { .. } => (C::FailedPrecondition, R::TopicChanged, O::NotApplied),
            Problem::TopicExists { .. } => (C::AlreadyExists, R::TopicExists, O::NotApplied),
            Problem::PartitionNotFound { .. } => (C::NotFound, R::PartitionNotFound, O::NotApplied),
            Problem::NotLeader { .. } => (C::FailedPrecondition, R::NotLeader, O::NotApplied),
            Problem::NoQuorum { .. } => (C::Unavailable, R::NoQuorum, O::NotApplied),
            Problem::Unknown(_) => (C::Aborted, R::UnknownOutcome, O::Unknown),
            Problem::OutOfRange { .. } => (C::OutOfRange, R::OffsetOutOfRange, O::NotApplied),
            Problem::OffsetMismatch { .. } => (C::FailedPrecondition, R::OffsetMismatch, O::NotApplied),
            Problem::SequenceGap { .. } => (C::FailedPrecondition, R::SequenceGap, O::NotApplied),
            Problem::UnknownProducer => (C::FailedPrecondition, R::UnknownProducer, O::Unknown),
            Problem::ProducerConflict => (C::FailedPrecondition, R::ProducerConflict, O::NotApplied),
            Problem::Denied(_) => (C::PermissionDenied, R::PermissionDenied, O::NotApplied),
            Problem::Overloaded(_) => (C::ResourceExhausted, R::Overloaded, O::NotApplied),
            Problem::ReplicaBehind { .. } => (C::DeadlineExceeded, R::ReplicaBehind, O::NotApplied),
            Problem::HandOver { .. } => (C::Unavailable, R::ReplicaBehind, O::NotApplied),
            Problem::Damaged { .. } => (C::DataLoss, R::Damaged, O::NotApplied),
            Problem::BrokenBatch { .. } => (C::DataLoss, R::CorruptBatch, O::NotApplied),
            Problem::RecordTooLarge { .. } => (C::InvalidArgument, R::TooLarge, O::NotApplied),
            Problem::Unavailable { .. } => (C::Unavailable, R::Unavailable, O::NotApplied),
            Problem::NotEnoughNodes { .. } => (C::FailedPrecondition, R::NotEnoughNodes, O::NotApplied),
            Problem::NodeNotFound { .. } => (C::NotFound, R::NodeNotFound, O::NotApplied),
            Problem::Refused(_) => (C::FailedPrecondition, R::Refused, O::NotApplied),
            Problem::StaleClaim { .. } => (C::FailedPrecondition, R::StaleClaim, O::NotApplied),
            Problem::MemberReplaced { .. } => (C::Aborted, R::MemberReplaced, O::NotApplied),
            Problem::SessionOver { .. } => (C::FailedPrecondition, R::SessionOver, O::NotApplied),
            Problem::NoSuchMethod(_) => (C::Unimplemented, R::Refused, O::NotApplied),
            Problem::PolicyChanged { .. } => (C::Aborted, R::PolicyChanged, O::NotApplied),
            Problem::OverQuota { .. } => (C::ResourceExhausted, R::QuotaExceeded, O::NotApplied),
            Problem::TenantNotFound { .. } => (C::NotFound, R::TenantNotFound, O::NotApplied),
            Problem::Internal(_) => (C::Internal, R::Internal, O::Unknown),
        }
    }

    /// Whether nobody knows what became of it.
    pub(crate) fn is_unknown(&self) -> bool {
        self.class().2 == Outcome::Unknown
    }

    /// For a person. What it repeats of the request may be long, and it travels in a header.
    fn message(&self) -> String {
        let mut message = self.to_string();
        if message.len() > MESSAGE_TEXT_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_TEXT_BYTES_MAX));
            message.push('…');
        }
        message
    }

    /// The detail, as it travels in a status or in a stream's answer.
    pub(crate) fn detail(&self) -> ErrorDetail {
        let (_, reason, outcome) = self.class();
        let mut detail = ErrorDetail {
            reason: reason as i32,
            message: self.message(),
            outcome: outcome as i32,
            ..Default::default()
        };
        match self {
            Problem::Invalid { field, .. } => detail.field = (*field).to_owned(),
            Problem::TooLarge { field, limit, .. } => {
                detail.field = (*field).to_owned();
                detail.limit = Some(*limit);
            }
            Problem::RequestTooLarge => detail.limit = Some(MESSAGE_BYTES_MAX as u64),
            Problem::NotLeader { hint, .. } => detail.leader = Some(hint.clone()),
            Problem::Unavailable { hint, .. } => detail.leader = hint.clone(),
            Problem::HandOver { range, hint, .. } => {
                detail.range = Some(*range);
                detail.leader = hint.clone();
            }
            Problem::OutOfRange { range, .. }
            | Problem::ReplicaBehind { range, .. }
            | Problem::BrokenBatch { range, .. } => detail.range = Some(*range),
            Problem::Damaged { offset } => detail.range = Some(only(*offset)),
            Problem::RecordTooLarge { offset, limit, .. } => {
                detail.field = "record".to_owned();
                detail.limit = Some(*limit);
                detail.range = Some(only(*offset));
            }
            Problem::OffsetMismatch { log_end } => {
                let (log_start, high_watermark) = (0, *log_end);
                detail.range = Some(OffsetRange {
                    log_start,
                    high_watermark,
                });
            }
            Problem::SequenceGap { expected } => detail.expected_sequence = Some(*expected),
            Problem::Overloaded(_) => detail.retry_after_ms = Some(RETRY_AFTER_MS),
            Problem::OverQuota {
                limit,
                most,
                retry_after,
                ..
            } => {
                detail.field = (*limit).to_owned();
                detail.limit = Some(*most);
                detail.retry_after_ms = retry_after.map(|after| after.as_millis() as u64);
            }
            _ => {}
        }
        detail
    }

    /// What the gRPC library says about a request that it cannot hand us. It knows the codes of its own; ours always carry
    /// a detail. None for everything else.
    pub(crate) fn from_library(status: &Status) -> Option<Problem> {
        match status.code() {
            _ if !status.details().is_empty() => None,
            Code::OutOfRange => Some(Problem::RequestTooLarge),
            Code::Internal => Some(Problem::Unreadable(status.message().to_owned())),
            _ => None,
        }
    }

    /// What the log decided about a batch that it did not append.
    pub(crate) fn from_decision(decision: &Decision) -> Problem {
        match decision.verdict {
            Verdict::OffsetMismatch => Problem::OffsetMismatch {
                log_end: decision.base_offset,
            },
            Verdict::SequenceGap => Problem::SequenceGap {
                expected: decision.number,
            },
            Verdict::UnknownProducer => Problem::UnknownProducer,
            Verdict::ProducerConflict => Problem::ProducerConflict,
            Verdict::TooManyProducers => Problem::Overloaded("the partition has too many producers".to_owned()),
            Verdict::Forgotten => {
                Problem::Unknown("the batch is older than those that the partition remembers".to_owned())
            }
            other => Problem::Internal(format!("the log decided {other:?} about a batch")),
        }
    }

    /// A read that failed.
    pub(crate) fn from_read(error: ReadError) -> Problem {
        match error {
            ReadError::BelowStart {
                offset,
                log_start,
                high_watermark,
            } => Problem::OutOfRange {
                offset,
                range: OffsetRange {
                    log_start,
                    high_watermark,
                },
            },
            ReadError::Damaged {
                offset,
                everywhere: true,
                ..
            } => Problem::Damaged { offset },
            damaged @ ReadError::Damaged { .. } => Problem::Unavailable {
                why: format!("{damaged}; read from another replica"),
                hint: None,
            },
            ReadError::Stopped => Problem::Unavailable {
                why: "the replica is stopping; read from another one".to_owned(),
                hint: None,
            },
            ReadError::Failed(why) => Problem::Internal(why),
        }
    }

    /// A question to a group (not a write) that nobody could answer.
    pub(crate) fn from_query(what: &str, error: CommandError) -> Problem {
        match error {
            CommandError::NotLeader { .. } | CommandError::Unknown(_) => Problem::NoQuorum { what: what.to_owned() },
            full @ CommandError::DiskFull => Problem::Overloaded(full.to_string()),
            CommandError::Refused(why) => Problem::Overloaded(why),
            CommandError::Stopped => Problem::Unavailable {
                why: format!("the replica of {what} here is stopping"),
                hint: None,
            },
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Status {
        let (code, _, _) = problem.class();
        detail::to_status(code, &problem.detail())
    }
}

/// Explains the answer to a request that the gRPC library has refused by itself.
pub(crate) fn explain_refusal<B>(mut response: ::http::Response<B>) -> ::http::Response<B> {
    // A refused call has its status among the headers; a status behind a body is not the library's.
    let problem = Status::from_header_map(response.headers()).and_then(|status| Problem::from_library(&status));
    if let Some(problem) = problem {
        let headers = response.headers_mut();
        headers.remove(Status::GRPC_STATUS);
        headers.remove(Status::GRPC_MESSAGE);
        if let Err(error) = Status::from(problem).add_header(headers) {
            tracing::warn!(%error, "a refusal cannot be told");
        }
    }
    response
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Problem {
        match denied {
            Denied::Hidden(topic) => Problem::TopicNotFound {
                topic: topic.to_string(),
            },
            forbidden @ Denied::Forbidden { .. } => Problem::Denied(forbidden.to_string()),
        }
    }
}

impl From<OverQuota> for Problem {
    fn from(over: OverQuota) -> Problem {
        Problem::OverQuota {
            who: over.who,
            limit: over.limit.name(),
            most: over.most,
            retry_after: over.retry_after,
        }
    }
}

impl From<InvalidName> for Problem {
    fn from(invalid: InvalidName) -> Problem {
        Problem::Invalid {
            field: "topic",
            why: invalid.to_string(),
        }
    }
}

/// The name of a reason, as people are shown it.
pub(crate) fn name_of(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

/// What can be read, as the wire says it.
pub(crate) fn range(watermark: Watermark) -> OffsetRange {
    OffsetRange {
        log_start: watermark.log_start,
        high_watermark: watermark.high_watermark,
    }
}

/// The range of one record.
fn only(offset: u64) -> OffsetRange {
    OffsetRange {
        log_start: offset,
        high_watermark: offset + 1,
    }
}

#[cfg(test)]
mod tests;
