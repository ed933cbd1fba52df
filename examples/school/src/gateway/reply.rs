//! What the gateway answers over HTTP: JSON, also when something is wrong.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use highwater::{Outcome, ProduceError};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::outcomes::Fate;
use crate::command::CommandId;
use crate::limits::Invalid;

/// Something that is answered, and what it is counted as.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    location: Option<String>,
    waited: bool,
    body: Value,
    pub(super) outcome: &'static str,
}

impl Reply {
    pub(super) fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, "ok", body)
    }

    /// Something is wrong, as told.
    pub(super) fn problem(status: StatusCode, outcome: &'static str, problem: &str) -> Self {
        Self::new(status, outcome, json!({ "error": problem }))
    }

    fn new(status: StatusCode, outcome: &'static str, body: Value) -> Self {
        Self {
            status,
            location: None,
            waited: false,
            body,
            outcome,
        }
    }

    /// What is known of a command of that topic.
    pub(super) fn fate(topic: &str, id: CommandId, fate: &Fate) -> Self {
        let command = format!("{topic}/{id}");
        let body = |state: &str| json!({ "command": command, "state": state });
        let mut reply = match fate {
            Fate::Applied => Self::new(StatusCode::OK, "applied", body("applied")),
            Fate::Pending => Self::new(StatusCode::ACCEPTED, "pending", body("pending")),
            Fate::Forgotten => Self::new(StatusCode::GONE, "forgotten", body("forgotten")),
            Fate::Rejected(reason) => {
                let mut body = body("rejected");
                body["reason"] = reason.as_str().into();
                Self::new(StatusCode::CONFLICT, "rejected", body)
            }
        };
        reply.location = Some(format!("/v1/commands/{command}"));
        reply
    }

    /// The same, and that it was waited for as the client preferred.
    pub(super) fn waited(mut self) -> Self {
        self.waited = true;
        self
    }

    /// The command as such is known and asked for, so that it was rejected is what the client wants to know, and no error.
    pub(super) fn found(mut self) -> Self {
        if self.status != StatusCode::GONE {
            self.status = StatusCode::OK;
        }
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (self.status, json, format!("{}\n", self.body)).into_response();
        if let Some(Ok(location)) = self.location.map(HeaderValue::try_from) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        if self.waited {
            response
                .headers_mut()
                .insert("preference-applied", HeaderValue::from_static("wait"));
        }
        response
    }
}

impl From<Invalid> for Reply {
    fn from(invalid: Invalid) -> Self {
        Self::problem(StatusCode::BAD_REQUEST, "invalid_argument", &invalid.to_string())
    }
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        let (code, outcome) = match status.code() {
            Code::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "invalid_argument"),
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            _ => (StatusCode::BAD_GATEWAY, "internal"),
        };
        Self::problem(code, outcome, status.message())
    }
}

impl From<ProduceError> for Reply {
    fn from(error: ProduceError) -> Self {
        let happened = match error.outcome() {
            Outcome::NotApplied => "the command was not taken",
            Outcome::Unknown | Outcome::Applied => {
                "whether the command was taken is not known: look before you send it again"
            }
        };
        Self::problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            &format!("{happened} ({error})"),
        )
    }
}
