//! How a problem looks over HTTP: its status, and the same detail as JSON.

use highwater_proto::v1::{LeaderHint, Reason};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tonic::Code;

use super::{Outcome, Problem, name_of};

impl Problem {
    /// The status. What clients of HTTP repeat by themselves (429, 503, 504) was certainly not applied.
    pub(crate) fn http_status(&self) -> StatusCode {
        let (code, reason, _) = self.class();
        match (code, reason) {
            (_, Reason::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            (_, Reason::NotLeader) => StatusCode::SERVICE_UNAVAILABLE,
            (_, Reason::OffsetMismatch) => StatusCode::PRECONDITION_FAILED,
            (Code::InvalidArgument, _) => StatusCode::BAD_REQUEST,
            (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
            (Code::NotFound, _) => StatusCode::NOT_FOUND,
            (Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted, _) => StatusCode::CONFLICT,
            (Code::OutOfRange, _) => StatusCode::RANGE_NOT_SATISFIABLE,
            (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
            (Code::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The detail as JSON, with the fields that it has.
    pub(crate) fn to_json(&self) -> Value {
        let detail = self.detail();
        let mut json = Map::new();
        json.insert("reason".to_owned(), name_of(detail.reason()).into());
        json.insert("outcome".to_owned(), short(detail.outcome().as_str_name()));
        let field = Some(detail.field).filter(|field| !field.is_empty());
        let leader = detail
            .leader
            .map(|leader| json!({ "node": leader.node, "address": leader.address, "term": leader.term }));
        let range = detail
            .range
            .map(|range| json!({ "log_start": range.log_start, "high_watermark": range.high_watermark }));
        let optional = [
            ("message", Some(detail.message.into())),
            ("field", field.map(Value::from)),
            ("limit", detail.limit.map(Value::from)),
            ("retry_after_ms", detail.retry_after_ms.map(Value::from)),
            ("expected_sequence", detail.expected_sequence.map(Value::from)),
            ("range", range),
            ("leader", leader),
        ];
        let given = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        json.extend(given);
        Value::Object(json)
    }

    /// Who is said to lead, if this is about going there.
    pub(crate) fn led_by(&self) -> Option<&LeaderHint> {
        match self {
            Problem::NotLeader { hint, .. } => Some(hint),
            Problem::Unavailable { hint, .. } | Problem::HandOver { hint, .. } => hint.as_ref(),
            _ => None,
        }
    }

    /// Whether a write was certainly not applied.
    pub(crate) fn is_not_applied(&self) -> bool {
        let (_, _, outcome) = self.class();
        outcome == Outcome::NotApplied
    }
}

fn short(outcome: &str) -> Value {
    outcome.strip_prefix("OUTCOME_").unwrap_or(outcome).into()
}
