//! What a program may want to count about its client.
//!
//! The library counts nothing itself and knows no metrics crate: it tells what happens, as it happens, to whatever
//! implements [`Metrics`]. Every method does nothing unless it is implemented, so an implementation names what it wants,
//! and later versions of the library can tell more.
//!
//! It is told per batch, per connection and per failed attempt, never per record; what that costs without an
//! implementation is a call that returns at once. Implementations are called by the tasks that do the work, so they must
//! not block; adding to atomic numbers is what they are for.
//!
//! Invariants: a batch is acknowledged once or fails once, and is told before its deliveries resolve, unless its runtime
//! ends first; a connection that was opened is closed once.
//!
//! Deliberately absent: gauges of what is buffered or prefetched, which `Producer` and `Consumer` know best, and names of
//! metrics, which are the program's.

use std::fmt;
use std::time::Duration;

use crate::error::{ConnectionProblem, Error, Outcome};

/// Told what happens in a client: see [`ClientBuilder::metrics`](crate::ClientBuilder::metrics).
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// use std::time::Duration;
///
/// use highwater::{BatchInfo, Client, Metrics};
///
/// #[derive(Debug, Default)]
/// struct Counters {
///     records: AtomicU64,
///     retries: AtomicU64,
/// }
///
/// impl Metrics for Counters {
///     fn batch_acknowledged(&self, batch: &BatchInfo<'_>, _latency: Duration) {
///         self.records.fetch_add(batch.records.into(), Ordering::Relaxed);
///     }
///     fn batch_sent(&self, _batch: &BatchInfo<'_>, attempt: u32) {
///         self.retries.fetch_add(u64::from(attempt > 1), Ordering::Relaxed);
///     }
/// }
///
/// let builder = Client::builder().metrics(std::sync::Arc::new(Counters::default()));
/// ```
pub trait Metrics: fmt::Debug + Send + Sync + 'static {
    /// A batch goes on its way to the partition's leader. `attempt` counts from 1: whatever is above is a retry.
    fn batch_sent(&self, _batch: &BatchInfo<'_>, _attempt: u32) {}

    /// A batch is on the disks of a majority, so long after its first record was taken by `send`.
    fn batch_acknowledged(&self, _batch: &BatchInfo<'_>, _latency: Duration) {}

    /// A batch was given up, with what became of it. One that was never sent is told here, too.
    fn batch_failed(&self, _batch: &BatchInfo<'_>, _outcome: Outcome, _error: &Error) {}

    /// A batch was read for a consumer, and its check was good. It may begin before the first record that is wanted.
    fn batch_consumed(&self, _batch: &BatchInfo<'_>) {}

    /// Another node than before acknowledges what is sent to a partition.
    fn leader_changed(&self, _topic: &str, _partition: u32, _from: &str, _to: &str) {}

    /// A reader of a partition leaves a node, and goes on at another one if there is one. The node's name is empty if none
    /// was there to be asked.
    fn reader_left(&self, _topic: &str, _partition: u32, _node: &str, _error: &Error) {}

    /// A reader of a partition moves from a node that serves it to a better one.
    fn reader_moved(&self, _topic: &str, _partition: u32, _from: &str, _to: &str) {}

    /// An attempt at a call (look-ups, topics, groups, the cluster) failed at a node, and is to be made again.
    fn call_retried(&self, _node: &str, _error: &Error) {}

    /// Readers of a partition avoid a replica for so long, as it does not keep up with its leader.
    fn replica_set_aside(&self, _topic: &str, _partition: u32, _node: &str, _length: Duration) {}

    /// A node is left alone for so long, as far as there are others that serve.
    fn node_set_aside(&self, _node: &str, _length: Duration) {}

    /// A connection is there: TCP and TLS, and the node has accepted our certificate.
    fn connection_opened(&self, _address: &str) {}

    /// A connection could not be made.
    fn connection_failed(&self, _address: &str, _problem: &ConnectionProblem) {}

    /// A connection that was opened has ended: it broke, or the client needs it no more.
    fn connection_closed(&self, _address: &str) {}

    /// The certificate files have changed, and new connections use what they hold now.
    fn certificates_reloaded(&self) {}

    /// The certificate files have changed and cannot be used, so those from before stay in force. Told once for each content.
    fn certificates_refused(&self, _error: &Error) {}
}

/// A batch of records of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo<'a> {
    /// The topic, as the program named it.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// How many records it holds.
    pub records: u32,
    /// How many bytes it takes on the wire, compressed if it is.
    pub bytes: usize,
}

/// What is told when nobody wants to know.
#[derive(Debug)]
pub(crate) struct Silent;

impl Metrics for Silent {}
