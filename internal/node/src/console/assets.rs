//! The files of the pages. They are in the binary, so that what is shown is what this node can tell.

use std::sync::LazyLock;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::hex;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

/// A file: where it is, of what kind, and what is in it.
type File = (&'static str, &'static str, &'static str);

macro_rules! file {
    ($name:literal, $kind:expr) => {
        (concat!("/", $name), $kind, include_str!(concat!("assets/", $name)))
    };
}

const FILES: [File; 17] = [
    ("/", HTML, include_str!("assets/index.html")),
    file!("base.css", CSS),
    file!("parts.css", CSS),
    file!("icon.svg", PICTURE),
    file!("app.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("format.js", SCRIPT),
    file!("parts.js", SCRIPT),
    file!("theme.js", SCRIPT),
    file!("overview.js", SCRIPT),
    file!("nodes.js", SCRIPT),
    file!("topics.js", SCRIPT),
    file!("groups.js", SCRIPT),
    file!("tail.js", SCRIPT),
    file!("tenants.js", SCRIPT),
    file!("events.js", SCRIPT),
];

/// What tells one content of each file from another.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |(_, _, text): &File| format!("\"{}\"", hex::encode(&Sha256::digest(text.as_bytes())[..12]));
    FILES.iter().map(tag).collect()
});

/// A file, or that it is as the browser knows it. Browsers ask each time, so that all files are of one version.
pub(super) async fn asset(uri: Uri, headers: HeaderMap) -> Response {
    let Some(position) = FILES.iter().position(|(path, _, _)| *path == uri.path()) else {
        return (StatusCode::NOT_FOUND, "There is nothing here; the console is at /.\n").into_response();
    };
    let ((_, kind, text), tag) = (FILES[position], &TAGS[position]);
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|known| known.to_str().ok())
        .unwrap_or_default();
    let caching = [(ETAG, tag.as_str()), (CACHE_CONTROL, "no-cache")];
    match known
        .split(',')
        .any(|known| known.trim().trim_start_matches("W/") == tag)
    {
        true => (StatusCode::NOT_MODIFIED, caching).into_response(),
        false => ([(CONTENT_TYPE, kind)], caching, text).into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pages_name_only_files_that_are_there_and_nothing_elsewhere() {
        let is_there = |name: &str| FILES.iter().any(|(path, _, _)| path.trim_start_matches('/') == name);
        for (path, _, text) in FILES {
            let names = text
                .split(['"', '\''])
                .filter(|part| part.starts_with("./") || part.ends_with(".js"));
            for name in names {
                assert!(is_there(name.trim_start_matches("./")), "{path} names {name}");
            }
            let foreign = text
                .split("http")
                .skip(1)
                .filter(|rest| rest.starts_with("://") || rest.starts_with("s://"));
            let foreign: Vec<_> = foreign
                .filter(|rest| !rest.starts_with("://www.w3.org/2000/svg"))
                .collect();
            assert!(foreign.is_empty(), "{path}: {foreign:?}");
            for forbidden in ["innerHTML", "<script>", "style=\"", "onclick=", "eval("] {
                assert!(!text.contains(forbidden), "{path} has {forbidden}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_is_known_is_not_sent_again() {
        let first = asset(Uri::from_static("/app.js"), HeaderMap::new()).await;
        let tag = first.headers()[ETAG].clone();
        assert_eq!(
            (first.status(), &first.headers()[CONTENT_TYPE]),
            (StatusCode::OK, &SCRIPT.parse().unwrap())
        );
        let known = HeaderMap::from_iter([(IF_NONE_MATCH, tag)]);
        let again = asset(Uri::from_static("/app.js"), known.clone()).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(
            asset(Uri::from_static("/base.css"), known).await.status(),
            StatusCode::OK
        );
        assert_eq!(
            asset(Uri::from_static("/../Cargo.toml"), HeaderMap::new())
                .await
                .status(),
            StatusCode::NOT_FOUND
        );
    }
}
