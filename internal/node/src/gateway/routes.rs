//! What there is, and where.

use std::sync::Arc;

use ::http::Method;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::answer::Answer;
use super::query::Query;
use super::{Call, Gateway};
use crate::status::Problem;

/// The description of all this, in OpenAPI 3.1.
pub(super) const DESCRIPTION: &str = include_str!("openapi.json");

const INDEX: &str = "/v1";
const OPENAPI: &str = "/v1/openapi.json";
const RECORDS: &str = "/v1/topics/{topic}/records";

/// Every path, with its methods as the header `Allow` has them.
pub(super) const ROUTES: [(&str, &str); 3] = [(INDEX, "GET"), (OPENAPI, "GET"), (RECORDS, "GET, POST")];

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Index,
    Description,
    /// The records of a topic, as the caller names it.
    Records(String),
}

pub(super) fn paths() -> Vec<&'static str> {
    ROUTES.iter().map(|(path, _)| *path).collect()
}

/// None: there is nothing.
pub(super) fn find(path: &str) -> Result<Option<Route>, Problem> {
    match path {
        "/" | INDEX => return Ok(Some(Route::Index)),
        OPENAPI => return Ok(Some(Route::Description)),
        _ => {}
    }
    let topic = path
        .strip_prefix("/v1/topics/")
        .and_then(|rest| rest.strip_suffix("/records"));
    let Some(topic) = topic.filter(|topic| !topic.is_empty() && !topic.contains('/')) else {
        return Ok(None);
    };
    let decoded = percent_decode_str(topic).decode_utf8();
    let topic = decoded.map_err(|_| Problem::Invalid {
        field: "topic",
        why: "is not UTF-8".to_owned(),
    })?;
    Ok(Some(Route::Records(topic.into_owned())))
}

/// The path of [`ROUTES`] that a request's path is one of.
pub(super) fn template(path: &str) -> Option<&'static str> {
    match find(path).ok()?? {
        Route::Index => Some(INDEX),
        Route::Description => Some(OPENAPI),
        Route::Records(_) => Some(RECORDS),
    }
}

impl Gateway {
    /// Answers a request; whatever goes wrong is an answer, too.
    pub(super) async fn answer(self: &Arc<Self>, call: &Call) -> Answer {
        let path = call.target.path();
        let answered = match find(path) {
            Ok(Some(Route::Index)) => only_get(call, index),
            Ok(Some(Route::Description)) => only_get(call, || Answer::ok(Bytes::from_static(DESCRIPTION.as_bytes()))),
            Ok(Some(Route::Records(topic))) => self.records(call, &topic).await,
            Ok(None) => Ok(Answer::no_path(path)),
            Err(problem) => Err(problem),
        };
        answered.unwrap_or_else(Answer::from)
    }

    async fn records(&self, call: &Call, topic: &str) -> Result<Answer, Problem> {
        self.context.currency.check()?;
        match call.method {
            Method::GET => self.fetch(call, topic).await,
            Method::POST => self.append(call, topic).await,
            _ => Ok(Answer::no_method(call.method.as_str(), "GET, POST")),
        }
    }
}

fn only_get(call: &Call, answer: impl FnOnce() -> Answer) -> Result<Answer, Problem> {
    if call.method != Method::GET {
        return Ok(Answer::no_method(call.method.as_str(), "GET"));
    }
    Query::read(call.target.query().unwrap_or_default(), &[])?;
    Ok(answer())
}

fn index() -> Answer {
    Answer::json(&json!({ "service": "highwater", "description": OPENAPI, "paths": paths() }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn paths_lead_to_one_thing_or_nowhere() {
        let records = |topic: &str| Some(Route::Records(topic.to_owned()));
        for (path, expected) in [
            ("/", Some(Route::Index)),
            ("/v1", Some(Route::Index)),
            ("/v1/openapi.json", Some(Route::Description)),
            ("/v1/topics/orders/records", records("orders")),
            ("/v1/topics/shop%2Forders/records", records("shop/orders")),
            ("/v1/topics/shop/orders/records", None),
            ("/v1/topics//records", None),
            ("/v1/topics/records", None),
            ("/v1/topics/orders/records/", None),
            ("/V1", None),
            ("/v1/", None),
        ] {
            assert_eq!(find(path).unwrap(), expected, "{path}");
        }
        assert!(find("/v1/topics/%ff/records").is_err());
    }
}
