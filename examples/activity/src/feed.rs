//! The feed: adding events without duplicates, and reading them.
//!
//! Adding is a decision on the [`Index`] (is the id there?) that is appended only if the index was up to date. So of several servers that
//! are given the same id at the same time one stores it, and the others see that it is there. Because of that an event may be posted again
//! whenever it is not known whether it was stored.
//!
//! Whoever follows has a position, and is woken when the index has grown. One reader of the log for each server is enough for all of them.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use highwater::{Client, Error, Outcome, ProduceError};
use highwater_service::serving::Stop;
use highwater_service::topics::{self, TopicError};
use highwater_service::{Behind, Declined, Lost, Start, View, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use crate::archive::{Archive, ArchiveError};
use crate::event::{Event, Posted, partition_of};
use crate::index::{Entry, Index};
use crate::limits::{
    ADD_DEADLINE, ADDS_MAX, EVENTS_MAX, FOLLOWERS_MAX, PAGE_BYTES_MAX, PAGE_EVENTS_MAX, READ_DEADLINE,
};
use crate::{PARTITIONS, TOPIC};

/// What a server does with the log. To be shared.
#[derive(Debug)]
pub struct Feed {
    writer: Writer<Index>,
    archive: Archive,
    followers: Arc<Semaphore>,
    stop: Stop,
}

/// What is stored under an id after it was posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// It was there already, and nothing was stored.
    pub already_there: bool,
    /// The one that is there has another message.
    pub differs: bool,
    /// Where the first one is.
    pub position: u64,
    /// When the first one was sent, milliseconds since 1970-01-01 UTC.
    pub sent_at_ms: u64,
    /// When the first one was received, milliseconds since 1970-01-01 UTC.
    pub received_at_ms: u64,
}

/// Why the feed cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its topic.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The state of it.
    #[error(transparent)]
    View(#[from] highwater_service::OpenError),
    /// The cluster.
    #[error(transparent)]
    Log(#[from] Error),
}

/// Why an event was not added, or why that is not known.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The feed takes no more.
    #[error("not stored: the feed has {EVENTS_MAX} events, which is its limit")]
    Full,
    /// Too much at once.
    #[error("not stored; post it again: {ADDS_MAX} events of this partition wait to be added, which is the limit")]
    Busy,
    /// Its turn did not come in time.
    #[error("not stored; post it again: too many others were before it")]
    Waited,
    /// The append failed.
    #[error("{fate}: {source}")]
    Failed {
        /// What that means for whoever posted.
        fate: Fate,
        /// How.
        source: ProduceError,
    },
    /// It was appended, maybe, but what then happened is not known.
    #[error("{fate}: {0}", fate = Fate::MayBeStored)]
    Behind(#[from] Behind),
    /// It took too long.
    #[error("{fate}: no answer within {ADD_DEADLINE:?}", fate = Fate::MayBeStored)]
    Late,
    /// What was stored is not there: a mistake of the program.
    #[error("it was stored, and is not there")]
    Lost,
}

/// What an append that failed means for whoever posted the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nobody knows whether it is stored, or will be.
    MayBeStored,
    /// It is not stored; the next attempt may succeed.
    TryAgain,
    /// It is not stored, and the next attempt will fail too.
    Refused,
}

impl Fate {
    /// By what became of the append first, and only then by its reason: what may have been stored is to be posted again whatever it was.
    #[must_use]
    pub fn of(outcome: Outcome, is_retryable: bool) -> Self {
        match (outcome, is_retryable) {
            (Outcome::Unknown | Outcome::Applied, _) => Self::MayBeStored,
            (Outcome::NotApplied, true) => Self::TryAgain,
            (Outcome::NotApplied, false) => Self::Refused,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MayBeStored => "it may have been stored; post it again, it will not be stored twice",
            Self::TryAgain => "not stored; post it again",
            Self::Refused => "not stored, and the log will not take it",
        })
    }
}

/// Why events cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The server has not read enough of the log.
    #[error(transparent)]
    Behind(#[from] Behind),
    /// Not even the log has that: it is not the one that whoever asks has seen.
    #[error(
        "position {position} is wanted, and the log ends at {end} (exclusive): it was made again, or put back to an earlier time; begin \
         at its first event"
    )]
    Beyond {
        /// What was wanted.
        position: u64,
        /// Where the partition ends, exclusive.
        end: u64,
    },
    /// The server has only begun to read the log.
    #[error("this server has not read the log up to its end yet")]
    NotReady,
    /// The log does not answer, or old messages could not be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Too many follow.
    #[error("{FOLLOWERS_MAX} streams are open, which is the limit of this server")]
    TooManyFollowers,
    /// The server ends.
    #[error("the server stops; follow again from position {next_position}")]
    Stopping {
        /// Where to go on.
        next_position: u64,
    },
}

/// A part of a deployment's events.
#[derive(Debug)]
pub struct Page {
    /// In order of position.
    pub events: Vec<Event>,
    /// Where the next page begins, if there is more at the moment.
    pub next_position: Option<u64>,
}

/// Why nothing is appended.
#[derive(Debug)]
enum Refusal {
    AlreadyThere(Added),
    Full,
    Unwritable(serde_json::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyThere(added) => write!(f, "already there at position {}", added.position),
            Self::Full => write!(f, "the feed is full"),
            Self::Unwritable(error) => write!(f, "{error}"),
        }
    }
}

impl Feed {
    /// Begins to read the topic, which is made if there is none; `newest_bytes_max` is for messages in memory.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(client: &Client, newest_bytes_max: usize, stop: Stop) -> Result<Self, OpenError> {
        let topic = topics::ensure(client, TOPIC, PARTITIONS).await?;
        let index = Index::new(topic.partitions.len() as u32, newest_bytes_max);
        let view = View::open(client, TOPIC, Start::State, index).await?;
        Ok(Self {
            writer: Writer::open(client, TOPIC, view).await?,
            archive: Archive::new(client.clone()),
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            stop,
        })
    }

    /// Resolves once everything that was there at the start has been read. Cancel safe.
    pub async fn caught_up(&self) {
        self.view().caught_up().await;
    }

    /// Resolves when the feed is worth nothing any more, since its topic is another one. Cancel safe.
    pub async fn lost(&self) -> Lost {
        self.view().lost().await
    }

    /// How many streams are open.
    #[must_use]
    pub fn followers(&self) -> usize {
        FOLLOWERS_MAX - self.followers.available_permits()
    }

    /// Stores an event unless one of its deployment and id is there. `posted` has been [checked](Posted::check).
    ///
    /// Not cancel safe: if the future is dropped, the event may still be stored.
    ///
    /// # Errors
    /// [`AddError`].
    pub async fn add(&self, posted: &Posted) -> Result<Added, AddError> {
        match timeout(ADD_DEADLINE, self.decide(posted)).await {
            Ok(added) => added,
            Err(_) => Err(AddError::Late),
        }
    }

    async fn decide(&self, posted: &Posted) -> Result<Added, AddError> {
        let decide = |index: &Index| {
            if let Some(entry) = index.find(posted.deployment_id, posted.id) {
                let differs = index.differs(entry, &posted.message);
                return Err(Refusal::AlreadyThere(added(entry, true, differs)));
            }
            if index.events() >= EVENTS_MAX {
                return Err(Refusal::Full);
            }
            Ok(vec![posted.to_record().map_err(Refusal::Unwritable)?])
        };
        match self.writer.decide(self.partition(posted.deployment_id), decide).await {
            Ok(_) => {
                let find = |index: &Index| Some(added(index.find(posted.deployment_id, posted.id)?, false, false));
                self.view().read(find).ok_or(AddError::Lost)
            }
            Err(Declined::Refused(Refusal::AlreadyThere(added))) => Ok(added),
            Err(Declined::Refused(Refusal::Full)) => Err(AddError::Full),
            Err(Declined::Refused(Refusal::Unwritable(_))) => Err(AddError::Lost),
            Err(Declined::Failed(source)) => Err(AddError::Failed {
                fate: Fate::of(source.outcome(), source.is_retryable()),
                source,
            }),
            Err(Declined::Busy) => Err(AddError::Busy),
            Err(Declined::Late) => Err(AddError::Waited),
            Err(Declined::Behind(behind)) => Err(behind.into()),
        }
    }

    /// Waits until everything up to and with a position is part of what is answered. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::NotReady`]; [`ReadError::Behind`] if it may still come; [`ReadError::Beyond`] if the log does not have it; and
    /// [`ReadError::Archive`] if that is not known either.
    pub async fn reach(&self, deployment_id: u64, position: Option<u64>) -> Result<(), ReadError> {
        let ready = timeout(READ_DEADLINE, self.caught_up()).await;
        ready.map_err(|_| ReadError::NotReady)?;
        let Some(position) = position else {
            return Ok(());
        };
        let (partition, wanted) = (self.partition(deployment_id), position.saturating_add(1));
        let Err(behind) = self.view().reach(partition, wanted, READ_DEADLINE).await else {
            return Ok(());
        };
        match self.archive.end(partition).await? {
            end if end < wanted => Err(ReadError::Beyond { position, end }),
            _ => Err(behind.into()),
        }
    }

    /// An event. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::Archive`].
    pub async fn get(&self, deployment_id: u64, id: u64) -> Result<Option<Event>, ReadError> {
        let Some(entry) = self.view().read(|index| index.find(deployment_id, id).cloned()) else {
            return Ok(None);
        };
        Ok(self.with_messages(deployment_id, vec![entry]).await?.pop())
    }

    /// Where the event of that id is.
    #[must_use]
    pub fn position_of(&self, deployment_id: u64, id: u64) -> Option<u64> {
        self.view().read(|index| Some(index.find(deployment_id, id)?.position))
    }

    /// Where the last `count` events of a deployment begin.
    #[must_use]
    pub fn last(&self, deployment_id: u64, count: usize) -> u64 {
        self.view().read(|index| index.last(deployment_id, count))
    }

    /// Up to `limit` deployments, those with the highest ids first.
    #[must_use]
    pub fn deployments(&self, limit: usize) -> Vec<u64> {
        self.view().read(|index| index.deployments(limit))
    }

    /// Up to `limit` events of a deployment from a position on, fewer if they are long ([`PAGE_BYTES_MAX`]). Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::Archive`].
    pub async fn page(&self, deployment_id: u64, from_position: u64, limit: usize) -> Result<Page, ReadError> {
        let (entries, has_more) = self
            .view()
            .read(|index| index.page(deployment_id, from_position, limit, PAGE_BYTES_MAX));
        let next = entries.last().filter(|_| has_more).map(|last| last.position + 1);
        Ok(Page {
            events: self.with_messages(deployment_id, entries).await?,
            next_position: next,
        })
    }

    /// Follows a deployment from a position on.
    ///
    /// # Errors
    /// [`ReadError::TooManyFollowers`].
    pub fn follow(self: &Arc<Self>, deployment_id: u64, from_position: u64) -> Result<Follower, ReadError> {
        let place = self.followers.clone().try_acquire_owned();
        Ok(Follower {
            feed: self.clone(),
            deployment_id,
            next_position: from_position,
            waiting: VecDeque::new(),
            changes: self.view().changes(),
            _place: place.map_err(|_| ReadError::TooManyFollowers)?,
        })
    }

    fn view(&self) -> &View<Index> {
        self.writer.view()
    }

    fn partition(&self, deployment_id: u64) -> u32 {
        partition_of(deployment_id, self.view().partitions())
    }

    /// Entries of a deployment as events; messages that are not in memory are read from the log.
    async fn with_messages(&self, deployment_id: u64, entries: Vec<Entry>) -> Result<Vec<Event>, ReadError> {
        let old: Vec<u64> = entries
            .iter()
            .filter(|entry| entry.message.is_none())
            .map(|entry| entry.position)
            .collect();
        let mut messages = self
            .archive
            .messages(self.partition(deployment_id), &old)
            .await?
            .into_iter();
        let with_message = |entry: Entry| {
            let message = entry.message.clone().or_else(|| messages.next());
            let message = message.ok_or(ArchiveError::Gone(entry.position))?;
            Ok(event(deployment_id, &entry, &message))
        };
        entries.into_iter().map(with_message).collect()
    }
}

fn added(entry: &Entry, already_there: bool, differs: bool) -> Added {
    Added {
        already_there,
        differs,
        position: entry.position,
        sent_at_ms: entry.sent_at_ms,
        received_at_ms: entry.received_at_ms,
    }
}

fn event(deployment_id: u64, entry: &Entry, message: &str) -> Event {
    Event {
        deployment_id,
        id: entry.id,
        message: message.to_owned(),
        sent_at_ms: entry.sent_at_ms,
        received_at_ms: entry.received_at_ms,
        position: entry.position,
    }
}

/// Reads a deployment from a position on, for ever.
#[derive(Debug)]
pub struct Follower {
    feed: Arc<Feed>,
    deployment_id: u64,
    /// That of the next event, or a smaller one.
    next_position: u64,
    waiting: VecDeque<Event>,
    changes: watch::Receiver<()>,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    /// The next event; waits until there is one. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::Archive`], and [`ReadError::Stopping`] when the server is to end.
    pub async fn next(&mut self) -> Result<Event, ReadError> {
        let stop = self.feed.stop.clone();
        tokio::select! {
            biased;
            () = stop.wait() => Err(ReadError::Stopping { next_position: self.next_position }),
            event = self.read() => event,
        }
    }

    async fn read(&mut self) -> Result<Event, ReadError> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                self.next_position = event.position + 1;
                return Ok(event);
            }
            // What changes from here on is noticed below.
            self.changes.mark_unchanged();
            let page = self
                .feed
                .page(self.deployment_id, self.next_position, PAGE_EVENTS_MAX as usize)
                .await?;
            if page.events.is_empty() {
                // The sender ends only with the feed, which is held here.
                let _ = self.changes.changed().await;
            }
            self.waiting = page.events.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_decides_before_the_reason_does() {
        for (outcome, is_retryable, fate) in [
            (Outcome::Unknown, true, Fate::MayBeStored),
            (Outcome::Unknown, false, Fate::MayBeStored),
            (Outcome::Applied, false, Fate::MayBeStored),
            (Outcome::NotApplied, true, Fate::TryAgain),
            (Outcome::NotApplied, false, Fate::Refused),
        ] {
            assert_eq!(Fate::of(outcome, is_retryable), fate, "{outcome}, {is_retryable}");
        }
        assert!(!Fate::Refused.to_string().contains("again"));
    }
}
