//! How much of a log there is, and where trims by size and by need begin.
//!
//! A trim moves the log start to any offset, but room comes back only by whole segments. So a log is kept to a size by segments: the
//! oldest go as long as what stays is at least that much. And a segment that is still appended to cannot go: one whose records are all
//! trimmed is sealed with the next entry, see `roll_if_due` of the log.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::log::Log;
use crate::segment::Segment;
use crate::tail::LogState;

/// Below this an active segment is not worth sealing only because its records are trimmed.
const TRIMMED_BYTES_LEAST: u64 = 64 * 1024;

impl LogState {
    /// Whether all records up to the offset where the next ones begin are trimmed, and the active segment holds a good deal of them.
    pub(crate) fn is_trimmed_up_to(&self, next_offset: u64) -> bool {
        self.committed.log_start >= next_offset && self.active.end >= SEGMENT_HEADER_BYTES + TRIMMED_BYTES_LEAST
    }

    fn sealed(&self) -> impl DoubleEndedIterator<Item = &Arc<Segment>> {
        let active = self.active.segment.header.first_index;
        let is_sealed = move |segment: &&Arc<Segment>| segment.header.first_index != active;
        self.segments.iter().filter(is_sealed)
    }
}

impl Log {
    /// Bytes of all segments on the disk, also of those that a purge had to leave there; of the active one, what is written.
    pub fn bytes(&self) -> Result<u64, Error> {
        let (paths, active_bytes) = {
            let state = self.lock();
            let sealed = state.sealed().map(|segment| &segment.file.path);
            let paths: Vec<PathBuf> = sealed.chain(state.leaving.paths()).cloned().collect();
            (paths, state.active.end)
        };
        paths
            .iter()
            .try_fold(active_bytes, |sum, path| Ok(sum + self.file_bytes(path)?))
    }

    /// The offset below which everything can go if at least `bytes` are to stay: the first of a segment. The log start if there is
    /// less than that. Asks the disk for the files' sizes.
    pub fn offset_keeping(&self, bytes: u64) -> Result<u64, Error> {
        let (sealed, mut kept_bytes, log_start, log_end, mut offset) = {
            let state = self.lock();
            let (committed, active) = (&state.committed, &state.active);
            let sealed: Vec<Arc<Segment>> = state.sealed().cloned().collect();
            let offset = active.segment.header.base_offset;
            (sealed, active.end, committed.log_start, committed.log_end, offset)
        };
        for segment in sealed.iter().rev() {
            if kept_bytes >= bytes {
                return Ok(offset.clamp(log_start, log_end));
            }
            kept_bytes += self.file_bytes(&segment.file.path)?;
            if !segment.headless {
                offset = segment.header.base_offset;
            }
        }
        Ok(log_start)
    }

    /// Whether the next entry, whatever it is, makes room: it seals a segment in which nothing is left.
    pub fn is_worth_rolling(&self) -> bool {
        let state = self.lock();
        state.is_trimmed_up_to(state.tail.log_end)
    }

    fn file_bytes(&self, path: &Path) -> Result<u64, Error> {
        let opened = self.inner.open.disk.open_read_only(path);
        match opened.and_then(|file| file.len()) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0), // purged since, or damage
            length => length.map_err(|error| Error::io("read", path, error)),
        }
    }
}
