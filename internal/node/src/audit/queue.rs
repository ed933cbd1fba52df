//! Events that wait to be written, and a count of those that will not be.
//!
//! Nobody who causes an event waits for room. What finds none is counted, and the next record of its kind tells the count. Events that
//! strangers can cause at will leave a part of the room to acts, and acts of tenants' clients a part to those of operators.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::event::{Cause, Event, KINDS, Kind};
use super::limits::{
    BATCH_BYTES_MAX, BATCH_RECORDS_MAX, QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, STRANGERS_SHARE, TENANTS_SHARE,
};

/// Told when an event is on the disks of a majority.
pub(super) type Written = oneshot::Receiver<()>;

/// An event that waits.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) event: Event,
    /// Who waits for it; may have gone.
    pub(super) written: oneshot::Sender<()>,
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    added: Notify,
}

/// Invariants: at most `QUEUE_EVENTS_MAX` events with at most `QUEUE_BYTES_MAX`; `bytes` is the sum of theirs.
#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Queued>,
    bytes: usize,
    /// By kind, since a record told them.
    suppressed: [u64; KINDS.len()],
    /// By kind, since the node started.
    suppressed_in_all: [u64; KINDS.len()],
}

impl Inner {
    fn suppress(&mut self, kind: Kind) {
        self.suppressed[kind as usize] += 1;
        self.suppressed_in_all[kind as usize] += 1;
    }
}

impl Queue {
    /// Takes an event in; None if there is no room for it, which is counted.
    pub(super) fn push(&self, event: Event) -> Option<Written> {
        let share = match event.cause {
            Cause::Strangers => STRANGERS_SHARE,
            Cause::Tenants => TENANTS_SHARE,
            Cause::Operators => 1,
        };
        let mut inner = self.lock();
        let bytes = inner.bytes + event.bytes();
        if inner.events.len() >= QUEUE_EVENTS_MAX / share || bytes > QUEUE_BYTES_MAX / share {
            inner.suppress(event.kind);
            return None;
        }
        let (written, wait) = oneshot::channel();
        inner.bytes = bytes;
        inner.events.push_back(Queued { event, written });
        drop(inner);
        self.added.notify_one();
        Some(wait)
    }

    /// Counts an event that is not to be written.
    pub(super) fn suppress(&self, kind: Kind) {
        self.lock().suppress(kind);
    }

    /// As many as fit into a batch; none if nothing waits.
    pub(super) fn take(&self) -> Vec<Queued> {
        let mut inner = self.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < BATCH_RECORDS_MAX && bytes < BATCH_BYTES_MAX {
            let Some(next) = inner.events.pop_front() else { break };
            bytes += next.event.bytes();
            taken.push(next);
        }
        inner.bytes -= bytes;
        taken
    }

    /// How many events of a kind were not written since this was asked the last time.
    pub(super) fn take_suppressed(&self, kind: Kind) -> u64 {
        std::mem::take(&mut self.lock().suppressed[kind as usize])
    }

    /// How many events of each kind were not written since the node started.
    pub(super) fn suppressed_in_all(&self) -> impl Iterator<Item = (Kind, u64)> {
        let counts = self.lock().suppressed_in_all;
        KINDS.into_iter().map(move |kind| (kind, counts[kind as usize]))
    }

    /// The kinds of which something is to be told that no record has told yet.
    pub(super) fn untold(&self) -> Vec<Kind> {
        let inner = self.lock();
        let is_untold = |kind: &Kind| inner.suppressed[*kind as usize] > 0;
        KINDS.into_iter().filter(is_untold).collect()
    }

    /// Waits until something has been added since the last wait.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Outcome;
    use super::*;

    fn event(kind: Kind, target: &str) -> Event {
        Event {
            cause: if kind == Kind::Act {
                Cause::Operators
            } else {
                Cause::Strangers
            },
            kind,
            time_ms: 1,
            who: "who".to_owned(),
            from: None,
            what: "what".to_owned(),
            target: target.to_owned(),
            outcome: Outcome::Done,
            why: String::new(),
        }
    }

    fn pushed(queue: &Queue, kind: Kind, target: &str, attempts: usize) -> usize {
        (0..attempts)
            .filter(|_| queue.push(event(kind, target)).is_some())
            .count()
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_once() {
        let queue = Queue::default();
        let pushed = pushed(&queue, Kind::Act, "", QUEUE_EVENTS_MAX + 5);
        assert_eq!(pushed, QUEUE_EVENTS_MAX);
        assert_eq!(queue.untold(), [Kind::Act]);
        assert_eq!(
            (queue.take_suppressed(Kind::Act), queue.take_suppressed(Kind::Act)),
            (5, 0)
        );
        assert_eq!(queue.take_suppressed(Kind::Denied), 0);
        queue.suppress(Kind::Act);
        let in_all: Vec<(Kind, u64)> = queue.suppressed_in_all().filter(|(_, count)| *count > 0).collect();
        assert_eq!(in_all, [(Kind::Act, 6)], "also those that a record has told");
    }

    #[test]
    fn strangers_leave_room_for_tenants_and_these_for_operators() {
        for kind in KINDS {
            let queue = Queue::default();
            let by = |cause| Event {
                cause,
                ..event(kind, "")
            };
            let kept = |cause| {
                let attempts = 0..QUEUE_EVENTS_MAX;
                attempts.filter(|_| queue.push(by(cause)).is_some()).count()
            };
            assert_eq!(kept(Cause::Strangers), QUEUE_EVENTS_MAX / 4);
            assert_eq!(kept(Cause::Tenants), QUEUE_EVENTS_MAX / 4, "half of it with the others");
            assert_eq!((kept(Cause::Strangers), kept(Cause::Tenants)), (0, 0));
            assert_eq!(kept(Cause::Operators), QUEUE_EVENTS_MAX / 2);
        }
    }

    #[test]
    fn the_room_is_bounded_in_bytes_and_comes_back() {
        let queue = Queue::default();
        let target = "x".repeat(60_000);
        let fit = pushed(&queue, Kind::Act, &target, QUEUE_EVENTS_MAX);
        assert!(fit * target.len() <= QUEUE_BYTES_MAX && (fit + 1) * (target.len() + 1000) > QUEUE_BYTES_MAX);
        let mut taken = 0;
        loop {
            let batch = queue.take();
            if batch.is_empty() {
                break;
            }
            let bytes: usize = batch.iter().map(|queued| queued.event.bytes()).sum();
            assert!(bytes <= BATCH_BYTES_MAX + target.len() + 1000);
            taken += batch.len();
        }
        assert_eq!(taken, fit);
        assert_eq!(pushed(&queue, Kind::Act, &target, fit), fit);
    }
}
