//! A running log with damage: noting it, telling of it, and taking good frames back. A log with damage below its committed index serves
//! everything else; see `damage` for what is known of a gap, `survey` for how it is found, `refill` for how it is filled.

use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};

use crate::damage::{DamagedRange, Gap};
use crate::entry::{Frame, Header};
use crate::error::Error;
use crate::fold::State;
use crate::ids::EntryId;
use crate::log::{Inner, Log};
use crate::refill::{self, Files, Unfit};
use crate::round::Op;
use crate::scan::Scanner;
use crate::segment::{Join, Segment};
use crate::survey::{Bound, From, survey};
use crate::tail::LogState;
use crate::writer::Callback;

/// How often a refill is planned again because the log changed under it.
const ATTEMPTS_MAX: usize = 16;

/// Called when the list of damaged ranges grows or shrinks.
pub(crate) type OnDamage = Arc<dyn Fn() + Send + Sync>;

impl Log {
    /// The damage known now: entries whose frames are bad or gone here. In order, disjoint, all committed. What nobody has read or
    /// verified yet may be damaged as well.
    pub fn damage(&self) -> Vec<DamagedRange> {
        self.lock().gaps.ranges()
    }

    /// `notify` is called whenever the list grows or shrinks, from whichever thread found out; it must be quick.
    pub fn on_damage(&self, notify: Arc<dyn Fn() + Send + Sync>) {
        *self.inner.on_damage.lock().unwrap_or_else(PoisonError::into_inner) = Some(notify);
    }

    /// What a peer serves for a refill: committed frames that are whole here, from `start` up to at most `end`. Empty if `start` is not
    /// committed here. Error::Purged below the floor, Error::Damaged if it is damaged here as well.
    pub fn read_for_refill(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        let committed_end = self.lock().committed.next_index;
        if start >= committed_end {
            return Ok(Vec::new());
        }
        self.read(start, end.min(committed_end), bytes_max)
    }

    /// Puts good frames of another replica back. They must begin at the first index of a damaged range and follow on each other; what
    /// lies behind the range is not taken. Checked by chain from the entry before, and against the one behind (Error::Refused). In
    /// place; synced when `done` is called, and only then the range counts as whole. It may be done again, also in parts.
    pub fn refill(&self, frames: Vec<Frame>, done: Callback) -> Result<(), Error> {
        let Some(first) = frames.first().map(|frame| frame.header.id.index) else {
            return self.inner.open.writer.submit(Vec::new(), done);
        };
        for _ in 0..ATTEMPTS_MAX {
            let (gap, segments, generation) = {
                let state = self.lock();
                let gap = state.gaps.holding(first).filter(|gap| gap.first == first);
                let gap = gap.ok_or_else(|| Error::refill(first, "no damaged range begins there"))?;
                (gap.clone(), state.segments.clone(), state.generation)
            };
            let before = match gap.before {
                Some(before) => before,
                None => self.join_before(gap.first)?,
            };
            let open = &self.inner.open;
            let files = Files {
                dir: &open.dir,
                identity: &open.identity,
                segment_bytes_max: open.config.segment_bytes_max,
                segments: &segments,
            };
            let plan = match refill::plan(&files, &gap, before, &frames) {
                Ok(plan) => plan,
                Err(Unfit::Frames(error)) => return Err(error),
                Err(Unfit::Behind(error)) => {
                    self.widen(&gap);
                    return Err(error);
                }
            };
            let mut state = self.lock();
            open.writer.admit(plan.ops.iter().map(Op::bytes).sum())?;
            if state.generation != generation {
                continue;
            }
            plan.mended.iter().for_each(|segment| state.put_segment(segment));
            state.generation += 1;
            let (inner, touched, left) = (Arc::downgrade(&self.inner), plan.touched, plan.left);
            let reported = move |result: Result<(), Error>| {
                if let Some(inner) = inner.upgrade().filter(|_| result.is_ok()) {
                    Log { inner }.refilled(first, left, &touched);
                }
                done(result);
            };
            return open.writer.submit(plan.ops, Box::new(reported));
        }
        Err(Error::Truncated { index: first })
    }

    /// What stands behind a gap was not what it seemed: everything up to the end of its segment has to be put back.
    fn widen(&self, gap: &Gap) {
        let mut state = self.lock();
        let last = state.segment_of(gap.end.saturating_sub(1).max(gap.at.segment_first_index));
        let segment = state.segments[last].clone();
        if let Some(bound) = self.bound_of(&state, &segment).filter(|bound| bound.index > gap.end) {
            let news = self.note_damage(&mut state, vec![gap.widened(bound.index, bound.behind)]);
            drop(state);
            if news {
                self.inner.notify_damage();
            }
        }
    }

    fn refilled(&self, first: u64, left: Option<Gap>, touched: &[u64]) {
        let mut state = self.lock();
        let end = left.as_ref().map(|gap| gap.first);
        tracing::info!(dir = %self.inner.open.dir.display(), first, end, "damaged entries are whole again");
        state.gaps.filled(first, left);
        for segment in state
            .segments
            .iter()
            .filter(|segment| touched.contains(&segment.header.first_index))
        {
            segment.unload();
        }
        drop(state);
        self.inner.notify_damage();
    }

    /// What the entry with this index follows on.
    fn join_before(&self, index: u64) -> Result<Join, Error> {
        let manifest = self.manifest();
        match (index.checked_sub(1), manifest) {
            (Some(last), Some(manifest)) if manifest.last().index == last => Ok(Join::at(&manifest.state)),
            (Some(last), _) => {
                let frames = self.read(last, index, 0)?;
                let frame = frames.first().ok_or(Error::Truncated { index: last })?;
                Ok(Join::behind(&frame.header))
            }
            (None, _) => {
                let identity = &self.inner.open.identity;
                Ok(Join::at(&State::empty(identity.cluster_id, identity.group_id)))
            }
        }
    }

    /// Finds out what is bad in a segment, and takes note of it. False if there is no news: all is well there, or known, or cannot be
    /// told now.
    pub(crate) fn examine(&self, segment: &Arc<Segment>, from: Option<From>) -> Result<bool, Error> {
        let (bound, generation) = {
            let state = self.lock();
            let Some(bound) = self.bound_of(&state, segment) else {
                return Ok(false);
            };
            (bound, state.generation)
        };
        let from = from.unwrap_or_else(|| From::start_of(segment));
        let found = survey(&*self.inner.open.disk, segment, from, &bound)?;
        let mut state = self.lock();
        if state.generation != generation {
            return Ok(true); // look again
        }
        let news = self.note_damage(&mut state, found);
        drop(state);
        if news {
            self.inner.notify_damage();
        }
        Ok(news)
    }

    /// Term and index of a damaged entry whose head is whole: what rots is mostly a payload. The heads of its range prove
    /// themselves as a refill does, by the chain of what stands behind. None if they do not.
    pub fn damaged_entry_id(&self, index: u64) -> Result<Option<EntryId>, Error> {
        let (gap, segment) = {
            let state = self.lock();
            let Some(gap) = state.gaps.holding(index).cloned() else {
                return Ok(None);
            };
            let mut segments = state.segments.iter();
            let segment = segments.find(|segment| segment.header.first_index == gap.at.segment_first_index);
            let Some(segment) = segment.filter(|segment| !segment.headless).cloned() else {
                return Ok(None);
            };
            (gap, segment)
        };
        let file = match segment.file.open(&*self.inner.open.disk) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None), // it is what is damaged
            file => file?,
        };
        let chain = gap.before.map(|join| join.chain);
        let mut scanner = Scanner::at(file, &segment, gap.at.position, gap.first, chain)?.heads_only();
        let mut found = None;
        let mut join = None;
        while scanner.next_index < gap.end {
            let Ok(Some((header, _))) = scanner.expect_header() else {
                return Ok(None);
            };
            found = found.or((header.id.index == index).then_some(header.id));
            join = Some(Join::behind(&header));
        }
        let proof = gap.behind.map(|behind| behind.proof);
        let is_proven = join.zip(proof).is_some_and(|(join, proof)| proof.follows_on(&join));
        Ok(found.filter(|_| is_proven))
    }

    /// Up to where a segment can be surveyed: to the next one, or to the end of what is committed and on disk.
    fn bound_of(&self, state: &LogState, segment: &Arc<Segment>) -> Option<Bound> {
        let first_index = segment.header.first_index;
        let behind = |other: &&Arc<Segment>| other.header.first_index > first_index;
        let written_end = self.inner.cached.written_end();
        match state.segments.iter().find(behind) {
            Some(next) => (written_end >= next.header.first_index).then(|| Bound::segment(next)),
            None => (written_end >= state.committed.next_index).then(|| Bound::committed(state)),
        }
    }

    /// Takes note of gaps among committed entries; true if that is news. The mark and a checkpoint follow, so that the damage lies
    /// inside, below both, at the next opening as well.
    pub(crate) fn note_damage(&self, state: &mut LogState, found: Vec<Gap>) -> bool {
        let committed_end = state.committed.next_index;
        let floor_end = state.floor_end();
        let inside = found
            .into_iter()
            .filter(|gap| gap.end <= committed_end && gap.end > floor_end);
        if !state.gaps.note(inside) {
            return false;
        }
        let ranges = state.gaps.ranges();
        tracing::error!(dir = %self.inner.open.dir.display(), ?ranges, "committed entries are damaged here");
        let mark = state.mark_here();
        let mut ops = vec![Op::Sync, state.hard.set_mark(mark)];
        self.push_checkpoint(state, &mut ops);
        let _ = self.inner.open.writer.submit(ops, Box::new(|_| {})); // refused: the writer has failed
        true
    }

    /// If `start` is damaged here and the first entry behind the damage still lies before what is looked for: that entry.
    pub(crate) fn skip_damage(&self, start: u64, before: impl Fn(&Header) -> bool) -> Result<Option<u64>, Error> {
        let Some(end) = self.lock().gaps.holding(start).map(|gap| gap.end) else {
            return Ok(None);
        };
        let frames = self.read(end, end + 1, 0)?;
        Ok(frames.first().filter(|frame| before(&frame.header)).map(|_| end))
    }
}

impl Inner {
    pub(crate) fn notify_damage(&self) {
        let notify = self.on_damage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(notify) = notify {
            notify();
        }
    }
}

impl LogState {
    /// Puts a segment that was made or mended in its place.
    fn put_segment(&mut self, segment: &Arc<Segment>) {
        let first_index = segment.header.first_index;
        match self
            .segments
            .binary_search_by_key(&first_index, |other| other.header.first_index)
        {
            Ok(place) => self.segments[place] = segment.clone(),
            Err(place) => self.segments.insert(place, segment.clone()),
        }
        if self.active.segment.header.first_index == first_index {
            self.active.segment = segment.clone();
        }
        self.loaded.retain(|other| other.header.first_index != first_index);
    }
}
