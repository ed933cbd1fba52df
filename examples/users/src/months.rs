//! How many users are new in each month: a fold over `user-added`.
//!
//! It is kept in memory only and made anew at each start, from all records: so each user counts once, whatever was killed and when. Months
//! are those of the moment at which the user was created, in UTC.

use std::collections::BTreeMap;
use std::fmt;

use highwater::ConsumedRecord;
use highwater_service::State;

use crate::{days, events};

/// A month of a year, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    /// 1 to 12.
    month: u8,
}

impl Month {
    /// The month of a moment, milliseconds since 1970-01-01 UTC.
    #[must_use]
    pub fn of_ms(moment_ms: i64) -> Self {
        let day = days::of_ms(moment_ms);
        Self {
            year: day.year(),
            month: day.month() as u8,
        }
    }

    fn before(self) -> Self {
        match self.month {
            1 => Self {
                year: self.year - 1,
                month: 12,
            },
            month => Self {
                month: month - 1,
                ..self
            },
        }
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

/// New users by month.
#[derive(Debug, Default)]
pub struct Months {
    users: BTreeMap<Month, u64>,
}

impl Months {
    /// The months that have new users, in order, with how many.
    pub fn iter(&self) -> impl Iterator<Item = (Month, u64)> {
        self.users.iter().map(|(month, users)| (*month, *users))
    }

    /// All users.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.users.values().sum()
    }

    /// Up to `count` months up to the last one that has new users, the latest first, also those without any in between.
    #[must_use]
    pub fn latest(&self, count: usize) -> Vec<(Month, u64)> {
        let Some(((first, _), (last, _))) = self.users.first_key_value().zip(self.users.last_key_value()) else {
            return Vec::new();
        };
        let months = std::iter::successors(Some(*last), |month| (month > first).then(|| month.before()));
        let with_users = months.map(|month| (month, self.users.get(&month).copied().unwrap_or(0)));
        with_users.take(count).collect()
    }
}

impl State for Months {
    fn apply(&mut self, _partition: u32, records: &[ConsumedRecord]) {
        for record in records {
            match events::read_added(record) {
                Ok(user) => *self.users.entry(Month::of_ms(user.created_ms)).or_default() += 1,
                Err(problem) => events::warn_skipped(events::USER_ADDED, record, &problem),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{added, consumed};
    use crate::proto::User;

    #[test]
    fn users_count_in_the_month_in_which_they_were_created() {
        let mut months = Months::default();
        assert!(months.latest(9).is_empty());
        // The last moment of December 2025, the first one of January 2026, and a day of March.
        let moments_ms = [
            1_767_225_599_999,
            1_767_225_600_000,
            1_772_400_000_000,
            1_772_400_000_001,
        ];
        for (offset, created_ms) in (0..).zip(moments_ms) {
            let user = User {
                created_ms,
                ..Default::default()
            };
            months.apply(0, &[consumed(0, offset, added(user))]);
        }
        let written = |months: Vec<(Month, u64)>| -> Vec<String> {
            months
                .into_iter()
                .map(|(month, users)| format!("{month} {users}"))
                .collect()
        };
        assert_eq!(
            written(months.iter().collect()),
            ["2025-12 1", "2026-01 1", "2026-03 2"]
        );
        assert_eq!(
            written(months.latest(9)),
            ["2026-03 2", "2026-02 0", "2026-01 1", "2025-12 1"]
        );
        assert_eq!(written(months.latest(2)), ["2026-03 2", "2026-02 0"]);
        assert_eq!(months.total(), 4);
    }
}
