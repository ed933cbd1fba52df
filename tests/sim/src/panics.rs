//! Panics belong to the run in which they happen: they are kept for its report instead of printed.

use std::cell::RefCell;

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// From now on panics are kept. Every run has a thread of its own, so its panics are those of its thread.
pub(crate) fn keep() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.with(|panics| panics.borrow_mut().push(panic.to_string()));
    }));
}

/// Those of this thread since the last time.
pub(crate) fn take() -> Vec<String> {
    PANICS.with(|panics| panics.take())
}
