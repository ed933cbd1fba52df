//! What has been read ahead and not been handed out yet.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use super::decode;
use crate::error::Error;
use crate::record::ConsumedRecord;

/// What a fetcher hands to the consumer.
#[derive(Debug)]
pub(crate) enum Item {
    Batch(Fetched),
    /// An error, and the offset at which the partition's reading goes on, if it does.
    Failed {
        place: usize,
        epoch: u64,
        resume_at: u64,
        error: Error,
    },
    /// The partition is read no further.
    Ended {
        place: usize,
        epoch: u64,
    },
}

impl Item {
    /// The place of the partition among those of the consumer, and the epoch of the reader.
    pub(crate) fn origin(&self) -> (usize, u64) {
        match self {
            Item::Batch(fetched) => (fetched.place, fetched.epoch),
            Item::Failed { place, epoch, .. } | Item::Ended { place, epoch } => (*place, *epoch),
        }
    }
}

/// A checked batch, partly handed out.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) place: usize,
    pub(crate) epoch: u64,
    pub(crate) partition: u32,
    /// The offset of the next record in `rest`.
    pub(crate) offset: u64,
    /// Records below this offset are passed over.
    pub(crate) wanted_from: u64,
    /// Records at or above this offset are not wanted.
    pub(crate) end: u64,
    pub(crate) append_time_ms: u64,
    pub(crate) rest: Bytes,
    /// Room in the consumer's prefetch, free again when the batch is dropped.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Fetched {
    /// The offsets of the records that are still to be handed out, end exclusive.
    pub(crate) fn wanted(&self) -> Range<u64> {
        let start = self.offset.max(self.wanted_from).min(self.end);
        start..self.end
    }

    /// Gives back its room in the prefetch.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// The error that the last record is.
    pub(crate) fn corrupt(&self, topic: &str, problem: String) -> Error {
        Error::CorruptBatch {
            topic: topic.to_owned(),
            partition: self.partition,
            offsets: self.offset - 1..self.offset,
            problem,
        }
    }

    /// The next record; `None` when all have been handed out. An error concerns the one record at its offset.
    pub(crate) fn next_record(&mut self) -> Option<Result<ConsumedRecord, String>> {
        loop {
            if self.offset >= self.end {
                return None;
            }
            let offset = self.offset;
            // The batch was checked as a whole, so it holds a record for each offset.
            let bytes = decode::next_record(&mut self.rest).ok().flatten()?;
            self.offset += 1;
            if offset < self.wanted_from {
                continue;
            }
            return Some(decode::record(bytes).map(|record| ConsumedRecord {
                partition: self.partition,
                offset,
                key: record.key,
                value: record.value,
                headers: record.headers,
                timestamp_ms: record.timestamp_ms,
                append_time_ms: self.append_time_ms,
            }));
        }
    }
}

/// What readers tell about a partition beside its records.
#[derive(Debug, Default)]
pub(crate) struct News {
    served_by: Mutex<Option<String>>,
    /// One more than the high watermark; 0: not known.
    watermark_known: AtomicU64,
}

impl News {
    fn name(&self) -> MutexGuard<'_, Option<String>> {
        self.served_by.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_served_by(&self, node: Option<&str>) {
        let mut served_by = self.name();
        if served_by.as_deref() != node {
            *served_by = node.map(str::to_owned);
        }
    }

    pub(crate) fn served_by(&self) -> Option<String> {
        self.name().clone()
    }

    pub(crate) fn set_high_watermark(&self, high_watermark: u64) {
        let known = high_watermark.saturating_add(1);
        self.watermark_known.fetch_max(known, Ordering::Relaxed);
    }

    pub(crate) fn high_watermark(&self) -> Option<u64> {
        self.watermark_known.load(Ordering::Relaxed).checked_sub(1)
    }
}
