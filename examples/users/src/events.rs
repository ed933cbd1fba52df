//! The records of the two topics, and how they are written and read.
//!
//! Records stay for ever, and programs change. So each says in which form it is, and whoever reads one of a later form, or one that it does
//! not know, is told so and skips it with a warning.

use highwater::{ConsumedRecord, Record};
use prost::Message;

use crate::proto::users_event::Event;
use crate::proto::{User, UserAdded, UsersEvent};

/// What has happened to users.
pub const USERS: &str = "users";
/// That there are new users, for others.
pub const USER_ADDED: &str = "user-added";
/// How many partitions both have. The servers go by how many there are; this is for making them.
pub const PARTITIONS: u32 = 3;

/// The form of records that this program writes, and the latest one that it reads.
const VERSION: u32 = 1;

/// Why a record is skipped.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no such message.
    #[error(transparent)]
    Form(#[from] prost::DecodeError),
    /// It was written by a later program.
    #[error("it is of form {0}; this program reads form {VERSION}")]
    Version(u32),
    /// It says that something has happened, but not what.
    #[error("it is of an event that this program does not know")]
    Event,
}

/// The partition that decides about an e-mail address, which is in lower case.
#[must_use]
pub fn partition(email: &str, partitions: u32) -> u32 {
    highwater::proto::keys::partition(email.as_bytes(), partitions)
}

/// The record that says that there is a new user.
#[must_use]
pub fn created(user: &User) -> Record {
    let event = UsersEvent {
        version: VERSION,
        event: Some(Event::Created(user.clone())),
    };
    Record::keyed(user.email.clone(), event.encode_to_vec())
}

/// The new user that a record of `users` tells of.
///
/// # Errors
/// Why it is to be skipped.
pub fn read_created(record: &ConsumedRecord) -> Result<User, Unreadable> {
    let event = UsersEvent::decode(record.value.clone())?;
    check(event.version)?;
    let Some(Event::Created(user)) = event.event else {
        return Err(Unreadable::Event);
    };
    Ok(user)
}

/// The record that tells others of a new user.
#[must_use]
pub fn added(user: User) -> Record {
    let added = UserAdded {
        version: VERSION,
        email: user.email.clone(),
        first_name: user.first_name,
        last_name: user.last_name,
        created_ms: user.created_ms,
    };
    Record::keyed(user.email, added.encode_to_vec())
}

/// What a record of `user-added` tells.
///
/// # Errors
/// Why it is to be skipped.
pub fn read_added(record: &ConsumedRecord) -> Result<UserAdded, Unreadable> {
    let added = UserAdded::decode(record.value.clone())?;
    check(added.version)?;
    Ok(added)
}

fn check(version: u32) -> Result<(), Unreadable> {
    match version {
        VERSION => Ok(()),
        other => Err(Unreadable::Version(other)),
    }
}

/// Says that a record is left out.
pub(crate) fn warn_skipped(topic: &str, record: &ConsumedRecord, problem: &Unreadable) {
    let (partition, offset) = (record.partition, record.offset);
    tracing::warn!(topic, partition, offset, %problem, "a record is skipped");
}

/// A record as it would have been read, for tests.
#[cfg(test)]
pub(crate) fn consumed(partition: u32, offset: u64, record: Record) -> ConsumedRecord {
    ConsumedRecord {
        partition,
        offset,
        key: record.key,
        value: record.value,
        headers: record.headers,
        timestamp_ms: 0,
        append_time_ms: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let user = User {
            email: "ann@users.example".to_owned(),
            created_ms: 7,
            ..Default::default()
        };
        assert_eq!(read_created(&consumed(0, 0, created(&user))).unwrap(), user);
        let told = read_added(&consumed(0, 0, added(user))).unwrap();
        assert_eq!((told.email.as_str(), told.created_ms), ("ann@users.example", 7));
    }

    #[test]
    fn what_a_later_program_has_written_is_skipped() {
        let event = |version, event| consumed(0, 0, Record::new(UsersEvent { version, event }.encode_to_vec()));
        let user = || Some(Event::Created(User::default()));
        assert!(matches!(read_created(&event(2, user())), Err(Unreadable::Version(2))));
        assert!(matches!(read_created(&event(1, None)), Err(Unreadable::Event)));
        assert!(matches!(
            read_created(&consumed(0, 0, Record::new(vec![0xff]))),
            Err(Unreadable::Form(_))
        ));
        assert!(matches!(
            read_added(&consumed(0, 0, Record::new(vec![]))),
            Err(Unreadable::Version(0))
        ));
    }

    /// It must never change: users would be looked for where they are not.
    #[test]
    fn an_address_stays_in_its_partition() {
        let found = [
            "ada.berg@users.example",
            "bao.tran@users.example",
            "bea.rossi@users.example",
        ];
        let found = found.map(|email| partition(email, PARTITIONS));
        assert_eq!(found, [0, 1, 2]);
    }
}
