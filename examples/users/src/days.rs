//! Days, ages and months, all in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime};

/// Now, milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The day of a moment; a moment that no calendar has is the first one's.
#[must_use]
pub fn of_ms(moment_ms: i64) -> Date {
    moment(moment_ms).date()
}

fn moment(moment_ms: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(moment_ms.div_euclid(1000)).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A day written YYYY-MM-DD.
#[must_use]
pub fn parse(text: &str) -> Option<Date> {
    let is_shaped = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let mut parts = text.split('-').filter(|_| is_shaped);
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if (year.len(), month.len(), parts.next()) != (4, 2, None) {
        return None;
    }
    let month = Month::try_from(month.parse::<u8>().ok()?).ok()?;
    Date::from_calendar_date(year.parse().ok()?, month, day.parse().ok()?).ok()
}

/// How many full years there are from one day to a later one; 0 if it is not later. Who is born on the 29th of February is a year older on
/// the 1st of March of a year without one.
#[must_use]
pub fn years(from: Date, to: Date) -> u32 {
    let is_before_the_day = (to.month() as u8, to.day()) < (from.month() as u8, from.day());
    u32::try_from(to.year() - from.year() - i32::from(is_before_the_day)).unwrap_or(0)
}

/// A moment as mail writes it: `Fri, 02 Jan 2026 00:00:00 +0000`.
#[must_use]
pub fn in_mail(moment_ms: i64) -> String {
    let moment = moment(moment_ms);
    let short = |name: String| name.chars().take(3).collect::<String>();
    let (weekday, month) = (short(moment.weekday().to_string()), short(moment.month().to_string()));
    let (hour, minute, second) = moment.to_hms();
    format!(
        "{weekday}, {:02} {month} {:04} {hour:02}:{minute:02}:{second:02} +0000",
        moment.day(),
        moment.year()
    )
}

/// A moment as the lines between the messages of a mailbox have it: `Fri Jan  2 00:00:00 2026`.
#[must_use]
pub fn in_mailbox(moment_ms: i64) -> String {
    let moment = moment(moment_ms);
    let short = |name: String| name.chars().take(3).collect::<String>();
    let (weekday, month) = (short(moment.weekday().to_string()), short(moment.month().to_string()));
    let (hour, minute, second) = moment.to_hms();
    format!(
        "{weekday} {month} {:2} {hour:02}:{minute:02}:{second:02} {:04}",
        moment.day(),
        moment.year()
    )
}

/// A moment as people and programs read it: `2026-01-02T00:00:00Z`.
#[must_use]
pub fn written(moment_ms: i64) -> String {
    let moment = moment(moment_ms);
    let (hour, minute, second) = moment.to_hms();
    format!("{}T{hour:02}:{minute:02}:{second:02}Z", moment.date())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_day_is_read_only_as_it_is_written() {
        assert_eq!(parse("1990-02-28").unwrap().to_string(), "1990-02-28");
        for text in [
            "",
            "1990-2-28",
            "90-02-28",
            "1990-02-29",
            "1990-13-01",
            "1990-00-01",
            "1990-01-00",
            "+990-01-01",
            "1990-01-1x",
            "----------",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_year_is_full_on_the_birthday() {
        let day = |text| parse(text).unwrap();
        for (from, to, full) in [
            ("1990-06-15", "2026-06-14", 35),
            ("1990-06-15", "2026-06-15", 36),
            ("2000-02-29", "2025-02-28", 24),
            ("2000-02-29", "2025-03-01", 25),
            ("2026-06-15", "2020-01-01", 0),
        ] {
            assert_eq!(years(day(from), day(to)), full, "{from} {to}");
        }
    }

    #[test]
    fn moments_are_written_in_three_ways() {
        assert_eq!(in_mailbox(1_767_312_000_999), "Fri Jan  2 00:00:00 2026");
        assert_eq!(in_mail(1_767_312_000_999), "Fri, 02 Jan 2026 00:00:00 +0000");
        assert_eq!(written(1_767_357_296_000), "2026-01-02T12:34:56Z");
        assert_eq!(written(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
