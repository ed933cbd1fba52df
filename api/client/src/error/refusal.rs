//! An answer of a node that is an error, read from the wire contract.

use std::fmt;
use std::time::Duration;

use highwater_proto::detail;
use highwater_proto::v1::{self, OffsetRange};
use tonic::{Code, Status};

use super::{Outcome, Reason};

/// A node's answer that is an error.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refusal {
    /// The node that answered.
    pub node: String,
    /// The gRPC code.
    pub code: Code,
    /// The rule that spoke; `Unspecified` if the answer carried no detail.
    pub reason: Reason,
    /// What became of the write, if it was one.
    pub outcome: Outcome,
    /// One sentence for a person.
    pub message: String,
    /// Who leads the partition, if the node knows.
    pub leader: Option<v1::LeaderHint>,
    /// What can be read.
    pub range: Option<OffsetRange>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The request's field that is wrong; empty if none.
    pub field: String,
    /// The limit that it breaks.
    pub limit: Option<u64>,
    /// The sequence that the partition expects of the producer.
    pub expected_sequence: Option<u64>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Unspecified => write!(f, "{}: {:?}: {}", self.node, self.code, self.message),
            reason => {
                let name = reason.as_str_name().trim_start_matches("REASON_");
                write!(f, "{}: {name}: {}", self.node, self.message)
            }
        }
    }
}

impl Refusal {
    pub(crate) fn from_status(node: &str, status: &Status) -> Self {
        match detail::from_status(status) {
            Some(detail) => Self::from_detail(node, status.code(), detail),
            None => Self {
                node: node.to_owned(),
                code: status.code(),
                reason: reason_of_code(status.code()),
                outcome: outcome_of_code(status.code()),
                message: status.message().to_owned(),
                leader: None,
                range: None,
                retry_after: None,
                field: String::new(),
                limit: None,
                expected_sequence: None,
            },
        }
    }

    pub(crate) fn from_detail(node: &str, code: Code, detail: v1::ErrorDetail) -> Self {
        let reason = detail.reason();
        let outcome = match detail.outcome() {
            v1::Outcome::NotApplied => Outcome::NotApplied,
            v1::Outcome::Applied => Outcome::Applied,
            v1::Outcome::Unknown => Outcome::Unknown,
            v1::Outcome::Unspecified => outcome_of_reason(reason),
        };
        Self {
            node: node.to_owned(),
            code,
            reason,
            outcome,
            message: detail.message,
            leader: detail.leader,
            range: detail.range,
            retry_after: detail.retry_after_ms.map(Duration::from_millis),
            field: detail.field,
            limit: detail.limit,
            expected_sequence: detail.expected_sequence,
        }
    }

    /// Whether the same request may succeed later or at another node.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self.reason {
            Reason::Unspecified => matches!(
                self.code,
                Code::Unavailable | Code::Cancelled | Code::Unknown | Code::Internal | Code::Aborted
            ),
            // A rate is there again in a moment; a number of topics is not.
            Reason::QuotaExceeded => self.retry_after.is_some(),
            reason => reason_is_retryable(reason),
        }
    }
}

fn reason_is_retryable(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::NotLeader
            | Reason::NoQuorum
            | Reason::UnknownOutcome
            | Reason::SequenceGap
            | Reason::Overloaded
            | Reason::ReplicaBehind
            | Reason::Unavailable
            | Reason::Internal
            | Reason::Deadline
    )
}

/// What a reason alone says about a write, for answers whose outcome is not filled in.
fn outcome_of_reason(reason: Reason) -> Outcome {
    match reason {
        Reason::Unspecified
        | Reason::UnknownOutcome
        | Reason::UnknownProducer
        | Reason::Unavailable
        | Reason::Internal
        | Reason::Deadline
        | Reason::Damaged => Outcome::Unknown,
        _ => Outcome::NotApplied,
    }
}

/// The reason that a plain gRPC code stands for, for answers made below the services (a proxy, tonic itself).
fn reason_of_code(code: Code) -> Reason {
    match code {
        Code::PermissionDenied | Code::Unauthenticated => Reason::PermissionDenied,
        Code::DeadlineExceeded => Reason::Deadline,
        Code::Unavailable => Reason::Unavailable,
        Code::InvalidArgument => Reason::InvalidArgument,
        Code::ResourceExhausted => Reason::Overloaded,
        _ => Reason::Unspecified,
    }
}

fn outcome_of_code(code: Code) -> Outcome {
    match code {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::Unimplemented => {
            Outcome::NotApplied
        }
        _ => Outcome::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_outcome_and_only_safe_ones_say_not_applied() {
        for unknown in [
            Reason::UnknownOutcome,
            Reason::UnknownProducer,
            Reason::Deadline,
            Reason::Internal,
        ] {
            assert_eq!(outcome_of_reason(unknown), Outcome::Unknown, "{unknown:?}");
        }
        for refused in [
            Reason::NotLeader,
            Reason::NoQuorum,
            Reason::SequenceGap,
            Reason::TooLarge,
        ] {
            assert_eq!(outcome_of_reason(refused), Outcome::NotApplied, "{refused:?}");
        }
    }
}
