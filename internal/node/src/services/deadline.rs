//! Until when a call is to be answered.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// How long a call may take if the caller does not say.
pub(crate) const DEADLINE_DEFAULT: Duration = Duration::from_secs(30);
/// The header in which it says so.
const TIMEOUT: &str = "grpc-timeout";
/// The longest that a call may take, whatever the caller says.
const DEADLINE_MAX: Duration = Duration::from_secs(10 * 60);
/// The most of the time that is kept back for the answer's way.
const MARGIN_MAX: Duration = Duration::from_millis(250);

/// When the answer must leave: the caller's deadline less a tenth of the time, in which it can still arrive.
pub(crate) fn deadline(metadata: &MetadataMap) -> Instant {
    deadline_in(metadata.as_ref())
}

/// The same before the request has been read.
pub(super) fn deadline_in(headers: &HeaderMap) -> Instant {
    let time = given(headers).unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX);
    Instant::now() + (time - (time / 10).min(MARGIN_MAX))
}

/// Takes the time that was spent already off what the caller has given, for those who ask for the deadline from now on.
pub(super) fn shorten(headers: &mut HeaderMap, spent: Duration) {
    let Some(given) = given(headers).filter(|_| spent >= Duration::from_millis(1)) else {
        return;
    };
    let left_ms = given.min(DEADLINE_MAX).saturating_sub(spent).as_millis();
    if let Ok(left) = HeaderValue::try_from(format!("{left_ms}m")) {
        headers.insert(TIMEOUT, left);
    }
}

fn given(headers: &HeaderMap) -> Option<Duration> {
    headers.get(TIMEOUT)?.to_str().ok().and_then(parse)
}

/// At most eight digits and a unit, as the gRPC protocol has it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(parse("5S"), Some(Duration::from_secs(5)));
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(parse("2H"), Some(Duration::from_secs(7200)));
        for wrong in ["", "S", "5", "5s", "123456789S", "-5S", "+5S", "5é", "é"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_spent_before_a_request_is_served_is_not_there_for_serving_it() {
        let mut headers = HeaderMap::new();
        shorten(&mut headers, Duration::from_secs(1));
        assert!(headers.is_empty());
        headers.insert(TIMEOUT, HeaderValue::from_static("1S"));
        shorten(&mut headers, Duration::from_micros(900_400));
        assert_eq!(given(&headers), Some(Duration::from_millis(99)));
        shorten(&mut headers, Duration::from_secs(5));
        assert_eq!(given(&headers), Some(Duration::ZERO));
        headers.insert(TIMEOUT, HeaderValue::from_static("99999999H"));
        shorten(&mut headers, Duration::from_secs(5));
        assert_eq!(given(&headers), Some(DEADLINE_MAX - Duration::from_secs(5)));
    }

    #[test]
    fn the_answer_leaves_before_the_caller_gives_up() {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", tonic::metadata::MetadataValue::from_static("1S"));
        let left = deadline(&metadata) - Instant::now();
        assert!(
            left <= Duration::from_millis(900) && left > Duration::from_millis(700),
            "{left:?}"
        );
        assert!(deadline(&MetadataMap::new()) - Instant::now() <= DEADLINE_DEFAULT);
    }
}
