//! Up to where messages have been sent, for a way of sending that does not know it itself: a small file, replaced as a whole.
//!
//! Its first line is its form, `version 1`; the second one names the topic by its id, `topic 17`; and each further one is the last record of a
//! partition whose message has been sent, `PARTITION/OFFSET`.
//!
//! Invariants: a position in the file is behind messages that a server has taken or will never take; never is one that was not sent counted
//! as handled. All positions are of one topic: those of another one of the same name say nothing.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::message::Place;
use super::outbox::{Handled, lock, note, other_topic, sync_directory};

/// The largest file that is read, bytes: some ten thousand partitions.
const PROGRESS_BYTES_MAX: u64 = 256 * 1024;
/// The form of the file.
const VERSION: &str = "version 1";
/// What the topic's id stands behind.
const TOPIC: &str = "topic ";

/// A file of progress that is open; another file beside it is locked for as long.
#[derive(Debug)]
pub struct Progress {
    path: PathBuf,
    topic_id: u64,
    handled: Handled,
    _lock: File,
}

impl Progress {
    /// Opens the file of progress in a topic; one that is not there says that nothing has been sent.
    ///
    /// # Errors
    /// Those of files; `ResourceBusy` if another process has it; `InvalidData` if it is about another topic, or not what
    /// [`note`](Self::note) writes.
    pub fn open(path: &Path, topic_id: u64) -> io::Result<Self> {
        let with_path =
            |error: io::Error| io::Error::new(error.kind(), format!("progress {}: {error}", path.display()));
        Self::open_file(path, topic_id).map_err(with_path)
    }

    fn open_file(path: &Path, topic_id: u64) -> io::Result<Self> {
        let locked = File::options().append(true).create(true).open(beside(path, "lock"))?;
        lock(&locked)?;
        let handled = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Handled::new(),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > PROGRESS_BYTES_MAX => {
                return Err(wrong(format!(
                    "has {} bytes; at most {PROGRESS_BYTES_MAX} are read",
                    metadata.len()
                )));
            }
            Ok(_) => read(&fs::read_to_string(path)?, topic_id)?,
        };
        Ok(Self {
            path: path.to_owned(),
            topic_id,
            handled,
            _lock: locked,
        })
    }

    /// The next offset of a partition that has not been handled, if any is known.
    #[must_use]
    pub fn handled(&self, partition: u32) -> Option<u64> {
        self.handled.get(&partition).copied()
    }

    /// Notes that the message about a record has been sent. On the disk when this returns.
    ///
    /// # Errors
    /// Those of files; what the file says then is the old or the new.
    pub fn note(&mut self, place: Place) -> io::Result<()> {
        note(&mut self.handled, place);
        let new = beside(&self.path, "new");
        let mut file = File::create(&new)?;
        file.write_all(self.text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_directory(&self.path)
    }

    fn text(&self) -> String {
        let last = self.handled.iter().map(|(partition, next)| Place {
            partition: *partition,
            offset: next - 1,
        });
        let mut last: Vec<Place> = last.collect();
        last.sort_by_key(|place| place.partition);
        let lines: String = last.iter().map(|place| format!("{place}\n")).collect();
        format!("{VERSION}\n{TOPIC}{}\n{lines}", self.topic_id)
    }
}

fn wrong(problem: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, problem)
}

fn read(text: &str, topic_id: u64) -> io::Result<Handled> {
    let mut lines = text.lines();
    match lines.next().unwrap_or_default() {
        VERSION => {}
        other => return Err(wrong(format!("begins with {other:?}; {VERSION:?} is wanted"))),
    }
    let line = lines.next().unwrap_or_default();
    match line.strip_prefix(TOPIC).and_then(|id| id.parse().ok()) {
        Some(found) if found == topic_id => {}
        Some(found) => return Err(other_topic(found, topic_id)),
        None => return Err(wrong(format!("{line:?} names no topic; \"{TOPIC}ID\" is wanted"))),
    }
    let mut handled = Handled::new();
    for line in lines {
        let unreadable = || wrong(format!("{line:?} is no partition and offset"));
        note(&mut handled, Place::parse(line).ok_or_else(unreadable)?);
    }
    Ok(handled)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::super::outbox::tests::when_free;
    use super::*;

    fn open(path: &Path, topic_id: u64) -> io::Result<Progress> {
        when_free(|| Progress::open(path, topic_id))
    }

    #[test]
    fn what_was_noted_is_known_after_a_restart() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("progress");
        let mut progress = open(&path, 17).unwrap();
        for (partition, offset) in [(1, 4), (0, 9), (1, 5)] {
            progress.note(Place { partition, offset }).unwrap();
        }
        assert_eq!(Progress::open(&path, 17).unwrap_err().kind(), ErrorKind::ResourceBusy);
        drop(progress);
        assert_eq!(fs::read_to_string(&path).unwrap(), "version 1\ntopic 17\n0/9\n1/5\n");
        let progress = open(&path, 17).unwrap();
        assert_eq!(
            [0, 1, 2].map(|partition| progress.handled(partition)),
            [Some(10), Some(6), None]
        );
    }

    #[test]
    fn a_file_of_another_topic_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("progress");
        let place = Place {
            partition: 0,
            offset: 0,
        };
        open(&path, 17).unwrap().note(place).unwrap();
        let refused = open(&path, 18).unwrap_err().to_string();
        for part in [&*path.to_string_lossy(), "with the id 17;", "has the id 18:"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        open(&path, 17).unwrap();
    }

    #[test]
    fn a_file_that_says_something_else_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("progress");
        for (text, part) in [
            ("", "begins with \"\"; \"version 1\" is wanted"),
            ("0/9\n", "begins with \"0/9\""),
            ("version 2\ntopic 17\n", "begins with \"version 2\""),
            ("version 1\n0/9\n", "\"0/9\" names no topic"),
            (
                "version 1\ntopic 17\n0/9\nwhat\n",
                "\"what\" is no partition and offset",
            ),
        ] {
            fs::write(&path, text).unwrap();
            let refused = open(&path, 17).unwrap_err().to_string();
            assert!(refused.contains(part), "{refused}");
        }
    }
}
