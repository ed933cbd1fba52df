//! Asking around.
