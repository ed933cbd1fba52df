//! What power cuts took from nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::storage::{files_of, has_ending, logs};

/// The files of a node's logs that change, as they are in memory just before a cut.
pub(crate) type Remembered = BTreeMap<PathBuf, Vec<u8>>;

/// The cut that is going on, and the figures of all of them.
#[derive(Debug, Default)]
pub(crate) struct Outages {
    going_on: Option<(u64, Option<Vec<Remembered>>)>,
    /// Nodes that were cut at once: the longest time from the first to the last.
    pub(crate) spread_max: Duration,
    pub(crate) cuts: u64,
    pub(crate) cuts_of_all: u64,
    /// Of frozen nodes: how often something was lost, of how many, and how many bytes in all.
    pub(crate) measured: u64,
    pub(crate) measured_with_loss: u64,
    pub(crate) bytes_lost: u64,
}

impl Outages {
    pub(crate) fn begin(&mut self, begin_ns: u64, before: Option<Vec<Remembered>>) {
        self.going_on = Some((begin_ns, before));
    }

    pub(crate) fn end(&mut self) -> (u64, Option<Vec<Remembered>>) {
        self.going_on.take().unwrap_or_default()
    }

    pub(crate) fn note_spread(&mut self, spread: Duration) {
        self.spread_max = self.spread_max.max(spread);
    }

    pub(crate) fn note_lost(&mut self, bytes: u64) {
        self.measured += 1;
        self.measured_with_loss += u64::from(bytes > 0);
        self.bytes_lost += bytes;
    }

    pub(crate) fn count(&mut self, all: bool) {
        self.cuts += 1;
        self.cuts_of_all += u64::from(all);
    }
}

/// Reads what may be lost: of each log the active segment, the hard state and the checkpoint.
pub(crate) fn remember(data_dir: &Path) -> Remembered {
    let mut remembered = Remembered::new();
    for log in logs(data_dir).unwrap_or_default() {
        let files = files_of(&log).unwrap_or_default();
        let active = files.iter().rfind(|file| has_ending(file, "log")).cloned();
        let others = ["hard-state", "checkpoint"].map(|name| log.join(name));
        for file in others.into_iter().chain(active) {
            if let Ok(bytes) = fs::read(&file) {
                remembered.insert(file, bytes);
            }
        }
    }
    remembered
}

/// How many of the remembered bytes are not there any more.
pub(crate) fn difference(before: &Remembered, data_dir: &Path) -> u64 {
    debug_assert!(
        before.keys().all(|file| file.starts_with(data_dir)),
        "another node's files"
    );
    let lost = before.iter().map(|(file, bytes)| {
        let now = fs::read(file).unwrap_or_default();
        let kept = bytes.iter().zip(&now).filter(|(before, now)| before == now).count();
        (bytes.len() - kept) as u64
    });
    lost.sum()
}
