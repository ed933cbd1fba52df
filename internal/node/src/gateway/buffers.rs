//! What bodies, batches that are read and answers may take of the memory, over all connections.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::limits::BUFFERED_BYTES_MAX;
use crate::status::Problem;

/// The budget.
pub(super) struct Buffers {
    left: Arc<Semaphore>,
}

impl Default for Buffers {
    fn default() -> Self {
        Buffers {
            left: Arc::new(Semaphore::new(BUFFERED_BYTES_MAX)),
        }
    }
}

impl Buffers {
    /// A share for so many bytes, given back when dropped.
    pub(super) fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let cost = u32::try_from(bytes).ok();
        let share = cost.and_then(|cost| self.left.clone().try_acquire_many_owned(cost).ok());
        share.ok_or_else(|| Problem::Overloaded("the node's JSON gateway has too much in memory".to_owned()))
    }

    /// The same bytes, which hold their share as long as they are there.
    pub(super) fn hold(&self, bytes: impl Into<Bytes>) -> Result<Bytes, Problem> {
        let bytes = bytes.into();
        let share = self.take(bytes.len())?;
        Ok(Bytes::from_owner(Held { bytes, _share: share }))
    }
}

struct Held {
    bytes: Bytes,
    _share: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_held_counts_until_it_is_dropped() {
        let buffers = Buffers::default();
        let most = buffers.take(BUFFERED_BYTES_MAX - 3).unwrap();
        let held = buffers.hold(vec![1, 2, 3]).unwrap();
        assert!(matches!(buffers.take(1), Err(Problem::Overloaded(_))));
        assert_eq!(held, vec![1, 2, 3]);
        let slice = held.slice(1..);
        drop(held);
        assert!(buffers.take(1).is_err(), "a slice keeps all of it");
        drop(slice);
        assert!(buffers.take(3).is_ok());
        drop(most);
    }
}
