//! Records that a cluster has, beside those of a backup: how far a restore that was interrupted had come.
//!
//! Nothing is noted anywhere about a restore. A topic that exists is gone on with only if what it holds is the beginning of the backup,
//! record by record; so it does not matter who wrote it, or where that ended.

use std::path::PathBuf;
use std::vec;

use highwater::{Client, ConsumedRecord};

use super::manifest::Partition;
use super::reader::Reader;
use crate::exit::{Code, Failure, Result};
use crate::profile::failure;

/// What to do about a topic that is there and has gone on, or never was the backup's.
pub(super) const ONLY_MISSING: &str =
    "restore only what is missing, with --topic TENANT/TOPIC, or restore to a cluster that has no such topic";

/// Bytes of the cluster's records that may be read ahead.
const PREFETCH_BYTES: usize = 8 * 1024 * 1024;

/// How many records of the backup a partition has already. Fails if it has any other.
pub(super) async fn records_there(client: &Client, topic: &str, partition: &Partition, file: PathBuf) -> Result<u64> {
    let number = partition.partition;
    let consumer = client
        .consumer(topic, number)
        .prefetch_bytes(PREFETCH_BYTES)
        .stop_at_end();
    let mut consumer = consumer.build().await.map_err(failure)?;
    let first = consumer.position(number).unwrap_or(0);
    let end = consumer.stop_offset(number).unwrap_or(first);
    let differs = |why: String| other(format!("{topic}/{number} has other records than the backup: {why}"));
    if end > partition.count() {
        return Err(differs(format!(
            "it ends at offset {end}, and the backup has {}",
            partition.count()
        )));
    }
    if first == end && end > 0 {
        return Err(differs(format!("it has none of its {end} any more")));
    }
    let mut wanted = Records::new(Reader::open(file, partition)?);
    while let Some(batch) = consumer.next_batch().await {
        for record in batch.map_err(failure)? {
            let record = record.map_err(failure)?;
            let same = wanted.at(partition.first_offset + record.offset)?;
            if !same.is_some_and(|same| is_same(&same, &record)) {
                return Err(differs(format!(
                    "the first that differs is at offset {}",
                    record.offset
                )));
            }
        }
    }
    Ok(end)
}

fn other(message: String) -> Failure {
    Failure::new(Code::Refused, format!("{message}; nothing was changed")).hint(ONLY_MISSING)
}

/// All that a producer says of a record.
fn is_same(one: &ConsumedRecord, other: &ConsumedRecord) -> bool {
    one.timestamp_ms == other.timestamp_ms
        && one.key == other.key
        && one.value == other.value
        && one.headers == other.headers
}

/// The records of a file, one by one.
struct Records<'a> {
    reader: Reader<'a>,
    block: vec::IntoIter<ConsumedRecord>,
}

impl<'a> Records<'a> {
    fn new(reader: Reader<'a>) -> Records<'a> {
        Records {
            reader,
            block: Vec::new().into_iter(),
        }
    }

    /// The record of an offset, which must not be before the last one asked for; `None` if there is none.
    fn at(&mut self, offset: u64) -> Result<Option<ConsumedRecord>> {
        loop {
            if let Some(record) = self.block.find(|record| record.offset >= offset) {
                return Ok(Some(record));
            }
            match self.reader.next_block()? {
                Some(records) => self.block = records.into_iter(),
                None => return Ok(None),
            }
        }
    }
}
