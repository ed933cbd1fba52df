//! The state of a server: all users, as the records of `users` make them.
//!
//! Invariant: users are in the order of their e-mail addresses, so that a page begins behind the last address of the one before, whatever
//! has been added meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use highwater::ConsumedRecord;
use highwater_service::State;
use time::Date;

use crate::proto::User;
use crate::{days, events};

/// How many users there may be: a server has all of them in its memory, and needs room for them however long they are. Servers that create
/// users at the same moment may exceed it by one for each partition and server.
pub const USERS_MAX: usize = 100_000;
/// What the longest user takes in memory, bytes.
const USER_BYTES_MAX: usize = 4 * 1024;
/// What all users may take; the rest of the 512 MiB that the chart gives a server is for everything else. Bytes.
const USERS_BYTES_MAX: usize = 400 * 1024 * 1024;
const _: () = assert!(USERS_MAX * USER_BYTES_MAX <= USERS_BYTES_MAX);

/// All users.
#[derive(Debug, Default)]
pub struct Users {
    by_email: BTreeMap<String, User>,
    /// Partitions that have records, understood or not.
    begun: BTreeSet<u32>,
}

/// Why somebody does not become a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is one with this address already.
    #[error("there is a user with the e-mail address {0}")]
    Exists(String),
    /// There are as many as there may be.
    #[error("users: there are {users}; at most {users_max} are allowed")]
    Full {
        /// How many there are.
        users: usize,
        /// The limit.
        users_max: usize,
    },
}

/// Whom a search is for: all conditions that are there hold.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A part of "FIRST LAST", in lower case.
    pub name: Option<String>,
    /// In full years, inclusive.
    pub age_from: Option<u32>,
    /// In full years, inclusive.
    pub age_to: Option<u32>,
}

impl Wanted {
    fn has_conditions_of_age(&self) -> bool {
        self.age_from.is_some() || self.age_to.is_some()
    }

    /// Whether all conditions hold for the user on that day. Who has no birthdate has no age.
    #[must_use]
    pub fn matches(&self, user: &User, today: Date) -> bool {
        self.matches_name(user) && (!self.has_conditions_of_age() || self.matches_age(user, today))
    }

    fn matches_name(&self, user: &User) -> bool {
        let Some(part) = &self.name else { return true };
        let name = format!("{} {}", user.first_name, user.last_name);
        name.to_lowercase().contains(part)
    }

    fn matches_age(&self, user: &User, today: Date) -> bool {
        let Some(birth) = user.birthdate.as_deref().and_then(days::parse) else {
            return false;
        };
        let age = days::years(birth, today);
        (self.age_from.unwrap_or(0)..=self.age_to.unwrap_or(u32::MAX)).contains(&age)
    }
}

impl Users {
    /// The user with this address, which is in lower case.
    #[must_use]
    pub fn get(&self, email: &str) -> Option<&User> {
        self.by_email.get(email)
    }

    /// Whether somebody with this address, which is in lower case, may become a user where there are `users_max` at most.
    ///
    /// # Errors
    /// Why not.
    pub fn admit(&self, email: &str, users_max: usize) -> Result<(), Refusal> {
        if self.by_email.contains_key(email) {
            return Err(Refusal::Exists(email.to_owned()));
        }
        match self.count() {
            users if users >= users_max => Err(Refusal::Full { users, users_max }),
            _ => Ok(()),
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_email.len()
    }

    /// Whether nothing has ever been appended to the partition.
    #[must_use]
    pub fn is_untouched(&self, partition: u32) -> bool {
        !self.begun.contains(&partition)
    }

    /// Up to `size` users behind the address `after` for whom `is_wanted` holds, and whether there are more.
    pub fn page(&self, after: &str, size: usize, is_wanted: impl Fn(&User) -> bool) -> (Vec<User>, bool) {
        let behind = (Bound::Excluded(after), Bound::Unbounded);
        let users = self.by_email.range::<str, _>(behind).map(|(_, user)| user);
        let mut wanted = users.filter(|user| is_wanted(user));
        let page = wanted.by_ref().take(size).cloned().collect();
        (page, wanted.next().is_some())
    }

    fn add(&mut self, user: User, record: &ConsumedRecord) {
        if self.by_email.contains_key(&user.email) {
            // No server of ours does that.
            let (partition, offset) = (record.partition, record.offset);
            tracing::error!(
                partition,
                offset,
                "there is a second user with an e-mail address; the first one counts"
            );
            return;
        }
        self.by_email.insert(user.email.clone(), user);
    }
}

impl State for Users {
    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        self.begun.insert(partition);
        for record in records {
            match events::read_created(record) {
                Ok(user) => self.add(user, record),
                Err(problem) => events::warn_skipped(events::USERS, record, &problem),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater::Record;

    use super::*;
    use crate::events::{consumed, created};

    fn user(email: &str, name: (&str, &str), birthdate: Option<&str>) -> User {
        User {
            email: email.to_owned(),
            first_name: name.0.to_owned(),
            last_name: name.1.to_owned(),
            birthdate: birthdate.map(str::to_owned),
            ..Default::default()
        }
    }

    fn three() -> Users {
        let mut users = Users::default();
        let some = [
            user("c@x", ("Cem", "Öz"), None),
            user("a@x", ("Ann", "Lee"), Some("1990-06-15")),
            user("b@x", ("Bo", "Annan"), Some("2000-01-01")),
        ];
        let records = (0..)
            .zip(&some)
            .map(|(offset, user)| consumed(1, offset, created(user)));
        users.apply(1, &records.collect::<Vec<_>>());
        users
    }

    fn found(wanted: &Wanted) -> Vec<String> {
        let today = days::parse("2026-06-14").unwrap();
        let (page, _) = three().page("", 9, |user| wanted.matches(user, today));
        page.into_iter().map(|user| user.email).collect()
    }

    #[test]
    fn the_first_of_an_address_counts_and_the_unknown_is_skipped() {
        let mut users = three();
        let second = consumed(1, 3, created(&user("a@x", ("Other", "Person"), None)));
        users.apply(1, &[second, consumed(1, 4, Record::new("?"))]);
        assert_eq!(
            (users.count(), users.get("a@x").unwrap().first_name.as_str()),
            (3, "Ann")
        );
        assert_eq!((users.is_untouched(0), users.is_untouched(1)), (true, false));
    }

    #[test]
    fn nobody_is_admitted_twice_or_beyond_the_limit() {
        let users = three();
        assert_eq!(users.admit("d@x", 4), Ok(()));
        assert_eq!(users.admit("a@x", 4), Err(Refusal::Exists("a@x".to_owned())));
        let full = users.admit("d@x", 3).unwrap_err();
        assert_eq!(full.to_string(), "users: there are 3; at most 3 are allowed");
        // It is told to whom it concerns more.
        assert_eq!(users.admit("a@x", 3), Err(Refusal::Exists("a@x".to_owned())));
    }

    #[test]
    fn a_page_begins_behind_the_one_before() {
        let users = three();
        let emails = |page: Vec<User>| page.into_iter().map(|user| user.email).collect::<Vec<_>>();
        let (first, more) = users.page("", 2, |_| true);
        assert_eq!((emails(first), more), (vec!["a@x".to_owned(), "b@x".to_owned()], true));
        let (second, more) = users.page("b@x", 2, |_| true);
        assert_eq!((emails(second), more), (vec!["c@x".to_owned()], false));
        let (exact, more) = users.page("", 3, |_| true);
        assert_eq!((exact.len(), more), (3, false));
    }

    #[test]
    fn all_conditions_hold() {
        let name = |part: &str| Some(part.to_owned());
        let wanted = |name, age_from, age_to| found(&Wanted { name, age_from, age_to });
        assert_eq!(wanted(name("ann"), None, None), ["a@x", "b@x"]);
        assert_eq!(wanted(name("m ö"), None, None), ["c@x"]);
        assert_eq!(wanted(None, Some(35), Some(35)), ["a@x"]);
        assert_eq!(wanted(None, Some(36), None), [""; 0]);
        assert_eq!(wanted(None, None, Some(26)), ["b@x"]);
        assert_eq!(wanted(name("lee"), Some(20), Some(30)), [""; 0]);
    }
}
