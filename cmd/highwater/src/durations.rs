//! Durations on the command line: `500ms`, `30s`, `2m`, `1h`. More than nothing, and at most as long as the option allows.

use std::time::Duration;

use highwater::proto::limits::DELIVERY_DEADLINE_MS_MAX;

/// Units in milliseconds, the largest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// The longest that an option about days takes.
const LONGEST_DAYS: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The longest that an option about years takes: ten of 365 days.
const LONGEST_YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// The longest that a batch may wait, as the client library has it.
const LONGEST_LINGER: Duration = Duration::from_secs(60);
/// The longest that an option takes, unless something else limits it.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Parses a whole number with a unit, at most 30 days (720h).
pub(crate) fn parse_days(text: &str) -> Result<Duration, String> {
    parse_up_to(text, LONGEST_DAYS)
}

/// The same, at most ten years (87600h).
pub(crate) fn parse_years(text: &str) -> Result<Duration, String> {
    parse_up_to(text, LONGEST_YEARS)
}

/// Parses a whole number with a unit, at most 24 h.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    parse_up_to(text, LONGEST)
}

/// The same, at most as long as a partition remembers what it needs to recognise a retry.
pub(crate) fn parse_delivery_deadline(text: &str) -> Result<Duration, String> {
    parse_up_to(text, Duration::from_millis(DELIVERY_DEADLINE_MS_MAX))
}

/// The same up to 60 s, and nothing: how long a batch may wait for more records.
pub(crate) fn parse_linger(text: &str) -> Result<Duration, String> {
    match parse_unbounded(text)? {
        linger if linger > LONGEST_LINGER => Err(format!("it must be at most {}", show(LONGEST_LINGER))),
        linger => Ok(linger),
    }
}

fn parse_up_to(text: &str, longest: Duration) -> Result<Duration, String> {
    let duration = parse_unbounded(text)?;
    if duration.is_zero() || duration > longest {
        return Err(format!("it must be more than 0 and at most {}", show(longest)));
    }
    Ok(duration)
}

fn parse_unbounded(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration; write a whole number with a unit, for example 500ms, 30s or 2m");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, unit_ms) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    Ok(Duration::from_millis(number.saturating_mul(unit_ms)))
}

/// The shortest way to write it.
fn show(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fitting = UNITS.into_iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms));
    let (unit, unit_ms) = fitting.unwrap_or(("ms", 1));
    format!("{}{unit}", ms / unit_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999999999s"] {
            assert!(parse(wrong).is_err(), "{wrong:?} passed");
        }
    }

    #[test]
    fn the_limit_is_named() {
        assert_eq!(parse("24h"), Ok(LONGEST));
        assert_eq!(parse_years("87600h"), Ok(LONGEST_YEARS));
        assert_eq!(parse_delivery_deadline("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(parse_linger("0ms"), Ok(Duration::ZERO));
        assert_eq!(parse_linger("2m"), Err("it must be at most 1m".to_owned()));
        for (refused, limit) in [
            (parse("0s"), "24h"),
            (parse("86400001ms"), "24h"),
            (parse("18446744073709551615h"), "24h"),
            (parse_years("87601h"), "87600h"),
            (parse_delivery_deadline("1h"), "10m"),
            (parse_delivery_deadline("0ms"), "10m"),
        ] {
            let expected = format!("it must be more than 0 and at most {limit}");
            assert_eq!(refused, Err(expected));
        }
    }
}
