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
    /// Index of the first entry not committed here, exclusive end of those that are.
    committed_end: AtomicU64,
    watermark: watch::Sender<Watermark>,
}

impl Progress {
    /// Takes up the commit point at which the log was opened.
    pub(crate) fn new(log: Log) -> Progress {
        let (committed_end, now) = point_of(&log);
        Progress {
            log,
            committed_end: AtomicU64::new(committed_end),
            watermark: watch::Sender::new(now),
        }
    }

    /// Commits up to and with the log's entry `index`, and publishes the watermark if it moved. Cheap when there is
    /// nothing to do. An error means that this replica's fold disagrees with its log: it must stop.
    pub(crate) fn commit(&self, index: u64) -> Result<(), highwater_log::Error> {
        if index < self.committed_end() {
            return Ok(());
        }
        self.log.commit(index)?;
        self.publish();
        Ok(())
    }

    /// Publishes where the log's commit point is now, if it has moved: committed here, or installed with a manifest.
    pub(crate) fn publish(&self) {
        let (committed_end, now) = point_of(&self.log);
        self.committed_end.fetch_max(committed_end, Ordering::AcqRel);
        self.watermark.send_if_modified(|current| {
            let moved = now.high_watermark > current.high_watermark || now.log_start > current.log_start;
            // each by itself: another one may have published meanwhile
            current.high_watermark = current.high_watermark.max(now.high_watermark);
            current.log_start = current.log_start.max(now.log_start);
            moved
        });
    }

    /// Index of the first entry that is not committed here.
    pub(crate) fn committed_end(&self) -> u64 {
        self.committed_end.load(Ordering::Acquire)
    }

    pub(crate) fn watermark(&self) -> Watermark {
        *self.watermark.borrow()
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Watermark> {
        self.watermark.subscribe()
    }
}

/// The exclusive end of the committed entries, and what of their records may be read.
fn point_of(log: &Log) -> (u64, Watermark) {
    let (log_start, _) = log.readable(); // first: it must not be ahead of the rest
    let point = |state: &highwater_log::State| (state.last_entry().map_or(0, |id| id.index + 1), state.log_end);
    let (committed_end, high_watermark) = log.committed(point);
    let watermark = Watermark {
        log_start,
        high_watermark,
    };
    (committed_end, watermark)
}
