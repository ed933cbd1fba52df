//! One worker: record by record, with a commit whenever the topic is quiet or enough has been done.

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

impl Way {
    /// The way that the settings want.
    pub(super) fn open(settings: &Settings) -> io::Result<Self> {
        Ok(match settings.smtp.clone() {
            None => Self::Outbox(Outbox::open(&settings.outbox)?),
            Some(server) => Self::Smtp {
                server,
                progress: Progress::open(&settings.progress)?,
            },
        })
    }

    fn handled(&self, partition: u32) -> Option<u64> {
        match self {
            Self::Outbox(outbox) => outbox.handled(partition),
            Self::Smtp { progress, .. } => progress.handled(partition),
        }
    }

    /// Has on the disk what has been done.
    fn sync(&self) -> io::Result<()> {
        match self {
            Self::Outbox(outbox) => block_in_place(|| outbox.sync()),
            Self::Smtp { .. } => Ok(()), // each message is noted at once
        }
    }
}

/// A worker that has joined its group.
#[derive(Debug)]
pub(super) struct Worker {
    consumer: Consumer,
    way: Way,
    from: String,
    telemetry: Telemetry,
    /// How many records have been handled since the last commit.
    uncommitted: usize,
}

impl Worker {
    pub(super) fn new(consumer: Consumer, way: Way, from: String, telemetry: Telemetry) -> Self {
        Self {
            consumer,
            way,
            from,
            telemetry,
            uncommitted: 0,
        }
    }

    /// Works until `stop`, finishes what it has begun, and leaves the group.
    pub(super) async fn run(mut self, stop: &Stop) -> Result<(), Box<dyn Error + Send + Sync>> {
        loop {
            let patience = if self.uncommitted == 0 { Duration::MAX } else { QUIET };
            let next = tokio::select! {
                () = stop.wait() => break,
                next = timeout(patience, self.consumer.next_record()) => next,
            };
            match next {
                Ok(Some(Ok(record))) => {
                    if !self.handle(&record, stop).await? {
                        // What was handed out is not done, so it is not committed.
                        return Ok(self.consumer.close().await?);
                    }
                    self.uncommitted += 1;
                }
                Ok(Some(Err(error @ (LogError::CorruptBatch { .. } | LogError::UnsupportedCompression { .. })))) => {
                    tracing::error!(%error, "nobody is welcomed for it");
                }
                Ok(Some(Err(error))) => return Err(error.into()),
                Ok(None) => break,
                Err(_) => self.commit().await?,
            }
            if self.uncommitted >= UNSYNCED_MAX {
                self.commit().await?;
            }
        }
        self.commit().await?;
        Ok(self.consumer.close().await?)
    }

    /// Syncs, and only then commits.
    async fn commit(&mut self) -> io::Result<()> {
        if self.uncommitted == 0 {
            return Ok(());
        }
        self.way.sync()?;
        self.uncommitted = 0;
        if let Err(error) = self.consumer.commit().await {
            tracing::warn!(%error, "not committed; what comes again is known to be done");
        }
        Ok(())
    }

    /// Whether the record is done; it is not if `stop` came first.
    async fn handle(&mut self, record: &ConsumedRecord, stop: &Stop) -> io::Result<bool> {
        let counted = self.telemetry.request("message");
        let place = Place {
            partition: record.partition,
            offset: record.offset,
        };
        if self
            .way
            .handled(place.partition)
            .is_some_and(|next| place.offset < next)
        {
            counted.outcome("done_before");
            return Ok(true);
        }
        let user = match events::read_added(record) {
            Ok(user) => user,
            Err(problem) => {
                events::warn_skipped(events::USER_ADDED, record, &problem);
                counted.outcome("skipped");
                return Ok(true);
            }
        };
        let message = match Message::welcome(&user, place, &self.from) {
            Ok(message) => message,
            Err(problem) => {
                tracing::warn!(%place, %problem, "a record is skipped");
                counted.outcome("skipped");
                return Ok(true);
            }
        };
        match &mut self.way {
            Way::Outbox(outbox) => block_in_place(|| outbox.append(&message))?,
            Way::Smtp { server, progress } => {
                if !deliver(server, &message, stop).await {
                    counted.outcome("stopped");
                    return Ok(false);
                }
                block_in_place(|| progress.note(place))?;
            }
        }
        counted.outcome("ok");
        Ok(true)
    }
}

/// Sends a message, however often that has to be tried. Whether it was taken, or rejected for good; it is not known if `stop` came first.
async fn deliver(server: &str, message: &Message, stop: &Stop) -> bool {
    let mut pause = PAUSE_MIN;
    loop {
        let sent = tokio::select! {
            sent = smtp::send(server, message) => sent,
            () = too_long(stop) => return false,
        };
        match sent {
            Ok(()) => return true,
            Err(error @ Unsent::Rejected { .. }) => {
                tracing::warn!(place = %message.place, %error, "the server never takes this message; it is left out");
                return true;
            }
            Err(error) => tracing::warn!(place = %message.place, server, %error, "not sent yet; trying again"),
        }
        tokio::select! {
            () = stop.wait() => return false,
            () = sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Resolves when a server that has not answered yet is not waited for any more.
async fn too_long(stop: &Stop) {
    stop.wait().await;
    sleep(DRAIN).await;
}
