//! Up to where messages have been sent, for a way of sending that does not know it itself: a small file, replaced as a whole.
//!
//! Invariant: a position in the file is behind messages that a server has taken; never is one that was not sent counted as handled.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::message::Place;
use super::outbox::{Handled, lock, note, sync_directory};

/// The largest file that is read, bytes: some ten thousand partitions.
const PROGRESS_BYTES_MAX: u64 = 256 * 1024;

/// A file of progress that is open; another file beside it is locked for as long.
#[derive(Debug)]
pub struct Progress {
    path: PathBuf,
    handled: Handled,
    _lock: File,
}

impl Progress {
    /// Opens a file of progress; one that is not there says that nothing has been sent.
    ///
    /// # Errors
    /// Those of files; `ResourceBusy` if another process has it; `InvalidData` if it is not what [`note`](Self::note) writes.
    pub fn open(path: &Path) -> io::Result<Self> {
        let with_path =
            |error: io::Error| io::Error::new(error.kind(), format!("progress {}: {error}", path.display()));
        Self::open_file(path).map_err(with_path)
    }

    fn open_file(path: &Path) -> io::Result<Self> {
        let locked = File::options().append(true).create(true).open(beside(path, "lock"))?;
        lock(&locked)?;
        let text = match fs::metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > PROGRESS_BYTES_MAX => {
                let problem = format!("has {} bytes; at most {PROGRESS_BYTES_MAX} are read", metadata.len());
                return Err(io::Error::new(ErrorKind::InvalidData, problem));
            }
            Ok(_) => fs::read_to_string(path)?,
        };
        let mut handled = Handled::new();
        for line in text.lines() {
            let wrong = || io::Error::new(ErrorKind::InvalidData, format!("{line:?} is no partition and offset"));
            note(&mut handled, Place::parse(line).ok_or_else(wrong)?);
        }
        Ok(Self {
            path: path.to_owned(),
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
        let mut last: Vec<Place> = self
            .handled
            .iter()
            .map(|(partition, next)| Place {
                partition: *partition,
                offset: next - 1,
            })
            .collect();
        last.sort_by_key(|place| place.partition);
        let text: String = last.iter().map(|place| format!("{place}\n")).collect();
        let new = beside(&self.path, "new");
        let mut file = File::create(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        sync_directory(&self.path)
    }
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

    use super::*;

    #[test]
    fn what_was_noted_is_known_after_a_restart() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("progress");
        let mut progress = Progress::open(&path).unwrap();
        for (partition, offset) in [(1, 4), (0, 9), (1, 5)] {
            progress.note(Place { partition, offset }).unwrap();
        }
        assert_eq!(Progress::open(&path).unwrap_err().kind(), ErrorKind::ResourceBusy);
        drop(progress);
        assert_eq!(fs::read_to_string(&path).unwrap(), "0/9\n1/5\n");
        let progress = Progress::open(&path).unwrap();
        assert_eq!(
            [0, 1, 2].map(|partition| progress.handled(partition)),
            [Some(10), Some(6), None]
        );
    }

    #[test]
    fn a_file_that_says_something_else_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("progress");
        fs::write(&path, "0/9\nwhat\n").unwrap();
        assert!(Progress::open(&path).unwrap_err().to_string().contains("\"what\""));
    }
}
