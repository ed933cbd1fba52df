//! The outbox: a file of messages (mbox) that itself says which records have been handled.
//!
//! Each message has the topic and the position of its record, and the length of its body, among its headers. So message and progress are one
//! write and one sync, and cannot come apart: at the start the file is read, what a crash has cut in the middle is cut off, and what is whole
//! counts.
//!
//! Invariants: only one process at a time writes (the file is locked); all messages are about records of one topic, by its id, for a
//! position of another one says nothing about what has been handled; [`Outbox::sync`] returns before the group's offset is committed, so that
//! whatever is missing here comes again.
//!
//! Deliberately absent: going on after an error of writing or syncing. Nobody knows then what the file holds; the next start finds out.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::message::{MESSAGE_BYTES_MAX, Message, POSITION, Place, TOPIC};
use super::worker::UNSYNCED_MAX;
use crate::days;
use crate::events::USER_ADDED;

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
    /// Opens the outbox of a topic, makes it if it is not there, and cuts off what a crash has left in pieces.
    ///
    /// # Errors
    /// Those of files; `ResourceBusy` if another process has it; `InvalidData`, and nothing is changed, if a message is about another topic,
    /// or there is more behind the last whole message than a crash can leave.
    pub fn open(path: &Path, topic_id: u64) -> io::Result<Self> {
        let with_path = |error: io::Error| io::Error::new(error.kind(), format!("outbox {}: {error}", path.display()));
        Self::open_file(path, topic_id).map_err(with_path)
    }

    fn open_file(path: &Path, topic_id: u64) -> io::Result<Self> {
        let file = File::options().read(true).append(true).create(true).open(path)?;
        lock(&file)?;
        let mut reader = BufReader::new(&file);
        reader.seek(SeekFrom::Start(0))?;
        let (end, handled) = read(&mut reader, topic_id)?;
        cut_off(&file, end)?;
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

/// Takes away what is behind the last whole message.
fn cut_off(file: &File, end: u64) -> io::Result<()> {
    let tail = file.metadata()?.len() - end;
    if tail > TAIL_BYTES_MAX {
        return Err(wrong(format!(
            "{tail} bytes from byte {end} on are no whole messages, which no crash can leave; nothing is changed"
        )));
    }
    if tail > 0 {
        tracing::warn!(
            bytes = tail,
            at = end,
            "a message that was not written to its end is cut off; it is written again"
        );
        file.set_len(end)?;
    }
    Ok(())
}

fn wrong(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// That positions are of another topic, which says nothing about this one.
pub(crate) fn other_topic(found: u64, wanted: u64) -> io::Error {
    wrong(format!(
        "it is about another topic {USER_ADDED}, with the id {found}; the one that is there now has the id {wanted}: \
         begin with another file"
    ))
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
fn read(reader: &mut impl BufRead, topic_id: u64) -> io::Result<(u64, Handled)> {
    let (mut end, mut handled) = (0, Handled::new());
    while let Some(found) = next_message(reader)? {
        match found.topic_id {
            Some(topic) if topic == topic_id => note(&mut handled, found.place),
            Some(topic) => return Err(other_topic(topic, topic_id)),
            None => {
                return Err(wrong(format!(
                    "the message at byte {end} has no {TOPIC}, and is not ours"
                )));
            }
        }
        end += found.bytes;
    }
    Ok((end, handled))
}

/// A whole message, as far as it matters here.
struct Found {
    topic_id: Option<u64>,
    place: Place,
    /// Its size in the file.
    bytes: u64,
}

/// The next message; `None` if what comes is not a whole one.
fn next_message(reader: &mut impl BufRead) -> io::Result<Option<Found>> {
    let mut limited = reader.take((MESSAGE_BYTES_MAX + FRAME_BYTES_MAX) as u64);
    let Some(head) = read_head(&mut limited)? else {
        return Ok(None);
    };
    let (Some(place), Some(length)) = (head.place, head.length.filter(|length| *length <= MESSAGE_BYTES_MAX)) else {
        return Ok(None);
    };
    let mut body = Vec::new();
    limited.take(length as u64 + 1).read_to_end(&mut body)?;
    let is_whole = body.len() == length + 1 && body.ends_with(b"\n");
    Ok(is_whole.then(|| Found {
        topic_id: head.topic_id,
        place,
        bytes: head.bytes + body.len() as u64,
    }))
}

/// What the head of a message says.
#[derive(Default)]
struct Head {
    topic_id: Option<u64>,
    place: Option<Place>,
    /// Of the body.
    length: Option<usize>,
    /// Of the head, with the empty line.
    bytes: u64,
}

/// The lines up to the empty one; `None` if it does not come, or something else than a message begins here.
fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    loop {
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line)?;
        let Some(text) = std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix('\n')) else {
            return Ok(None);
        };
        if head.bytes == 0 && !text.starts_with("From ") {
            return Ok(None);
        }
        head.bytes += line.len() as u64;
        match text.split_once(": ") {
            Some((TOPIC, value)) => head.topic_id = value.parse().ok(),
            Some((POSITION, value)) => head.place = Place::parse(value),
            Some((LENGTH, value)) => head.length = value.parse().ok(),
            None if text.is_empty() => return Ok(Some(head)),
            _ => (),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::thread::yield_now;
    use std::time::{Duration, Instant};

    use tempfile::TempDir;

    use super::*;
    use crate::proto::UserAdded;

    const TOPIC_ID: u64 = 7;
    const DEADLINE: Duration = Duration::from_secs(30);

    /// Opens what may have been closed just now: a child process that another test starts holds all files of ours, with their locks, until it
    /// is a program of its own.
    pub(crate) fn when_free<T>(open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let begun = Instant::now();
        loop {
            match open() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && begun.elapsed() < DEADLINE => yield_now(),
                opened => return opened,
            }
        }
    }

    fn open(path: &Path, topic_id: u64) -> io::Result<Outbox> {
        when_free(|| Outbox::open(path, topic_id))
    }

    fn message(offset: u64) -> Message {
        let user = UserAdded {
            email: format!("user{offset}@users.example"),
            first_name: "From ".to_owned(),
            ..Default::default()
        };
        let place = Place { partition: 2, offset };
        Message::welcome(&user, TOPIC_ID, place, "welcome@users.example").unwrap()
    }

    fn filled(directory: &TempDir, count: u64) -> std::path::PathBuf {
        let path = directory.path().join("outbox");
        let mut outbox = open(&path, TOPIC_ID).unwrap();
        assert_eq!(outbox.handled(2), None);
        (0..count).for_each(|offset| outbox.append(&message(offset)).unwrap());
        outbox.sync().unwrap();
        path
    }

    #[test]
    fn the_file_knows_what_it_holds() {
        let directory = TempDir::new().unwrap();
        let path = filled(&directory, 3);
        let outbox = open(&path, TOPIC_ID).unwrap();
        assert_eq!((outbox.handled(2), outbox.handled(1)), (Some(3), None));
        assert_eq!(
            Outbox::open(&path, TOPIC_ID).unwrap_err().kind(),
            io::ErrorKind::ResourceBusy
        );
    }

    #[test]
    fn only_whole_messages_count_wherever_a_crash_cuts() {
        let two = framed(&message(0)) + &framed(&message(1));
        let whole = two.clone() + &framed(&message(2));
        for cut in two.len()..whole.len() {
            for garbage in ["", "\0\0\0\0", "\n\n"] {
                let torn = whole[..cut].to_owned() + garbage;
                let (end, handled) = read(&mut torn.as_bytes(), TOPIC_ID).unwrap();
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
            let mut outbox = open(&path, TOPIC_ID).unwrap();
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
        assert_eq!(open(&path, TOPIC_ID).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(&path).unwrap(), text);
    }

    #[test]
    fn an_outbox_of_another_topic_is_refused_and_not_touched() {
        let directory = TempDir::new().unwrap();
        let path = filled(&directory, 2);
        let torn = [fs::read(&path).unwrap(), b"From ".to_vec()].concat();
        fs::write(&path, &torn).unwrap();
        let refused = open(&path, 8).unwrap_err().to_string();
        for part in [&*path.to_string_lossy(), "with the id 7;", "has the id 8:"] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert_eq!(fs::read(&path).unwrap(), torn);
        let text = String::from_utf8(torn).unwrap().replace("X-Highwater-Topic: 7\n", "");
        fs::write(&path, &text).unwrap();
        let refused = open(&path, TOPIC_ID).unwrap_err().to_string();
        assert!(
            refused.contains("the message at byte 0 has no X-Highwater-Topic"),
            "{refused}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
