//! The bytes of a backup's files of records; nothing else knows them.
//!
//! ```text
//! file    "HWBACKUP" | version: 4 | block | block | ...
//! block   crc32c: 4 | stored length: 4 | inflated length: 4 | records: 4 | first offset: 8 | a Zstandard frame of the records
//! record  timestamp ms: 8 | append time ms: 8 | key length: 4, or ffffffff for none | value length: 4 | headers: 4 | key | value |
//!         of each header: name length: 4 | value length: 4 | name | value
//! ```
//!
//! Numbers are little-endian, the timestamp signed. The checksum (CRC-32C) covers everything of the block that stands behind it. Offsets
//! within a block, and from block to block, are dense. A block of records that a producer may append never needs a larger batch than a cluster
//! takes, so a restore appends each as one ([`BLOCK_BYTES`]). A record beyond the limits of a producer, which only a client that is not ours
//! can have stored, is kept as well, but cannot be appended (see `unfit`).
//!
//! What is read is believed as little as what comes from a stranger: every length is compared with a limit, and with what is there, before it
//! is used.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes};
use highwater::proto::limits::{BATCH_BYTES_MAX, BATCH_INFLATED_BYTES_MAX, BATCH_RECORDS_MAX};
use highwater::{ConsumedRecord, Header};

/// The version of the format, of the files and of `backup.json`. Whatever an older program would misread or not understand raises it.
pub(super) const VERSION: u32 = 1;
/// How a file of records begins.
const MAGIC: [u8; 8] = *b"HWBACKUP";
/// How long that is with the version, bytes.
pub(super) const FILE_HEADER_BYTES: usize = MAGIC.len() + 4;
/// What stands before the records of a block, bytes.
pub(super) const BLOCK_HEADER_BYTES: usize = 24;
/// A record without key, value and headers, bytes.
const RECORD_BYTES_MIN: usize = 28;
/// A header without name and value, bytes.
const HEADER_BYTES_MIN: usize = 8;
/// A block is closed before it would hold more than this, bytes before compression; a larger record has one of its own.
pub(super) const BLOCK_BYTES: usize = 512 * 1024;
/// The most that a block may hold, bytes before compression. A batch that no client of ours has made may have a record of up to
/// [`BATCH_INFLATED_BYTES_MAX`].
pub(super) const BLOCK_BYTES_MAX: usize = 2 * BATCH_INFLATED_BYTES_MAX;
/// The most that a block may have in the file behind its header, bytes: what cannot be compressed grows a little.
const BLOCK_STORED_BYTES_MAX: usize = BLOCK_BYTES_MAX + BLOCK_BYTES_MAX / 256 + 64;
/// Zstandard's level: the fastest of its ordinary ones.
const ZSTD_LEVEL: i32 = 1;
/// In place of the length of a key: there is none.
const NO_KEY: u32 = u32::MAX;

// On the wire less stands around a record than here, and around a header of more than 127 bytes up to three bytes more.
const _: () = assert!(BLOCK_BYTES + BLOCK_BYTES / 4 < BATCH_BYTES_MAX);
const _: () = assert!(BLOCK_BYTES / RECORD_BYTES_MIN <= BATCH_RECORDS_MAX as usize);
const _: () = assert!(BLOCK_STORED_BYTES_MAX < u32::MAX as usize);

/// What is wrong with the bytes of a file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    #[error("it does not begin as a file of a backup")]
    Magic,
    #[error("it is of version {0} of the format, and this program knows {VERSION}")]
    Version(u32),
    #[error("it ends in the middle of a block")]
    Torn,
    #[error("{what} is {found}, and at most {most} can be")]
    TooLong { what: &'static str, found: u64, most: u64 },
    #[error("the block's checksum is {found:08x}, and {stored:08x} stands in it")]
    Checksum { found: u32, stored: u32 },
    #[error("the block begins at offset {found}, and offset {expected} is next")]
    Offset { found: u64, expected: u64 },
    #[error("the block has {found} records, and {left} are left before the end of the partition")]
    Beyond { found: u32, left: u64 },
    #[error("the block cannot be inflated: {0}")]
    Inflate(String),
    #[error("record {0} of the block reaches beyond its end")]
    Record(u32),
    #[error("the block has bytes behind its last record")]
    Rest,
    #[error("the name of a header is not UTF-8")]
    HeaderName,
}

pub(super) fn file_header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(&MAGIC);
    header[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    header
}

pub(super) fn check_file_header(header: [u8; FILE_HEADER_BYTES]) -> Result<(), Broken> {
    let mut rest = header.as_slice();
    if !rest.starts_with(&MAGIC) {
        return Err(Broken::Magic);
    }
    rest.advance(MAGIC.len());
    match rest.get_u32_le() {
        VERSION => Ok(()),
        other => Err(Broken::Version(other)),
    }
}

/// A block that is being filled.
#[derive(Debug)]
pub(super) struct OpenBlock {
    first: u64,
    count: u32,
    records: Vec<u8>,
}

impl OpenBlock {
    /// An empty one whose first record will be the one of this offset.
    pub(super) fn new(first: u64) -> OpenBlock {
        OpenBlock {
            first,
            count: 0,
            records: Vec::new(),
        }
    }

    /// The offset of the record that comes next.
    pub(super) fn next_offset(&self) -> u64 {
        self.first + u64::from(self.count)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a record of this size belongs into the next block.
    pub(super) fn is_full_for(&self, bytes: usize) -> bool {
        !self.is_empty() && self.records.len() + bytes > BLOCK_BYTES
    }

    /// Adds a record, which must not be larger than [`BLOCK_BYTES_MAX`].
    pub(super) fn push(&mut self, record: &ConsumedRecord) {
        let out = &mut self.records;
        out.put_i64_le(record.timestamp_ms);
        out.put_u64_le(record.append_time_ms);
        out.put_u32_le(record.key.as_ref().map_or(NO_KEY, |key| key.len() as u32));
        out.put_u32_le(record.value.len() as u32);
        out.put_u32_le(record.headers.len() as u32);
        out.put_slice(record.key.as_deref().unwrap_or_default());
        out.put_slice(&record.value);
        for header in &record.headers {
            out.put_u32_le(header.name.len() as u32);
            out.put_u32_le(header.value.len() as u32);
            out.put_slice(header.name.as_bytes());
            out.put_slice(&header.value);
        }
        self.count += 1;
    }

    /// The bytes of the block, and an empty one behind it.
    pub(super) fn close(&mut self) -> Result<Vec<u8>, Broken> {
        let frame =
            zstd::bulk::compress(&self.records, ZSTD_LEVEL).map_err(|error| Broken::Inflate(error.to_string()))?;
        let mut block = Vec::with_capacity(BLOCK_HEADER_BYTES + frame.len());
        block.put_u32_le(0);
        block.put_u32_le(frame.len() as u32);
        block.put_u32_le(self.records.len() as u32);
        block.put_u32_le(self.count);
        block.put_u64_le(self.first);
        block.put_slice(&frame);
        let checksum = crc_fast::crc32_iscsi(&block[4..]);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
        self.first = self.next_offset();
        self.count = 0;
        self.records.clear();
        Ok(block)
    }
}

/// How many bytes a record takes in a block.
pub(super) fn size(record: &ConsumedRecord) -> usize {
    let headers = record.headers.iter();
    let headers = headers.map(|header| HEADER_BYTES_MIN + header.name.len() + header.value.len());
    let key = record.key.as_ref().map_or(0, Bytes::len);
    RECORD_BYTES_MIN + key + record.value.len() + headers.sum::<usize>()
}

/// What a block says of itself before its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    bytes: [u8; BLOCK_HEADER_BYTES],
    checksum: u32,
    stored_bytes: usize,
    inflated_bytes: usize,
    count: u32,
    first: u64,
}

impl BlockHeader {
    pub(super) fn read(bytes: [u8; BLOCK_HEADER_BYTES]) -> Result<BlockHeader, Broken> {
        let mut rest = bytes.as_slice();
        let checksum = rest.get_u32_le();
        let mut length = |what, most: usize| match rest.get_u32_le() {
            found if found as usize > most => Err(Broken::TooLong {
                what,
                found: found.into(),
                most: most as u64,
            }),
            found => Ok(found as usize),
        };
        let stored_bytes = length("the length of the block", BLOCK_STORED_BYTES_MAX)?;
        let inflated_bytes = length("the inflated length of the block", BLOCK_BYTES_MAX)?;
        let count = length("the number of the block's records", inflated_bytes / RECORD_BYTES_MIN)? as u32;
        Ok(BlockHeader {
            bytes,
            checksum,
            stored_bytes,
            inflated_bytes,
            count,
            first: rest.get_u64_le(),
        })
    }

    /// How many bytes follow.
    pub(super) fn stored_bytes(&self) -> usize {
        self.stored_bytes
    }

    /// The records of the block, which must begin where `offsets` does, and not reach beyond its end.
    pub(super) fn records(
        &self,
        stored: &[u8],
        partition: u32,
        offsets: Range<u64>,
    ) -> Result<Vec<ConsumedRecord>, Broken> {
        let checksum = checksum_of(&self.bytes[4..], stored);
        if checksum != self.checksum {
            return Err(Broken::Checksum {
                found: checksum,
                stored: self.checksum,
            });
        }
        if self.first != offsets.start {
            return Err(Broken::Offset {
                found: self.first,
                expected: offsets.start,
            });
        }
        let left = offsets.end.saturating_sub(offsets.start);
        if u64::from(self.count) > left {
            return Err(Broken::Beyond {
                found: self.count,
                left,
            });
        }
        let inflated = zstd::bulk::decompress(stored, self.inflated_bytes);
        let inflated = inflated.map_err(|error| Broken::Inflate(error.to_string()))?;
        if inflated.len() != self.inflated_bytes {
            let problem = format!("it has {} bytes, and {} were told", inflated.len(), self.inflated_bytes);
            return Err(Broken::Inflate(problem));
        }
        let mut rest = Bytes::from(inflated);
        let mut records = Vec::with_capacity(self.count as usize);
        for number in 0..self.count {
            let offset = offsets.start + u64::from(number);
            let record = take_record(&mut rest, (partition, offset))?;
            records.push(record.ok_or(Broken::Record(number))?);
        }
        rest.is_empty().then_some(records).ok_or(Broken::Rest)
    }
}

fn checksum_of(header: &[u8], stored: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(header);
    digest.update(stored);
    digest.finalize() as u32
}

/// The next record; `None` if it is not all there.
fn take_record(rest: &mut Bytes, (partition, offset): (u32, u64)) -> Result<Option<ConsumedRecord>, Broken> {
    if rest.len() < RECORD_BYTES_MIN {
        return Ok(None);
    }
    let (timestamp_ms, append_time_ms) = (rest.get_i64_le(), rest.get_u64_le());
    let (key_bytes, value_bytes, header_count) = (rest.get_u32_le(), rest.get_u32_le(), rest.get_u32_le());
    let key = match key_bytes {
        NO_KEY => None,
        bytes => match take(rest, bytes) {
            None => return Ok(None),
            key => key,
        },
    };
    let Some(value) = take(rest, value_bytes) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    for _ in 0..header_count {
        match take_header(rest)? {
            Some(header) => headers.push(header),
            None => return Ok(None),
        }
    }
    Ok(Some(ConsumedRecord {
        partition,
        offset,
        key,
        value,
        headers,
        timestamp_ms,
        append_time_ms,
    }))
}

fn take_header(rest: &mut Bytes) -> Result<Option<Header>, Broken> {
    if rest.len() < HEADER_BYTES_MIN {
        return Ok(None);
    }
    let (name_bytes, value_bytes) = (rest.get_u32_le(), rest.get_u32_le());
    let Some((name, value)) = take(rest, name_bytes).zip(take(rest, value_bytes)) else {
        return Ok(None);
    };
    let name = String::from_utf8(name.into()).map_err(|_| Broken::HeaderName)?;
    Ok(Some(Header { name, value }))
}

fn take(rest: &mut Bytes, bytes: u32) -> Option<Bytes> {
    let bytes = bytes as usize;
    (bytes <= rest.len()).then(|| rest.split_to(bytes))
}

#[cfg(test)]
mod tests;
