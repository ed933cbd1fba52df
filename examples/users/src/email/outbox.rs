//! The outbox: a file of messages (mbox) that itself says which records have been handled.
//!
//! Each message has the position of its record and the length of its body among its headers. So message and progress are one write and one
//! sync, and cannot come apart: at the start the file is read, what a crash has cut in the middle is cut off, and what is whole counts.
//!
//! Invariants: only one process at a time writes (the file is locked); [`Outbox::sync`] returns before the group's offset is committed, so
//! that whatever is missing here comes again.
//!
//! Deliberately absent: going on after an error of writing or syncing. Nobody knows then what the file holds; the next start finds out.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::message::{MESSAGE_BYTES_MAX, Message, POSITION, Place};
use super::worker::UNSYNCED_MAX;
use crate::days;

/// What a message takes in the file beside its own bytes, generously.
const FRAME_BYTES_MAX: usize = 1024;
/// How much a crash can leave in pieces: what is written between two syncs. More than that is no trace of a crash.
const TAIL_BYTES_MAX: u64 = (UNSYNCED_MAX * (MESSAGE_BYTES_MAX + FRAME_BYTES_MAX)) as u64;
const LENGTH: &str = "Content-Length";

/// By partition, the next offset that has not been handled.
pub type Handled = HashMap<u32, u64>;

/// An outbox that is open and locked.
#[derive(Debug)]
pub struct Outbox {
    file: File,
    handled: Handled,
}

impl Outbox {
    /// Opens an outbox, makes it if it is not there, and cuts off what a crash has left in pieces.
    ///
    /// # Errors
    /// Those of files; `ResourceBusy` if another process has it; `InvalidData` if there is more behind the last whole message than a crash
    /// can leave.
    pub fn open(path: &Path) -> io::Result<Self> {
        let with_path = |error: io::Error| io::Error::new(error.kind(), format!("outbox {}: {error}", path.display()));
        Self::open_file(path).map_err(with_path)
    }

    fn open_file(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        lock(&file)?;
        let mut reader = BufReader::new(&file);
        reader.seek(SeekFrom::Start(0))?;
        let (end, handled) = read(&mut reader)?;
        let tail = file.metadata()?.len() - end;
        if tail > TAIL_BYTES_MAX {
            let problem = format!(
                "{tail} bytes from byte {end} on are no whole messages, which no crash can leave; nothing is changed"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        }
        if tail > 0 {
            tracing::warn!(
                bytes = tail,
                at = end,
                "a message that was not written to its end is cut off; it is written again"
            );
            file.set_len(end)?;
        }
        file.sync_all()?;
        sync_directory(path)?;
        Ok(Self { file, handled })
    }

    /// The next offset of a partition that has not been handled, if the outbox knows any.
    #[must_use]
    pub fn handled(&self, partition: u32) -> Option<u64> {
        self.handled.get(&partition).copied()
    }

    /// Appends a message. It lasts when [`sync`](Self::sync) has returned.
    ///
    /// # Errors
    /// Those of writing; the outbox is not to be used any more then.
    pub fn append(&mut self, message: &Message) -> io::Result<()> {
        self.file.write_all(framed(message).as_bytes())?;
        note(&mut self.handled, message.place);
        Ok(())
    }

    /// Has everything that was appended on the disk.
    ///
    /// # Errors
    /// Those of syncing; the outbox is not to be used any more then.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Locks a file for this process, until it is closed.
pub(crate) fn lock(file: &File) -> io::Result<()> {
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => io::Error::new(io::ErrorKind::ResourceBusy, "another process uses it"),
        TryLockError::Error(error) => error,
    })
}

/// Has the name of a file on the disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

pub(crate) fn note(handled: &mut Handled, place: Place) {
    let next = handled.entry(place.partition).or_default();
    *next = (*next).max(place.offset + 1);
}

/// A message as it stands in the file.
fn framed(message: &Message) -> String {
    let Message { from, head, body, .. } = message;
    let date = days::in_mailbox(message.created_ms);
    format!("From {from} {date}\n{head}{LENGTH}: {}\n\n{body}\n", body.len())
}

/// Where the last whole message ends, and what the messages up to there have handled.
fn read(reader: &mut impl BufRead) -> io::Result<(u64, Handled)> {
    let (mut end, mut handled) = (0, Handled::new());
    while let Some((place, bytes)) = next_message(reader)? {
        end += bytes;
        note(&mut handled, place);
    }
    Ok((end, handled))
}

/// The place and the size of the next message; `None` if what comes is not a whole one.
fn next_message(reader: &mut impl BufRead) -> io::Result<Option<(Place, u64)>> {
    let mut limited = reader.take((MESSAGE_BYTES_MAX + FRAME_BYTES_MAX) as u64);
    let (mut place, mut length, mut bytes) = (None, None, 0);
    loop {
        let mut line = Vec::new();
        limited.read_until(b'\n', &mut line)?;
        let Some(text) = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n')) else {
            return Ok(None);
        };
        if bytes == 0 && !text.starts_with("From ") {
            return Ok(None);
        }
        bytes += line.len() as u64;
        match text.split_once(": ") {
            Some((POSITION, value)) => place = Place::parse(value),
            Some((LENGTH, value)) => length = value.parse::<usize>().ok(),
            None if text.is_empty() => break,
            _ => (),
        }
    }
    let (Some(place), Some(length)) = (place, length.filter(|length| *length <= MESSAGE_BYTES_MAX)) else {
        return Ok(None);
    };
    let mut body = Vec::new();
    limited.take(length as u64 + 1).read_to_end(&mut body)?;
    let is_whole = body.len() == length + 1 && body.ends_with(b"\n");
    Ok(is_whole.then(|| (place, bytes + body.len() as u64)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::proto::UserAdded;

    fn message(offset: u64) -> Message {
        let user = UserAdded {
            email: format!("user{offset}@users.example"),
            first_name: "From ".to_owned(),
            ..Default::default()
        };
        let place = Place { partition: 2, offset };
        Message::welcome(&user, place, "welcome@users.example").unwrap()
    }

    fn filled(directory: &TempDir, count: u64) -> std::path::PathBuf {
        let path = directory.path().join("outbox");
        let mut outbox = Outbox::open(&path).unwrap();
        assert_eq!(outbox.handled(2), None);
        (0..count).for_each(|offset| outbox.append(&message(offset)).unwrap());
        outbox.sync().unwrap();
        path
    }

    #[test]
    fn the_file_knows_what_it_holds() {
        let directory = TempDir::new().unwrap();
        let path = filled(&directory, 3);
        let outbox = Outbox::open(&path).unwrap();
        assert_eq!((outbox.handled(2), outbox.handled(1)), (Some(3), None));
        assert_eq!(Outbox::open(&path).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    }

    #[test]
    fn only_whole_messages_count_wherever_a_crash_cuts() {
        let two = framed(&message(0)) + &framed(&message(1));
        let whole = two.clone() + &framed(&message(2));
        for cut in two.len()..whole.len() {
            for garbage in ["", "\0\0\0\0", "\n\n"] {
                let torn = whole[..cut].to_owned() + garbage;
                let (end, handled) = read(&mut torn.as_bytes()).unwrap();
                // The line feeds that were missing may have come with the garbage.
                let is_mended = torn.starts_with(&whole);
                assert_eq!(handled[&2], if is_mended { 3 } else { 2 }, "{cut} {garbage:?}");
                assert_eq!(end, if is_mended { whole.len() } else { two.len() } as u64);
            }
        }
    }

    #[test]
    fn a_torn_message_is_cut_off_and_written_again() {
        let directory = TempDir::new().unwrap();
        let path = filled(&directory, 3);
        let whole = fs::read(&path).unwrap();
        let two = framed(&message(0)).len() + framed(&message(1)).len();
        for cut in (two..whole.len()).step_by(97) {
            fs::write(&path, &whole[..cut]).unwrap();
            let mut outbox = Outbox::open(&path).unwrap();
            assert_eq!(outbox.handled(2), Some(2), "{cut}");
            assert_eq!(fs::read(&path).unwrap(), whole[..two]);
            outbox.append(&message(2)).unwrap();
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn what_no_crash_leaves_is_not_touched() {
        let directory = TempDir::new().unwrap();
        let path = filled(&directory, 1);
        let text = [fs::read(&path).unwrap(), vec![b'x'; TAIL_BYTES_MAX as usize + 1]].concat();
        fs::write(&path, &text).unwrap();
        assert_eq!(Outbox::open(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(&path).unwrap(), text);
    }
}
