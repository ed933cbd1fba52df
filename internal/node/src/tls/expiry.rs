//! How long the certificate in use is still good, and how loudly that is said.
//!
//! A node whose certificate has expired is cut off from everybody, so it must never come to that unnoticed: from 30 days
//! before, whoever looks at the node is told; a week and a day before, and in the end, it stands in the log as an error.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::time::ASN1Time;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// From when on whoever looks at the node is told.
const NOTICE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// From when on it is an error.
const WEEK: Duration = Duration::from_secs(7 * DAY.as_secs());

/// How near the end of a certificate is; later ones are worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Fine,
    Month,
    Week,
    Day,
    Expired,
}

impl Stage {
    /// At `now`, of a certificate whose last valid moment is `not_after`.
    pub(super) fn of(not_after: SystemTime, now: SystemTime) -> Stage {
        match not_after.duration_since(now) {
            Err(_) => Stage::Expired,
            Ok(left) if left <= DAY => Stage::Day,
            Ok(left) if left <= WEEK => Stage::Week,
            Ok(left) if left <= NOTICE => Stage::Month,
            Ok(_) => Stage::Fine,
        }
    }

    /// What a person is told, if anything.
    pub(super) fn notice(self, not_after: SystemTime) -> Option<String> {
        let date = date(not_after);
        match self {
            Stage::Fine => None,
            Stage::Expired => Some(format!(
                "its certificate expired on {date}; put a new one into its files"
            )),
            _ => Some(format!(
                "its certificate expires on {date}; put a new one into its files"
            )),
        }
    }

    /// Says it in the log.
    pub(super) fn tell(self, not_after: SystemTime) {
        match (self, self.notice(not_after)) {
            (Stage::Month, Some(notice)) => tracing::warn!("{notice}"),
            (_, Some(notice)) => tracing::error!("{notice}"),
            (_, None) => {}
        }
    }
}

/// Since 1970; 0 for what was before.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// For people.
pub(super) fn date(time: SystemTime) -> String {
    let seconds = seconds(time);
    let date = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| ASN1Time::from_timestamp(seconds).ok());
    date.map_or_else(|| format!("{seconds} s after 1970"), |date| date.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_nearer_the_end_the_louder_it_is_said() {
        let not_after = UNIX_EPOCH + 1_000 * DAY;
        let before = |left: Duration| Stage::of(not_after, not_after - left);
        let second = Duration::from_secs(1);
        for (left, stage) in [
            (31 * DAY, Stage::Fine),
            (30 * DAY, Stage::Month),
            (7 * DAY + second, Stage::Month),
            (7 * DAY, Stage::Week),
            (DAY + second, Stage::Week),
            (DAY, Stage::Day),
            (Duration::ZERO, Stage::Day),
        ] {
            assert_eq!(before(left), stage, "{left:?}");
        }
        assert_eq!(Stage::of(not_after, not_after + second), Stage::Expired);
        assert_eq!(Stage::Fine.notice(not_after), None);
        let notice = Stage::Month.notice(not_after).unwrap();
        assert!(
            notice.contains("expires on Sep 27") && notice.contains("1972"),
            "{notice}"
        );
        assert!(Stage::Expired.notice(not_after).unwrap().contains("expired on"));
    }
}
