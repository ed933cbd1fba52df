//! Answers: JSON, and the few headers that go with it.

use ::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use ::http::{Response, StatusCode};
use bytes::Bytes;
use highwater_proto::v1::Reason;
use http_body_util::Full;
use serde_json::{Value, json};

use super::routes;
use crate::status::Problem;

/// What a request is answered with.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
    pub(super) retry_after_s: Option<u64>,
    pub(super) allow: Option<&'static str>,
    /// It was certainly not applied, for want of a leader or of a node that serves: the same may succeed in a moment.
    pub(super) lacks_leader: bool,
    /// Why it was refused, if it was.
    pub(super) reason: Option<Reason>,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Bytes>) -> Answer {
        Answer::with(StatusCode::OK, body.into())
    }

    pub(super) fn json(value: &Value) -> Answer {
        Answer::ok(line(value))
    }

    fn with(status: StatusCode, body: Bytes) -> Answer {
        Answer {
            status,
            body,
            retry_after_s: None,
            allow: None,
            lacks_leader: false,
            reason: None,
        }
    }

    /// There is nothing at that path; says what there is.
    pub(super) fn no_path(path: &str) -> Answer {
        let error = json!({
            "reason": "PATH_NOT_FOUND",
            "outcome": "NOT_APPLIED",
            "message": format!("there is nothing at `{path}`"),
            "paths": routes::paths(),
        });
        Answer::with(StatusCode::NOT_FOUND, line(&json!({ "error": error })))
    }

    pub(super) fn no_method(method: &str, allow: &'static str) -> Answer {
        let error = json!({
            "reason": "METHOD_NOT_ALLOWED",
            "outcome": "NOT_APPLIED",
            "message": format!("`{method}` is not possible here, {allow} is"),
        });
        Answer {
            allow: Some(allow),
            ..Answer::with(StatusCode::METHOD_NOT_ALLOWED, line(&json!({ "error": error })))
        }
    }

    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Answer {
        let detail = problem.detail();
        Answer {
            reason: Some(detail.reason()),
            retry_after_s: detail.retry_after_ms.map(|wait_ms| wait_ms.div_ceil(1000)),
            lacks_leader: matches!(
                problem,
                Problem::NotLeader { .. } | Problem::NoQuorum { .. } | Problem::Unavailable { .. }
            ),
            ..Answer::with(problem.http_status(), line(&json!({ "error": problem.to_json() })))
        }
    }
}

/// A line of its own, for whoever reads it in a terminal.
fn line(value: &Value) -> Bytes {
    format!("{value}\n").into()
}
