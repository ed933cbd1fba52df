//! One worker: record by record, with a commit whenever the topic is quiet or enough has been done.
//!
//! When the topic cannot be read, it has all that it did on the disk and joins its group again, until that succeeds or can never succeed.
//! What comes again then is known to be done.

use std::error::Error;
use std::io;
use std::time::Duration;

use highwater::{ConsumedRecord, Consumer, Error as LogError};
use highwater_service::serving::{DRAIN, Stop};
use highwater_service::telemetry::Telemetry;
use tokio::task::block_in_place;
use tokio::time::{sleep, timeout};

use super::Settings;
use super::message::{Message, Place};
use super::outbox::Outbox;
use super::progress::Progress;
use super::smtp::{self, Unsent};
use super::source::Membership;
use crate::events;

/// After how many messages at the latest the outbox is synced and the group's offsets are committed.
pub(super) const UNSYNCED_MAX: usize = 100;
/// After what silence of the topic that is done with fewer.
const QUIET: Duration = Duration::from_millis(50);
/// How long to wait before a message is tried again that the SMTP server did not take, at first.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The same after many times.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Where messages go.
#[derive(Debug)]
pub(super) enum Way {
    /// Into a file.
    Outbox(Outbox),
    /// To a server.
    Smtp {
        /// `host:port`.
        server: String,
        /// Up to where messages have been sent.
        progress: Progress,
    },
}

/// What became of a message.
enum Sent {
    Taken,
    /// Never will anybody take it.
    Rejected,
    /// The process is to end; it is not known whether the message was taken.
    Stopped,
}

impl Way {
    /// The way that the settings want, for the topic with that id.
    pub(super) fn open(settings: &Settings, topic_id: u64) -> io::Result<Self> {
        Ok(match settings.smtp.clone() {
            None => Self::Outbox(Outbox::open(&settings.outbox, topic_id)?),
            Some(server) => Self::Smtp {
                server,
                progress: Progress::open(&settings.progress, topic_id)?,
            },
        })
    }

    fn is_done(&self, place: Place) -> bool {
        let next = match self {
            Self::Outbox(outbox) => outbox.handled(place.partition),
            Self::Smtp { progress, .. } => progress.handled(place.partition),
        };
        next.is_some_and(|next| place.offset < next)
    }

    /// Has on the disk what has been done.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Outbox(outbox) => block_in_place(|| outbox.sync()),
            Self::Smtp { .. } => Ok(()), // each message is noted at once
        }
    }

    async fn send(&mut self, message: &Message, telemetry: &Telemetry, stop: &Stop) -> io::Result<Sent> {
        match self {
            Self::Outbox(outbox) => {
                block_in_place(|| outbox.append(message))?;
                Ok(Sent::Taken)
            }
            Self::Smtp { server, progress } => {
                let sent = deliver(server, message, telemetry, stop).await;
                if !matches!(sent, Sent::Stopped) {
                    block_in_place(|| progress.note(message.place))?;
                }
                Ok(sent)
            }
        }
    }
}

/// A worker that has joined its group.
#[derive(Debug)]
pub(super) struct Worker {
    membership: Membership,
    consumer: Consumer,
    way: Way,
    from: String,
    telemetry: Telemetry,
    /// How many records have been handled since the last commit.
    uncommitted: usize,
}

impl Worker {
    pub(super) fn new(
        membership: Membership,
        consumer: Consumer,
        way: Way,
        from: String,
        telemetry: Telemetry,
    ) -> Self {
        Self {
            membership,
            consumer,
            way,
            from,
            telemetry,
            uncommitted: 0,
        }
    }

    /// Works until `stop`, finishes what it has begun, and leaves the group.
    pub(super) async fn run(mut self, stop: &Stop) -> Result<(), Box<dyn Error + Send + Sync>> {
        while self.step(stop).await? {}
        self.leave().await;
        Ok(())
    }

    /// The next record, or a moment without one. False at the end, when all that is done has been committed.
    async fn step(&mut self, stop: &Stop) -> Result<bool, Box<dyn Error + Send + Sync>> {
        let patience = if self.uncommitted == 0 { Duration::MAX } else { QUIET };
        let next = tokio::select! {
            () = stop.wait() => Ok(None),
            next = timeout(patience, self.consumer.next_record()) => next,
        };
        match next {
            Ok(Some(Ok(record))) => {
                if !self.handle(&record, stop).await? {
                    // What was handed out is not done, so it is not committed.
                    return Ok(false);
                }
                self.uncommitted += 1;
            }
            Ok(Some(Err(error @ (LogError::CorruptBatch { .. } | LogError::UnsupportedCompression { .. })))) => {
                tracing::error!(%error, "nobody is welcomed for it");
            }
            Ok(Some(Err(error))) if error.is_retryable() => return self.join_again(&error, stop).await,
            Ok(Some(Err(error))) => return Err(error.into()),
            Ok(None) => {
                self.commit().await?;
                return Ok(false);
            }
            Err(_) => self.commit().await?,
        }
        if self.uncommitted >= UNSYNCED_MAX {
            self.commit().await?;
        }
        Ok(true)
    }

    /// Goes on when the cluster is there again. False if `stop` came first.
    async fn join_again(&mut self, error: &LogError, stop: &Stop) -> Result<bool, Box<dyn Error + Send + Sync>> {
        self.telemetry.request("read").outcome("retry");
        tracing::warn!(%error, "the topic cannot be read; joining the group again until that succeeds");
        self.way.sync()?;
        // What was not committed comes again, and is known to be done.
        self.uncommitted = 0;
        self.consumer = tokio::select! {
            () = stop.wait() => return Ok(false),
            joined = self.membership.join_again() => joined?,
        };
        tracing::info!("the topic can be read again");
        Ok(true)
    }

    /// Syncs, and only then commits.
    async fn commit(&mut self) -> io::Result<()> {
        if self.uncommitted == 0 {
            return Ok(());
        }
        self.way.sync()?;
        self.uncommitted = 0;
        match timeout(DRAIN, self.consumer.commit()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "not committed; what comes again is known to be done"),
            Err(_) => tracing::warn!("not committed in time; what comes again is known to be done"),
        }
        Ok(())
    }

    /// If that fails, others take over a session later.
    async fn leave(self) {
        match timeout(DRAIN, self.consumer.close()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the group was not left in order"),
            Err(_) => tracing::warn!("the group could not be left in time"),
        }
    }

    /// Whether the record is done; it is not if `stop` came first.
    async fn handle(&mut self, record: &ConsumedRecord, stop: &Stop) -> io::Result<bool> {
        let counted = self.telemetry.request("message");
        let place = Place {
            partition: record.partition,
            offset: record.offset,
        };
        if self.way.is_done(place) {
            counted.outcome("done_before");
            return Ok(true);
        }
        let Some(message) = self.welcome(record, place) else {
            counted.outcome("skipped");
            return Ok(true);
        };
        match self.way.send(&message, &self.telemetry, stop).await? {
            Sent::Taken => counted.outcome("ok"),
            Sent::Rejected => counted.outcome("rejected"),
            Sent::Stopped => {
                counted.outcome("stopped");
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The message that follows from a record, if any can.
    fn welcome(&self, record: &ConsumedRecord, place: Place) -> Option<Message> {
        let user = events::read_added(record)
            .inspect_err(|problem| events::warn_skipped(events::USER_ADDED, record, problem))
            .ok()?;
        Message::welcome(&user, self.membership.topic_id, place, &self.from)
            .inspect_err(|problem| tracing::warn!(%place, %problem, "a record is skipped"))
            .ok()
    }
}

/// Sends a message, however often that has to be tried; each attempt is counted.
async fn deliver(server: &str, message: &Message, telemetry: &Telemetry, stop: &Stop) -> Sent {
    let place = message.place;
    let mut pause = PAUSE_MIN;
    loop {
        let counted = telemetry.request("attempt");
        let sent = tokio::select! {
            sent = smtp::send(server, message) => sent,
            () = too_long(stop) => {
                counted.outcome("stopped");
                return Sent::Stopped;
            }
        };
        match sent {
            Ok(()) => {
                counted.outcome("ok");
                return Sent::Taken;
            }
            Err(error @ Unsent::Rejected { .. }) => {
                counted.outcome("rejected");
                tracing::warn!(%place, %error, "the server never takes this message; it is left out");
                return Sent::Rejected;
            }
            Err(error) => {
                counted.outcome("retry");
                tracing::warn!(%place, server, %error, "not sent yet; trying again");
            }
        }
        tokio::select! {
            () = stop.wait() => return Sent::Stopped,
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Resolves when a server that has not answered yet is not waited for any more.
async fn too_long(stop: &Stop) {
    stop.wait().await;
    sleep(DRAIN).await;
}

#[cfg(test)]
mod tests;
