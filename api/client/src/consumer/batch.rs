//! Records that came together, handed out together: what a program that is to read fast asks for.
//!
//! A record by itself costs a question to the consumer, which looks whether anything has changed; here that is once a batch.

use std::ops::Range;

use super::prefetch::Fetched;
use crate::error::Error;
use crate::record::ConsumedRecord;

/// Records of one partition in order: what is left of a batch as its producer sent it, at least one.
///
/// It is an iterator over the records. One that cannot be read is an [`Error::CorruptBatch`] about that record alone, and the next
/// one follows. What is not taken out of a batch has been handed out all the same.
#[derive(Debug)]
#[must_use = "its records have been handed out, and do not come again"]
pub struct ConsumedBatch {
    /// The partition that they were read from.
    pub partition: u32,
    /// When the leader appended them, milliseconds since 1970-01-01 UTC; never falls within a partition.
    pub append_time_ms: u64,
    fetched: Fetched,
    /// The topic's name in errors.
    topic: String,
}

impl ConsumedBatch {
    /// The room in the prefetch is free again: how many batches a program keeps is its own affair.
    pub(super) fn new(mut fetched: Fetched, topic: String) -> Self {
        fetched.release();
        Self {
            partition: fetched.partition,
            append_time_ms: fetched.append_time_ms,
            fetched,
            topic,
        }
    }

    /// The offsets of the records that are still to come, end exclusive.
    #[must_use]
    pub fn offsets(&self) -> Range<u64> {
        self.fetched.wanted()
    }
}

impl Iterator for ConsumedBatch {
    type Item = Result<ConsumedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let record = self.fetched.next_record()?;
        Some(record.map_err(|problem| self.fetched.corrupt(&self.topic, problem)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let wanted = self.fetched.wanted();
        (0, usize::try_from(wanted.end - wanted.start).ok())
    }
}
