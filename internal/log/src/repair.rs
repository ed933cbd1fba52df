//! Mending a log that cannot be opened, because entries are damaged that have to be folded. Its vote, mark and end are whole, so once
//! the entries are put back from any replica that has them, it opens as if nothing had happened.

use std::sync::Arc;

use crate::damage::{DamagedRange, Gap};
use crate::entry::Frame;
use crate::error::{Error, Grade};
use crate::fold::State;
use crate::log::{Log, OpenLog};
use crate::manifest::{MANIFEST, Manifest};
use crate::recovery::{Damaged, Recovered, recover};
use crate::refill::{self, Files, Unfit};
use crate::round::{Op, Round};
use crate::scan::{Scanned, Scanner};
use crate::segment::{Join, Segment};
use crate::survey::Bound;
use crate::tail::LogState;

/// A closed log that needs entries from another replica (`Error::NeedsRefill`). Blocking; the directory must not be open otherwise.
///
/// Invariant: at most one of `damaged` and `whole` is there.
pub struct Repair {
    open: OpenLog,
    damaged: Option<Damaged>,
    /// What the last look at the log came to, once nothing is missing, until it is taken.
    whole: Option<Box<LogState>>,
}

impl Repair {
    /// For a log that was looked at just now, see [`Log::open_or_repair`]. One that is dead gives the same error as an opening.
    pub(crate) fn of(open: OpenLog, damaged: Damaged) -> Result<Repair, Error> {
        match damaged.error.grade() {
            Grade::Inside => Ok(Repair {
                open,
                damaged: Some(damaged),
                whole: None,
            }),
            _ => Err(damaged.error),
        }
    }

    fn look(&mut self) -> Result<(), Error> {
        (self.damaged, self.whole) = match recover(&self.open)? {
            Recovered::Open(state) => (None, Some(state)),
            Recovered::Damaged(damaged) if damaged.error.grade() == Grade::Inside => (Some(*damaged), None),
            Recovered::Damaged(damaged) => return Err(damaged.error),
        };
        Ok(())
    }

    /// The log, open, if nothing is missing any more; once. It was read as a whole to know that, which takes long in a large log, and is not
    /// read again.
    pub fn take_log(&mut self) -> Option<Log> {
        let state = self.whole.take()?;
        Some(Log::with_state(self.open.clone(), *state))
    }

    /// The entries that are missing; empty if the log can be opened. Those below the checkpoint may be among them: if nobody has those,
    /// the log may well open without.
    pub fn damage(&self) -> Vec<DamagedRange> {
        self.damaged
            .as_ref()
            .map(|damaged| damaged.gaps.ranges())
            .unwrap_or_default()
    }

    /// Like [`crate::Log::refill`], with the same checks; on return the frames are synced.
    pub fn refill(&mut self, frames: &[Frame]) -> Result<(), Error> {
        let Some(first) = frames.first().map(|frame| frame.header.id.index) else {
            return Ok(());
        };
        let Some(damaged) = &mut self.damaged else {
            return Err(Error::refill(first, "nothing is damaged"));
        };
        let gap = damaged.gaps.holding(first).filter(|gap| gap.first == first).cloned();
        let gap = gap.ok_or_else(|| Error::refill(first, "no damaged range begins there"))?;
        let before = join_before(&self.open, damaged, &gap)?;
        let files = Files {
            dir: &self.open.dir,
            identity: &self.open.identity,
            segment_bytes_max: self.open.config.segment_bytes_max,
            segments: &damaged.segments,
        };
        let plan = match refill::plan(&files, &gap, before, frames) {
            Ok(plan) => plan,
            Err(Unfit::Frames(error)) => return Err(error),
            Err(Unfit::Behind(error)) => {
                // What was taken for good frames behind the gap only looks like it.
                let next = damaged
                    .segments
                    .iter()
                    .find(|segment| segment.header.first_index > gap.end);
                let bound = next.map(|next| Bound::segment(next)).or_else(|| damaged.end.clone());
                damaged
                    .gaps
                    .note(bound.map(|bound| gap.widened(bound.index, bound.behind)));
                return Err(error);
            }
        };
        Round::new(&*self.open.disk, 0).run(vec![plan.ops])?;
        for segment in plan.mended {
            let first_index = segment.header.first_index;
            damaged.segments.retain(|other| other.header.first_index != first_index);
            damaged.segments.push(segment);
        }
        damaged.segments.sort_by_key(|segment| segment.header.first_index);
        damaged.gaps.filled(first, plan.left);
        if damaged.gaps.is_empty() {
            self.look()?;
        }
        Ok(())
    }

    /// What another replica can have from this closed log, as from [`crate::Log::read_for_refill`]: whole entries from `start` on, below
    /// `end` and what is noted as committed, about `bytes_max` bytes of one segment. Empty if there are none.
    pub fn read_for_refill(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Frame>, Error> {
        let Some(damaged) = &self.damaged else {
            return Ok(Vec::new());
        };
        let (hard, _) = crate::directory::Directory::read(&self.open)?;
        let gap = damaged.gaps.after(start).map_or(u64::MAX, |gap| gap.first);
        let end = end.min(hard.mark().commit_end).min(gap);
        let holds = |segment: &&Arc<Segment>| segment.header.first_index <= start && !segment.headless;
        let segment = damaged.segments.iter().rev().find(holds);
        let Some(segment) = segment.filter(|_| damaged.gaps.holding(start).is_none()) else {
            return Ok(Vec::new());
        };
        let mut scanner = scanner_before(&self.open, damaged, segment, start)?;
        let (mut found, mut bytes) = (Vec::new(), 0);
        while scanner.next_index < end && bytes < bytes_max {
            match scanner.next()? {
                Scanned::Frame(frame) if frame.header.id.index < start => {}
                Scanned::Frame(frame) => {
                    bytes += frame.len_bytes();
                    found.push(frame);
                }
                // The next segment begins, or damage that nobody has surveyed: what was found is whole all the same.
                Scanned::End | Scanned::Bad(_) => break,
            }
        }
        Ok(found)
    }

    /// Another replica's manifest instead of one that is lost, or of entries that nobody has any more: what lies below it is not
    /// needed then. It must not reach beyond what is known to be committed here.
    pub fn replace_manifest(&mut self, manifest: &Manifest) -> Result<(), Error> {
        manifest.check_group(&self.open.identity)?;
        let (hard, _) = crate::directory::Directory::read(&self.open)?;
        let (last, committed_end) = (manifest.last(), hard.mark().commit_end);
        if last.index >= committed_end {
            return Err(Error::NotCommitted {
                index: last.index,
                committed_end,
            });
        }
        let replace = Op::Replace {
            path: self.open.dir.join(MANIFEST),
            bytes: manifest.encode(),
        };
        Round::new(&*self.open.disk, 0).run(vec![vec![replace]])?;
        self.look()
    }
}

/// What the first frame of the gap follows on.
fn join_before(open: &OpenLog, damaged: &Damaged, gap: &Gap) -> Result<Join, Error> {
    if let Some(before) = gap.before {
        return Ok(before);
    }
    if gap.first == 0 {
        return Ok(Join::at(&State::empty(
            open.identity.cluster_id,
            open.identity.group_id,
        )));
    }
    let holds = |segment: &&Arc<Segment>| segment.header.first_index < gap.first;
    let segment = damaged.segments.iter().rev().find(holds);
    let segment = segment.ok_or_else(|| Error::refill(gap.first, "the entry before it is not here"))?;
    let mut scanner = scanner_before(open, damaged, segment, gap.first)?;
    let mut join = None;
    while scanner.next_index < gap.first
        && let Some((header, _)) = scanner.expect_header()?
    {
        join = Some(Join::behind(&header));
    }
    join.ok_or_else(|| Error::refill(gap.first, "the entry before it is not here"))
}

/// A scanner of the segment that holds the entry before `index`: from behind the last gap before it, or from the start.
fn scanner_before(open: &OpenLog, damaged: &Damaged, segment: &Segment, index: u64) -> Result<Scanner, Error> {
    let resume = damaged
        .gaps
        .before(index)
        .and_then(|before| before.behind.clone().map(|behind| (before.end, behind.place)));
    let resume = resume.filter(|(_, place)| place.segment_first_index == segment.header.first_index);
    let file = segment.file.open(&*open.disk)?;
    match resume {
        Some((index, place)) => Scanner::at(file, segment, place.position, index, None),
        None => Scanner::from_start(file, segment, u64::MAX),
    }
}
