//! The file of the log service: one line of JSON for each command and each result, in the order in which they were read.
//!
//! Each line says where its record is, so the file itself tells where to go on: there is no second file that could disagree with it. Lines
//! are synced before they are told to anybody. A kill in the middle of a write leaves a part of a line at the end, which is cut when the file
//! is opened next, and read again from the topic.
//!
//! Invariants: of each partition of each topic, the offsets in the file rise; and each topic is one topic, by the id that each line has. A
//! topic that was deleted and made again has the same offsets with other records, so a file of the old one is refused. A line that cannot be
//! read anywhere but at the end is an error: somebody else has written there.
//!
//! Deliberately absent: a second file when one is full. To begin anew would mean to read the topics from the beginning again.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use highwater::ConsumedRecord;
use highwater_service::transform::source_of;
use serde::{Deserialize, Serialize};

use crate::wire::{self, Outcome};

/// How long a line may be, bytes: a record of the largest size, each byte of it escaped, and what is said about it.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// One command or result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Which topic it is from.
    pub topic: String,
    /// The topic's id; another topic of that name has another one.
    pub topic_id: u64,
    /// Which partition.
    pub partition: u32,
    /// Its place there.
    pub offset: u64,
    /// When it was appended, milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Which of the session's commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Of a result: the offset of its command, in the same partition of the other topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<u64>,
    /// Of a result: how it went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The command or the answer.
    pub text: String,
}

impl Line {
    fn new(topic: &str, topic_id: u64, record: &ConsumedRecord) -> Self {
        Self {
            topic: topic.to_owned(),
            topic_id,
            partition: record.partition,
            offset: record.offset,
            time_ms: record.append_time_ms,
            session: wire::session(record).map(str::to_owned),
            number: wire::number(record),
            command: source_of(record),
            outcome: wire::outcome(record),
            text: wire::text(record),
        }
    }
}

/// Reads a line of the file, with or without its end.
///
/// # Errors
/// What is wrong with it.
pub fn line(bytes: &[u8]) -> Result<Line, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// For people.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<7} {}/{}", self.topic, self.partition, self.offset)?;
        if let (Some(session), Some(number)) = (&self.session, self.number) {
            write!(f, " {session}#{number}")?;
        }
        if self.outcome == Some(Outcome::Error) {
            f.write_str(" error")?;
        }
        write!(f, ": {}", self.text.escape_debug())
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Two would write everything twice.
    #[error("{}: another process writes to this file", .0.display())]
    InUse(PathBuf),
    /// It is no file of this service, or not any more.
    #[error("{}: line {line}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// It is of a topic that was deleted, or of another cluster.
    #[error(
        "{}: it was written from topic {topic} with the id {found}, and the topic of that name has the id {wanted}: use another file", path.display()
    )]
    OtherTopic {
        /// The file.
        path: PathBuf,
        /// The topic.
        topic: String,
        /// Which one the file is of.
        found: u64,
        /// Which one there is.
        wanted: u64,
    },
    /// A topic that is none of those that the file was opened for.
    #[error("{}: topic {topic} has no place in it", path.display())]
    NoTopic {
        /// The file.
        path: PathBuf,
        /// The topic.
        topic: String,
    },
    /// A write has failed before: what is at the end of the file is not known.
    #[error("{}: not written, since a write before this failed", .0.display())]
    Failed(PathBuf),
}

/// The file, open for more. Nobody else has it open.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    topic_ids: TopicIds,
    next: Positions,
    has_failed: bool,
}

/// By name, the ids of the topics that are written down.
pub type TopicIds = BTreeMap<&'static str, u64>;

/// By topic and partition, the offset behind the last line.
type Positions = HashMap<(String, u32), u64>;

impl Journal {
    /// Opens the file, or makes it, for these topics. Cuts a part of a line at its end.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(path: &Path, topic_ids: TopicIds) -> Result<Self, JournalError> {
        let fail = |error| JournalError::Io {
            path: path.to_owned(),
            error,
        };
        let file = File::options()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .map_err(fail)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => JournalError::InUse(path.to_owned()),
            TryLockError::Error(error) => fail(error),
        })?;
        sync_directory(path).map_err(fail)?;
        let (whole, next) = read(path, &file, &topic_ids)?;
        if whole < file.metadata().map_err(fail)?.len() {
            tracing::info!(path = %path.display(), whole, "the part of a line at the end is cut");
            file.set_len(whole).map_err(fail)?;
            file.sync_all().map_err(fail)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            topic_ids,
            next,
            has_failed: false,
        })
    }

    /// The first offset of a partition that is not in the file.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> u64 {
        self.next.get(&(topic.to_owned(), partition)).copied().unwrap_or(0)
    }

    /// Writes what is not in the file yet, and gives that. It is synced when this returns.
    ///
    /// # Errors
    /// [`JournalError`]; nothing more can be written then.
    pub fn append(&mut self, topic: &str, records: &[ConsumedRecord]) -> Result<Vec<Line>, JournalError> {
        if self.has_failed {
            return Err(JournalError::Failed(self.path.clone()));
        }
        let topic_id = *self.topic_ids.get(topic).ok_or_else(|| JournalError::NoTopic {
            path: self.path.clone(),
            topic: topic.to_owned(),
        })?;
        let is_new = |record: &&ConsumedRecord| record.offset >= self.position(topic, record.partition);
        let lines: Vec<Line> = records
            .iter()
            .filter(is_new)
            .map(|record| Line::new(topic, topic_id, record))
            .collect();
        if let Err(error) = write(&mut self.file, &lines) {
            self.has_failed = true;
            return Err(JournalError::Io {
                path: self.path.clone(),
                error,
            });
        }
        for line in &lines {
            self.next.insert((line.topic.clone(), line.partition), line.offset + 1);
        }
        Ok(lines)
    }
}

fn write(file: &mut File, lines: &[Line]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    file.write_all(&bytes)?;
    file.sync_data()
}

/// Makes sure that a file that was just made is found after a power cut.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

/// Where the last whole line ends, and the positions.
fn read(path: &Path, file: &File, topic_ids: &TopicIds) -> Result<(u64, Positions), JournalError> {
    let (mut whole, mut number, mut next) = (0, 0, Positions::new());
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        number += 1;
        let damaged = |problem: String| JournalError::Damaged {
            path: path.to_owned(),
            line: number,
            problem,
        };
        let length = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        let length = length.map_err(|error| JournalError::Io {
            path: path.to_owned(),
            error,
        })? as u64;
        if bytes.last() != Some(&b'\n') {
            return match length == LINE_BYTES_MAX {
                true => Err(damaged(format!("it has more than {LINE_BYTES_MAX} bytes"))),
                false => Ok((whole, next)),
            };
        }
        let line = line(&bytes).map_err(damaged)?;
        check_topic(path, &line, topic_ids)?;
        let position = next.entry((line.topic, line.partition)).or_default();
        if line.offset < *position {
            return Err(damaged(format!("offset {} comes after {}", line.offset, *position - 1)));
        }
        *position = line.offset + 1;
        whole += length;
    }
}

fn check_topic(path: &Path, line: &Line, topic_ids: &TopicIds) -> Result<(), JournalError> {
    let (path, topic) = (path.to_owned(), line.topic.clone());
    match topic_ids.get(topic.as_str()) {
        Some(wanted) if *wanted == line.topic_id => Ok(()),
        Some(wanted) => Err(JournalError::OtherTopic {
            path,
            topic,
            found: line.topic_id,
            wanted: *wanted,
        }),
        None => Err(JournalError::NoTopic { path, topic }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::wire::tests::consumed;

    fn command(partition: u32, offset: u64) -> ConsumedRecord {
        consumed(wire::command("a1", offset, "add 2\n5"), partition, offset)
    }

    fn journal(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("calc.log");
        fs::write(&path, content).unwrap();
        (directory, path)
    }

    fn topic_ids() -> TopicIds {
        TopicIds::from([("command", 7), ("result", 8)])
    }

    fn open(path: &Path) -> Result<Journal, JournalError> {
        Journal::open(path, topic_ids())
    }

    #[test]
    fn it_goes_on_where_the_file_ends_without_doubles() {
        let (_directory, path) = journal(b"");
        let mut first = open(&path).unwrap();
        assert_eq!(
            first.append("command", &[command(0, 0), command(0, 1)]).unwrap().len(),
            2
        );
        assert_eq!(first.append("command", &[command(1, 0)]).unwrap().len(), 1);
        assert!(matches!(open(&path), Err(JournalError::InUse(_))));
        drop(first);
        let mut second = open(&path).unwrap();
        let positions =
            [("command", 0), ("command", 1), ("result", 0)].map(|(topic, partition)| second.position(topic, partition));
        assert_eq!(positions, [2, 1, 0]);
        let lines = second.append("command", &[command(0, 1), command(0, 2)]).unwrap();
        assert_eq!(lines.iter().map(|line| line.offset).collect::<Vec<_>>(), [2]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
    }

    /// At every byte.
    #[test]
    fn a_part_of_a_line_is_cut_and_written_again() {
        let (_directory, path) = journal(b"");
        let records = [command(0, 0), command(0, 1)];
        open(&path).unwrap().append("command", &records).unwrap();
        let content = fs::read(&path).unwrap();
        let first_line = content.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for cut in 0..content.len() {
            fs::write(&path, &content[..cut]).unwrap();
            let mut journal = open(&path).unwrap();
            assert_eq!(
                journal.position("command", 0),
                u64::from(cut >= first_line),
                "cut at {cut}"
            );
            journal.append("command", &records).unwrap();
            assert_eq!(fs::read(&path).unwrap(), content, "cut at {cut}");
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let line = r#"{"topic":"command","topic_id":7,"partition":0,"offset":5,"time_ms":1,"text":"add 1"}"#;
        for (content, words) in [
            ("hello\n".to_owned(), "line 1: "),
            (format!("{line}\nhello\n{line}\n"), "line 2: "),
            (format!("{line}\n{line}\n"), "line 2: offset 5 comes after 5"),
            (
                line.replace(r#""topic_id":7,"#, "") + "\n",
                "line 1: missing field `topic_id`",
            ),
            (
                line.replace("command", "orders") + "\n",
                "topic orders has no place in it",
            ),
            (
                line.replace(":7,", ":6,") + "\n",
                "it was written from topic command with the id 6, and the topic of that name has the id 7: use another file",
            ),
        ] {
            let (_directory, path) = journal(content.as_bytes());
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn only_topics_that_it_was_opened_for_are_written_and_each_with_its_id() {
        let (_directory, path) = journal(b"");
        let mut journal = open(&path).unwrap();
        let refused = journal.append("orders", &[command(0, 0)]).unwrap_err();
        assert!(matches!(refused, JournalError::NoTopic { .. }), "{refused}");
        let lines = [("command", 7), ("result", 8)].map(|(topic, topic_id)| {
            let written = journal.append(topic, &[command(0, 0)]).unwrap();
            assert_eq!(written[0].topic_id, topic_id);
            written[0].clone()
        });
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Line> = text.lines().map(|text| line(text.as_bytes()).unwrap()).collect();
        assert_eq!(read, lines);
    }

    #[test]
    fn a_line_for_people_stays_one_line() {
        let result = wire::result(&command(2, 9), Outcome::Error, "no".to_owned());
        assert_eq!(
            Line::new("command", 7, &command(2, 9)).to_string(),
            "command 2/9 a1#9: add 2\\n5"
        );
        assert_eq!(
            Line::new("result", 8, &consumed(result, 2, 8)).to_string(),
            "result  2/8 a1#9 error: no"
        );
        // Whoever may publish commands chooses the name of the session.
        for name in ["a1\u{1b}[2J", "a1\na2"] {
            let command = consumed(wire::command(name, 9, "add 2\u{1b}[2J"), 2, 9);
            let line = Line::new("command", 7, &command);
            assert_eq!(line.to_string(), "command 2/9: add 2\\u{1b}[2J");
            assert_eq!(line.session, None);
        }
    }
}
