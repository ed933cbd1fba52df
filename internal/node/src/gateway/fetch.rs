//! `GET /v1/topics/{topic}/records`: committed records from an offset on, or a wait for them.

use std::time::Duration;

use ::http::uri::PathAndQuery;
use highwater_proto::limits::CONSUME_BYTES_MAX;
use tokio::time::Instant;

use super::answer::Answer;
use super::batches::{Cut, to_json};
use super::limits::{FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX, FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX, WAIT_MS_MAX};
use super::query::Query;
use super::{Call, Gateway};
use crate::services::{Fetch, Start, fetch, pay_for_read};
use crate::status::Problem;

/// The parameters.
pub(super) const PARAMETERS: [&str; 5] = ["partition", "offset", "max", "max_bytes", "wait_ms"];

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    partition: u32,
    start: Start,
    records_max: u64,
    bytes_max: u64,
    wait: Duration,
}

impl Wanted {
    fn read(query: &str) -> Result<Wanted, Problem> {
        let query = Query::read(query, &PARAMETERS)?;
        let start = match query.text("offset") {
            None | Some("earliest") => Start::Earliest,
            Some("latest") => Start::Latest,
            Some(_) => Start::Offset(query.number("offset", 0)?),
        };
        let wait_ms = query.limited("wait_ms", 0, WAIT_MS_MAX)?;
        Ok(Wanted {
            partition: query.limited("partition", 0, u64::from(u32::MAX))? as u32,
            start,
            records_max: positive(&query, "max", FETCH_RECORDS_DEFAULT, FETCH_RECORDS_MAX)?,
            bytes_max: positive(&query, "max_bytes", FETCH_BYTES_DEFAULT, FETCH_BYTES_MAX)?,
            wait: Duration::from_millis(wait_ms),
        })
    }
}

fn positive(query: &Query, name: &'static str, default: u64, limit: u64) -> Result<u64, Problem> {
    match query.limited(name, default, limit)? {
        0 => Err(Problem::Invalid {
            field: name,
            why: "must be at least 1".to_owned(),
        }),
        number => Ok(number),
    }
}

/// The same read, for a node that takes it over: from the offset at which it began here, as `latest` would be a later
/// one there, and for what is left of its wait.
fn resumed(target: &PathAndQuery, offset: u64, wait_left: Duration) -> Result<PathAndQuery, Problem> {
    let replaced = ["offset", "wait_ms"];
    let pairs = target.query().unwrap_or_default().split('&');
    let others =
        pairs.filter(|pair| !pair.is_empty() && !replaced.contains(&pair.split('=').next().unwrap_or_default()));
    let kept: String = others.map(|pair| format!("{pair}&")).collect();
    let wait_ms = wait_left.as_millis();
    let resumed = format!("{}?{kept}offset={offset}&wait_ms={wait_ms}", target.path());
    PathAndQuery::try_from(resumed).map_err(|error| Problem::Internal(error.to_string()))
}

impl Gateway {
    pub(super) async fn fetch(&self, call: &Call, topic: &str) -> Result<Answer, Problem> {
        let wanted = Wanted::read(call.target.query().unwrap_or_default())?;
        let asked = Fetch {
            topic,
            partition: wanted.partition,
            start: wanted.start,
            bytes_max: wanted.bytes_max.min(CONSUME_BYTES_MAX as u64) as u32,
            wait_until: call.deadline.min(Instant::now() + wanted.wait),
            deadline: call.deadline,
        };
        let payers = self.payers(call);
        // At each node on the way: the one that reads keeps the account of what it has given out.
        pay_for_read(&payers, call.deadline).await?;
        let fetched = match fetch(&self.context, (&call.principal, &payers), &asked).await {
            Ok(fetched) => fetched,
            Err(failed) => {
                let wait_left = asked.wait_until.saturating_duration_since(Instant::now());
                let target = match failed.offset {
                    Some(offset) => resumed(&call.target, offset, wait_left)?,
                    None => call.target.clone(),
                };
                let onward = Call { target, ..call.clone() };
                return Ok(self.elsewhere(&onward, None, failed.problem).await);
            }
        };
        let read_bytes = fetched.response.batches.iter().map(|batch| batch.batch.len()).sum();
        // Held while the answer is made, which may have to wait for its turn.
        let _share = self.buffers.take(&call.principal, read_bytes)?;
        let cut = Cut {
            offset: fetched.offset,
            records_max: wanted.records_max,
            bytes_max: wanted.bytes_max,
        };
        let json = self
            .workers
            .work(call.deadline, move || to_json(&fetched.response, cut))
            .await??;
        Ok(Answer::ok(self.buffers.hold(&call.principal, json)?))
    }
}

/// A way in for the fuzz targets: nothing above its limit is let through.
#[cfg(feature = "fuzz")]
pub(super) fn fuzz(query: &str) {
    if let Ok(wanted) = Wanted::read(query) {
        assert!(wanted.records_max <= FETCH_RECORDS_MAX && wanted.bytes_max <= FETCH_BYTES_MAX);
        assert!(wanted.wait.as_millis() <= u128::from(WAIT_MS_MAX));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_read_that_is_handed_over_goes_on_where_it_began_and_waits_no_longer() {
        for (query, expected) in [
            ("?offset=latest&wait_ms=30000&max=7", "?max=7&offset=12&wait_ms=1500"),
            (
                "?partition=2&max_bytes=9&offset=earliest",
                "?partition=2&max_bytes=9&offset=12&wait_ms=1500",
            ),
            ("", "?offset=12&wait_ms=1500"),
        ] {
            let target = |query: &str| PathAndQuery::try_from(format!("/v1/topics/a%2Fb/records{query}")).unwrap();
            let onward = resumed(&target(query), 12, Duration::from_millis(1500)).unwrap();
            assert_eq!(onward, target(expected).as_str());
            let (before, after) = (
                Wanted::read(query.trim_start_matches('?')).unwrap(),
                Wanted::read(onward.query().unwrap()).unwrap(),
            );
            assert_eq!(
                after,
                Wanted {
                    start: Start::Offset(12),
                    wait: Duration::from_millis(1500),
                    ..before
                }
            );
        }
    }

    #[test]
    fn everything_has_a_default_and_a_limit() {
        let least = Wanted::read("").unwrap();
        assert_eq!((least.partition, least.start), (0, Start::Earliest));
        assert_eq!(least.wait, Duration::ZERO);
        let most = Wanted::read("partition=3&offset=7&max=10000&max_bytes=4194304&wait_ms=30000").unwrap();
        assert_eq!((most.start, most.records_max), (Start::Offset(7), FETCH_RECORDS_MAX));
        assert_eq!(Wanted::read("offset=latest").unwrap().start, Start::Latest);
        for (wrong, field) in [
            ("max=0", "`max`: must be at least 1"),
            ("max=10001", "`max` is 10001, at most 10000"),
            ("max_bytes=4194305", "`max_bytes`"),
            ("wait_ms=30001", "`wait_ms`"),
            ("offset=first", "`offset`"),
            ("offset=-1", "`offset`"),
            ("partition=4294967296", "`partition`"),
            ("limit=1", "`query`"),
        ] {
            let why = Wanted::read(wrong).unwrap_err().to_string();
            assert!(why.contains(field), "{wrong}: {why}");
        }
    }
}
