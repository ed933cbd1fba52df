//! What damage means for an opening. Below the state it starts from (the checkpoint, or the manifest) damage is inside: the log opens
//! with it. Behind that state entries must be folded, so damage up to the noted commit index must be refilled first; and damage to what
//! is not known to be committed, or to the log's end, is fatal to the replica.

use std::sync::Arc;

use crate::damage::{Behind, DamagedRange, Gap, Gaps, Proof};
use crate::directory::Directory;
use crate::disk::Disk;
use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::log::OpenLog;
use crate::segment::{Join, Place, Segment, segment_path};
use crate::survey::{Bound, From, survey};

/// Where the replay starts: behind this state, at this place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    pub(crate) join: Join,
    pub(crate) place: Place,
}

/// Reads what an opening must know of the segments.
pub(crate) struct Assessor<'a> {
    pub(crate) open: &'a OpenLog,
    pub(crate) directory: &'a Directory,
    pub(crate) start: Start,
}

impl Assessor<'_> {
    fn disk(&self) -> &dyn Disk {
        &*self.open.disk
    }

    /// Damage below the start that shows without reading frames: missing files, bad headers, and files that are not as long as their index
    /// says. Such segments are read to learn what exactly is bad.
    pub(crate) fn below(&self) -> Result<Gaps, Error> {
        let segments = &self.directory.segments;
        let (floor_end, end) = (self.directory.floor_end(), self.start.join.next_index);
        let below = segments.partition_point(|segment| segment.header.first_index < end);
        let mut gaps = Gaps::default();
        let first = segments.first().filter(|first| first.header.first_index <= end);
        let first_bound = first.map_or_else(|| self.start_bound(), |first| Bound::segment(first));
        gaps.note([Gap {
            first: floor_end,
            end: first_bound.index,
            at: Place {
                segment_first_index: floor_end,
                position: SEGMENT_HEADER_BYTES,
            },
            before: self
                .directory
                .manifest
                .as_ref()
                .map(|manifest| Join::at(&manifest.state)),
            behind: first_bound.behind,
        }]);
        for (place, segment) in segments[..below].iter().enumerate() {
            let next = segments.get(place + 1).filter(|next| next.header.first_index <= end);
            if segment.headless
                || next.is_some_and(|next| self.looks_short(segment, next))
                || self.lacks_end(segment, next)
            {
                let bound = next.map_or_else(|| self.start_bound(), |next| Bound::segment(next));
                gaps.note(survey(self.disk(), segment, From::start_of(segment), &bound)?);
            }
        }
        gaps.purge(floor_end);
        Ok(gaps)
    }

    fn start_bound(&self) -> Bound {
        let Start { join, place } = self.start;
        Bound {
            index: join.next_index,
            behind: Some(Behind {
                place,
                proof: Proof::Chain(join.chain),
            }),
        }
    }

    /// Whether a sealed segment does not reach the one behind it, as far as its index knows.
    fn looks_short(&self, segment: &Segment, next: &Segment) -> bool {
        segment.footer(self.disk()).is_some_and(|footer| {
            footer.last.index + 1 != next.header.first_index || self.length(segment) < footer.data_bytes
        })
    }

    /// Whether the part of a segment up to the start is not all there: the file of the start is another one, or ends before it.
    fn lacks_end(&self, segment: &Segment, next: Option<&Arc<Segment>>) -> bool {
        let Place {
            segment_first_index,
            position,
        } = self.start.place;
        next.is_none() && (segment.header.first_index != segment_first_index || self.length(segment) < position)
    }

    fn length(&self, segment: &Segment) -> u64 {
        let file = self.disk().open(&segment.file.path).ok(); // not kept open
        file.and_then(|file| file.len().ok()).unwrap_or(0)
    }

    /// All damage from the start up to the mark.
    pub(crate) fn behind_start(&self) -> Result<Gaps, Error> {
        let segments = &self.directory.segments;
        let Start { join, place } = self.start;
        let mut gaps = Gaps::default();
        let mut from = segments.partition_point(|segment| segment.header.first_index <= join.next_index);
        let holds = from
            .checked_sub(1)
            .and_then(|last| segments.get(last))
            .filter(|segment| {
                segment.header.first_index == place.segment_first_index || segment.header.first_index == join.next_index
            });
        match holds {
            Some(segment) => {
                let begins = segment.header.first_index != place.segment_first_index;
                let position = if begins { SEGMENT_HEADER_BYTES } else { place.position };
                let start = From {
                    position,
                    index: join.next_index,
                    join: Some(join),
                };
                gaps.note(survey(self.disk(), segment, start, &self.bound(from - 1))?);
            }
            None => {
                let bound = match segments.get(from) {
                    Some(next) => Bound::segment(next),
                    None => self.lost_end(),
                };
                gaps.note([Gap {
                    first: join.next_index,
                    end: bound.index,
                    at: place,
                    before: Some(join),
                    behind: bound.behind,
                }]);
            }
        }
        while let Some(segment) = segments.get(from) {
            if segment.header.first_index >= self.directory.certain_end() {
                break;
            }
            gaps.note(survey(
                self.disk(),
                segment,
                From::start_of(segment),
                &self.bound(from),
            )?);
            from += 1;
        }
        Ok(gaps)
    }

    fn lost_end(&self) -> Bound {
        Bound {
            index: self.directory.certain_end().max(self.start.join.next_index + 1),
            behind: None,
        }
    }

    /// The mark.
    pub(crate) fn marked(&self) -> Bound {
        let mark = self.directory.mark;
        let place = Place {
            segment_first_index: mark.segment_first_index,
            position: mark.position,
        };
        let holds = |segment: &&Arc<Segment>| segment.header.first_index == mark.segment_first_index;
        let segment = self.directory.segments.iter().find(holds);
        let there = segment.is_some_and(|segment| self.length(segment) >= mark.position);
        let behind = Behind {
            place,
            proof: Proof::Chain(mark.chain),
        };
        Bound {
            index: mark.index_end,
            behind: there.then_some(behind),
        }
    }

    /// Up to where a segment must be whole: to the next one, or to the mark if that lies in it.
    fn bound(&self, place: usize) -> Bound {
        let segments = &self.directory.segments;
        let (segment, next) = (&segments[place], segments.get(place + 1));
        let mark = self.directory.mark;
        let marked = mark.segment_first_index == segment.header.first_index
            && next.is_none_or(|next| mark.index_end < next.header.first_index);
        if marked {
            return self.marked();
        }
        next.map_or_else(|| self.lost_end(), |next| Bound::segment(next))
    }

    /// Whether the last certain entry's place is gone, and no later segment shows that the log went on. Then what came behind it, and may have
    /// been acknowledged since, is gone as well.
    fn end_is_lost(&self) -> Option<Place> {
        let (mark, segments) = (self.directory.mark, &self.directory.segments);
        let certain_end = self.directory.certain_end();
        if segments
            .iter()
            .any(|segment| !segment.headless && segment.header.first_index >= certain_end)
        {
            return None;
        }
        let marked = Place {
            segment_first_index: mark.segment_first_index,
            position: mark.position,
        };
        let further = mark.index_end >= self.start.join.next_index;
        let place = if further { marked } else { self.start.place };
        let holds = |segment: &&Arc<Segment>| segment.header.first_index == place.segment_first_index;
        let there = segments
            .iter()
            .find(holds)
            .is_some_and(|segment| self.length(segment) >= place.position);
        (!there).then_some(place)
    }

    /// What damage behind the start means: a refill, or the end of the replica.
    pub(crate) fn judge(&self, gaps: &Gaps) -> Error {
        let commit_end = self.directory.mark.commit_end.max(self.start.join.next_index);
        if let Some(place) = self.end_is_lost() {
            let path = segment_path(&self.open.dir, place.segment_first_index);
            let index = gaps.iter().last().map_or(self.directory.certain_end(), |gap| gap.first);
            return Error::dead(
                &path,
                place.position,
                index,
                "the log was synced up to here, and ends before",
            );
        }
        let fatal = gaps.iter().find(|gap| gap.behind.is_none() || gap.end > commit_end);
        if let Some(gap) = fatal {
            let path = segment_path(&self.open.dir, gap.at.segment_first_index);
            let why = match gap.behind {
                None => format!(
                    "the log ends here, but was synced up to entry {}",
                    i128::from(gap.end) - 1
                ),
                Some(_) => format!("only what lies below {commit_end} is known to be committed"),
            };
            return Error::dead(&path, gap.at.position, gap.first, why);
        }
        let ranges: Vec<DamagedRange> = gaps.ranges();
        Error::NeedsRefill {
            path: self.open.dir.clone(),
            ranges,
        }
    }
}
