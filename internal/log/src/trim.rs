//! Trims: how the front of a log goes.
//!
//! Committed `Trim` entries move the log start. What lies below it is removed later, by segments, each replica for itself: its owner asks
//! up to where ([`Log::floor_for`]), lets the state be folded up to there ([`Log::fold_manifest`]) and purges ([`Log::purge`]). The
//! manifest is certain before the first file goes; an interrupted purge is finished at the next opening, because whatever lies wholly
//! below the manifest is removed there. If the manifest finds no room, the files must stay, and every later purge has to remove them as
//! well, until one has found room ([`Leaving`]).
//!
//! A replica that is behind the floor of all others gets a manifest and begins behind it ([`Log::install`]). That, too, starts with the
//! manifest; that the mark lies below the floor tells an opening that it was interrupted.
//!
//! Deliberately absent: when and how far to trim. That is decided by the group.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::entry::{Frame, Kind};
use crate::error::{Error, Grade};
use crate::fold::State;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES};
use crate::index::{SparseIndex, Target};
use crate::log::Log;
use crate::manifest::{MANIFEST, Manifest};
use crate::mutant;
use crate::round::Op;
use crate::scan::Scanner;
use crate::segment::{Active, Join, Place, Segment, removal};
use crate::tail::{CheckpointNote, LogState, item};
use crate::writer::Callback;

/// How often a step is tried again because the log changed under it.
const ATTEMPTS_MAX: usize = 16;
/// Entries folded at once.
const HEADS_MAX: usize = 4_096;

/// The purged segments whose files are not known to go. Only paths, because an open file would keep its room on the disk beyond its removal.
#[derive(Default)]
pub(crate) struct Leaving {
    paths: Vec<PathBuf>,
    /// Whether the last purge has replaced the manifest: then its job removes all of them, or the writer has failed.
    replaced: Arc<AtomicBool>,
}

impl Leaving {
    pub(crate) fn paths(&self) -> &[PathBuf] {
        match self.replaced.load(Ordering::Relaxed) {
            true => &[],
            false => &self.paths,
        }
    }

    /// With these segments, for a purge that removes all of them and tells `replaced`. What is still queued may be removed
    /// twice: no segment is ever made again below the floor.
    fn with(&self, segments: impl Iterator<Item = Arc<Segment>>, replaced: Arc<AtomicBool>) -> Leaving {
        let more = segments.map(|segment| segment.file.path.clone());
        Leaving {
            paths: self.paths().iter().cloned().chain(more).collect(),
            replaced,
        }
    }

    fn removals(&self) -> impl Iterator<Item = Op> {
        self.paths().iter().flat_map(|path| removal(path))
    }
}

impl Log {
    /// The present manifest; None if nothing was ever purged.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.lock().manifest.clone()
    }

    /// The highest index that may be purged so that no record at or above `offset` goes, and no entry that is not committed: the end of a
    /// segment. None if there is nothing to purge.
    pub fn floor_for(&self, offset: u64) -> Result<Option<u64>, Error> {
        let state = self.lock();
        let below = state.segments.partition_point(|segment| {
            segment.header.base_offset <= offset && segment.header.first_index <= state.committed.next_index
        });
        let kept = below.checked_sub(1).and_then(|last| state.segments.get(last));
        let first_index = kept.map_or(0, |segment| segment.header.first_index);
        Ok((first_index > state.floor_end()).then(|| first_index - 1))
    }

    /// The state folded from the present floor up to and including the committed entry `upto`, without a machine's checkpoint. Reads the
    /// disk, headers and details only; changes nothing.
    pub fn fold_manifest(&self, upto: u64) -> Result<Manifest, Error> {
        let identity = self.inner.open.identity;
        let mut state = {
            let log = self.lock();
            check_committed(&log, upto)?;
            match &log.manifest {
                Some(manifest) if upto < manifest.last().index => {
                    let first_index = log.floor_end();
                    return Err(Error::Purged {
                        index: upto,
                        first_index,
                    });
                }
                Some(manifest) => manifest.state.clone(),
                None => State::empty(identity.cluster_id, identity.group_id),
            }
        };
        while state.next_index <= upto {
            let heads = self.read_heads(state.next_index, upto + 1)?;
            for frame in &heads {
                fold_frame(&mut state, frame)?;
            }
        }
        if mutant!("lose producers at a trim") {
            state.producers = Default::default();
        }
        Ok(Manifest {
            cluster_id: identity.cluster_id,
            group_id: identity.group_id,
            state,
            machine: Default::default(),
        })
    }

    /// Frames `start..end`, at least one, mostly without their payloads.
    fn read_heads(&self, start: u64, end: u64) -> Result<Vec<Frame>, Error> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(frames) = self.read_cached(start, end, 0) {
                return Ok(frames);
            }
            let Some(plan) = self.plan_read(start, end)? else {
                continue;
            };
            let heads = self
                .scan_from(&plan, Target::Index(start))
                .and_then(|scanner| collect_heads(scanner.heads_only(), start, plan.stop));
            match heads {
                _ if self.lock().generation != plan.generation => {}
                Err(error @ Error::Damaged { .. }) => self.on_bad_frame(&plan, start, error)?,
                heads => return heads,
            }
        }
        Err(Error::Truncated { index: start })
    }

    /// Whether the disk takes this manifest now. A purge or an installation on a disk that does not would be the log's end.
    pub fn has_space_for(&self, manifest: &Manifest) -> bool {
        let bytes = manifest.encode().len() as u64;
        self.inner.open.writer.has_space_for(bytes)
    }

    /// Makes `manifest` the present one, then removes the segments that lie wholly below it. Its last entry must be committed here; a
    /// manifest that is not above the present one changes nothing. When `done` is called, manifest and removal are certain.
    ///
    /// If the manifest finds no room, `done` is called without an error: nothing that was promised depends on a purge. What lies below the
    /// floor cannot be read any more, but its files stay until the next purge or installation above it that finds room removes them as
    /// well; a restart before that finds the log as it was.
    pub fn purge(&self, manifest: Manifest, done: Callback) -> Result<(), Error> {
        manifest.check_group(&self.inner.open.identity)?;
        self.check_manifest(&manifest)?;
        let mut state = self.lock();
        self.inner.open.writer.admit(0)?;
        if manifest.state.next_index <= state.floor_end() {
            return self.inner.open.writer.submit(Vec::new(), done);
        }
        check_committed(&state, manifest.last().index)?;
        let mark = state.mark_here();
        let mut ops = vec![Op::Sync, state.hard.set_mark(mark)];
        self.push_checkpoint(&mut state, &mut ops);
        let replaced = Arc::new(AtomicBool::new(false));
        if !mutant!("purge without a manifest") {
            let replace = Op::ReplaceIfRoom {
                path: self.inner.open.dir.join(MANIFEST),
                bytes: manifest.encode(),
                replaced: replaced.clone(),
            };
            ops.extend([Op::Sync, replace, Op::Sync]);
        }
        let fewer = state.purge_below(manifest, replaced);
        ops.extend(state.leaving.removals());
        let submitted = self.inner.open.writer.submit(ops, done);
        drop(state);
        if fewer {
            self.inner.notify_damage();
        }
        submitted
    }

    /// Whether the log agrees with a manifest about the entry at the floor.
    fn check_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let next_index = manifest.state.next_index;
        let known = {
            let state = self.lock();
            if next_index <= state.floor_end() {
                return Ok(());
            }
            check_committed(&state, manifest.last().index)?;
            state.chain_before(next_index)
        };
        let chain = match known {
            Some(chain) => chain,
            None => match self.read(manifest.last().index, next_index, 0) {
                Err(error) if error.grade() == Grade::Inside => return Ok(()), // the manifest takes its place
                frames => frames?.first().map_or(0, |frame| frame.header.chain),
            },
        };
        if chain == manifest.state.chain {
            return Ok(());
        }
        Err(Error::Diverged {
            id: manifest.last(),
            why: format!(
                "the chain is {chain:#x} here, {:#x} in the manifest",
                manifest.state.chain
            ),
        })
    }

    /// Brings a replica that is behind the floor of all others to `manifest`: everything is dropped and the log begins behind it. If the
    /// entry at the floor is here already, this is a commit up to there and a purge, which keeps what follows it. Nothing happens if the
    /// present floor is as high. Vote and identity stay. When `done` is called, all of it is certain; of a purge, what
    /// [`Log::purge`] says.
    pub fn install(&self, manifest: Manifest, done: Callback) -> Result<(), Error> {
        manifest.check_group(&self.inner.open.identity)?;
        let mut state = self.lock();
        self.inner.open.writer.admit(0)?;
        let next_index = manifest.state.next_index;
        let here = match state.pending(next_index - 1) {
            Some(pending) => pending.header.chain == manifest.state.chain,
            None => next_index <= state.committed.next_index,
        };
        if here {
            state.commit_to(next_index)?;
            drop(state);
            return self.purge(manifest, done);
        }
        // What is uncommitted here and not in line with the manifest can never be committed, so the mark may be lowered; it must be, below
        // the floor, so that an opening after a crash takes the manifest's side.
        let lowered = Mark {
            segment_first_index: state.committed_at.segment_first_index,
            position: state.committed_at.position,
            last_term: state.committed.last.term,
            index_end: state.committed.next_index,
            chain: state.committed.chain,
            commit_end: state.committed.next_index,
        };
        let mut ops = vec![Op::Sync, state.hard.set_mark(lowered), Op::Sync];
        ops.extend([self.replace_manifest(&manifest), Op::Sync]);
        for segment in state.segments.iter().rev() {
            ops.extend(removal(&segment.file.path));
        }
        ops.extend(state.leaving.removals());
        ops.push(Op::Remove {
            path: self.inner.open.dir.join(crate::checkpoint::CHECKPOINT),
        });
        let segment = Segment::new(&self.inner.open.dir, manifest.next_segment(&self.inner.open.identity));
        ops.extend([
            Op::Sync,
            Op::Create {
                file: segment.file.clone(),
                head: segment.header.encode().into(),
            },
            Op::Sync,
        ]);
        state.begin_behind(Arc::new(manifest), segment);
        let mark = state.mark_here();
        ops.push(state.hard.set_mark(mark));
        state.changed_ms = self.inner.open.clock.now_ms();
        let generation = self.inner.cached.reset(next_index);
        let fewer = state.gaps.purge(next_index);
        let submitted = self.submit(ops, generation, next_index, done);
        drop(state);
        if fewer {
            self.inner.notify_damage();
        }
        submitted
    }

    fn replace_manifest(&self, manifest: &Manifest) -> Op {
        Op::Replace {
            path: self.inner.open.dir.join(MANIFEST),
            bytes: manifest.encode(),
        }
    }
}

impl LogState {
    /// Makes `manifest` the present one and forgets the segments that lie wholly below it; their files are leaving. Whether there is less
    /// damage now.
    fn purge_below(&mut self, manifest: Manifest, replaced: Arc<AtomicBool>) -> bool {
        let floor_end = manifest.state.next_index;
        self.manifest = Some(Arc::new(manifest));
        let keep = self.segment_of(floor_end);
        self.leaving = self.leaving.with(self.segments.drain(..keep), replaced);
        let first_kept = self.segments.first().map_or(0, |segment| segment.header.first_index);
        self.loaded.retain(|segment| segment.header.first_index >= first_kept);
        self.generation += 1;
        self.gaps.purge(floor_end)
    }

    /// Forgets everything but the vote: the log begins behind `manifest`, with the empty `segment`.
    fn begin_behind(&mut self, manifest: Arc<Manifest>, segment: Arc<Segment>) {
        let state = &manifest.state;
        self.committed = state.clone();
        self.tail = state.clone();
        self.committed_at = Place {
            segment_first_index: state.next_index,
            position: SEGMENT_HEADER_BYTES,
        };
        self.pending.clear();
        self.decided.clear();
        self.loaded.clear();
        self.segments = vec![segment.clone()];
        self.active = Active {
            segment,
            end: SEGMENT_HEADER_BYTES,
            sparse: SparseIndex::covering_from(SEGMENT_HEADER_BYTES),
            before: Join::at(state),
        };
        self.checkpoint = CheckpointNote {
            next_index: 0,
            noted_ms: self.checkpoint.noted_ms,
        };
        self.manifest = Some(manifest);
        self.leaving = Leaving::default();
        self.generation += 1;
    }

    /// The chain before this index, if it is known without reading.
    pub(crate) fn chain_before(&self, index: u64) -> Option<u64> {
        if index == self.committed.next_index {
            return Some(self.committed.chain);
        }
        let begins = |segment: &&Arc<Segment>| segment.header.first_index == index;
        self.segments
            .iter()
            .find(begins)
            .map(|segment| segment.header.chain_before)
    }
}

/// Frames `start..stop` mostly without their payloads, from a scanner that stands at or before `start`.
fn collect_heads(mut scanner: Scanner, start: u64, stop: u64) -> Result<Vec<Frame>, Error> {
    while scanner.next_index < start && scanner.expect_header()?.is_some() {}
    let mut heads = Vec::new();
    while scanner.next_index < stop && heads.len() < HEADS_MAX {
        match scanner.expect_head() {
            Ok(Some(frame)) => heads.push(frame),
            Ok(None) => break,
            Err(Error::Damaged { .. }) if !heads.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    if heads.is_empty() || scanner.next_index < start {
        return Err(scanner.damaged("the file ends too early"));
    }
    Ok(heads)
}

fn check_committed(state: &LogState, index: u64) -> Result<(), Error> {
    let committed_end = state.committed.next_index;
    if index < committed_end {
        return Ok(());
    }
    Err(Error::NotCommitted { index, committed_end })
}

/// Folds a frame that was decided before; the fold must come to the same.
pub(crate) fn fold_frame(state: &mut State, frame: &Frame) -> Result<(), Error> {
    let header = &frame.header;
    let diverged = |why: String| Error::Diverged { id: header.id, why };
    if header.id.index != state.next_index || header.append_time_ms < state.append_time_ms {
        let (next, time_ms) = (state.next_index, state.append_time_ms);
        return Err(diverged(format!("entry {next} was expected, at {time_ms} ms or later")));
    }
    let detail = frame.detail()?;
    let membership = (header.kind == Kind::Membership).then_some(&frame.payload);
    let (_, folded) = state.fold(&item(header, &detail, frame.detail_bytes(), membership));
    if folded == *header {
        return Ok(());
    }
    Err(diverged(format!("folded {folded:?}, stored {header:?}")))
}
