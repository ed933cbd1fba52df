//! Writing the file of one partition's records.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use highwater::ConsumedRecord;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::format::{self, BLOCK_BYTES_MAX, OpenBlock};
use super::manifest::{self, Partition};
use crate::exit::{Code, Failure, Result};

/// A file that takes the records of a partition, in order and without gaps.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    topic: String,
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    first: u64,
    partition: u32,
    block: OpenBlock,
}

impl Writer {
    /// A new file in an existing directory, for records from `first` on.
    pub(super) fn create(path: PathBuf, topic: &str, partition: u32, first: u64) -> Result<Writer> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|error| failure(&path, &error))?;
        let mut writer = Writer {
            path,
            topic: topic.to_owned(),
            file: BufWriter::new(file),
            digest: Sha256::new(),
            bytes: 0,
            first,
            partition,
            block: OpenBlock::new(first),
        };
        writer.write(&format::file_header())?;
        Ok(writer)
    }

    /// The offset of the record that comes next.
    pub(super) fn next_offset(&self) -> u64 {
        self.block.next_offset()
    }

    pub(super) fn push(&mut self, record: &ConsumedRecord) -> Result<()> {
        let (expected, found) = (self.next_offset(), record.offset);
        if found != expected {
            return Err(self.refused(format!("offset {expected} is next, and the cluster sent {found}")));
        }
        let bytes = format::size(record);
        if bytes > BLOCK_BYTES_MAX {
            let why = format!(
                "the record at offset {found} takes {bytes} bytes, and at most {BLOCK_BYTES_MAX} can be backed up"
            );
            return Err(self.refused(why));
        }
        if self.block.is_full_for(bytes) {
            self.close_block()?;
        }
        self.block.push(record);
        Ok(())
    }

    /// Writes what is left, syncs the file, and tells what it holds.
    pub(super) async fn finish(mut self) -> Result<Partition> {
        let end_offset = self.next_offset();
        if !self.block.is_empty() {
            self.close_block()?;
        }
        let Writer { path, file, .. } = self;
        let file = file.into_inner().map_err(|error| failure(&path, error.error()))?;
        let synced = spawn_blocking(move || file.sync_all()).await;
        let synced = synced.unwrap_or_else(|ended| Err(io::Error::other(ended)));
        synced.map_err(|error| failure(&path, &error))?;
        Ok(Partition {
            partition: self.partition,
            first_offset: self.first,
            end_offset,
            file_bytes: self.bytes,
            sha256: manifest::hex(&self.digest.finalize()),
        })
    }

    fn close_block(&mut self) -> Result<()> {
        let closed = self.block.close();
        let block = closed.map_err(|broken| self.refused(broken.to_string()))?;
        self.write(&block)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).map_err(|error| failure(&self.path, &error))
    }

    fn refused(&self, why: String) -> Failure {
        Failure::new(Code::Failure, format!("{}/{}: {why}", self.topic, self.partition))
    }
}

/// Makes a directory that only the owner may enter, and all above it.
pub(super) fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| failure(path, &error))
}

/// Makes certain that the names in a directory outlive a power cut.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| failure(path, &error))
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(Code::Failure, format!("cannot write {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            failure.hint("make room, remove the unfinished backup, and begin anew")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::backup::reader::Reader;

    fn record(offset: u64, value: Vec<u8>) -> ConsumedRecord {
        ConsumedRecord {
            partition: 3,
            offset,
            key: None,
            value: value.into(),
            headers: Vec::new(),
            timestamp_ms: 1,
            append_time_ms: 2,
        }
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_and_a_large_record_has_a_block_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("00003");
        let mut writer = Writer::create(path.clone(), "shop/orders", 3, 40).unwrap();
        let records = [100_000, 500_000, 20, 1_000_000, 7].into_iter().zip(40..);
        let records: Vec<_> = records.map(|(size, offset)| record(offset, vec![b'x'; size])).collect();
        for record in &records {
            writer.push(record).unwrap();
        }
        let partition = writer.finish().await.unwrap();
        assert_eq!(
            (partition.first_offset, partition.end_offset, partition.partition),
            (40, 45, 3)
        );
        assert_eq!(partition.file_bytes, path.metadata().unwrap().len());
        let mut reader = Reader::open(path, &partition).unwrap();
        let mut blocks = Vec::new();
        while let Some(block) = reader.next_block().unwrap() {
            blocks.push(block);
        }
        let counts: Vec<usize> = blocks.iter().map(Vec::len).collect();
        assert_eq!(counts, [1, 2, 1, 1]);
        assert_eq!(blocks.concat(), records);
    }

    #[test]
    fn a_gap_is_refused_and_so_is_a_file_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0");
        let mut writer = Writer::create(path.clone(), "shop/orders", 3, 40).unwrap();
        let refused = writer.push(&record(41, Vec::new())).unwrap_err();
        assert!(
            refused.message.contains("shop/orders/3") && refused.message.contains("offset 40 is next"),
            "{refused}"
        );
        assert!(Writer::create(path, "shop/orders", 3, 40).is_err());
    }

    #[test]
    fn a_full_disk_is_told_as_such() {
        let told = failure(Path::new("b/records"), &io::Error::from(io::ErrorKind::StorageFull));
        assert!(told.message.contains("b/records") && told.hint.is_some(), "{told}");
    }
}
