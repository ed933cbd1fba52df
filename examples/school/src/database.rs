//! A read model in SQLite: what the events of a topic make of a few tables.
//!
//! The events of a batch and the positions behind them are one transaction. So a service that was killed begins where its database is:
//! what was not committed is read again, and nothing is taken in twice. The log is the truth; a database that is lost is made anew from it,
//! which is also why it is enough that SQLite syncs at its checkpoints only: a crash of the machine takes the last transactions away,
//! whole, and they are made again.
//!
//! Invariants:
//!
//! * a file belongs to one topic, by the topic's id, and to one process, which keeps it locked; and its tables have the form that this
//!   program makes ([`FORM`]);
//! * after a failure (disk full, file damaged, an event of a newer program) nothing more is taken in and nothing is answered: the service
//!   says so and ends, and goes on from the last transaction when it is started again.
//!
//! Whoever reads or takes in leaves the tasks of other requests to other threads meanwhile: all of it may wait for the disk.
//!
//! Deliberately absent: changing a file of another form. It is refused, and made anew from the log when it is deleted.

use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use highwater::ConsumedRecord;
use highwater::proto::v1::Topic;
use highwater_service::State;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::block_in_place;

use crate::command::{self, NotUnderstood};

/// How long to wait for a process that has the file and is just ending.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3);

/// The form of the tables, in SQLite's `user_version`; to be raised whenever a table or what is kept in it changes. Files of the first
/// form do not name one.
pub const FORM: u32 = 2;

const SETTINGS: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
";
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS topic (id TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS positions (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
";

/// The tables of one kind of events.
pub trait Tables: 'static {
    /// What has changed by an event.
    type Change: DeserializeOwned;
    /// SQL that makes the tables if they are not there.
    const SCHEMA: &'static str;

    /// Takes in one change.
    ///
    /// # Errors
    /// Those of SQLite.
    fn take_in(transaction: &Transaction<'_>, id: &str, change: &Self::Change) -> rusqlite::Result<()>;
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite says so.
    #[error("the database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// It was made of something else.
    #[error(
        "the database is of topic id {found}, and the topic of that name has id {wanted}: use another file, or delete this one to have it made anew"
    )]
    OtherTopic {
        /// The topic that it is made of.
        found: String,
        /// The topic that there is.
        wanted: String,
    },
    /// An older program has made it, or a newer one, or none of this name.
    #[error(
        "the database has tables of form {found}, and this program makes form {FORM}: use another file, or delete this one to have it made anew"
    )]
    OtherForm {
        /// What the file says; 0 is the first form, or no database of this program.
        found: u32,
    },
    /// An event is of a newer program.
    #[error(transparent)]
    Event(#[from] NotUnderstood),
    /// An event could not be taken in, earlier.
    #[error("the database has failed: {0}")]
    Failed(String),
}

/// A file of tables, as a state of a topic.
#[derive(Debug)]
pub struct Database<T> {
    /// A connection may not be used by two at once.
    connection: Mutex<Connection>,
    /// By partition, the offset that comes next, as in the file.
    positions: Vec<u64>,
    failure: watch::Sender<Option<String>>,
    tables: PhantomData<fn() -> T>,
}

impl<T: Tables> Database<T> {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// A file that another process has, that is damaged, or that is of another topic or another form.
    pub fn open(path: &Path, topic: &Topic) -> Result<Self, DatabaseError> {
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(LOCK_TIMEOUT)?;
        connection.execute_batch(SETTINGS)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_form(&transaction)?;
        transaction.execute_batch(SCHEMA)?;
        transaction.execute_batch(T::SCHEMA)?;
        check_topic(&transaction, &topic.topic_id.to_string())?;
        let mut positions = Vec::new();
        for partition in (0..).take(topic.partitions.len()) {
            positions.push(stored_position(&transaction, partition)?);
        }
        transaction.commit()?;
        Ok(Self {
            connection: Mutex::new(connection),
            positions,
            failure: watch::Sender::new(None),
            tables: PhantomData,
        })
    }

    /// Tells when the database has failed, and why.
    #[must_use]
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// By partition, the offset that comes next: the tables are made of all below, and of nothing else.
    #[must_use]
    pub fn positions(&self) -> &[u64] {
        &self.positions
    }

    /// Looks at the tables.
    ///
    /// # Errors
    /// Those of SQLite; a failure before.
    pub fn read<R>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<R>) -> Result<R, DatabaseError> {
        if let Some(why) = &*self.failure.borrow() {
            return Err(DatabaseError::Failed(why.clone()));
        }
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(query(&connection)?)
    }

    fn take_in(&mut self, partition: u32, records: &[ConsumedRecord]) -> Result<(), DatabaseError> {
        let begin = State::position(self, partition);
        let fresh = records.iter().filter(|record| record.offset >= begin);
        let Some(next) = records
            .last()
            .map(|record| record.offset + 1)
            .filter(|next| *next > begin)
        else {
            return Ok(());
        };
        let connection = self.connection.get_mut().unwrap_or_else(PoisonError::into_inner);
        let transaction = connection.transaction()?;
        for record in fresh {
            if let Some((id, change)) = command::change_in(record)? {
                T::take_in(&transaction, id, &change)?;
            }
        }
        let upsert = "INSERT INTO positions VALUES (?1, ?2) ON CONFLICT (partition) DO UPDATE SET next = excluded.next";
        transaction.execute(upsert, params![partition, next.cast_signed()])?;
        transaction.commit()?;
        if let Some(position) = self.positions.get_mut(partition as usize) {
            *position = next;
        }
        Ok(())
    }
}

impl<T: Tables> State for Database<T> {
    fn position(&self, partition: u32) -> u64 {
        self.positions.get(partition as usize).copied().unwrap_or(0)
    }

    fn apply(&mut self, partition: u32, records: &[ConsumedRecord]) {
        if self.failure.borrow().is_some() {
            return;
        }
        if let Err(error) = block_in_place(|| self.take_in(partition, records)) {
            tracing::error!(partition, %error, "an event cannot be taken in");
            self.failure.send_replace(Some(error.to_string()));
        }
    }
}

/// Of a file that is empty the form is set, of another one it is looked at.
fn check_form(transaction: &Transaction<'_>) -> Result<(), DatabaseError> {
    let tables: u32 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        transaction.pragma_update(None, "user_version", FORM)?;
    }
    match transaction.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        FORM => Ok(()),
        found => Err(DatabaseError::OtherForm { found }),
    }
}

fn check_topic(transaction: &Transaction<'_>, wanted: &str) -> Result<(), DatabaseError> {
    let found: Option<String> = transaction
        .query_row("SELECT id FROM topic", [], |row| row.get(0))
        .optional()?;
    match found {
        Some(found) if found != wanted => Err(DatabaseError::OtherTopic {
            found,
            wanted: wanted.to_owned(),
        }),
        Some(_) => Ok(()),
        None => {
            transaction.execute("INSERT INTO topic VALUES (?1)", [wanted])?;
            Ok(())
        }
    }
}

fn stored_position(transaction: &Transaction<'_>, partition: u32) -> rusqlite::Result<u64> {
    let query = "SELECT next FROM positions WHERE partition = ?1";
    let next: Option<i64> = transaction.query_row(query, [partition], |row| row.get(0)).optional()?;
    Ok(next.unwrap_or(0).cast_unsigned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use highwater::proto::v1::Partition;

    use super::*;
    use crate::command::tests::record;
    use crate::student::StudentChange;

    /// Counts what is taken in, and fails when it is told to.
    #[derive(Debug)]
    struct Counter;

    impl Tables for Counter {
        type Change = StudentChange;
        const SCHEMA: &'static str = "CREATE TABLE IF NOT EXISTS seen (id TEXT NOT NULL)";

        fn take_in(transaction: &Transaction<'_>, id: &str, change: &StudentChange) -> rusqlite::Result<()> {
            transaction.execute("INSERT INTO seen VALUES (?1)", [id])?;
            match change {
                StudentChange::Deleted => Err(rusqlite::Error::InvalidQuery),
                _ => Ok(()),
            }
        }
    }

    fn topic(topic_id: u64) -> Topic {
        Topic {
            topic_id,
            partitions: vec![Partition::default(); 3],
            ..Topic::default()
        }
    }

    fn event(id: &str, offset: u64) -> ConsumedRecord {
        record(
            Some(id),
            r#"{"command":"1/5","applied":{"enrolled":{"course":"logic"}}}"#,
            offset,
        )
    }

    fn seen(database: &Database<Counter>) -> Vec<String> {
        let rows = |connection: &Connection| {
            let mut query = connection.prepare("SELECT id FROM seen ORDER BY rowid")?;
            let rows = query.query_map([], |row| row.get(0))?;
            rows.collect()
        };
        database.read(rows).unwrap()
    }

    #[test]
    fn a_database_goes_on_where_it_was_and_takes_nothing_in_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sqlite");
        let mut database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        database.apply(1, &[event("a", 0), event("b", 1)]);
        drop(database);
        let mut database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        assert_eq!(database.positions(), [0, 2, 0]);
        database.apply(1, &[event("b", 1), event("c", 2)]);
        database.apply(1, &[event("c", 2)]);
        assert_eq!(seen(&database), ["a", "b", "c"]);
        assert_eq!(State::position(&database, 1), 3);
    }

    #[test]
    fn a_file_is_of_one_topic_and_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sqlite");
        let database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        let taken = Database::<Counter>::open(&path, &topic(7)).unwrap_err();
        assert!(taken.to_string().contains("locked"), "{taken}");
        drop(database);
        let other = Database::<Counter>::open(&path, &topic(8)).unwrap_err();
        assert!(matches!(other, DatabaseError::OtherTopic { .. }), "{other}");
    }

    #[test]
    fn a_file_of_another_form_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sqlite");
        drop(Database::<Counter>::open(&path, &topic(7)).unwrap());
        drop(Database::<Counter>::open(&path, &topic(7)).unwrap());
        for form in [0, FORM - 1, FORM + 1] {
            let file = Connection::open(&path).unwrap();
            file.pragma_update(None, "user_version", form).unwrap();
            drop(file);
            let refused = Database::<Counter>::open(&path, &topic(7)).unwrap_err();
            assert!(
                matches!(refused, DatabaseError::OtherForm { found } if found == form),
                "{refused}"
            );
        }
        let file = Connection::open(&path).unwrap();
        file.pragma_update(None, "user_version", FORM).unwrap();
        drop(file);
        Database::<Counter>::open(&path, &topic(7)).unwrap();
    }

    #[test]
    fn an_event_of_a_newer_program_is_not_committed_past() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sqlite");
        let mut database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        let more = r#"{"command":"1/5","by":"w","applied":{"enrolled":{"course":"logic","since":1}}}"#;
        database.apply(0, &[record(Some("a"), more, 0)]);
        assert!(database.failure().borrow().is_none());
        let newer = record(Some("b"), r#"{"command":"1/6","applied":{"promoted":{}}}"#, 1);
        database.apply(0, &[newer, event("c", 2)]);
        let why = database.failure().borrow().clone().unwrap();
        assert!(why.contains("offset 1") && why.contains("newer program"), "{why}");
        drop(database);
        let database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        assert_eq!(database.positions(), [1, 0, 0]);
    }

    #[test]
    fn after_a_failure_nothing_is_answered_and_the_file_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sqlite");
        let mut database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        let failure = database.failure();
        database.apply(0, &[event("a", 0)]);
        let fails = record(Some("b"), r#"{"command":"1/5","applied":"deleted"}"#, 2);
        database.apply(0, &[event("half", 1), fails]);
        database.apply(0, &[event("c", 3)]);
        assert!(failure.borrow().is_some());
        assert!(matches!(database.read(|_| Ok(())), Err(DatabaseError::Failed(_))));
        drop(database);
        let database = Database::<Counter>::open(&path, &topic(7)).unwrap();
        assert_eq!(database.positions(), [1, 0, 0]);
        assert_eq!(seen(&database), ["a"]);
    }
}
