//! Power cuts: how they are made, when, and what they took from nodes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use highwater_verify::history::FaultKind;

use super::disks::PreparedCut;
use super::links::Rule;
use super::nemesis::isolated;
use super::power::Journal;
use super::scenarios::Whom;
use super::stage::{NODES, Result, Stage};
use super::storage::{self, files_of, has_ending, logs};

/// How long a segment is waited for; if none is sealed, the power is cut all the same.
pub(crate) const ROLL_DEADLINE: Duration = Duration::from_secs(20);

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

impl Stage {
    /// Cuts the power of nodes at the same moment, and kills what ran there. Half of the time the nodes are frozen just
    /// before, which makes it exact what each of them lost; otherwise they run into it.
    pub(crate) fn cut_power(&mut self, nodes: &[usize]) -> Result<()> {
        if self.random.one_in(3) {
            nodes.iter().for_each(|node| self.images[*node].write_back());
        }
        let frozen = self.random.one_in(2);
        self.cut_power_now(nodes, frozen)
    }

    pub(crate) fn cut_power_now(&mut self, nodes: &[usize], frozen: bool) -> Result<()> {
        let flushed = self.random.one_in(2);
        let journal = if flushed { Journal::Flushed } else { Journal::Lost };
        let cuts = nodes.iter().map(|node| self.images[*node].prepare_cut());
        let cuts: Vec<PreparedCut> = cuts.collect::<std::result::Result<_, String>>()?;
        let begin_ns = self.clock.now_ns();
        if frozen {
            self.pause(nodes);
        }
        let before = frozen.then(|| {
            nodes
                .iter()
                .map(|node| remember(&self.images[*node].data_dir()))
                .collect()
        });
        let spread = cut_all(cuts, journal).map_err(|error| format!("the power could not be cut: {error}"))?;
        self.outage.note_spread(spread);
        self.kill(nodes);
        self.outage.begin(begin_ns, before);
        Ok(())
    }

    /// Power is back, and the nodes start.
    pub(crate) fn restore_power(&mut self, nodes: &[usize]) -> Result<()> {
        self.restore_disks(nodes)?;
        self.start(nodes);
        Ok(())
    }

    fn restore_disks(&mut self, nodes: &[usize]) -> Result<()> {
        let (begin_ns, before) = self.outage.end();
        let mut lost = 0;
        for (place, node) in nodes.iter().enumerate() {
            lost += self.images[*node].restore()?;
            if let Some(before) = before.as_ref().and_then(|before| before.get(place)) {
                self.outage
                    .note_lost(difference(before, &self.images[*node].data_dir()));
            }
        }
        self.outage.count(nodes.len() == NODES);
        self.fault(FaultKind::PowerCut, nodes, begin_ns, lost, "unsynced bytes lost");
        Ok(())
    }

    /// The second cut meets nodes that replay, vote or catch up.
    pub(crate) fn play_power_twice(&mut self) -> Result<()> {
        let all = self.choose(Whom::All);
        self.cut_power(&all)?;
        self.restore_power(&all)?;
        self.pass(20, 900)?;
        self.cut_power(&all)?;
        self.restore_power(&all)
    }

    /// A segment has just been sealed, and the next one begun: the moment at which a directory changes.
    pub(crate) fn play_power_in_roll(&mut self) -> Result<()> {
        let all = self.choose(Whom::All);
        let count = |stage: &Self| {
            stage
                .cluster
                .nodes()
                .iter()
                .map(|node| storage::segment_count(node.data_dir()))
                .max()
        };
        let (begin, before) = (Instant::now(), count(self));
        while count(self) == before && begin.elapsed() < ROLL_DEADLINE {
            self.pass(1, 1)?;
        }
        self.cut_power_now(&all, false)?;
        self.restore_power(&all)
    }

    /// A log has just lost its first segment: a manifest is new, and others may be about to do the same.
    pub(crate) fn play_power_in_trim(&mut self) -> Result<()> {
        let all = self.choose(Whom::All);
        let fronts = |stage: &Self| -> Vec<Vec<PathBuf>> {
            let nodes = stage.cluster.nodes().iter();
            nodes.map(|node| storage::first_segments(node.data_dir())).collect()
        };
        let (begin, before) = (Instant::now(), fronts(self));
        while fronts(self) == before && begin.elapsed() < ROLL_DEADLINE {
            self.pass(1, 1)?;
        }
        self.cut_power_now(&all, false)?;
        self.restore_power(&all)
    }

    pub(crate) fn play_power_in_election(&mut self) -> Result<()> {
        let leader = self.leader();
        let begin = self.clock.now_ns();
        let killed = self.kill(&[leader]);
        self.pass(250, 900)?;
        let all = self.choose(Whom::All);
        self.cut_power(&all)?;
        self.fault(FaultKind::Kill, &[leader], begin, killed, "processes killed");
        self.restore_power(&all)
    }

    pub(crate) fn play_power_in_partition(&mut self) -> Result<()> {
        let leader = self.leader();
        let (begin, bitten) = (self.clock.now_ns(), self.links.bitten());
        self.links.set(isolated(leader, Rule::Hold));
        let played = self.pass(300, 2_000).and_then(|()| {
            let all = self.choose(Whom::All);
            self.cut_power(&all)?;
            self.restore_power(&all)
        });
        self.links.heal();
        let bitten = self.links.bitten() - bitten;
        self.fault(
            FaultKind::LinkCut,
            &[leader],
            begin,
            bitten,
            "chunks and connections held",
        );
        played
    }
}

/// Cuts at the same moment; gives the time from the first cut's beginning to the last one's end.
fn cut_all(cuts: Vec<PreparedCut>, journal: Journal) -> std::io::Result<Duration> {
    let together = Barrier::new(cuts.len());
    std::thread::scope(|scope| {
        let cut = |cut: PreparedCut| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                let begin = Instant::now();
                cut.cut(journal).map(|()| (begin, Instant::now()))
            })
        };
        let threads: Vec<_> = cuts.into_iter().map(cut).collect();
        let panicked = |_| Err(std::io::Error::other("a thread that cuts panicked"));
        let times = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
        let times: Vec<(Instant, Instant)> = times.collect::<std::io::Result<_>>()?;
        let first = times.iter().map(|(begin, _)| *begin).min();
        let last = times.iter().map(|(_, end)| *end).max();
        Ok(first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first))
    })
}
