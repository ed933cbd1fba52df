//! Reading the file of one partition's records, and judging it: every block by its checksum, offsets by their order, and the whole by what
//! the manifest says of it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use highwater::ConsumedRecord;
use sha2::{Digest, Sha256};

use super::format::{self, BLOCK_HEADER_BYTES, BlockHeader, Broken, FILE_HEADER_BYTES};
use super::manifest::{self, Partition};
use crate::exit::{Code, Failure, Result};

/// Gives the blocks of a file, one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    path: PathBuf,
    expected: &'a Partition,
    file: BufReader<File>,
    digest: Sha256,
    /// Where it is in the file.
    position: u64,
    /// The offset of the record that comes next.
    next: u64,
}

impl<'a> Reader<'a> {
    pub(super) fn open(path: PathBuf, expected: &'a Partition) -> Result<Reader<'a>> {
        let file = File::open(&path).map_err(|error| unreadable(&path, &error))?;
        let length = file.metadata().map_err(|error| unreadable(&path, &error))?.len();
        let mut reader = Reader {
            path,
            expected,
            file: BufReader::new(file),
            digest: Sha256::new(),
            position: 0,
            next: expected.first_offset,
        };
        if length != expected.file_bytes {
            let why = format!(
                "it has {length} bytes, and the backup was made with {}",
                expected.file_bytes
            );
            return Err(reader.damaged(why));
        }
        let mut header = [0; FILE_HEADER_BYTES];
        reader.fill(&mut header)?;
        format::check_file_header(header).map_err(|broken| reader.damaged(broken))?;
        reader.position = FILE_HEADER_BYTES as u64;
        Ok(reader)
    }

    /// How many bytes of the file have been read.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The records of the next block; `None` at the end, when the file has turned out to be as it was written.
    pub(super) fn next_block(&mut self) -> Result<Option<Vec<ConsumedRecord>>> {
        if self.position == self.expected.file_bytes {
            self.check_end()?;
            return Ok(None);
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.fill(&mut header)?;
        let header = BlockHeader::read(header).map_err(|broken| self.damaged(broken))?;
        let bytes = (BLOCK_HEADER_BYTES + header.stored_bytes()) as u64;
        if bytes > self.expected.file_bytes - self.position {
            return Err(self.damaged(Broken::Torn));
        }
        let mut stored = vec![0; header.stored_bytes()];
        self.fill(&mut stored)?;
        let offsets = self.next..self.expected.end_offset;
        let records = header.records(&stored, self.expected.partition, offsets);
        let records = records.map_err(|broken| self.damaged(broken))?;
        self.position += bytes;
        self.next += records.len() as u64;
        Ok(Some(records))
    }

    fn check_end(&self) -> Result<()> {
        if self.next != self.expected.end_offset {
            let why = format!(
                "it ends before offset {}, and the backup has all before {}",
                self.next, self.expected.end_offset
            );
            return Err(self.damaged(why));
        }
        let found = manifest::hex(&self.digest.clone().finalize());
        if found != self.expected.sha256 {
            let why = format!(
                "its SHA-256 is {found}, and the backup was made with {}",
                self.expected.sha256
            );
            return Err(self.damaged(why));
        }
        Ok(())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        match self.file.read_exact(bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.damaged(Broken::Torn)),
            Err(error) => return Err(unreadable(&self.path, &error)),
        }
        self.digest.update(bytes);
        Ok(())
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Failure {
        let (path, position, next) = (self.path.display(), self.position, self.next);
        let message = format!("{path} is damaged at byte {position}, where offset {next} is next: {why}");
        Failure::new(Code::Failure, message)
            .hint("restore from another copy of the backup; nothing of this one is used")
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Code::Failure, format!("cannot read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::backup::format::OpenBlock;

    fn record(offset: u64) -> ConsumedRecord {
        ConsumedRecord {
            partition: 0,
            offset,
            key: Some(format!("key {offset}").into()),
            value: format!("value {offset}").into(),
            headers: Vec::new(),
            timestamp_ms: -5,
            append_time_ms: 5,
        }
    }

    /// A file of two blocks, with offsets 7 to 12.
    fn made() -> (Vec<u8>, Partition) {
        let mut bytes = format::file_header().to_vec();
        let mut block = OpenBlock::new(7);
        for offsets in [7..10, 10..12] {
            offsets.for_each(|offset| block.push(&record(offset)));
            bytes.extend(block.close().unwrap());
        }
        let partition = Partition {
            partition: 0,
            first_offset: 7,
            end_offset: 12,
            file_bytes: bytes.len() as u64,
            sha256: manifest::hex(&Sha256::digest(&bytes)),
        };
        (bytes, partition)
    }

    fn read(bytes: &[u8], partition: &Partition) -> Result<u64> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(path, partition)?;
        let mut count = 0;
        while let Some(records) = reader.next_block()? {
            count += records.len() as u64;
        }
        Ok(count)
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_found() {
        let (bytes, partition) = made();
        assert_eq!(read(&bytes, &partition).unwrap(), 5);
        for place in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << (place % 8);
            let found = read(&flipped, &partition).unwrap_err();
            assert!(found.message.contains("is damaged at byte"), "byte {place}: {found}");
            assert!(read(&bytes[..place], &partition).is_err(), "cut at {place}");
            // Also if whoever cut it knew the length.
            let shorter = Partition {
                file_bytes: place as u64,
                ..partition.clone()
            };
            assert!(read(&bytes[..place], &shorter).is_err(), "made shorter, to {place}");
        }
    }

    #[test]
    fn a_whole_block_that_is_missing_or_too_many_is_found_by_its_offsets() {
        let (bytes, partition) = made();
        let more = Partition {
            end_offset: 13,
            ..partition.clone()
        };
        let found = read(&bytes, &more).unwrap_err();
        assert!(found.message.contains("ends before offset 12"), "{found}");
        let fewer = Partition {
            end_offset: 11,
            ..partition.clone()
        };
        let found = read(&bytes, &fewer).unwrap_err();
        assert!(found.message.contains("1 are left"), "{found}");
        let later = Partition {
            first_offset: 8,
            ..partition
        };
        let found = read(&bytes, &later).unwrap_err();
        assert!(
            found.message.contains("begins at offset 7, and offset 8 is next"),
            "{found}"
        );
    }

    #[test]
    fn another_file_of_the_same_length_is_told_by_its_sha256() {
        let (bytes, partition) = made();
        let other = Partition {
            sha256: "00".repeat(32),
            ..partition
        };
        let found = read(&bytes, &other).unwrap_err();
        assert!(found.message.contains("SHA-256"), "{found}");
    }
}
