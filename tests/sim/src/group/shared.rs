//! What clients, faults and replacements of one world share, beside its nodes: how far the run is, and who may do what now.

use super::rot::is_any_scarred_away;
use super::world::{World, lock, sleep_ms};

/// What they share.
#[derive(Debug, Default)]
pub(super) struct Clients {
    pub(super) stopping: bool,
    /// No new faults, not even while nodes start.
    pub(super) calm: bool,
    /// No new faults for a while: one is under way that must not be disturbed.
    pub(super) truce: bool,
    /// When everything was over.
    pub(super) end_ms: u64,
    pub(super) producers: u32,
    /// The highest replica id given.
    pub(super) replicas: u64,
    /// A lost replica is being replaced.
    pub(super) replacing: bool,
    pub(super) processes: u64,
    /// Exclusive end of the records acknowledged so far.
    pub(super) acknowledged_end: u64,
}

impl World {
    /// Tells the clients to finish.
    pub(crate) fn stop_clients(&self) {
        lock(&self.clients).stopping = true;
    }

    pub(crate) fn is_stopping(&self) -> bool {
        lock(&self.clients).stopping
    }

    /// Begins or ends a truce.
    pub(crate) fn set_truce(&self, truce: bool) {
        lock(&self.clients).truce = truce;
    }

    pub(crate) fn is_truce(&self) -> bool {
        lock(&self.clients).truce
    }

    /// Claims the only replacement there may be. False if there is one, if one may become necessary by itself, or if the run ends.
    pub(crate) fn begin_replacement(&self) -> bool {
        if is_any_scarred_away(self) {
            return false;
        }
        let mut clients = lock(&self.clients);
        let free = !clients.replacing && !clients.calm;
        clients.replacing |= free;
        free
    }

    /// Claims it for a loss that has happened, as soon as there is no other.
    pub(crate) async fn await_replacement(&self) {
        while self.is_replacing() {
            sleep_ms(100).await;
        }
        lock(&self.clients).replacing = true;
    }

    pub(crate) fn end_replacement(&self) {
        lock(&self.clients).replacing = false;
    }

    pub(crate) fn is_replacing(&self) -> bool {
        lock(&self.clients).replacing
    }

    /// No new faults from now on.
    pub(crate) fn calm(&self) {
        lock(&self.clients).calm = true;
    }

    pub(crate) fn is_calm(&self) -> bool {
        lock(&self.clients).calm
    }

    /// The time at which the run ended; its clock stands no more.
    pub(crate) fn now_ms_at_end(&self) -> u64 {
        lock(&self.clients).end_ms
    }

    pub(crate) fn next_producer(&self) -> u32 {
        let mut clients = lock(&self.clients);
        clients.producers += 1;
        clients.producers - 1
    }

    pub(crate) fn next_process(&self) -> u64 {
        let mut clients = lock(&self.clients);
        clients.processes += 1;
        clients.processes
    }

    /// A batch that ends before this offset was acknowledged.
    pub(crate) fn acknowledged(&self, end: u64) {
        let mut clients = lock(&self.clients);
        clients.acknowledged_end = clients.acknowledged_end.max(end);
    }

    pub(crate) fn acknowledged_end(&self) -> u64 {
        lock(&self.clients).acknowledged_end
    }
}
