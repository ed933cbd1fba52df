//! One member: consumes, notes what it is done with, commits.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use highwater::{Client, Position, Profile, Reason};
use tokio::time::timeout;

use super::{GROUP, SESSION, TOPIC, monotonic_ns};

/// After how many records to commit at the latest.
const RECORDS_PER_COMMIT: usize = 50;
/// How long to wait for more before committing what there is.
const IDLE: Duration = Duration::from_millis(20);

/// What a member is done with and has not committed.
struct Notes {
    file: File,
    lines: String,
    count: usize,
}

impl Notes {
    /// Writes the notes. They are in the kernel's hands then, and outlive this process.
    fn write(&mut self) -> Result<(), String> {
        self.count = 0;
        let written = self.file.write_all(self.lines.as_bytes());
        self.lines.clear();
        written.map_err(|error| format!("cannot write notes: {error}"))
    }
}

/// Runs a member until SIGTERM.
///
/// # Errors
/// What ends it otherwise, in words.
pub async fn member(profile: &Path, name: &str, notes: &Path) -> Result<(), String> {
    let in_words = |error: highwater::Error| error.to_string();
    let profile = Profile::load(profile).map_err(in_words)?;
    let client = Client::from_profile(&profile).await.map_err(in_words)?;
    let builder = client.consume_topic(TOPIC).from(Position::Beginning);
    let mut consumer = builder
        .group(GROUP, name)
        .session(SESSION)
        .build()
        .await
        .map_err(in_words)?;
    let file = OpenOptions::new().create(true).append(true).open(notes);
    let mut notes = Notes {
        file: file.map_err(|error| format!("{}: {error}", notes.display()))?,
        lines: String::new(),
        count: 0,
    };
    let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    let mut terminate = terminate.map_err(|error| error.to_string())?;
    loop {
        let next = tokio::select! {
            biased;
            _ = terminate.recv() => break,
            next = timeout(IDLE, consumer.next_record()) => next,
        };
        let is_late = next.is_err();
        match next {
            Ok(Some(Ok(record))) => {
                notes.count += 1;
                // A String takes whatever is written.
                let _ = writeln!(notes.lines, "{} {} {}", record.partition, record.offset, monotonic_ns());
            }
            Ok(Some(Err(error))) => return Err(in_words(error)),
            Ok(None) => return Err("the stream has ended".to_owned()),
            Err(_) => {}
        }
        if (is_late && notes.count > 0) || notes.count >= RECORDS_PER_COMMIT {
            notes.write()?;
            commit(&mut consumer).await?;
        }
    }
    notes.write()?;
    commit(&mut consumer).await?;
    consumer.close().await.map_err(in_words)
}

/// Commits; that others have taken a partition, or nobody answers for a while, is part of the game.
async fn commit(consumer: &mut highwater::Consumer) -> Result<(), String> {
    match consumer.commit().await {
        Err(error) if error.reason() != Some(Reason::StaleClaim) && !error.is_retryable() => Err(error.to_string()),
        _ => Ok(()),
    }
}
