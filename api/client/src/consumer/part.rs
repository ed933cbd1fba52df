//! One partition of a consumer: where it is, and who reads it ahead.
//!
//! A partition is *reading*, *paused*, *ended* or, for a member of a group, *gone*. Each time that reading begins anew it is a new *epoch*: what readers of former epochs
//! have put into the prefetch is passed over. So a seek or a pause counts at once, whatever is on its way.
//!
//! Invariants: there is a task exactly while the partition is reading; `position` is the offset of the next record to be handed
//! out, and never goes back within an epoch.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::Instrument;

use super::Freshness;
use super::fetcher::{Fetcher, ReadRoute};
use super::prefetch::{Item, News};
use crate::membership::{Assigned, Held};

#[derive(Debug)]
pub(super) struct Part {
    place: usize,
    pub(super) partition: u32,
    pub(super) position: u64,
    /// Where to stop, exclusive.
    pub(super) stop: Option<u64>,
    pub(super) epoch: u64,
    pub(super) news: Arc<News>,
    /// For a group: the claim on it.
    pub(super) held: Option<Arc<Held>>,
    /// It is given up as soon as what was handed out of it is done. Nothing more of it is handed out.
    pub(super) is_leaving: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading(AbortHandle),
    Paused,
    Ended,
    /// Another member reads it.
    Gone,
}

impl Part {
    /// A partition that is not read yet.
    pub(super) fn new(place: usize, partition: u32, position: u64, stop: Option<u64>) -> Part {
        Part {
            place,
            partition,
            position,
            stop,
            epoch: 0,
            news: Arc::default(),
            held: None,
            is_leaving: false,
            state: State::Paused,
        }
    }

    /// Takes over a partition that was claimed. It is not read yet.
    pub(super) fn take_over(&mut self, assigned: Assigned) {
        self.leave();
        self.news = Arc::default();
        self.position = assigned.position;
        self.stop = assigned.stop;
        self.held = Some(assigned.held);
        self.is_leaving = false;
        self.state = State::Paused;
    }

    /// Gives the partition up; answers what it was held by.
    pub(super) fn give_up(&mut self) -> Option<Arc<Held>> {
        self.leave();
        self.is_leaving = false;
        self.state = State::Gone;
        self.held.take()
    }

    /// Whether it is read here, or was to its end.
    pub(super) fn is_here(&self) -> bool {
        !self.is_leaving && !matches!(self.state, State::Gone)
    }

    /// Notes that the application is done with all that was handed out.
    pub(super) fn note_done(&self) {
        if let Some(held) = &self.held {
            held.note_done(self.position);
        }
    }

    /// Begins to read ahead from where it is, unless all that is wanted has been read.
    pub(super) fn read(&mut self, route: &Arc<ReadRoute>, items: &mpsc::Sender<Item>, freshness: Freshness) {
        self.leave();
        if self.stop.is_some_and(|stop| self.position >= stop) {
            self.state = State::Ended;
            return;
        }
        let fetcher = Fetcher {
            route: route.clone(),
            news: self.news.clone(),
            place: self.place,
            epoch: self.epoch,
            partition: self.partition,
            next: self.position,
            stop: self.stop,
            freshness,
            items: items.clone(),
        };
        let span =
            tracing::debug_span!(parent: None, "consume", topic = %route.display_name, partition = self.partition);
        self.state = State::Reading(tokio::spawn(fetcher.run().instrument(span)).abort_handle());
    }

    /// Reads no further until it is told to.
    pub(super) fn pause(&mut self) {
        if !self.has_ended() {
            self.leave();
            self.state = State::Paused;
        }
    }

    /// Its reader has ended.
    pub(super) fn end(&mut self) {
        self.state = State::Ended;
    }

    pub(super) fn is_paused(&self) -> bool {
        matches!(self.state, State::Paused)
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Ends the present epoch.
    fn leave(&mut self) {
        if let State::Reading(task) = &self.state {
            task.abort();
        }
        self.epoch += 1;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.leave();
    }
}
