//! The real programs on real clusters.

#![allow(clippy::unwrap_used)]

mod anew;
mod commands;
mod follow;
mod race;
mod rights;
mod server;
mod web;

use std::time::Duration;

/// Longer than anything takes unless it hangs.
const DEADLINE: Duration = Duration::from_secs(60);
