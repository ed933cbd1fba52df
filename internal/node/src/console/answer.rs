//! Answers of the console's interface: JSON that nobody keeps, and pages of lists.

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use crate::gateway::Query;
use crate::status::Problem;

/// Rows of a list on one page.
pub(super) const PAGE_ROWS: usize = 50;
/// The longest text to search for, bytes.
pub(super) const SEARCH_BYTES_MAX: usize = 256;
/// The last page that can be asked for.
const PAGE_MAX: u64 = 100_000;

pub(super) fn json(value: &impl Serialize) -> Response {
    with_status(StatusCode::OK, value)
}

/// What went wrong, as the gateway says it.
pub(super) fn problem(problem: &Problem) -> Response {
    with_status(problem.http_status(), &json!({ "error": problem.to_json() }))
}

pub(super) fn answer(answered: Result<Value, Problem>) -> Response {
    answered.map_or_else(|error| problem(&error), |value| json(&value))
}

fn with_status(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (status, headers, Body::from(bytes)).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "an answer of the console cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The parameters of a list.
pub(super) struct Wanted {
    pub(super) search: String,
    page: usize,
}

impl Wanted {
    pub(super) fn read(query: Option<&str>) -> Result<Wanted, Problem> {
        let query = Query::read(query.unwrap_or_default(), &["search", "page"])?;
        let search = query.text("search").unwrap_or_default();
        Ok(Wanted {
            search: limited("search", search)?.to_lowercase(),
            page: query.limited("page", 0, PAGE_MAX)? as usize,
        })
    }

    /// Whether something of this name is looked for.
    pub(super) fn matches(&self, name: &str) -> bool {
        self.search.is_empty() || name.to_lowercase().contains(&self.search)
    }

    /// The rows of the page that is asked for, or of the last one.
    pub(super) fn cut<T>(&self, rows: Vec<T>) -> Page<T> {
        let total = rows.len();
        let pages = total.div_ceil(PAGE_ROWS).max(1);
        let page = self.page.min(pages - 1);
        Page {
            total,
            page,
            pages,
            rows: rows.into_iter().skip(page * PAGE_ROWS).take(PAGE_ROWS).collect(),
        }
    }
}

/// A text that was given, if it is not too long.
pub(super) fn limited<'a>(field: &'static str, text: &'a str) -> Result<&'a str, Problem> {
    match text.len() <= SEARCH_BYTES_MAX {
        true => Ok(text),
        false => Err(Problem::TooLarge {
            field,
            found: text.len() as u64,
            limit: SEARCH_BYTES_MAX as u64,
        }),
    }
}

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    pub(super) total: usize,
    pub(super) page: usize,
    pub(super) pages: usize,
    pub(super) rows: Vec<T>,
}

impl<T> Page<T> {
    pub(super) fn map<R>(self, change: impl FnMut(T) -> R) -> Page<R> {
        Page {
            total: self.total,
            page: self.page,
            pages: self.pages,
            rows: self.rows.into_iter().map(change).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_are_cut_and_one_beyond_the_end_is_the_last() {
        let page = |query: &str, rows: usize| Wanted::read(Some(query)).unwrap().cut((0..rows).collect());
        let first = page("", 120);
        assert_eq!(
            (first.total, first.page, first.pages, first.rows.len()),
            (120, 0, 3, PAGE_ROWS)
        );
        assert_eq!(page("page=2", 120).rows, (100..120).collect::<Vec<_>>());
        assert_eq!(page("page=99", 120).page, 2);
        let none = page("page=7", 0);
        assert_eq!((none.page, none.pages, none.rows.len()), (0, 1, 0));
    }

    #[test]
    fn names_are_found_in_any_case_and_what_cannot_be_meant_is_refused() {
        let wanted = Wanted::read(Some("search=Or%64")).unwrap();
        assert!(wanted.matches("shop/ORDERS") && !wanted.matches("shop/bills"));
        assert!(Wanted::read(Some("page=x")).is_err());
        assert!(Wanted::read(Some("sort=name")).is_err());
        let long = format!("search={}", "a".repeat(SEARCH_BYTES_MAX + 1));
        assert!(Wanted::read(Some(&long)).is_err());
    }
}
