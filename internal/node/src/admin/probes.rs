//! What orchestrators and Prometheus ask.

use std::sync::Arc;

use axum::extract::{ConnectInfo, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName};
use tokio::task::spawn_blocking;

use super::guard::may_read;
use super::{Caller, Desk, Who};

/// Of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Answer = (StatusCode, [(HeaderName, &'static str); 1], String);

pub(super) async fn live() -> Answer {
    answer(StatusCode::OK, "live".to_owned())
}

/// Why it is not ready, and what else is to be known, is not for strangers, nor for pages of other sites.
pub(super) async fn ready(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    headers: HeaderMap,
) -> Answer {
    let not_ready = desk.not_ready.borrow().clone();
    let status = match not_ready {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut text = if status.is_success() { "ready" } else { "not ready" }.to_owned();
    let is_proven = matches!(caller.who, Who::Proven(_));
    if !is_proven && may_read(&desk, &caller, &headers).is_err() {
        return answer(status, text);
    }
    if let Some(why) = not_ready {
        text.push_str(&format!(": {why}"));
    }
    for notice in desk.notices.borrow().iter() {
        text.push_str("\nnotice: ");
        text.push_str(notice);
    }
    answer(status, text)
}

pub(super) async fn metrics(
    State(desk): State<Arc<Desk>>,
) -> Result<([(HeaderName, &'static str); 1], String), StatusCode> {
    let text = spawn_blocking(move || (desk.metrics)()).await;
    let text = text.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], text))
}

fn answer(status: StatusCode, text: String) -> Answer {
    (status, [(CACHE_CONTROL, "no-store")], format!("{text}\n"))
}
