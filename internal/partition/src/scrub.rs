//! The scrubber: reads all that is committed, in the background, so that damage is found while others still have the entry.
//!
//! How fast is for the node to say, for all its replicas together: they share one [`ScrubPace`], and take turns with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use highwater_log::{Log, Scrubbed, Verified};
use tokio::sync::Mutex;

use crate::partition::Partition;
use crate::runtime;

/// Bytes verified in one turn.
const STEP_BYTES: usize = 256 * 1024;
/// From the end of one pass over a log to the beginning of the next.
const PASS_PAUSE: Duration = Duration::from_secs(20);
/// How soon to try again after a failure.
const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// How fast a node verifies what it stores. Clones share the pace.
#[derive(Debug, Clone)]
pub struct ScrubPace {
    /// Held while a step and its pause last.
    turn: Arc<Mutex<()>>,
    bytes_per_second: u64,
    progress: Arc<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    passes: AtomicU64,
}

impl ScrubPace {
    /// At most so many bytes a second, over all replicas that share this pace; at least 1.
    pub fn new(bytes_per_second: u64) -> ScrubPace {
        ScrubPace {
            turn: Arc::default(),
            bytes_per_second: bytes_per_second.max(1),
            progress: Arc::default(),
        }
    }

    /// Bytes verified since this pace was made.
    pub fn verified_bytes(&self) -> u64 {
        self.progress.bytes.load(Ordering::Relaxed)
    }

    /// How often a log was verified from its start to its end since then.
    pub fn passes(&self) -> u64 {
        self.progress.passes.load(Ordering::Relaxed)
    }

    fn note(&self, verified: &Verified) {
        self.progress.bytes.fetch_add(verified.bytes, Ordering::Relaxed);
        self.progress
            .passes
            .fetch_add(u64::from(verified.finished), Ordering::Relaxed);
    }

    fn pause(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_second)
    }
}

impl Default for ScrubPace {
    /// 16 MiB a second.
    fn default() -> ScrubPace {
        ScrubPace::new(16 * 1024 * 1024)
    }
}

impl Partition {
    /// How far the scrubber has come with this replica's log.
    pub fn scrubbed(&self) -> Scrubbed {
        self.inner.log.scrubbed()
    }
}

/// Verifies one log again and again; runs until it is dropped.
pub(crate) async fn scrub(log: Log, pace: ScrubPace) {
    loop {
        let finished = {
            let _turn = pace.turn.lock().await;
            let log = log.clone();
            let step = runtime::blocking(move || log.verify_step(STEP_BYTES)).await;
            match step {
                Ok(Ok(verified)) => {
                    pace.note(&verified);
                    if !verified.found.is_empty() {
                        tracing::error!(found = ?verified.found, "the scrubber has found damage");
                    }
                    tokio::time::sleep(pace.pause(verified.bytes)).await;
                    Some(verified.finished)
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the scrubber cannot go on");
                    None
                }
                Err(_) => return, // the runtime ends
            }
        };
        match finished {
            Some(false) => {}
            Some(true) => tokio::time::sleep(PASS_PAUSE).await,
            None => tokio::time::sleep(RETRY_PAUSE).await,
        }
    }
}
