//! The way in for people: a page that shows a deployment's events as they come.
//!
//! The page is three files of the program and loads nothing from anywhere else. Events come as server-sent events, whose id is the event's
//! position: a browser that has lost the connection tells the last one that it has seen (`Last-Event-ID`), and goes on behind it, at
//! whichever server.
//!
//! Messages are anybody's text. They go through JSON and `textContent` only, and a policy forbids the page every script but its own.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::{Stream, stream};
use highwater_service::telemetry::Telemetry;

use crate::event::{Invalid, check_id};
use crate::feed::{Feed, Follower, ReadError};
use crate::limits::{WEB_DEPLOYMENTS, WEB_EVENTS};

const PAGE: &str = include_str!("web/index.html");
const STYLE: &str = include_str!("web/feed.css");
const SCRIPT: &str = include_str!("web/feed.js");

/// After what time browsers come back.
const RETRY: Duration = Duration::from_millis(500);
/// The name of the event that says that the log does not have what the browser has seen, so that the page begins anew.
const BEYOND: &str = "beyond";

/// What every answer has. Nothing may be loaded but from here, nothing may put the page into a frame, and nothing is kept.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; form-action 'self'; \
         base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[derive(Debug, Clone)]
struct Web {
    feed: Arc<Feed>,
    telemetry: Telemetry,
}

/// Everything that browsers are served.
pub fn router(feed: Arc<Feed>, telemetry: Telemetry) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/feed.css", get(style))
        .route("/feed.js", get(script))
        .route("/deployments", get(deployments))
        .route("/events/{deployment}", get(events))
        .layer(from_fn(with_headers))
        .with_state(Web { feed, telemetry })
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn page(State(web): State<Web>) -> Response {
    file(&web, "page", "text/html; charset=utf-8", PAGE)
}

async fn style(State(web): State<Web>) -> Response {
    file(&web, "style", "text/css; charset=utf-8", STYLE)
}

async fn script(State(web): State<Web>) -> Response {
    file(&web, "script", "text/javascript; charset=utf-8", SCRIPT)
}

fn file(web: &Web, name: &'static str, kind: &'static str, text: &'static str) -> Response {
    web.telemetry.request(name).outcome("ok");
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// Which deployments there are, as a JSON list of numbers: the page proposes them.
async fn deployments(State(web): State<Web>) -> Response {
    web.telemetry.request("deployments").outcome("ok");
    let listed: Vec<String> = web
        .feed
        .deployments(WEB_DEPLOYMENTS)
        .iter()
        .map(u64::to_string)
        .collect();
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, format!("[{}]", listed.join(","))).into_response()
}

/// The last events of a deployment and all that come; or those behind the position that the browser tells.
async fn events(State(web): State<Web>, Path(deployment): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let counted = web.telemetry.request("events");
    match follow(&web, &deployment, &uri, &headers).await {
        Ok(follower) => {
            counted.outcome("ok");
            Sse::new(stream_of(follower))
                .keep_alive(KeepAlive::default())
                .into_response()
        }
        Err(refused) => {
            counted.outcome(refused.outcome());
            refused.into_response()
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Refused {
    fn outcome(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_argument",
            Self::Read(ReadError::Beyond { .. }) => "out_of_range",
            Self::Read(_) => "unavailable",
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Self::Invalid(_) => (StatusCode::BAD_REQUEST, text).into_response(),
            // To a script, a browser tells nothing of an answer that is no stream.
            Self::Read(error @ ReadError::Beyond { .. }) => {
                let told = sse::Event::default().event(BEYOND).data(error.to_string());
                Sse::new(stream::once(async { Ok::<_, Infallible>(told) })).into_response()
            }
            Self::Read(_) => (StatusCode::SERVICE_UNAVAILABLE, text).into_response(),
        }
    }
}

async fn follow(web: &Web, deployment: &str, uri: &Uri, headers: &HeaderMap) -> Result<Follower, Refused> {
    let deployment_id = number("deployment", deployment)?;
    check_id("deployment", deployment_id)?;
    let seen = last_seen(uri, headers)?;
    web.feed.reach(deployment_id, seen).await?;
    let from = match seen {
        Some(position) => position.saturating_add(1),
        None => web.feed.last(deployment_id, WEB_EVENTS),
    };
    Ok(web.feed.follow(deployment_id, from)?)
}

/// The position of the last event that a browser has seen: it tells it by itself if it comes back, and the page's script tells it if it
/// has to begin anew.
fn last_seen(uri: &Uri, headers: &HeaderMap) -> Result<Option<u64>, Invalid> {
    if let Some(told) = headers.get("last-event-id") {
        return Ok(Some(number("Last-Event-ID", told.to_str().unwrap_or_default())?));
    }
    match uri.query() {
        None | Some("") => Ok(None),
        Some(query) => {
            let after = query.strip_prefix("after=");
            let after = after.ok_or_else(|| Invalid::new("query", "it may only be after=POSITION"))?;
            Ok(Some(number("after", after)?))
        }
    }
}

fn number(field: &'static str, text: &str) -> Result<u64, Invalid> {
    text.parse()
        .map_err(|_| Invalid::new(field, format!("a number up to {} is wanted", u64::MAX)))
}

/// Everything that comes, up to the first error; the browser then comes back by itself.
fn stream_of(follower: Follower) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
    let hello = stream::once(async { Ok(sse::Event::default().retry(RETRY).comment("hello")) });
    let events = stream::unfold(follower, |mut follower| async {
        let event = follower.next().await;
        let event = event
            .inspect_err(|error| tracing::debug!(%error, "a stream of events ends"))
            .ok()?;
        let data = serde_json::to_string(&event).ok()?;
        let sent = sse::Event::default().id(event.position.to_string()).data(data);
        Some((Ok(sent), follower))
    });
    futures::StreamExt::chain(hello, events)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_browser_goes_on_behind_what_it_has_seen() {
        let seen = |uri: &'static str, header: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("last-event-id", HeaderValue::from_static(header));
            }
            last_seen(&Uri::from_static(uri), &headers).map_err(|invalid| invalid.field)
        };
        assert_eq!(seen("/events/1", None), Ok(None));
        assert_eq!(seen("/events/1?after=4", None), Ok(Some(4)));
        assert_eq!(
            seen("/events/1?after=4", Some("9")),
            Ok(Some(9)),
            "what the browser has seen since the page asked"
        );
        assert_eq!(seen("/events/1?after=", None), Err("after"));
        assert_eq!(seen("/events/1?before=4", None), Err("query"));
        assert_eq!(seen("/events/1", Some("-1")), Err("Last-Event-ID"));
    }

    #[test]
    fn the_page_has_nothing_that_its_policy_forbids() {
        for forbidden in [
            "style=",
            "<style",
            "onclick",
            "onload",
            "http:",
            "https:",
            "innerHTML",
            "insertAdjacentHTML",
        ] {
            assert!(
                ![PAGE, SCRIPT].iter().any(|text| text.contains(forbidden)),
                "{forbidden}"
            );
        }
        assert_eq!(PAGE.matches("<script").count(), 1);
    }
}
