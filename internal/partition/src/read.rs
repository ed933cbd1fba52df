//! Reading records: committed ones only, and never past damage.

use bytes::Bytes;
use highwater_log::{DamagedRange, Frame, mutant};

use crate::error::ReadError;
use crate::partition::Partition;
use crate::progress::Watermark;
use crate::runtime;

/// A committed batch as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBatch {
    /// Offset of its first record.
    pub base_offset: u64,
    /// Number of its records; never 0.
    pub record_count: u32,
    /// How the payload is compressed; the client's business.
    pub compression: u8,
    /// The client's CRC32C of the payload.
    pub payload_crc: u32,
    /// When the leader appended it, milliseconds since the epoch.
    pub append_time_ms: u64,
    /// As the client encoded it.
    pub payload: Bytes,
}

impl Partition {
    /// Committed batches from the one that holds `offset` on, at least one if there is one, about `bytes_max` bytes;
    /// empty at or above the high watermark.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        let Watermark {
            log_start,
            high_watermark,
        } = self.inner.progress.watermark();
        if offset < log_start || (mutant!("out-of-range from a lagging follower") && offset > high_watermark) {
            return Err(ReadError::BelowStart {
                offset,
                log_start,
                high_watermark,
            });
        }
        if offset >= high_watermark && !mutant!("serve above commit") {
            return Ok(Vec::new());
        }
        let frames = match self.inner.log.read_records_cached(offset, bytes_max) {
            Some(frames) => frames,
            None => {
                let log = self.inner.log.clone();
                let read = self
                    .off_thread(offset, move || log.read_records(offset, bytes_max))
                    .await;
                match read {
                    Err(ReadError::Damaged { .. }) if mutant!("damage served as an end") => Vec::new(),
                    read => read?,
                }
            }
        };
        Ok(frames.into_iter().map(stored_batch).collect())
    }

    /// First committed offset appended at or after `time_ms`; the high watermark if there is none.
    pub async fn offset_at(&self, time_ms: u64) -> Result<u64, ReadError> {
        let log = self.inner.log.clone();
        let log_start = self.inner.progress.watermark().log_start;
        self.off_thread(log_start, move || log.offset_at(time_ms)).await
    }

    /// The offset below which everything can go if at least `bytes` of log files are to stay.
    pub async fn offset_keeping(&self, bytes: u64) -> Result<u64, ReadError> {
        let log = self.inner.log.clone();
        let log_start = self.inner.progress.watermark().log_start;
        self.off_thread(log_start, move || log.offset_keeping(bytes)).await
    }

    /// Bytes of this replica's log files.
    pub async fn bytes(&self) -> Result<u64, ReadError> {
        let log = self.inner.log.clone();
        let log_start = self.inner.progress.watermark().log_start;
        self.off_thread(log_start, move || log.bytes()).await
    }

    /// Whether a trim makes room here even if it moves nothing: all records are trimmed, but the last segment is still
    /// appended to.
    pub fn is_worth_rolling(&self) -> bool {
        self.inner.log.is_worth_rolling()
    }

    /// Reads off the async threads, from `offset` or something behind it on.
    async fn off_thread<T: Send + 'static>(
        &self,
        offset: u64,
        read: impl FnOnce() -> Result<T, highwater_log::Error> + Send + 'static,
    ) -> Result<T, ReadError> {
        match runtime::blocking(read).await {
            Ok(result) => result.map_err(|err| self.read_error(offset, err)),
            Err(err) => Err(ReadError::Failed(err.to_string())),
        }
    }

    fn read_error(&self, offset: u64, error: highwater_log::Error) -> ReadError {
        match error {
            highwater_log::Error::Damaged { index, .. } => {
                let holds = |range: &&DamagedRange| (range.first_index..range.end_index).contains(&index);
                let everywhere = self.inner.mending.nowhere();
                let damage = self.inner.mending.damage();
                let range = damage.iter().find(holds);
                ReadError::Damaged {
                    offset,
                    first_index: range.map_or(index, |range| range.first_index),
                    end_index: range.map_or(index + 1, |range| range.end_index),
                    everywhere: everywhere.iter().any(|range| holds(&range)),
                }
            }
            // Trimmed since it was looked up. By a manifest, perhaps, that is taken in and not yet told: who reads on must find
            // no watermark that is lower than the one told here.
            highwater_log::Error::BelowStart { .. } | highwater_log::Error::Purged { .. } => {
                self.inner.progress.publish();
                let Watermark {
                    log_start,
                    high_watermark,
                } = self.inner.progress.watermark();
                ReadError::BelowStart {
                    offset,
                    log_start,
                    high_watermark,
                }
            }
            other => ReadError::Failed(other.to_string()),
        }
    }
}

fn stored_batch(frame: Frame) -> StoredBatch {
    StoredBatch {
        base_offset: frame.header.base_offset,
        record_count: frame.header.record_count,
        compression: frame.header.compression,
        payload_crc: frame.header.payload_crc,
        append_time_ms: frame.header.append_time_ms,
        payload: frame.payload,
    }
}
