//! What every request to the admin listener must pass, and what every answer carries.
//!
//! On loopback nobody proves who he is, but a browser there opens pages of anybody. Such a page can have the browser send requests here, and
//! could read the answers if it came from what the browser takes for the same place. So a request must name this listener by an address or a
//! name of its own (a page that turned its own name into 127.0.0.1 cannot), and must not be one that the browser says comes from another site.
//! No answer ever carries a header that lets other sites read it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Caller, Desk, Who};
use crate::access::{Action, Principal, Resource};

const NEEDS_CERTIFICATE: &str = "Elsewhere than on loopback this listener tells only /livez and /readyz without a certificate. For everything else \
    use https with the certificate of an operator of the cluster (docs/security.md).";
const NEEDS_OPERATOR: &str =
    "This certificate is not one of an operator of the cluster, or this node cannot tell at present.";
const WRONG_HOST: &str = "The host of this address is none that this listener knows itself by: use localhost or an address, or add the name to \
    the setting `admin_names` (--admin-names).";
const OTHER_SITE: &str = "Other web sites may not read the console.";
const ONLY_GET: &str = "Nothing can be changed here; there is only GET.";

/// What a page may load: only what stands beside it, and no script or style that is written into it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

pub(super) async fn guard(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match judge(&desk, &caller, &request) {
        Ok(()) => next.run(request).await,
        Err((status, why)) => (status, format!("{why}\n")).into_response(),
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) type Refusal = (StatusCode, &'static str);

fn judge(desk: &Desk, caller: &Caller, request: &Request) -> Result<(), Refusal> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, ONLY_GET));
    }
    match request.uri().path() {
        "/livez" | "/readyz" => return Ok(()),
        "/metrics" if desk.opens_metrics => return Ok(()),
        _ => {}
    }
    may_read(desk, caller, request.headers())
}

/// Whether a request with these headers may have more than yes or no.
pub(super) fn may_read(desk: &Desk, caller: &Caller, headers: &HeaderMap) -> Result<(), Refusal> {
    match &caller.who {
        Who::Stranger => return Err((StatusCode::FORBIDDEN, NEEDS_CERTIFICATE)),
        Who::Proven(principal) => {
            if !desk.admits(principal) {
                return Err((StatusCode::FORBIDDEN, NEEDS_OPERATOR));
            }
        }
        Who::Local => {}
    }
    // Browsers always send one.
    let host = headers.get(header::HOST);
    if !host.is_none_or(|host| is_own(host.to_str().unwrap_or_default(), &desk.names)) {
        return Err((StatusCode::FORBIDDEN, WRONG_HOST));
    }
    if is_of_other_site(headers) {
        return Err((StatusCode::FORBIDDEN, OTHER_SITE));
    }
    Ok(())
}

impl Desk {
    /// Whether somebody is an operator. By a policy that may be old it cannot be told; those whom the node's own settings name come in all the
    /// same, for they come when something is wrong.
    fn admits(&self, principal: &Principal) -> bool {
        let is_configured = principal
            .client()
            .is_some_and(|client| self.authority.is_configured_operator(client));
        let asked = || self.authority.authorize(principal, Action::Admin, Resource::Cluster);
        is_configured || (self.currency.check().is_ok() && asked().is_ok())
    }
}

/// Whether a request names this listener by what only its owner can have chosen: an address, `localhost`, or a configured name.
fn is_own(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.to_ascii_lowercase();
    name == "localhost" || name.parse::<IpAddr>().is_ok() || names.contains(&name)
}

/// Whether the browser says that another site sent it. To follow a link to the console from there is all right: the other site does not see it.
fn is_of_other_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_visit = text("sec-fetch-mode") == Some("navigate") && text("sec-fetch-dest") == Some("document");
    !matches!(text("sec-fetch-site"), None | Some("same-origin" | "none")) && !is_visit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_own_names_name_this_listener() {
        let names = ["console.example".to_owned()];
        for own in [
            "localhost",
            "LOCALHOST:7401",
            "127.0.0.1:7401",
            "[::1]:7401",
            "[::1]",
            "10.0.0.7",
            "Console.Example:443",
        ] {
            assert!(is_own(own, &names), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "localhost.evil.example:7401",
            "127.0.0.1.evil.example",
            "[evil.example]",
            ":7401",
        ] {
            assert!(!is_own(other, &names), "{other}");
        }
    }

    #[test]
    fn what_the_browser_says_comes_from_elsewhere_is_refused_but_for_visits() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs
                .iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
            pairs.collect()
        };
        assert!(!is_of_other_site(&headers(&[])));
        assert!(!is_of_other_site(&headers(&[("sec-fetch-site", "same-origin")])));
        let visit = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "document"),
        ];
        assert!(!is_of_other_site(&headers(&visit)));
        for site in ["cross-site", "same-site", "whatever"] {
            assert!(is_of_other_site(&headers(&[("sec-fetch-site", site)])), "{site}");
        }
        let framed = [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-mode", "navigate"),
            ("sec-fetch-dest", "iframe"),
        ];
        assert!(is_of_other_site(&headers(&framed)));
    }
}
