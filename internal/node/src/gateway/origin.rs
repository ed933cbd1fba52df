//! Requests that a browser sends on behalf of a page of somebody else.
//!
//! A browser shows its user's certificate to whoever is addressed, whichever page has addressed it. Such a page learns
//! nothing, as no answer allows it to, but what it appends would be there. Browsers say where a request comes from;
//! other clients say nothing of that kind, and are served.

use ::http::HeaderMap;
use ::http::header::{HOST, HeaderName, HeaderValue, ORIGIN};
use ::http::uri::Authority;

use crate::status::Problem;

/// How the request's page and its target belong together, by the browser's own judgement.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What it says of pages of others. Another site of the same domain may be somebody else's, too.
const OF_OTHERS: [&str; 2] = ["cross-site", "same-site"];
/// The end of an authority that a browser leaves out.
const DEFAULT_PORT: &str = ":443";

/// Refuses what the page of somebody else has sent. `authority`: whom the request's target names, if it names anybody.
pub(super) fn check(headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Problem> {
    let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
    if sites.any(|site| OF_OTHERS.iter().any(|other| site == other)) {
        return Err(refused("Sec-Fetch-Site"));
    }
    let host = match authority {
        Some(authority) => Some(authority.as_str()),
        None => headers.get(HOST).and_then(|host| host.to_str().ok()),
    };
    let is_own = |origin: &HeaderValue| {
        let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
        let both = origin.zip(host);
        both.is_some_and(|(origin, host)| without_default(origin).eq_ignore_ascii_case(without_default(host)))
    };
    if headers.get_all(ORIGIN).iter().all(is_own) {
        return Ok(());
    }
    Err(refused("Origin"))
}

fn without_default(authority: &str) -> &str {
    authority.strip_suffix(DEFAULT_PORT).unwrap_or(authority)
}

fn refused(header: &str) -> Problem {
    Problem::Denied(format!(
        "by its header {header}, a page of another site has sent this from a browser; nothing was appended"
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_is_no_browsers_or_of_the_own_page_is_served() {
        for lines in [
            &[][..],
            &[("host", "node:4600")],
            &[("host", "node:4600"), ("origin", "https://node:4600")],
            &[
                ("host", "Node:443"),
                ("origin", "https://node"),
                ("sec-fetch-site", "same-origin"),
            ],
            &[("sec-fetch-site", "none")],
        ] {
            assert_eq!(check(&headers(lines), None), Ok(()), "{lines:?}");
        }
        let authority = Authority::from_static("node:1");
        let own = headers(&[("host", "other:1"), ("origin", "https://node:1")]);
        assert_eq!(check(&own, Some(&authority)), Ok(()));
    }

    #[test]
    fn what_a_page_of_somebody_else_sends_is_refused() {
        for lines in [
            &[("host", "node:4600"), ("sec-fetch-site", "cross-site")][..],
            &[("host", "node:4600"), ("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")],
            &[("host", "node:4600"), ("origin", "https://evil.example")],
            &[("host", "node:4600"), ("origin", "https://node:4601")],
            &[("host", "node:4600"), ("origin", "https://node")],
            &[("host", "node:4600"), ("origin", "http://node:4600")],
            &[("host", "node:4600"), ("origin", "null")],
            &[("host", "node:4600"), ("origin", "")],
            &[("origin", "https://node:4600")],
            &[
                ("host", "node:1"),
                ("origin", "https://node:1"),
                ("origin", "https://evil.example"),
            ],
        ] {
            let refused = check(&headers(lines), None);
            assert!(matches!(refused, Err(Problem::Denied(_))), "{lines:?}: {refused:?}");
        }
    }
}
