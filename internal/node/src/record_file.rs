//! Small files that must never be half-written: one JSON value behind a checksummed first line.
//!
//! ```text
//! highwater-node 1 9a3bc4d2\n      what it is, format version, CRC-32C of everything behind the line
//! { … }\n
//! ```
//!
//! A write goes to `NAME.tmp`, is synced, renamed over the old file, and the directory is synced; after a crash the old
//! or the new content is there. The commit point is the rename; the caller may rely on it once `write` has returned.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crc_fast::CrcAlgorithm::Crc32Iscsi;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::data_dir::DataDirError;

/// The largest such file that is read, bytes.
const RECORD_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
const VERSION: u32 = 1;

/// Reads `path`; `None` if there is no such file. Anything but a whole file of this version is an error.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Option<T>, DataDirError> {
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DataDirError::io("read", path, error)),
    };
    let damaged = |why: String| DataDirError::Damaged {
        path: path.to_owned(),
        why,
    };
    if length > RECORD_FILE_BYTES_MAX {
        return Err(damaged(format!("{length} bytes, more than {RECORD_FILE_BYTES_MAX}")));
    }
    let text = fs::read(path).map_err(|error| DataDirError::io("read", path, error))?;
    let body = check_head(&text, what).map_err(damaged)?;
    let value = serde_json::from_slice(body).map_err(|error| damaged(error.to_string()))?;
    Ok(Some(value))
}

/// Checks the first line and answers what stands behind it.
fn check_head<'a>(text: &'a [u8], what: &str) -> Result<&'a [u8], String> {
    let line_end = text
        .iter()
        .take(128)
        .position(|byte| *byte == b'\n')
        .ok_or("no first line")?;
    let (head, body) = (&text[..line_end], &text[line_end + 1..]);
    let head = std::str::from_utf8(head).map_err(|_| "no first line".to_owned())?;
    let mut words = head.split(' ');
    if words.next() != Some(what) {
        return Err(format!("does not begin with `{what}`"));
    }
    match words.next().and_then(|version| version.parse::<u32>().ok()) {
        Some(VERSION) => {}
        Some(other) => return Err(format!("has format version {other}; this program knows {VERSION}")),
        None => return Err("has no format version".to_owned()),
    }
    if words.next() != Some(checksum(body).as_str()) || words.next().is_some() {
        return Err("does not match its checksum".to_owned());
    }
    Ok(body)
}

/// Replaces `path` with `value`, durably.
pub(crate) fn write<T: Serialize>(path: &Path, what: &str, value: &T) -> Result<(), DataDirError> {
    let mut body = serde_json::to_vec_pretty(value).map_err(|error| DataDirError::Damaged {
        path: path.to_owned(),
        why: format!("cannot be encoded: {error}"),
    })?;
    body.push(b'\n');
    let head = format!("{what} {VERSION} {}\n", checksum(&body));
    let temporary = path.with_extension("tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(head.as_bytes())?;
        file.write_all(&body)?;
        file.sync_all()
    });
    written.map_err(|error| DataDirError::io("write", &temporary, error))?;
    fs::rename(&temporary, path).map_err(|error| DataDirError::io("replace", path, error))?;
    match path.parent() {
        Some(directory) => sync_directory(directory),
        None => Ok(()),
    }
}

/// Makes the entries of `directory` durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), DataDirError> {
    File::open(directory)
        .and_then(|file| file.sync_all())
        .map_err(|error| DataDirError::io("sync", directory, error))
}

fn checksum(body: &[u8]) -> String {
    format!("{:08x}", crc_fast::checksum(Crc32Iscsi, body))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing");
        assert_eq!(read::<Vec<u32>>(&path, "thing").unwrap(), None);
        write(&path, "thing", &vec![1, 2, 3]).unwrap();
        write(&path, "thing", &vec![4]).unwrap();
        assert_eq!(read::<Vec<u32>>(&path, "thing").unwrap(), Some(vec![4]));
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing");
        write(&path, "thing", &vec![1, 2, 3]).unwrap();
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[position] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            assert!(read::<Vec<u32>>(&path, "thing").is_err(), "flipped byte {position}");
            fs::write(&path, &whole[..position]).unwrap();
            assert!(read::<Vec<u32>>(&path, "thing").is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_newer_version_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("thing");
        fs::write(&path, "thing 2 00000000\n{}").unwrap();
        let error = read::<Vec<u32>>(&path, "thing").unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
