//! The commit point of one replica and the watermark that everyone waits on.
//!
//! Invariant: the watermark never goes back, and it never shows an offset whose entry is not committed. It is raised
//! before any producer is answered, so who has an answer finds the record in a read.

use std::sync::atomic::{AtomicU64, Ordering};

use highwater_log::Log;
use tokio::sync::watch;

/// What of the log may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermark {
    /// First offset still here, inclusive.
    pub log_start: u64,
    /// First offset not yet committed, exclusive end of what may be read.
    pub high_watermark: u64,
}

/// Moves the log's commit point and tells the world.
pub(crate) struct Progress {
    log: Log,
    /// Index of the log up to which this replica has committed; 0 for nothing.
    committed_index: AtomicU64,
    watermark: watch::Sender<Watermark>,
}

impl Progress {
    /// Takes up the commit point at which the log was opened.
    pub(crate) fn new(log: Log) -> Progress {
        let (committed_index, now) = log.committed(|state| (state.last.index, watermark_of(state)));
        Progress {
            log,
            committed_index: AtomicU64::new(committed_index),
            watermark: watch::Sender::new(now),
        }
    }

    /// Commits up to and with the log's entry `index`, and publishes the watermark if it moved. Cheap when there is
    /// nothing to do. An error means that this replica's fold disagrees with its log: it must stop.
    pub(crate) fn commit(&self, index: u64) -> Result<(), highwater_log::Error> {
        if self.committed_index() >= index {
            return Ok(());
        }
        self.log.commit(index)?;
        let (committed_index, now) = self.log.committed(|state| (state.last.index, watermark_of(state)));
        self.committed_index.fetch_max(committed_index, Ordering::AcqRel);
        self.watermark.send_if_modified(|current| {
            let moved = now.high_watermark > current.high_watermark || now.log_start > current.log_start;
            if moved {
                *current = now;
            }
            moved
        });
        Ok(())
    }

    /// The last committed index of the log; 0 for nothing.
    pub(crate) fn committed_index(&self) -> u64 {
        self.committed_index.load(Ordering::Acquire)
    }

    pub(crate) fn watermark(&self) -> Watermark {
        *self.watermark.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Watermark> {
        self.watermark.subscribe()
    }
}

fn watermark_of(state: &highwater_log::State) -> Watermark {
    Watermark {
        log_start: state.log_start,
        high_watermark: state.log_end,
    }
}
