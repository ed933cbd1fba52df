//! Truncations that openraft orders on the way to a manifest.
//!
//! A replica that is given a manifest may hold entries that conflict with it. openraft then has everything cut off that it does not
//! know to be committed, and has the manifest installed as a second step. But what is cut may have been promised, and counted:
//! after a start a replica knows only roughly how far its log is committed. A crash between the two steps would leave a voter
//! without what it promised.
//!
//! So while a manifest is being installed a truncation is only noted. The installation replaces the log in one step, and the note
//! is forgotten; an append, should one come instead, carries it out first. Until then more is on the disk than openraft knows
//! of, which breaks no promise. Nor can it be committed in between: openraft marks all up to the manifest's end as applied in the step
//! in which it orders the installation (`run_state_machine`), so no commit of anything below comes any more.
//!
//! From that step on openraft takes the log to end with the manifest, and hands over at once what another leader appends behind it
//! (`Command::AppendEntries` has no condition). Such an append waits until the manifest is in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// What is to be cut, and whether that may wait. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Truncations(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told whenever an installation has ended, one way or another.
    ended: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// How many manifests are being installed.
    installing: usize,
    /// The first index of what is to be cut.
    noted: Option<u64>,
    /// A manifest could not be put in, which ends the core; nothing may wait for it.
    failed: bool,
}

/// A manifest is being installed until this is dropped.
pub(crate) struct Installing(Truncations);

impl Truncations {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn installing(&self) -> Installing {
        self.lock().installing += 1;
        Installing(self.clone())
    }

    /// Notes that the log is to be cut from `first` on. False if that has to be done at once.
    pub(crate) fn note(&self, first: u64) -> bool {
        let mut state = self.lock();
        if state.installing > 0 {
            state.noted = Some(state.noted.map_or(first, |noted| noted.min(first)));
        }
        state.installing > 0
    }

    /// What has to be cut before anything is appended.
    pub(crate) fn take(&self) -> Option<u64> {
        self.lock().noted.take()
    }

    /// A manifest has replaced the log, or could not. What was to be cut is gone with the rest.
    pub(crate) fn replaced(&self, is_replaced: bool) {
        {
            let mut state = self.lock();
            state.failed |= !is_replaced;
            state.noted = None;
        }
        self.0.ended.notify_waiters();
    }

    /// Waits for a manifest that has to be in before an entry can stand at `first`. `next` is where the log now ends (exclusive).
    pub(crate) async fn make_way(&self, first: u64, next: impl Fn() -> u64) {
        loop {
            let ended = self.0.ended.notified(); // from before the look
            if !self.leaves_gap(first, &next) {
                return;
            }
            ended.await;
        }
    }

    fn leaves_gap(&self, first: u64, next: impl Fn() -> u64) -> bool {
        let state = self.lock();
        if state.installing == 0 || state.failed {
            return false;
        }
        let next = next();
        first > state.noted.map_or(next, |noted| noted.min(next))
    }
}

impl Drop for Installing {
    fn drop(&mut self) {
        self.0.lock().installing -= 1;
        self.0.0.ended.notify_waiters();
    }
}
