//! Creating and opening a log directory.
//!
//! Opening reads the hard state, then the checkpoint, then every frame behind the checkpoint. What lies at or before the mark was
//! synced and must be whole, otherwise the log is damaged and stays closed. Behind the mark the first thing that is not the next frame
//! is where a crash interrupted the writer: everything from there on is cut. The steps are numbered in the README.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::checkpoint::{self, CHECKPOINT};
use crate::error::Error;
use crate::fold::State;
use crate::format::checkpoint::Checkpoint;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::hard_state::{HARD_STATE, HardState};
use crate::index::SparseIndex;
use crate::log::OpenLog;
use crate::manifest::{self, MANIFEST, Manifest};
use crate::round::{LogFile, Op, Round, replace_file};
use crate::scan::{Scanned, Scanner};
use crate::segment::{Active, Before, Place, Segment, segment_first_index, segment_path};
use crate::tail::{CheckpointNote, LogState};

/// Makes the directory of an empty log, all synced.
pub(crate) fn create(open: &OpenLog) -> Result<(), Error> {
    let OpenLog {
        dir, identity, disk, ..
    } = open;
    disk.create_dir(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: dir.clone() },
        _ => Error::io("create", dir, error),
    })?;
    let state = State::empty(identity.cluster_id, identity.group_id);
    let header = SegmentHeader {
        cluster_id: identity.cluster_id,
        group_id: identity.group_id,
        first_index: 0,
        base_offset: 0,
        term_before: 0,
        chain_before: state.chain,
        append_time_before_ms: 0,
    };
    let path = segment_path(dir, 0);
    let file = disk.create(&path).map_err(|error| Error::io("create", &path, error))?;
    let head = Bytes::from(header.encode());
    file.write_at(&[head], 0)
        .map_err(|error| Error::io("write", &path, error))?;
    file.sync().map_err(|error| Error::io("sync", &path, error))?;
    let mark = Mark {
        segment_first_index: 0,
        position: SEGMENT_HEADER_BYTES,
        last_term: 0,
        index_end: 0,
        chain: state.chain,
        commit_end: 0,
    };
    replace_file(
        &**disk,
        &dir.join(HARD_STATE),
        Bytes::from(HardState::initial(*identity, mark)),
    )?;
    disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    let parent = dir.parent().unwrap_or(dir);
    disk.sync_dir(parent).map_err(|error| Error::io("sync", parent, error))
}

/// Whether the directory holds no more than an interrupted [`create`] may leave: the hard state comes last, so everything but it, and
/// no entry.
fn is_unfinished(open: &OpenLog) -> Result<bool, Error> {
    let OpenLog { dir, disk, .. } = open;
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        names => names.map_err(|error| Error::io("list", dir, error))?,
    };
    let first = segment_path(dir, 0);
    for path in names.iter().map(|name| dir.join(name)) {
        if path == dir.join(HARD_STATE).with_extension("tmp") {
            continue;
        }
        let entries = path != first || {
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            file.len().map_err(|error| Error::io("read", &path, error))? > SEGMENT_HEADER_BYTES
        };
        if entries {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Opens a log directory and brings it to a state that can be appended to.
pub(crate) fn recover(open: &OpenLog) -> Result<LogState, Error> {
    let mut hard = match HardState::read(&*open.disk, &open.dir, open.identity) {
        Err(Error::HardStateLost { .. }) if is_unfinished(open)? => {
            return Err(Error::NeverCreated { path: open.dir.clone() });
        }
        read => read?,
    };
    let manifest = manifest::read(&*open.disk, &open.dir, &open.identity)?;
    let floor_end = manifest.as_ref().map_or(0, |manifest| manifest.state.next_index);
    let mut checkpoint = checkpoint::read(&*open.disk, &open.dir, open.identity)?;
    if checkpoint
        .as_ref()
        .is_some_and(|checkpoint| checkpoint.state.next_index < floor_end)
    {
        checkpoint = None; // the manifest is newer
    }
    if let Some(manifest) = manifest.as_deref().filter(|_| hard.mark().index_end < floor_end) {
        begin_anew(open, &mut hard, manifest)?;
    }
    let mut recovery = Recovery {
        open,
        mark: hard.mark(),
        manifest,
        replayed: Vec::new(),
        remove: Vec::new(),
    };
    let segments = recovery.segments(checkpoint.as_ref())?;
    let mut state = recovery.start(hard, checkpoint, segments)?;
    recovery.replay(&mut state)?;
    recovery.settle(&state)?;
    state.commit_to(recovery.mark.commit_end)?;
    state.noted_commit = state.committed.last_entry();
    state.changed_ms = open.clock.now_ms();
    state.checkpoint.noted_ms = state.changed_ms;
    Ok(state)
}

/// Finishes an interrupted installation: the manifest is there, and the mark below the floor says that nothing else of it is certain.
fn begin_anew(open: &OpenLog, hard: &mut HardState, manifest: &Manifest) -> Result<(), Error> {
    let OpenLog { dir, disk, .. } = open;
    tracing::warn!(path = %dir.display(), floor = %manifest.last(), "the log begins anew behind its manifest");
    let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let goes = |name: &&String| name.ends_with(".log") || name.ends_with(".index") || *name == CHECKPOINT;
    let removals = names
        .iter()
        .filter(goes)
        .map(|name| Op::Remove { path: dir.join(name) });
    let segment = Segment::new(dir, manifest.next_segment());
    let mark = Mark {
        segment_first_index: segment.header.first_index,
        position: SEGMENT_HEADER_BYTES,
        last_term: manifest.last().term,
        index_end: manifest.state.next_index,
        chain: manifest.state.chain,
        commit_end: manifest.state.next_index,
    };
    let mut ops: Vec<Op> = removals.collect();
    ops.extend([
        Op::Sync,
        Op::Create {
            file: segment.file.clone(),
            head: Bytes::from(segment.header.encode()),
        },
        Op::Sync,
        hard.set_mark(mark),
    ]);
    Round::new(&**disk, 0).run(vec![ops])
}

struct Recovery<'a> {
    open: &'a OpenLog,
    mark: Mark,
    manifest: Option<Arc<Manifest>>,
    /// Segment files that were read, and may hold bytes that were written but never synced.
    replayed: Vec<Arc<LogFile>>,
    /// Segments behind the end of the log, last first.
    remove: Vec<Arc<Segment>>,
}

impl Recovery<'_> {
    /// The segments with whole headers, in order. Behind mark and checkpoint the first bad header ends the log.
    fn segments(&mut self, checkpoint: Option<&Checkpoint>) -> Result<Vec<Arc<Segment>>, Error> {
        let OpenLog {
            dir, identity, disk, ..
        } = self.open;
        let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            let path = dir.join(name);
            disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        let names = self.purge(names)?;
        let certain = checkpoint.map_or(0, |checkpoint| checkpoint.segment_first_index);
        let certain = certain.max(self.mark.segment_first_index);
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        for first_index in names.iter().filter_map(|name| segment_first_index(name)) {
            let header = self.read_header(first_index);
            let follows = |header: &SegmentHeader| segments.last().is_none_or(|last| last.header.is_before(header));
            match header {
                Ok(header) if self.remove.is_empty() && follows(&header) => segments.push(Segment::new(dir, header)),
                Ok(_) if first_index <= certain => {
                    let path = segment_path(dir, first_index);
                    return Err(Error::damaged(&path, 0, first_index, "its header does not follow on"));
                }
                Err(error) if first_index <= certain || !is_damage(&error) => return Err(error),
                _ => self.remove.insert(0, Segment::unreadable(dir, identity, first_index)),
            }
        }
        if segments.last().is_none_or(|last| last.header.first_index < certain) {
            let why = "the segment is missing";
            return Err(Error::damaged(&segment_path(dir, certain), 0, certain, why));
        }
        Ok(segments)
    }

    /// Finishes an interrupted purge: removes the segments that lie wholly below the floor.
    fn purge(&self, names: Vec<String>) -> Result<Vec<String>, Error> {
        let OpenLog { dir, disk, .. } = self.open;
        let Some(floor_end) = self.manifest.as_ref().map(|manifest| manifest.state.next_index) else {
            return Ok(names);
        };
        let first_indexes = names.iter().filter_map(|name| segment_first_index(name));
        let Some(kept) = first_indexes.filter(|first_index| *first_index <= floor_end).max() else {
            return Ok(names);
        };
        let below = |name: &str| {
            let first_index = segment_first_index(&name.replace(".index", ".log"));
            first_index.is_some_and(|first_index| first_index < kept)
        };
        let (gone, kept): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| below(name));
        for path in gone.iter().map(|name| dir.join(name)) {
            tracing::info!(path = %path.display(), "removing what an interrupted purge left");
            disk.remove(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        Ok(kept)
    }

    /// Where the log goes on behind the manifest.
    fn place_behind(&self, manifest: &Manifest, segments: &[Arc<Segment>]) -> Result<Place, Error> {
        let next_index = manifest.state.next_index;
        let holds = |segment: &&Arc<Segment>| segment.header.first_index <= next_index;
        let Some(segment) = segments.iter().rev().find(holds) else {
            let path = segment_path(&self.open.dir, next_index);
            return Err(Error::damaged(
                &path,
                0,
                next_index,
                "the log does not go back to its manifest",
            ));
        };
        let mut scanner = Scanner::from_start(segment.file.open(&*self.open.disk)?, segment, u64::MAX)?;
        let mut chain = segment.header.chain_before;
        while scanner.next_index < next_index {
            let Some((header, _)) = scanner.expect_header()? else {
                return Err(scanner.damaged("the file ends before its manifest"));
            };
            chain = header.chain;
        }
        if chain != manifest.state.chain {
            return Err(scanner.damaged("the log does not follow on behind its manifest"));
        }
        Ok(Place {
            segment_first_index: segment.header.first_index,
            position: scanner.position,
        })
    }

    fn read_header(&self, first_index: u64) -> Result<SegmentHeader, Error> {
        let OpenLog {
            dir, identity, disk, ..
        } = self.open;
        let path = segment_path(dir, first_index);
        let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let count = file
            .read_at(&mut bytes, 0)
            .map_err(|error| Error::io("read", &path, error))?;
        let damaged = |why: String| Error::damaged(&path, 0, first_index, why);
        let header = SegmentHeader::decode(&bytes[..count]).map_err(|error| damaged(error.to_string()))?;
        let ours = (identity.cluster_id, identity.group_id, first_index);
        if (header.cluster_id, header.group_id, header.first_index) != ours {
            return Err(damaged("the header names another group or index".into()));
        }
        Ok(header)
    }

    /// The state before the replay: at the checkpoint, or before the first entry.
    fn start(
        &self,
        hard: HardState,
        checkpoint: Option<Checkpoint>,
        segments: Vec<Arc<Segment>>,
    ) -> Result<LogState, Error> {
        let OpenLog { dir, identity, .. } = self.open;
        let (committed, place) = match checkpoint {
            Some(checkpoint) => {
                let Checkpoint {
                    segment_first_index,
                    position,
                    state,
                    ..
                } = checkpoint;
                (
                    state,
                    Place {
                        segment_first_index,
                        position,
                    },
                )
            }
            None if let Some(manifest) = &self.manifest => {
                (manifest.state.clone(), self.place_behind(manifest, &segments)?)
            }
            None => (
                State::empty(identity.cluster_id, identity.group_id),
                Place {
                    segment_first_index: 0,
                    position: SEGMENT_HEADER_BYTES,
                },
            ),
        };
        let found = segments
            .iter()
            .find(|segment| segment.header.first_index == place.segment_first_index);
        let Some(segment) = found.cloned() else {
            let path = segment_path(dir, place.segment_first_index);
            let why = "the log does not go back to where the checkpoint ends";
            return Err(Error::damaged(&path, 0, place.segment_first_index, why));
        };
        let before = Before::at(&committed);
        let sparse = SparseIndex::covering_from(place.position);
        Ok(LogState {
            checkpoint: CheckpointNote {
                next_index: committed.next_index,
                noted_ms: 0,
            },
            tail: committed.clone(),
            committed,
            committed_at: place,
            pending: VecDeque::new(),
            decided: VecDeque::new(),
            segments,
            active: Active {
                segment,
                end: place.position,
                sparse,
                before,
            },
            loaded: VecDeque::new(),
            hard,
            generation: 0,
            noted_commit: None,
            manifest: self.manifest.clone(),
            changed_ms: 0,
        })
    }

    /// Folds everything behind the checkpoint, segment by segment, and cuts what does not follow on.
    fn replay(&mut self, state: &mut LogState) -> Result<(), Error> {
        let all = std::mem::take(&mut state.segments);
        let first = state.active.segment.header.first_index;
        let mut torn = false;
        for segment in all {
            if segment.header.first_index < first {
                state.segments.push(segment);
                continue;
            }
            if torn || !self.enter(state, &segment)? {
                torn = true;
                self.remove.insert(0, segment);
                continue;
            }
            state.segments.push(segment);
            torn = !self.replay_segment(state)?;
        }
        self.sort_removed();
        self.check_mark_reached(state)
    }

    fn sort_removed(&mut self) {
        self.remove
            .sort_by_key(|segment| std::cmp::Reverse(segment.header.first_index));
    }

    /// Makes `segment` the active one; false if it does not follow on behind the mark.
    fn enter(&mut self, state: &mut LogState, segment: &Arc<Segment>) -> Result<bool, Error> {
        if Arc::ptr_eq(segment, &state.active.segment) {
            self.replayed.push(segment.file.clone());
            return Ok(true); // the checkpoint's own: entered at its position
        }
        let (header, tail) = (&segment.header, &state.tail);
        let found = (
            header.first_index,
            header.chain_before,
            header.base_offset,
            header.append_time_before_ms,
        );
        if found != (tail.next_index, tail.chain, tail.log_end, tail.append_time_ms) {
            self.check_mark_reached(state)?;
            return Ok(false);
        }
        self.replayed.push(segment.file.clone());
        state.seal_active();
        state.active.segment = segment.clone();
        state.active.end = SEGMENT_HEADER_BYTES;
        Ok(true)
    }

    /// Folds the frames of the active segment; false if something behind them had to be cut.
    fn replay_segment(&self, state: &mut LogState) -> Result<bool, Error> {
        let disk = &*self.open.disk;
        let segment = state.active.segment.clone();
        let file = segment.file.open(disk)?;
        let (position, tail) = (state.active.end, &state.tail);
        let mut scanner = Scanner::resume(file.clone(), &segment, position, tail.next_index, tail.chain)?;
        if scanner.end() < position {
            return Err(scanner.damaged("the file ends before its checkpoint"));
        }
        let why = loop {
            self.check_mark(state)?;
            match scanner.next()? {
                Scanned::Frame(frame) => {
                    let folded = state.fold_replicated(frame)?;
                    state.place(folded);
                    state.commit_to(self.mark.commit_end.min(state.tail.next_index))?;
                }
                Scanned::End => break "nothing but zeros follows".to_owned(),
                Scanned::Bad(why) => break why,
            }
        };
        let (path, file_end) = (&segment.file.path, scanner.end());
        if state.active.end == file_end {
            return Ok(true);
        }
        if state.tail.next_index < self.mark.index_end {
            return Err(scanner.damaged(&why));
        }
        let (position, index) = (state.active.end, state.tail.next_index);
        let prepared = scanner.rest_is_zeros()?;
        if prepared {
            file.set_len(position).map_err(|error| Error::io("cut", path, error))?;
            return Ok(true);
        }
        tracing::warn!(path = %path.display(), position, file_end, index, why, "cutting a torn tail");
        file.set_len(position).map_err(|error| Error::io("cut", path, error))?;
        Ok(false)
    }

    /// When the replay stands at the mark, what it found must be what was marked.
    fn check_mark(&self, state: &LogState) -> Result<(), Error> {
        let mark = &self.mark;
        if state.tail.next_index != mark.index_end || state.tail.chain == mark.chain {
            return Ok(());
        }
        let why = format!("chain is {:#x} where {:#x} was marked", state.tail.chain, mark.chain);
        Err(Error::damaged(
            &state.active.segment.file.path,
            state.active.end,
            mark.index_end,
            why,
        ))
    }

    fn check_mark_reached(&self, state: &LogState) -> Result<(), Error> {
        if state.tail.next_index >= self.mark.index_end {
            return Ok(());
        }
        let why = format!(
            "the log ends here, but was synced up to entry {}",
            self.mark.index_end - 1
        );
        Err(Error::damaged(
            &state.active.segment.file.path,
            state.active.end,
            state.tail.next_index,
            why,
        ))
    }

    /// Removes what is behind the end, and syncs everything that may have been written but not synced before the start.
    fn settle(&self, state: &LogState) -> Result<(), Error> {
        let OpenLog { dir, disk, .. } = self.open;
        for segment in &self.remove {
            tracing::warn!(path = %segment.file.path.display(), "removing a segment behind the end of the log");
            for path in [&segment.file.path, &segment.index_path()] {
                match disk.remove(path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    result => result.map_err(|error| Error::io("remove", path, error))?,
                }
            }
        }
        for file in &self.replayed {
            file.open(&**disk)?
                .sync()
                .map_err(|error| Error::io("sync", &file.path, error))?;
        }
        let hard_state = state.hard.file();
        hard_state
            .open(&**disk)?
            .sync()
            .map_err(|error| Error::io("sync", &hard_state.path, error))?;
        for path in [dir.join(CHECKPOINT), dir.join(MANIFEST)] {
            if let Ok(file) = disk.open(&path) {
                file.sync().map_err(|error| Error::io("sync", &path, error))?;
            }
        }
        disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
    }
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::Damaged { .. })
}
