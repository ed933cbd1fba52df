//! A part of the day: how long an application is used, and how far that has come.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Shared by the one who uses the application and the one who looks on.
#[derive(Debug)]
pub(crate) struct Shift {
    name: &'static str,
    rounds: AtomicUsize,
    /// How many rounds there are; nothing: until it is ended.
    rounds_wanted: Option<usize>,
    is_over: AtomicBool,
    /// Nobody works any more, be it that the work failed.
    has_ended: AtomicBool,
}

/// While it lives, somebody works.
#[derive(Debug)]
pub(crate) struct Working<'a>(&'a Shift);

impl Shift {
    /// A shift of so many rounds.
    pub(crate) fn of_rounds(name: &'static str, rounds: usize) -> Self {
        Self {
            rounds_wanted: Some(rounds),
            ..Self::open(name)
        }
    }

    /// A shift that goes on until it is ended.
    pub(crate) fn open(name: &'static str) -> Self {
        Self {
            name,
            rounds: AtomicUsize::new(0),
            rounds_wanted: None,
            is_over: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        }
    }

    /// What it is called; names of what is made in it begin with that, so that they are different.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Somebody begins to work.
    pub(crate) fn working(&self) -> Working<'_> {
        Working(self)
    }

    /// How many rounds are done.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.load(Ordering::SeqCst)
    }

    /// It is enough.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Whoever worked has ended, for whatever reason, so that nobody needs to wait for rounds.
    pub(crate) fn is_over_for_them(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }
}

impl Working<'_> {
    /// Whether there is another round; its number.
    pub(crate) fn next(&self) -> Option<usize> {
        let round = self.0.rounds();
        let goes_on = match self.0.rounds_wanted {
            Some(wanted) => round < wanted,
            None => !self.0.is_over.load(Ordering::SeqCst),
        };
        goes_on.then_some(round)
    }

    /// A round is done.
    pub(crate) fn done(&self) {
        self.0.rounds.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::SeqCst);
    }
}
