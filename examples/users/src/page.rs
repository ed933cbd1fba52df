//! `users metrics`: new users per month, as a page and as JSON.
//!
//! It listens before it has reached the cluster, and answers 503 until all that was there at its start has been counted. At the page's port
//! is gRPC's health service, too; metrics and health over HTTP have a port of their own.
//!
//! The page is one file without script, image or font of anybody else, in the colours that the reader's system prefers; the bars say
//! nothing that does not stand beside them in digits.

use std::error::Error;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::State as Of;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use highwater_service::serving::{self, Stop};
use highwater_service::settings::ServiceSettings;
use highwater_service::telemetry::Telemetry;
use highwater_service::{Start, View, topics};
use serde_json::{Value, json};

use crate::events;
use crate::months::{Month, Months};

/// What the service waits for before it is ready.
const WAITING: &str = "user-added";
/// What is answered instead of numbers that are not complete.
const NOT_YET: &str = "The users that are there already are still being counted; try again in a moment.\n";
/// How many months the page shows.
const MONTHS_SHOWN_MAX: usize = 36;
/// Nothing but what is in the page itself.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>New users per month</title>
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --link: #0b57d0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --line: #3d444d; --link: #79b8ff; } }
body { color: var(--ink); background: var(--paper); font: 1rem/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .5rem; text-align: left; font-weight: normal; }
thead th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
meter { width: 100%; height: 1rem; }
a { color: var(--link); }
</style>
</head>
<body>
<main>
<h1>New users per month</h1>
"#;

/// What `users metrics` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// What every service can be told.
    #[command(flatten)]
    pub service: ServiceSettings,
}

#[derive(Debug, Clone)]
struct Shown {
    /// Set once it is up to date.
    view: Arc<OnceLock<View<Months>>>,
    telemetry: Telemetry,
}

/// Serves until the process is told to stop.
///
/// # Errors
/// What makes it impossible to begin or to go on: the topic was deleted and made again; errors of listening.
pub async fn run(settings: Settings) -> Result<(), Box<dyn Error + Send + Sync>> {
    let stop = Stop::on_signals()?;
    let telemetry = Telemetry::new("users_metrics", &[WAITING])?;
    let metrics = serving::listen("metrics", settings.service.metrics_address()).await?;
    let page = serving::listen("page", settings.service.address()).await?;
    let shown = Shown {
        view: Arc::default(),
        telemetry: telemetry.clone(),
    };
    let (reporting, health) = serving::health(&telemetry, &stop).await;
    let page = serving::http(page, routes(shown.clone()).merge(health), stop.clone());
    let metrics = serving::http(metrics, telemetry.router(), stop.clone());
    let serving = async {
        tokio::join!(page, metrics, reporting);
        Ok(())
    };
    tokio::try_join!(count(&settings, &shown, &stop), serving)?;
    Ok(())
}

/// Counts, shows the numbers once they are complete, and goes on until `stop`.
async fn count(settings: &Settings, shown: &Shown, stop: &Stop) -> Result<(), Box<dyn Error + Send + Sync>> {
    let counting = async {
        let client = settings.service.connect().await?;
        topics::ensure(&client, events::USER_ADDED, events::PARTITIONS).await?;
        let view = View::open(&client, events::USER_ADDED, Start::State, Months::default()).await?;
        let caught_up = async {
            view.caught_up().await;
            let _ = shown.view.set(view.clone()); // nobody else sets it
            shown.telemetry.there(WAITING);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = caught_up => Ok(()),
            why = view.lost() => Err(why.into()),
        }
    };
    tokio::select! {
        () = stop.wait() => Ok(()),
        ended = counting => ended,
    }
}

fn routes(shown: Shown) -> Router {
    let routes = Router::new().route("/", get(page)).route("/months.json", get(numbers));
    routes.with_state(shown)
}

async fn page(Of(shown): Of<Shown>) -> Response {
    shown.answer("page", "text/html; charset=utf-8", written)
}

async fn numbers(Of(shown): Of<Shown>) -> Response {
    shown.answer("months.json", "application/json", |months| as_json(months).to_string())
}

impl Shown {
    fn answer(&self, what: &'static str, kind: &'static str, text: impl FnOnce(&Months) -> String) -> Response {
        let counted = self.telemetry.request(what);
        let Some(view) = self.view.get() else {
            counted.outcome("unavailable");
            return answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "text/plain; charset=utf-8",
                NOT_YET.to_owned(),
            );
        };
        let text = view.read(text);
        counted.outcome("ok");
        answer(StatusCode::OK, kind, text)
    }
}

fn answer(status: StatusCode, kind: &'static str, text: String) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (status, headers, text).into_response()
}

fn as_json(months: &Months) -> Value {
    let each = |(month, users): (Month, u64)| json!({ "month": month.to_string(), "users": users });
    json!({ "users": months.total(), "months": months.iter().map(each).collect::<Vec<_>>() })
}

/// Nothing in it comes from a user, so that nothing has to be escaped.
fn written(months: &Months) -> String {
    let shown = months.latest(MONTHS_SHOWN_MAX);
    let most = shown.iter().map(|(_, users)| *users).max().unwrap_or(0).max(1);
    let mut text = HEAD.to_owned();
    // Writing to a text does not fail.
    let _ = write!(
        text,
        "<table>\n<caption>{} users in all; months in UTC, at most {MONTHS_SHOWN_MAX} of them, the latest first.</caption>\n\
         <thead><tr><th scope=\"col\">Month</th><th scope=\"col\" class=\"number\">New users</th>\
         <td aria-hidden=\"true\"></td></tr></thead>\n<tbody>\n",
        months.total()
    );
    for (month, users) in shown {
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{month}</th><td class=\"number\">{users}</td>\
             <td aria-hidden=\"true\"><meter min=\"0\" max=\"{most}\" value=\"{users}\"></meter></td></tr>"
        );
    }
    text.push_str(
        "</tbody>\n</table>\n<p><a href=\"/months.json\">The same as JSON</a></p>\n</main>\n</body>\n</html>\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{added, consumed};
    use crate::proto::User;
    use highwater_service::State;

    #[test]
    fn the_page_and_the_numbers_say_the_same() {
        let mut months = Months::default();
        let user = User {
            created_ms: 1_767_312_000_000,
            ..Default::default()
        };
        months.apply(0, &[consumed(0, 0, added(user.clone())), consumed(0, 1, added(user))]);
        let expected = json!({ "users": 2, "months": [{ "month": "2026-01", "users": 2 }] });
        assert_eq!(as_json(&months), expected);
        let page = written(&months);
        assert!(
            page.contains("<th scope=\"row\">2026-01</th><td class=\"number\">2</td>"),
            "{page}"
        );
        assert!(page.contains("2 users in all"), "{page}");
    }

    #[test]
    fn without_users_there_is_an_empty_table() {
        assert!(written(&Months::default()).contains("<tbody>\n</tbody>"));
    }
}
