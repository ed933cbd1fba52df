//! Opening a log directory.
//!
//! Opening starts from the newest state on disk, the checkpoint or the manifest, and folds every frame behind it. What lies below the mark
//! was synced and must be whole; if it is not, `assess` says what that means. Behind the mark the first thing that is not the next frame
//! is where a crash interrupted the writer: everything from there on is cut. What lies below the start is not read, so an opening takes
//! as long as what lies behind it. The steps are numbered in the README.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::assess::{Assessor, Start};
use crate::damage::Gaps;
use crate::directory::Directory;
use crate::error::Error;
use crate::fold::State;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::hard_state::HardState;
use crate::index::SparseIndex;
use crate::log::OpenLog;
use crate::manifest::Manifest;
use crate::mutant;
use crate::round::LogFile;
use crate::scan::{Scanned, Scanner};
use crate::scrub::Scrubbing;
use crate::segment::{Active, Join, Place, Segment};
use crate::settle::Findings;
use crate::survey::{Bound, From, survey};
use crate::tail::{CheckpointNote, LogState};
use crate::trim::Leaving;

/// What an opening comes to.
pub(crate) enum Recovered {
    /// A log that can be appended to; it may have inside damage.
    Open(Box<LogState>),
    /// Damage behind the start: nothing was changed.
    Damaged(Box<Damaged>),
}

/// A log that cannot be folded.
pub(crate) struct Damaged {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// All gaps, also those below the start.
    pub(crate) gaps: Gaps,
    /// Up to where the log must be whole; None if its end is lost.
    pub(crate) end: Option<Bound>,
    /// What it means for the replica.
    pub(crate) error: Error,
}

/// Opens a log directory and brings it to a state that can be appended to.
pub(crate) fn recover(open: &OpenLog) -> Result<Recovered, Error> {
    let (hard, directory) = Directory::read(open)?;
    let (committed, place) = match locate_start(open, &directory)? {
        Ok(start) => start,
        Err(damaged) => return Ok(Recovered::Damaged(Box::new(damaged))),
    };
    let start = Start {
        join: Join::at(&committed),
        place,
    };
    let assessor = Assessor {
        open,
        directory: &directory,
        start,
    };
    let below = assessor.below()?;
    let mut replay = Replay {
        open,
        directory: &directory,
        mended: Vec::new(),
        replayed: Vec::new(),
        cuts: Vec::new(),
        beyond: directory.beyond.clone(),
    };
    let Some(mut state) = replay.run(hard, committed, place)? else {
        let mut gaps = assessor.behind_start()?;
        gaps.note(below.iter().cloned());
        let error = assessor.judge(&gaps);
        let segments = directory.segments.clone();
        let end = Some(assessor.marked()).filter(|end| end.behind.is_some());
        return Ok(Recovered::Damaged(Box::new(Damaged {
            segments,
            gaps,
            end,
            error,
        })));
    };
    let Replay {
        mended,
        replayed,
        cuts,
        beyond,
        ..
    } = replay;
    let certain = directory.certain_place(place);
    let findings = Findings {
        mended,
        replayed,
        cuts,
        beyond,
        certain,
    };
    findings.settle(open, &state.hard)?;
    state.commit_to(directory.mark.commit_end)?;
    state.noted_commit = state.committed.last_entry();
    state.changed_ms = open.clock.now_ms();
    state.checkpoint.noted_ms = state.changed_ms;
    state.scrub.since_ms = state.changed_ms;
    state.gaps = below;
    if !state.gaps.is_empty() {
        let ranges = state.gaps.ranges();
        tracing::error!(dir = %open.dir.display(), ?ranges, "committed entries are damaged here");
    }
    Ok(Recovered::Open(Box::new(state)))
}

/// The newest state on disk and where the log goes on behind it.
fn locate_start(open: &OpenLog, directory: &Directory) -> Result<Result<(State, Place), Damaged>, Error> {
    if let Some(checkpoint) = &directory.checkpoint {
        let place = Place {
            segment_first_index: checkpoint.segment_first_index,
            position: checkpoint.position,
        };
        return Ok(Ok((checkpoint.state.clone(), place)));
    }
    let Some(manifest) = &directory.manifest else {
        let place = Place {
            segment_first_index: 0,
            position: SEGMENT_HEADER_BYTES,
        };
        return Ok(Ok((
            State::empty(open.identity.cluster_id, open.identity.group_id),
            place,
        )));
    };
    Ok(place_behind(open, directory, manifest)?.map(|place| (manifest.state.clone(), place)))
}

/// Where the log goes on behind the manifest: mostly a segment begins there.
fn place_behind(open: &OpenLog, directory: &Directory, manifest: &Manifest) -> Result<Result<Place, Damaged>, Error> {
    let next_index = manifest.state.next_index;
    let segments = &directory.segments;
    let behind = segments.partition_point(|segment| segment.header.first_index <= next_index);
    let holding = behind.checked_sub(1).and_then(|last| segments.get(last));
    let Some(segment) = holding.filter(|segment| segment.header.first_index < next_index) else {
        return Ok(Ok(Place {
            segment_first_index: next_index,
            position: SEGMENT_HEADER_BYTES,
        }));
    };
    let end = directory.certain_end().max(next_index);
    let bound = segments.get(behind).map_or(
        Bound {
            index: end,
            behind: None,
        },
        |next| Bound::segment(next),
    );
    let mut gaps = Gaps::default();
    gaps.note(survey(&*open.disk, segment, From::start_of(segment), &bound)?);
    if gaps.holding(next_index).is_some() {
        let error = Error::NeedsRefill {
            path: open.dir.clone(),
            ranges: gaps.ranges(),
        };
        let segments = segments.clone();
        return Ok(Err(Damaged {
            segments,
            gaps,
            end: None,
            error,
        }));
    }
    let from = gaps
        .before(next_index)
        .and_then(|gap| gap.behind.as_ref().map(|behind| (gap.end, behind.place.position)));
    let (index, position) = from.unwrap_or((segment.header.first_index, SEGMENT_HEADER_BYTES));
    let mut scanner = Scanner::at(segment.file.open(&*open.disk)?, segment, position, index, None)?.heads_only();
    while scanner.next_index < next_index && scanner.expect_header()?.is_some() {}
    Ok(Ok(Place {
        segment_first_index: segment.header.first_index,
        position: scanner.position,
    }))
}

/// The replay of what lies behind the start, and what it changes on disk once it is clear that the log can be opened.
struct Replay<'a> {
    open: &'a OpenLog,
    directory: &'a Directory,
    /// Segments whose header was bad and is known again.
    mended: Vec<Arc<Segment>>,
    /// Segments that were read, and may hold bytes that were written but never synced.
    replayed: Vec<Arc<Segment>>,
    /// Where files end, of those that are longer.
    cuts: Vec<(Arc<LogFile>, u64)>,
    /// Segments behind the end of the log, last first.
    beyond: Vec<Arc<Segment>>,
}

impl Replay<'_> {
    /// Folds everything behind the start. None if something is missing that was certain.
    fn run(&mut self, hard: HardState, committed: State, place: Place) -> Result<Option<LogState>, Error> {
        let next_index = committed.next_index;
        let segments = &self.directory.segments;
        let behind = segments.partition_point(|segment| segment.header.first_index <= next_index);
        let Some(first) = behind.checked_sub(1).and_then(|last| segments.get(last)) else {
            return Ok(None);
        };
        let begins = first.header.first_index == next_index;
        if !begins && first.header.first_index != place.segment_first_index {
            return Ok(None);
        }
        let start = Place {
            segment_first_index: first.header.first_index,
            position: if begins { SEGMENT_HEADER_BYTES } else { place.position },
        };
        let mut kept = segments[..behind].to_vec();
        let first = if begins {
            self.with_header(first, &committed)
        } else {
            first.clone()
        };
        kept[behind - 1] = first.clone();
        let file = first.file.open(&*self.open.disk)?;
        if file.len().map_err(|error| Error::io("read", &first.file.path, error))? < start.position {
            return Ok(None);
        }
        let mut state = self.state(hard, committed, start, kept);
        self.replayed.push(first.clone());
        let whole = self.replay(&mut state, segments[behind..].to_vec())?;
        Ok(whole.then_some(state))
    }

    /// The segment with the header that the state before it gives, if it has no good one.
    fn with_header(&mut self, segment: &Arc<Segment>, before: &State) -> Arc<Segment> {
        if !segment.headless {
            return segment.clone();
        }
        let mended = segment.mended(Join::at(before).header(&self.open.identity));
        self.mended.push(mended.clone());
        mended
    }

    fn state(&self, hard: HardState, committed: State, place: Place, segments: Vec<Arc<Segment>>) -> LogState {
        let segment = segments[segments.len() - 1].clone();
        LogState {
            checkpoint: CheckpointNote {
                next_index: committed.next_index,
                noted_ms: 0,
            },
            tail: committed.clone(),
            committed_at: place,
            pending: VecDeque::new(),
            decided: VecDeque::new(),
            segments,
            active: Active {
                segment,
                end: place.position,
                sparse: SparseIndex::covering_from(place.position),
                before: Join::at(&committed),
            },
            committed,
            loaded: VecDeque::new(),
            hard,
            generation: 0,
            noted_commit: None,
            manifest: self.directory.manifest.clone(),
            leaving: Leaving::default(),
            gaps: Gaps::default(),
            was_read: false,
            scrub: Scrubbing::default(),
            changed_ms: 0,
            appended_bytes: 0,
        }
    }

    /// Folds segment by segment, up to the end of the log; false if something is missing before it.
    fn replay(&mut self, state: &mut LogState, rest: Vec<Arc<Segment>>) -> Result<bool, Error> {
        let mut rest = rest.into_iter();
        loop {
            let why = self.replay_segment(state)?;
            let next = rest.next();
            if let Some(next) = next.as_ref().filter(|next| self.follows(state, next)) {
                self.end_segment(state, None)?;
                let next = self.with_header(next, &state.tail);
                self.replayed.push(next.clone());
                state.seal_active();
                state.segments.push(next.clone());
                state.active.segment = next;
                state.active.end = SEGMENT_HEADER_BYTES;
                continue;
            }
            if state.tail.next_index < self.directory.certain_end() && !mutant!("truncate at first bad checksum") {
                return Ok(false);
            }
            self.end_segment(state, Some(&why))?;
            let beyond = next.into_iter().chain(rest);
            beyond.for_each(|segment| self.beyond.insert(0, segment));
            self.beyond
                .sort_by_key(|segment| std::cmp::Reverse(segment.header.first_index));
            return Ok(true);
        }
    }

    /// Whether a segment begins where the log ends now.
    fn follows(&self, state: &LogState, next: &Segment) -> bool {
        let join = Join::at(&state.tail);
        next.header.first_index == join.next_index && (next.headless || next.header == join.header(&self.open.identity))
    }

    /// Folds the frames of the active segment, up to the first thing that is not the next one; says what that is.
    fn replay_segment(&self, state: &mut LogState) -> Result<String, Error> {
        let segment = state.active.segment.clone();
        let file = segment.file.open(&*self.open.disk)?;
        let tail = &state.tail;
        let mut scanner = Scanner::at(file, &segment, state.active.end, tail.next_index, Some(tail.chain))?;
        loop {
            self.check_mark(state)?;
            match scanner.next()? {
                Scanned::Frame(frame) => {
                    let folded = state.fold_replicated(frame)?;
                    state.place(folded);
                    state.commit_to(self.directory.mark.commit_end.min(state.tail.next_index))?;
                }
                Scanned::End => return Ok("nothing but zeros follows".to_owned()),
                Scanned::Bad(why) => return Ok(why),
            }
        }
    }

    /// Notes that the active segment's file ends behind its last frame. `torn` says what stands there instead of a next one.
    fn end_segment(&mut self, state: &LogState, torn: Option<&str>) -> Result<(), Error> {
        let (file, position) = (&state.active.segment.file, state.active.end);
        let handle = file.open(&*self.open.disk)?;
        let file_end = handle.len().map_err(|error| Error::io("read", &file.path, error))?;
        if file_end == position {
            return Ok(());
        }
        let index = state.tail.next_index;
        let mut scanner = Scanner::at(handle, &state.active.segment, position, index, None)?;
        if !scanner.rest_is_zeros()? {
            let path = file.path.display();
            tracing::warn!(%path, position, file_end, index, why = torn, "cutting a torn tail");
        }
        self.cuts.push((file.clone(), position));
        Ok(())
    }

    /// When the replay stands at the mark, what it found must be what was marked.
    fn check_mark(&self, state: &LogState) -> Result<(), Error> {
        let mark = &self.directory.mark;
        if state.tail.next_index != mark.index_end || state.tail.chain == mark.chain {
            return Ok(());
        }
        let why = format!("chain is {:#x} where {:#x} was marked", state.tail.chain, mark.chain);
        let path = &state.active.segment.file.path;
        Err(Error::dead(path, state.active.end, mark.index_end, why))
    }
}
