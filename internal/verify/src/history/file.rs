//! A history as one file, to be kept with the seed of a run that failed and judged again.
//!
//! ```text
//! | "HWHIST" | version (2 bytes) | run | marks | one list per kind of row | pools | CRC-64 of all before |
//! ```
//!
//! The checksum is looked at first, so what is decoded is what was written; a version that is not known is an error, never
//! a guess. Rows must point into their pools.

use std::fs;
use std::path::{Path, PathBuf};

use super::codec::{Input, Stored};
use super::{History, Pooled, partition_problem, send_problem};
use crate::value;

const MAGIC: &[u8; 6] = b"HWHIST";
const VERSION: u16 = 2;
const HEAD_BYTES: usize = MAGIC.len() + size_of::<u16>();
const CHECKSUM_BYTES: usize = size_of::<u64>();

/// Why a history could not be kept or read. Trying again helps only for [`FileError::Io`].
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// These bytes are not a history, or not a whole one.
    #[error("not a whole history: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// A history of another version of the format.
    #[error("a history of format version {found}; this program knows version {VERSION}")]
    UnknownVersion {
        /// The version found.
        found: u16,
    },
}

impl History {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        self.put(&mut out);
        let checksum = value::digest(&out);
        checksum.put(&mut out);
        out
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`FileError::Damaged`], [`FileError::UnknownVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FileError> {
        let damaged = |problem: String| FileError::Damaged { problem };
        let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
            return Err(damaged(format!("it has {} bytes", bytes.len())));
        };
        if body.len() < HEAD_BYTES || !body.starts_with(MAGIC) {
            return Err(damaged("it does not begin like one".to_owned()));
        }
        let (expected, found) = (value::digest(body), u64::from_le_bytes(*checksum));
        if expected != found {
            return Err(damaged(format!(
                "its checksum is {expected:016x}, but {found:016x} was stored"
            )));
        }
        let version = u16::from_le_bytes([body[MAGIC.len()], body[MAGIC.len() + 1]]);
        if version != VERSION {
            return Err(FileError::UnknownVersion { found: version });
        }
        let mut input = Input {
            rest: &body[HEAD_BYTES..],
        };
        let history = History::get(&mut input).map_err(damaged)?;
        match input.rest.len() {
            0 => history.check_rows().map_err(damaged).map(|()| history),
            more => Err(damaged(format!("{more} bytes follow its end"))),
        }
    }

    /// Writes the history to a file, replacing it. Not synced: a history is not worth a wait.
    ///
    /// # Errors
    /// [`FileError::Io`].
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        fs::write(path, self.encode()).map_err(|source| io(path, source))
    }

    /// Reads a history from a file.
    ///
    /// # Errors
    /// Any [`FileError`].
    pub fn load(path: &Path) -> Result<Self, FileError> {
        Self::decode(&fs::read(path).map_err(|source| io(path, source))?)
    }

    /// What recording would have refused, and rows that claim more of a pool than there is.
    fn check_rows(&self) -> Result<(), String> {
        fn claim<T>(name: &str, rows: &[Pooled<T>], pool: usize) -> Result<usize, String> {
            let beyond = rows.iter().position(|row| row.range().end > pool);
            if let Some(row) = beyond {
                return Err(format!("{name} {row} points beyond its pool of {pool}"));
            }
            Ok(rows.iter().map(|row| row.count as usize).sum())
        }
        let claims = [
            (claim("send", &self.sends, self.digests.len())?, self.digests.len()),
            (
                claim("poll", &self.polls, self.seen.len())? + claim("scan", &self.scans, self.seen.len())?,
                self.seen.len(),
            ),
            (claim("dump", &self.dumps, self.entries.len())?, self.entries.len()),
        ];
        if let Some((claimed, pool)) = claims.iter().find(|(claimed, pool)| claimed != pool) {
            return Err(format!("rows claim {claimed} items of a pool of {pool}"));
        }
        let send = self
            .sends
            .iter()
            .find_map(|row| send_problem(&row.event, row.count as usize));
        let partition = self.partitions_used().find_map(partition_problem);
        send.or(partition).map_or(Ok(()), Err)
    }
}

fn io(path: &Path, source: std::io::Error) -> FileError {
    FileError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Stored for History {
    fn put(&self, out: &mut Vec<u8>) {
        self.run.put(out);
        self.unusable.put(out);
        self.incidents_watched.put(out);
        self.sends.put(out);
        self.polls.put(out);
        self.offsets.put(out);
        self.scans.put(out);
        self.retention.put(out);
        self.faults.put(out);
        self.incidents.put(out);
        self.dumps.put(out);
        self.promises.put(out);
        self.leaders.put(out);
        self.healings.put(out);
        self.handouts.put(out);
        self.positions.put(out);
        self.digests.put(out);
        self.seen.put(out);
        self.entries.put(out);
    }

    fn get(input: &mut Input<'_>) -> Result<Self, String> {
        Ok(Self {
            run: Stored::get(input)?,
            unusable: Stored::get(input)?,
            incidents_watched: Stored::get(input)?,
            sends: Stored::get(input)?,
            polls: Stored::get(input)?,
            offsets: Stored::get(input)?,
            scans: Stored::get(input)?,
            retention: Stored::get(input)?,
            faults: Stored::get(input)?,
            incidents: Stored::get(input)?,
            dumps: Stored::get(input)?,
            promises: Stored::get(input)?,
            leaders: Stored::get(input)?,
            healings: Stored::get(input)?,
            handouts: Stored::get(input)?,
            positions: Stored::get(input)?,
            digests: Stored::get(input)?,
            seen: Stored::get(input)?,
            entries: Stored::get(input)?,
        })
    }
}
