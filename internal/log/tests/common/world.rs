//! A log on a simulated disk beside a model of what it has promised.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use highwater_log::disk::simulated::{Keep, SimulatedDisk};
use highwater_log::{
    Body, Clock, Disk, DiskWriter, Entry, EntryId, Error, Frame, Log, LogConfig, OpenLog, TailCache, Vote,
};

use super::{batch_of, identity, ids};

/// A clock that is moved by hand.
#[derive(Default)]
pub(crate) struct TestClock(pub(crate) AtomicU64);

impl Clock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One thing to do with a log.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Append so many entries in one call.
    Append(u64),
    /// Drop so many entries from the tail, as far as they are not committed, and go on in a later term.
    Truncate(u64),
    /// Save a vote for the next term.
    Vote,
    /// Commit up to so many entries below the tail.
    Commit(u64),
    /// Let some time pass and tick.
    Tick(u64),
    /// Purge what lies below the log start.
    Purge,
    /// One round of the writer.
    Round,
}

/// Called when a job is done.
#[derive(Default)]
struct Acks {
    /// For each synced append: how many truncations came before it, and its exclusive end.
    appends: Vec<(usize, u64)>,
    votes: Vec<Vote>,
    errors: Vec<Error>,
}

pub(crate) struct World {
    pub(crate) disk: Arc<SimulatedDisk>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) writer: DiskWriter,
    pub(crate) cache: Arc<TailCache>,
    pub(crate) log: Log,
    /// Every frame ever made, by its id: an id never names two different frames.
    made: BTreeMap<EntryId, Frame>,
    /// The log as it was before each truncation, and as it is.
    versions: Vec<Vec<EntryId>>,
    /// First index dropped by each truncation.
    cuts: Vec<u64>,
    committed: u64,
    /// Votes asked for since the last one that is certain.
    votes: Vec<Option<Vote>>,
    term: u64,
    acks: Arc<Mutex<Acks>>,
    cache_bytes: usize,
}

fn dir() -> PathBuf {
    PathBuf::from("/log")
}

fn open_log(disk: &Arc<SimulatedDisk>, clock: &Arc<TestClock>, writer: &DiskWriter, cache: &Arc<TailCache>) -> OpenLog {
    OpenLog {
        dir: dir(),
        identity: identity(),
        disk: disk.clone(),
        clock: clock.clone(),
        writer: writer.clone(),
        cache: cache.clone(),
        config: LogConfig {
            segment_bytes_max: 6 * 1024,
            ..LogConfig::default()
        },
    }
}

/// Some entry: mostly batches, of sizes from nothing to several sectors, from producers that also repeat themselves.
pub(crate) fn entry(id: EntryId) -> Entry {
    let text = format!("{id} ");
    let body = match id.index % 11 {
        3 => Body::Blank,
        5 => Body::Membership(Bytes::from(text.repeat(3))),
        7 => Body::Claim {
            group: Bytes::from(format!("group {}", id.index % 3)),
            member: Bytes::from(text),
        },
        8 => Body::Trim { offset: id.index / 4 },
        9 => Body::CommitOffset {
            group: Bytes::from("group 1"),
            claim: 1,
            offset: id.index / 2,
        },
        rest => {
            let payload = Bytes::from(text.repeat((id.index * 37 % 401) as usize));
            let mut batch = batch_of((id.index % 19) as u8, id.index / 19, payload);
            batch.record_count = 1 + id.index as u32 % 5;
            batch.expected_offset = (rest == 10).then_some(id.index);
            Body::Batch(batch)
        }
    };
    Entry::Proposed { id, body }
}

impl World {
    pub(crate) fn new(seed: u64, cache_bytes: usize) -> World {
        let disk = SimulatedDisk::new(seed);
        let clock = Arc::new(TestClock::default());
        let writer = DiskWriter::manual(disk.clone());
        let cache = TailCache::new(cache_bytes);
        let log = Log::create(open_log(&disk, &clock, &writer, &cache)).unwrap();
        World {
            disk,
            clock,
            writer,
            cache,
            log,
            made: BTreeMap::new(),
            versions: vec![Vec::new()],
            cuts: Vec::new(),
            committed: 0,
            votes: vec![None],
            term: 1,
            acks: Arc::default(),
            cache_bytes,
        }
    }

    fn now(&mut self) -> &mut Vec<EntryId> {
        self.versions.last_mut().unwrap()
    }

    /// Does a step; errors are those of a stopped or failing disk, which the test looks at.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Error> {
        match step {
            Step::Append(count) => self.append(*count),
            Step::Truncate(count) => self.truncate(*count),
            Step::Vote => self.vote(),
            Step::Commit(behind) => {
                let end = (self.now().len() as u64).saturating_sub(*behind);
                self.committed = self.committed.max(end);
                if end > 0 { self.log.commit(end - 1) } else { Ok(()) }
            }
            Step::Tick(ms) => {
                self.clock.0.fetch_add(*ms, Ordering::Relaxed);
                self.log.tick();
                Ok(())
            }
            Step::Purge => {
                let log_start = self.log.committed(|state| state.log_start);
                let Some(upto) = self.log.floor_for(log_start)? else {
                    return Ok(());
                };
                let manifest = self.log.fold_manifest(upto)?;
                self.log.purge(manifest, Box::new(|_| {}))
            }
            Step::Round => {
                self.writer.run_round();
                self.writer.failure().map_or(Ok(()), Err)
            }
        }
    }

    fn append(&mut self, count: u64) -> Result<(), Error> {
        let start = self.now().len() as u64;
        let end = start + count;
        self.clock.0.fetch_add(start % 3, Ordering::Relaxed);
        let entries = (start..end).map(|index| entry(ids(self.term, index))).collect();
        let (acks, cuts) = (self.acks.clone(), self.cuts.len());
        let done = move |result: Result<(), Error>| match result {
            Ok(()) => acks.lock().unwrap().appends.push((cuts, end)),
            Err(error) => acks.lock().unwrap().errors.push(error),
        };
        self.log.append(entries, Box::new(done))?;
        for index in start..end {
            let frame = self.log.read(index, index + 1, 0).unwrap().remove(0);
            self.now().push(frame.id());
            self.made.insert(frame.id(), frame);
        }
        Ok(())
    }

    fn truncate(&mut self, count: u64) -> Result<(), Error> {
        let end = self.now().len() as u64;
        let first = end.saturating_sub(count).max(self.committed);
        self.log.truncate_from(first)?;
        self.term += 1;
        let mut rest = self.now().clone();
        rest.truncate(first as usize);
        self.versions.push(rest);
        self.cuts.push(first);
        Ok(())
    }

    fn vote(&mut self) -> Result<(), Error> {
        self.term += 1;
        let vote = Vote {
            term: self.term,
            voted_for: self.term.is_multiple_of(2).then_some(3),
            committed: false,
        };
        let acks = self.acks.clone();
        let done = move |result: Result<(), Error>| match result {
            Ok(()) => acks.lock().unwrap().votes.push(vote),
            Err(error) => acks.lock().unwrap().errors.push(error),
        };
        self.votes.push(Some(vote));
        self.log.save_vote(vote, Box::new(done))
    }

    /// Entries that must be there: acknowledged, and not truncated since.
    fn promised(&self) -> u64 {
        let acks = self.acks.lock().unwrap();
        let kept = |(cuts, end): &(usize, u64)| self.cuts[*cuts..].iter().copied().fold(*end, u64::min);
        acks.appends.iter().map(kept).max().unwrap_or(0)
    }

    /// Cuts the power, keeps what `keep` says, opens the log again.
    pub(crate) fn crash(&mut self, keep: Keep) -> Result<(), Error> {
        self.disk.crash(keep);
        self.reopen()
    }

    /// Kills the process and opens the log again.
    pub(crate) fn restart(&mut self) {
        self.disk.restart();
        self.reopen().unwrap();
    }

    /// Nothing stands behind the frames in the segment files, but prepared zeros in the last: all is written, what was dropped is cut.
    pub(crate) fn check_files(&self) {
        let segments = self
            .disk
            .files()
            .into_iter()
            .filter(|path| path.extension().is_some_and(|end| end == "log"));
        let files: Vec<Vec<u8>> = segments.map(|path| self.disk.bytes(&path).unwrap()).collect();
        let names = self.disk.list(&dir()).unwrap();
        let first = names
            .iter()
            .find_map(|name| name.strip_suffix(".log")?.parse::<usize>().ok());
        let frames: usize = self.versions.last().unwrap()[first.unwrap()..]
            .iter()
            .map(|id| self.made[id].len_bytes())
            .sum();
        let ahead = files
            .iter()
            .map(Vec::len)
            .sum::<usize>()
            .checked_sub(80 * files.len() + frames)
            .unwrap();
        let last = files.last().unwrap();
        assert!(
            ahead <= 2_048 && ahead < last.len(),
            "{ahead} bytes too many in the segments"
        );
        assert!(
            last[last.len() - ahead..].iter().all(|byte| *byte == 0),
            "something stands behind the frames"
        );
    }

    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        let writer = DiskWriter::manual(self.disk.clone());
        let cache = TailCache::new(self.cache_bytes);
        self.log = Log::open(open_log(&self.disk, &self.clock, &writer, &cache))?;
        self.writer = writer;
        self.cache = cache;
        Ok(())
    }

    /// After a reopen: everything promised is there, nothing is that never was. Then the model goes on from what was found.
    pub(crate) fn check_recovered(&mut self) {
        let promised = self.promised();
        let found = self.read_all();
        assert!(
            found.len() as u64 >= promised,
            "{} entries found, {promised} were promised",
            found.len()
        );
        let is_prefix = |version: &&Vec<EntryId>| version.starts_with(&found);
        let must = self.versions.last().unwrap().iter().take(promised as usize);
        assert!(
            self.versions.iter().any(|version| is_prefix(&version)),
            "{found:?} is no version of the log"
        );
        assert!(
            must.eq(found.iter().take(promised as usize)),
            "what was promised is not what was found"
        );
        let certain = self.acks.lock().unwrap().votes.last().copied();
        let from = certain.map_or(0, |vote| {
            self.votes.iter().rposition(|other| *other == Some(vote)).unwrap()
        });
        let vote = self.log.vote();
        assert!(
            self.votes[from..].contains(&vote),
            "vote {vote:?} found, {:?} promised",
            certain
        );
        let noted = self.log.noted_commit().map_or(0, |id| id.index + 1);
        assert!(
            noted <= self.committed,
            "{noted} entries noted as committed, only {} were",
            self.committed
        );
        self.committed = noted;
        self.term += 2; // a later one than any that was used
        self.versions = vec![found.clone()];
        self.cuts.clear();
        self.votes = vec![vote];
        *self.acks.lock().unwrap() = Acks {
            appends: vec![(0, found.len() as u64)],
            ..Acks::default()
        };
        self.check_files();
    }

    /// The log is exactly as the model says, whichever way it is read.
    pub(crate) fn check_now(&self) {
        let found = self.read_all();
        assert_eq!(&found, self.versions.last().unwrap());
        let (log_start, high_watermark) = self.log.committed(|state| (state.log_start, state.log_end));
        let records = found
            .iter()
            .map(|id| &self.made[id])
            .filter(|frame| frame.header.record_count > 0);
        let records: Vec<&Frame> = records
            .filter(|frame| frame.offset_end() > log_start && frame.header.base_offset < high_watermark)
            .collect();
        let mut offset = log_start;
        while offset < high_watermark {
            let frames = self.log.read_records(offset, 900).unwrap();
            assert!(
                !frames.is_empty(),
                "no records at {offset}, high watermark {high_watermark}"
            );
            for frame in frames {
                let start = frame.header.base_offset;
                assert!(
                    start <= offset && offset < frame.offset_end(),
                    "{offset} is not in frame {:?}",
                    frame.header
                );
                offset = frame.offset_end();
            }
        }
        assert_eq!(offset, high_watermark.max(log_start));
        assert!(self.log.read_records(high_watermark, 900).unwrap().is_empty());
        for time_ms in records
            .iter()
            .flat_map(|frame| [frame.header.append_time_ms, frame.header.append_time_ms + 1])
        {
            let first = records.iter().find(|frame| frame.header.append_time_ms >= time_ms);
            let expected = first.map_or(high_watermark, |frame| frame.header.base_offset.max(log_start));
            assert_eq!(
                self.log.offset_at(time_ms).unwrap(),
                expected,
                "first offset at {time_ms} ms"
            );
        }
    }

    /// All entries, read in small steps; each must be the frame that was made under its id, offsets must be dense.
    fn read_all(&self) -> Vec<EntryId> {
        let (floor_end, mut offset) = match self.log.manifest() {
            Some(manifest) => (manifest.last().index + 1, manifest.state().log_end),
            None => (0, 0),
        };
        // What is below the floor was committed: it is the same in all versions.
        let mut found: Vec<EntryId> = self.versions.last().unwrap()[..floor_end as usize].to_vec();
        if let Some(manifest) = self.log.manifest() {
            let (last, last_frame) = (manifest.last(), &self.made[&manifest.last()]);
            assert_eq!(
                (found.last(), manifest.state().chain),
                (Some(&last), last_frame.header.chain)
            );
        }
        loop {
            let frames = self.log.read(found.len() as u64, u64::MAX, 1500).unwrap();
            if frames.is_empty() {
                assert_eq!(self.log.last(), found.last().copied());
                assert_eq!(self.log.log_end(), offset);
                return found;
            }
            for frame in frames {
                assert_eq!(frame.id().index, found.len() as u64);
                assert_eq!(
                    frame.header.base_offset,
                    offset,
                    "offsets are not dense at {}",
                    frame.id()
                );
                assert_eq!(self.made.get(&frame.id()), Some(&frame), "not the frame that was made");
                offset = frame.offset_end();
                found.push(frame.id());
            }
        }
    }
}
