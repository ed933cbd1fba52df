//! How often something was refused, by reason, for Prometheus.
//!
//! What is counted is what clients are told: a call or a stream that ends with an error, a batch on a stream, a request of the gateway. What
//! nodes refuse each other is not.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater_proto::detail;
use highwater_proto::v1::Reason;
use http::HeaderMap;
use tonic::Status;

use super::name_of;
use crate::metrics::Families;

/// As many reasons as there are, the one that none was given among them.
const REASONS: usize = Reason::QuotaExceeded as usize + 1;

/// Counted since the node started; takes no lock.
#[derive(Debug)]
pub(crate) struct Refused([AtomicU64; REASONS]);

impl Default for Refused {
    fn default() -> Refused {
        Refused([const { AtomicU64::new(0) }; REASONS])
    }
}

impl Refused {
    /// Something was refused.
    pub(crate) fn count(&self, reason: Reason) {
        if let Some(count) = self.0.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The headers, or the trailers, of an answer over gRPC have gone out.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        if headers.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
            return;
        }
        let Some(status) = Status::from_header_map(headers) else {
            return;
        };
        let detail = detail::from_status(&status);
        self.count(detail.map_or(Reason::Unspecified, |detail| detail.reason()));
    }

    /// Each reason has its line from the start on, so that its first time can be seen as a rate.
    pub(crate) fn tell(&self, families: &mut Families) {
        let mut told = families.begin(
            "highwater_refusals_total",
            "Calls, batches on streams and requests over HTTP that were refused, by reason.",
        );
        for (number, count) in (0..).zip(&self.0) {
            if let Ok(reason) = Reason::try_from(number) {
                told.value(&[("reason", name_of(reason))], count.load(Ordering::Relaxed) as f64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::status::Problem;

    fn headers(status: &Status) -> HeaderMap {
        let mut headers = HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        headers
    }

    #[test]
    fn every_reason_has_its_own_line_and_none_is_left_out() {
        let refused = Refused::default();
        let numbers = (0..).map_while(|number| Reason::try_from(number).ok());
        let reasons: Vec<Reason> = numbers.collect();
        for (times, reason) in (1..).zip(&reasons) {
            (0..times).for_each(|_| refused.count(*reason));
        }
        let mut families = Families::default();
        refused.tell(&mut families);
        let text = families.into_text();
        for (times, reason) in (1..).zip(&reasons) {
            let name = reason.as_str_name().strip_prefix("REASON_").unwrap();
            let line = format!("highwater_refusals_total{{reason=\"{name}\"}} {times}");
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn of_answers_only_refusals_are_counted_also_those_without_a_reason() {
        let refused = Refused::default();
        let topic = || "shop/orders".to_owned();
        for status in [
            Status::ok(""),
            Status::from(Problem::TopicNotFound { topic: topic() }),
            Status::from(Problem::TopicNotFound { topic: topic() }),
            Status::deadline_exceeded("the library's own"),
        ] {
            refused.note(&headers(&status));
        }
        refused.note(&HeaderMap::new());
        let counts = refused.0.each_ref().map(|count| count.load(Ordering::Relaxed));
        assert_eq!(counts[Reason::TopicNotFound as usize], 2);
        assert_eq!(counts[Reason::Unspecified as usize], 1);
        assert_eq!(counts.iter().sum::<u64>(), 3);
    }
}
