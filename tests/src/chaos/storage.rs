//! Faults of a disk: calls that fail, crawl or lie, and stored bytes that change.
//!
//! Calls are changed in the unmodified node by `strace`, which attaches to the running process. What is changed at
//! rest is changed in the files of a stopped node; each of these changes says what a correct node makes of it.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::random::Random;
use super::stage::NODES;
use super::tools::has;

/// How long strace may take to hold every thread.
const ATTACH_DEADLINE: Duration = Duration::from_secs(10);
const ATTACH_POLL: Duration = Duration::from_millis(5);
/// What one node may damage before it is the next one's turn.
const STRIPE_BYTES: u64 = 256 * 1024;
/// Bytes of garbage behind the end of a log.
const GARBAGE_BYTES_MAX: u64 = 4096;

/// What becomes of a node's syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// The next one fails, once; later ones succeed, as they do after the kernel has dropped the pages.
    FailOnce,
    /// Each takes longer.
    Crawl,
    /// They do nothing and say that it is done: a disk that lies, or a product without syncs.
    Lie,
}

/// Whether syncs can be changed here. The error says what is missing.
pub(crate) fn try_syncs() -> Result<(), String> {
    if !has("strace") {
        return Err("strace is not installed".to_owned());
    }
    let mut sleeper = Command::new("sleep")
        .arg("60")
        .spawn()
        .map_err(|error| format!("no process to try it on: {error}"))?;
    let attached = Attached::to(sleeper.id(), Syncs::Lie).map(drop);
    let _ = (sleeper.kill(), sleeper.wait());
    attached
}

/// A strace that changes the syncs of a process, until dropped.
#[derive(Debug)]
pub(crate) struct Attached {
    strace: Child,
}

impl Attached {
    pub(crate) fn to(process: u32, syncs: Syncs) -> Result<Self, String> {
        let change = match syncs {
            Syncs::FailOnce => "error=EIO:when=1",
            Syncs::Crawl => "delay_exit=20000",
            Syncs::Lie => "retval=0",
        };
        let strace = Command::new("strace")
            .args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e"])
            .arg(format!("inject=fdatasync,fsync:{change}"))
            .args(["-p", &process.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("strace did not start: {error}"))?;
        let mut attached = Self { strace };
        let end = Instant::now() + ATTACH_DEADLINE;
        // A process that has just died of the change is as good as attached.
        while !is_traced(process, attached.strace.id()) && !is_dead(process) {
            if Instant::now() > end || !matches!(attached.strace.try_wait(), Ok(None)) {
                return Err(format!("strace could not attach to process {process}"));
            }
            sleep(ATTACH_POLL);
        }
        Ok(attached)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Told to end, it lets go of the process first.
        let strace = i32::try_from(self.strace.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(strace) = strace {
            let _ = rustix::process::kill_process(strace, rustix::process::Signal::TERM);
        }
        let end = Instant::now() + ATTACH_DEADLINE;
        while matches!(self.strace.try_wait(), Ok(None)) {
            if Instant::now() > end {
                let _ = self.strace.kill();
                let _ = self.strace.wait();
                return;
            }
            sleep(ATTACH_POLL);
        }
    }
}

/// Whether the process has ended, and nobody has asked how.
fn is_dead(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}

/// Whether every thread of the process is held by that tracer.
fn is_traced(process: u32, tracer: u32) -> bool {
    let wanted = format!("TracerPid:\t{tracer}");
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    let mut threads = threads.flatten();
    threads.all(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line == wanted)
    })
}

/// A change of a stopped node's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// A bit of every sparse index: they are derived, and rebuilt.
    IndexBit,
    /// A bit of every checkpoint: they are derived, and everything is replayed.
    CheckpointBit,
    /// Sparse indexes and checkpoints are gone.
    DerivedGone,
    /// Garbage behind the end of every log: a torn write, cut off.
    GarbageTail,
    /// A bit in the middle of a sealed segment of a log: damage, to be refilled from a peer.
    SealedBit,
    /// A sealed segment of a log is gone: damage, to be refilled from a peer.
    SegmentGone,
    /// The vote of a log is gone: that replica is dead, and replaced.
    HardStateGone,
}

impl Change {
    /// Whether it does nothing to logs of a single segment.
    pub(crate) fn needs_sealed(self) -> bool {
        matches!(self, Self::IndexBit | Self::SealedBit | Self::SegmentGone)
    }
}

/// Changes the files in a data directory; gives how many bytes or files were changed.
///
/// Two nodes are never damaged at the same place, however often this is done: of each record a good copy remains, so that
/// whatever is lost is the product's fault. Segments are equal on all replicas; each node has its own share of them.
pub(crate) fn change(data_dir: &Path, node: usize, change: Change, random: &mut Random) -> io::Result<u64> {
    let mut changed = 0;
    for log in logs(data_dir)? {
        let files = files_of(&log)?;
        let ending = |wanted: &str| files.iter().filter(|file| has_ending(file, wanted)).collect::<Vec<_>>();
        let (segments, indexes) = (ending("log"), ending("index"));
        let checkpoint = log.join("checkpoint");
        if change.needs_sealed() && change != Change::IndexBit && !begins_at_first_entry(&segments) {
            continue; // trimmed: its segments need not be those of the others
        }
        changed += match change {
            Change::IndexBit => indexes
                .iter()
                .map(|file| flip_bit(file, random))
                .sum::<io::Result<u64>>()?,
            Change::CheckpointBit if checkpoint.exists() => flip_bit(&checkpoint, random)?,
            Change::CheckpointBit => 0,
            Change::DerivedGone => {
                let derived = indexes
                    .into_iter()
                    .cloned()
                    .chain(checkpoint.exists().then_some(checkpoint));
                derived
                    .map(|file| fs::remove_file(file).map(|()| 1))
                    .sum::<io::Result<u64>>()?
            }
            Change::GarbageTail => segments.last().map_or(Ok(0), |file| add_garbage(file, random))?,
            Change::SealedBit => match segments.split_last() {
                Some((_, sealed)) if !sealed.is_empty() => {
                    let file = sealed[random.below(sealed.len())];
                    match share(file, node, random)? {
                        Some(position) => flip_bit_at(file, position, random)?,
                        None => 0,
                    }
                }
                _ => 0,
            },
            Change::SegmentGone => match segments.split_last().map(|(_, sealed)| own(sealed, node)) {
                Some(sealed) if !sealed.is_empty() => {
                    fs::remove_file(sealed[random.below(sealed.len())]).map(|()| 1)?
                }
                _ => 0,
            },
            Change::HardStateGone => fs::remove_file(log.join("hard-state")).map(|()| 1)?,
        };
    }
    Ok(changed)
}

/// The directories of all logs, in order.
pub(crate) fn logs(data_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let groups = fs::read_dir(data_dir.join("groups"))?;
    let mut logs: Vec<PathBuf> = groups
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    logs.sort();
    Ok(logs)
}

/// How many segments all logs have together.
pub(crate) fn segment_count(data_dir: &Path) -> usize {
    let logs = logs(data_dir).unwrap_or_default();
    let files = logs.iter().flat_map(|log| files_of(log).unwrap_or_default());
    files.filter(|file| has_ending(file, "log")).count()
}

/// Whether a log has more than its active segment.
pub(crate) fn has_sealed(data_dir: &Path) -> bool {
    segment_count(data_dir) > logs(data_dir).map_or(0, |logs| logs.len())
}

/// The first segment of each log.
pub(crate) fn first_segments(data_dir: &Path) -> Vec<PathBuf> {
    let logs = logs(data_dir).unwrap_or_default();
    let first = |log: &PathBuf| {
        let files = files_of(log).unwrap_or_default();
        files.into_iter().find(|file| has_ending(file, "log"))
    };
    logs.iter().filter_map(first).collect()
}

fn begins_at_first_entry(segments: &[&PathBuf]) -> bool {
    segments.first().is_some_and(|file| first_index(file) == Some(0))
}

/// Whether a log of the node has a sealed segment that only this node may damage.
pub(crate) fn has_own_sealed(data_dir: &Path, node: usize) -> bool {
    let logs = logs(data_dir).unwrap_or_default();
    logs.iter().any(|log| {
        let files = files_of(log).unwrap_or_default();
        let segments: Vec<&PathBuf> = files.iter().filter(|file| has_ending(file, "log")).collect();
        let sealed = segments.split_last().map(|(_, sealed)| own(sealed, node));
        begins_at_first_entry(&segments) && sealed.is_some_and(|own| !own.is_empty())
    })
}

/// The files of a log, in order.
pub(crate) fn files_of(log: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(log)?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    files.sort();
    Ok(files)
}

pub(crate) fn has_ending(file: &Path, ending: &str) -> bool {
    file.extension().is_some_and(|extension| extension == ending)
}

/// Copies a directory with everything in it.
pub(crate) fn copy_directory(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        if path.is_dir() {
            copy_directory(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

fn flip_bit(path: &Path, random: &mut Random) -> io::Result<u64> {
    match fs::metadata(path)?.len() {
        0 => Ok(0),
        length => flip_bit_at(path, random.between(0, length), random),
    }
}

fn flip_bit_at(path: &Path, position: u64, random: &mut Random) -> io::Result<u64> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, position)?;
    byte[0] ^= 1 << random.below(8);
    file.write_all_at(&byte, position)?;
    file.sync_all()?;
    Ok(1)
}

/// A position in the node's share of a segment: stripes in turn, with gaps as large as a batch under this load between. None if the segment
/// is too short for that.
fn share(segment: &Path, node: usize, random: &mut Random) -> io::Result<Option<u64>> {
    let length = fs::metadata(segment)?.len();
    let rounds = length / (STRIPE_BYTES * NODES as u64);
    let stripe = random.between(0, rounds.max(1)) * NODES as u64 + node as u64;
    let position = stripe * STRIPE_BYTES + random.between(0, STRIPE_BYTES / 2);
    Ok((position < length).then_some(position))
}

/// The node's share of all segments, by their names: the same whichever are there.
fn own<'a>(segments: &[&'a PathBuf], node: usize) -> Vec<&'a PathBuf> {
    let is_own = |segment: &&PathBuf| first_index(segment).is_some_and(|index| index % NODES == node);
    segments.iter().copied().filter(is_own).collect()
}

/// As the name says.
fn first_index(segment: &Path) -> Option<usize> {
    segment.file_stem()?.to_str()?.parse().ok()
}

fn add_garbage(path: &Path, random: &mut Random) -> io::Result<u64> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // Zeros behind the frames are prepared space: a torn write would fall right behind the last frame, not behind them.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    // The last frame may end with zeros itself; those stay.
    let end = super::logs::frames_end(&bytes).unwrap_or(end).max(end) as u64;
    let count = random.between(1, GARBAGE_BYTES_MAX);
    let garbage: Vec<u8> = (0..count).map(|_| random.next() as u8 | 1).collect();
    file.seek(SeekFrom::Start(end))?;
    file.write_all(&garbage)?;
    file.sync_all()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn no_two_nodes_are_damaged_at_the_same_place() {
        let directory = tempfile::tempdir().unwrap();
        let segment = directory.path().join("00000000000000000000.log");
        File::create(&segment).unwrap().set_len(4 << 20).unwrap();
        let mut random = Random::new(1);
        for _ in 0..1_000 {
            let node = random.below(NODES);
            let position = share(&segment, node, &mut random).unwrap().unwrap();
            assert_eq!((position / STRIPE_BYTES) as usize % NODES, node, "position {position}");
            assert!(position < 4 << 20, "position {position}");
        }
        let short = directory.path().join("00000000000000000001.log");
        File::create(&short).unwrap().set_len(STRIPE_BYTES).unwrap();
        assert_eq!(share(&short, NODES - 1, &mut random).unwrap(), None);
        let names: Vec<PathBuf> = (0..9).map(|index| format!("{:020}.log", index * 7).into()).collect();
        let segments: Vec<&PathBuf> = names.iter().collect();
        let shares: usize = (0..NODES).map(|node| own(&segments, node).len()).sum();
        assert_eq!(shares, names.len(), "each segment is in one share");
        assert!(
            own(&segments, 0)
                .iter()
                .all(|segment| !own(&segments, 1).contains(segment))
        );
    }
}
