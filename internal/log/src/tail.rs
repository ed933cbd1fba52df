//! The log in memory: the committed state, the state at the tail, and the entries between them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::damage::Gaps;
use crate::entry::{Decision, Entry, Frame, Header, Kind};
use crate::error::Error;
use crate::fold::{Item, State};
use crate::format::crc32c;
use crate::format::detail::{Detail, Parts};
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES};
use crate::format::frame::{chain_of, encode_head};
use crate::hard_state::HardState;
use crate::ids::{EntryId, Identity};
use crate::index::SparseIndex;
use crate::log::DECISIONS_KEPT;
use crate::manifest::Manifest;
use crate::mutant;
use crate::scrub::Scrubbing;
use crate::segment::{Active, Join, Place, Segment, point_of};
use crate::trim::Leaving;

/// Sparse indexes of sealed segments kept in memory, of each log.
const INDEXES_LOADED_MAX: usize = 16;

/// Everything a log knows; behind one lock, held briefly.
///
/// Invariants: `pending` are the entries from `committed.next_index` up to `tail.next_index`; folding them into `committed` gives
/// `tail`. `segments` is not empty, in order, and its last one is `active.segment`.
pub(crate) struct LogState {
    pub(crate) committed: State,
    /// Where the entry behind the committed ones stands or will stand.
    pub(crate) committed_at: Place,
    pub(crate) tail: State,
    pub(crate) pending: VecDeque<Pending>,
    /// The last committed batches that were proposed here, and what was decided about them: nobody else waits for an answer.
    pub(crate) decided: VecDeque<(EntryId, Decision)>,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) active: Active,
    /// Sealed segments whose index is loaded, oldest first.
    pub(crate) loaded: VecDeque<Arc<Segment>>,
    pub(crate) hard: HardState,
    /// Counts truncations and other changes of files below the tail: what was read from disk under an older generation may be mixed.
    pub(crate) generation: u64,
    /// Last committed entry as known when the log was opened.
    pub(crate) noted_commit: Option<EntryId>,
    /// What remains of the purged entries.
    pub(crate) manifest: Option<Arc<Manifest>>,
    /// The purged segments whose files may still be there.
    pub(crate) leaving: Leaving,
    /// Damage among committed entries.
    pub(crate) gaps: Gaps,
    /// Whether the disk was read since the last rest.
    pub(crate) was_read: bool,
    /// Where the scrubber stands.
    pub(crate) scrub: Scrubbing,
    /// When the log last changed, by the clock.
    pub(crate) changed_ms: u64,
    /// Bytes of all entries appended since the log was opened, also of those that were truncated again.
    pub(crate) appended_bytes: u64,
    pub(crate) checkpoint: CheckpointNote,
}

/// What the last checkpoint covers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CheckpointNote {
    pub(crate) next_index: u64,
    pub(crate) noted_ms: u64,
}

/// An entry that is appended but not committed.
pub(crate) struct Pending {
    pub(crate) header: Header,
    detail: Detail,
    /// Header and detail, encoded.
    head: Bytes,
    membership: Option<Bytes>,
    pub(crate) decision: Decision,
    /// Whether this replica proposed it.
    proposed: bool,
    /// Where the frame stands.
    pub(crate) position: u64,
    /// Where the next one stands, unless a segment begins there.
    pub(crate) end: Place,
}

/// An entry that the tail has taken in, not yet placed in a file.
pub(crate) struct Folded {
    pub(crate) frame: Frame,
    detail: Detail,
    decision: Decision,
    proposed: bool,
}

impl Pending {
    fn item(&self) -> Item<'_> {
        item(
            &self.header,
            &self.detail,
            &self.head[crate::format::frame::HEADER_BYTES..],
            self.membership.as_ref(),
        )
    }
}

/// What the fold is given of a frame.
pub(crate) fn item<'a>(
    header: &Header,
    detail: &'a Detail,
    detail_bytes: &'a [u8],
    membership: Option<&'a Bytes>,
) -> Item<'a> {
    Item {
        id: header.id,
        kind: header.kind,
        compression: header.compression,
        append_time_ms: header.append_time_ms,
        detail,
        detail_bytes,
        payload_bytes: header.payload_bytes,
        payload_crc: header.payload_crc,
        membership,
    }
}

impl LogState {
    /// Takes the next entry in at the tail. On an error the tail is as before this entry.
    pub(crate) fn fold_entry(&mut self, entry: Entry, now_ms: u64) -> Result<Folded, Error> {
        let id = entry.id();
        if id.index != self.tail.next_index || id.term < self.tail.last.term {
            let (next_index, term_min) = (self.tail.next_index, self.tail.last.term);
            return Err(Error::NotContiguous {
                next_index,
                term_min,
                found: id,
            });
        }
        match entry {
            Entry::Proposed { id, body } => {
                body.check()?;
                Ok(self.fold_proposed(id, Parts::of(body), now_ms))
            }
            Entry::Replicated(frame) => self.fold_replicated(frame),
        }
    }

    fn fold_proposed(&mut self, id: EntryId, parts: Parts, now_ms: u64) -> Folded {
        let Parts {
            kind,
            compression,
            detail,
            payload,
        } = parts;
        let detail_bytes = detail.encode();
        let payload_crc = match &detail {
            Detail::Batch(batch) => batch.payload_crc, // checked against the payload already
            _ => crc32c(&payload),
        };
        let (decision, header) = self.tail.fold(&Item {
            id,
            kind,
            compression,
            append_time_ms: self.append_time_ms(id, now_ms),
            detail: &detail,
            detail_bytes: &detail_bytes,
            payload_bytes: u32::try_from(payload.len()).unwrap_or(u32::MAX), // checked against its limit already
            payload_crc,
            membership: (kind == Kind::Membership).then_some(&payload),
        });
        let payload = if header.payload_bytes == 0 {
            Bytes::new()
        } else {
            payload
        };
        Folded {
            frame: Frame {
                head: encode_head(&header, &detail_bytes),
                payload,
                header,
            },
            detail,
            decision,
            proposed: true,
        }
    }

    /// An entry of term 0 is made by no leader: every member makes the group's first entry for itself. It carries no time,
    /// so that all of them make the same bytes.
    fn append_time_ms(&self, id: EntryId, now_ms: u64) -> u64 {
        let time_ms = if id.term == 0 { 0 } else { now_ms };
        time_ms.max(self.tail.append_time_ms)
    }

    /// Folds another replica's frame; this replica must come to the same header.
    pub(crate) fn fold_replicated(&mut self, frame: Frame) -> Result<Folded, Error> {
        let detail = frame.detail()?;
        let received = &frame.header;
        let diverged = |why: String| Error::Diverged { id: received.id, why };
        if received.append_time_ms < self.tail.append_time_ms {
            let (found, last) = (received.append_time_ms, self.tail.append_time_ms);
            return Err(diverged(format!(
                "append time {found} ms is below the previous entry's {last} ms"
            )));
        }
        let chain = chain_of(self.tail.chain, received, frame.detail_bytes());
        let unchecked = mutant!("follower's verdict unchecked") || mutant!("stale frame accepted after truncation");
        if chain != received.chain && !unchecked {
            return Err(diverged(format!(
                "chain {:#x} does not follow on, {chain:#x} would",
                received.chain
            )));
        }
        if let Detail::Batch(batch) = &detail
            && received.record_count > 0
            && batch.payload_crc != received.payload_crc
        {
            return Err(diverged("the payload's CRC is not the one proposed".into()));
        }
        let membership = (received.kind == Kind::Membership).then_some(&frame.payload);
        let (decision, header) = self
            .tail
            .fold(&item(received, &detail, frame.detail_bytes(), membership));
        if header != *received && !unchecked {
            let why = format!("decided {header:?} here, received {received:?}");
            self.rebuild_tail();
            return Err(Error::Diverged { id: header.id, why });
        }
        let head = encode_head(&header, frame.detail_bytes()); // a small copy, so that `pending` keeps no network buffer alive
        Ok(Folded {
            frame: Frame {
                header,
                head,
                payload: frame.payload,
            },
            detail,
            decision,
            proposed: false,
        })
    }

    /// Makes the tail again from the committed state and what is pending.
    pub(crate) fn rebuild_tail(&mut self) {
        self.tail = self.committed.clone();
        for pending in &self.pending {
            self.tail.fold(&pending.item());
        }
    }

    /// Places a folded entry at the end of the active segment; returns its frame and position.
    pub(crate) fn place(&mut self, folded: Folded) -> (Frame, u64) {
        let Folded {
            frame,
            detail,
            decision,
            proposed,
        } = folded;
        let position = self.active.end;
        self.active.end += frame.len_bytes() as u64;
        self.appended_bytes += frame.len_bytes() as u64;
        self.active.sparse.add(point_of(&frame.header, position));
        self.active.before = Join::behind(&frame.header);
        self.pending.push_back(Pending {
            membership: (frame.header.kind == Kind::Membership).then(|| frame.payload.clone()),
            header: frame.header.clone(),
            detail,
            head: frame.head.clone(),
            decision,
            proposed,
            position,
            end: self.active_end(),
        });
        (frame, position)
    }

    pub(crate) fn active_end(&self) -> Place {
        Place {
            segment_first_index: self.active.segment.header.first_index,
            position: self.active.end,
        }
    }

    /// Seals the active segment and makes the next one, which begins with `first`.
    pub(crate) fn roll(&mut self, dir: &Path, identity: &Identity, first: &Header) {
        debug_assert_eq!(
            first.id.index, self.active.before.next_index,
            "a segment begins behind the last entry"
        );
        let segment = Segment::new(dir, self.active.before.header(identity));
        self.seal_active();
        self.segments.push(segment.clone());
        self.active.segment = segment;
        self.active.end = SEGMENT_HEADER_BYTES;
    }

    /// Lets go of the active segment's file, and keeps its index. The caller makes another segment active.
    pub(crate) fn seal_active(&mut self) {
        let sparse = std::mem::replace(
            &mut self.active.sparse,
            SparseIndex::covering_from(SEGMENT_HEADER_BYTES),
        );
        let sealed = self.active.segment.sealed(sparse);
        if let Some(last) = self.segments.last_mut() {
            *last = sealed.clone();
        }
        self.note_loaded(sealed);
    }

    /// Keeps the number of loaded indexes bounded. Those of segments that may still be truncated stay.
    pub(crate) fn note_loaded(&mut self, segment: Arc<Segment>) {
        self.loaded.retain(|other| !Arc::ptr_eq(other, &segment));
        self.loaded.push_back(segment);
        let settled = self.committed_at.segment_first_index;
        if self.loaded.len() > INDEXES_LOADED_MAX
            && let Some(oldest) = self.loaded.iter().position(|other| other.header.first_index < settled)
            && let Some(oldest) = self.loaded.remove(oldest)
        {
            oldest.unload();
        }
    }

    /// Lets go of everything that can be made again when it is needed.
    pub(crate) fn rest(&mut self) {
        if std::mem::take(&mut self.was_read) {
            return; // readers are at it; perhaps the next time
        }
        self.loaded.drain(..).for_each(|segment| segment.unload());
        self.active.segment.file.release();
        self.hard.file().release();
        if self.pending.is_empty() {
            self.pending.shrink_to_fit();
            self.decided = VecDeque::new();
        }
    }

    /// Moves the commit point to `index_end` (exclusive), at most to the tail.
    pub(crate) fn commit_to(&mut self, index_end: u64) -> Result<(), Error> {
        while self.committed.next_index < index_end {
            let Some(pending) = self.pending.pop_front() else {
                return Ok(());
            };
            let (decision, header) = self.committed.fold(&pending.item());
            if (decision, &header) != (pending.decision, &pending.header) {
                let why = format!("at the tail {:?}, at the commit point {header:?}", pending.header);
                return Err(Error::Diverged { id: header.id, why });
            }
            self.committed_at = pending.end;
            if pending.proposed && header.kind == Kind::Batch {
                self.remember(header.id, decision);
            }
        }
        Ok(())
    }

    fn remember(&mut self, id: EntryId, decision: Decision) {
        if self.decided.len() == DECISIONS_KEPT {
            self.decided.pop_front();
        }
        self.decided.push_back((id, decision));
    }

    /// The entry with this index, if it is pending.
    pub(crate) fn pending(&self, index: u64) -> Option<&Pending> {
        let skip = index.checked_sub(self.committed.next_index)?;
        self.pending.get(usize::try_from(skip).ok()?)
    }

    /// What was decided about the entry with this index, if it is remembered.
    pub(crate) fn decided(&self, index: u64) -> Option<(EntryId, Decision)> {
        if let Some(pending) = self.pending(index) {
            return Some((pending.header.id, pending.decision));
        }
        let place = self.decided.binary_search_by_key(&index, |(id, _)| id.index).ok()?;
        self.decided.get(place).copied()
    }

    /// First index that is not purged.
    pub(crate) fn floor_end(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.state.next_index)
    }

    /// Which segment holds the entry with this index.
    pub(crate) fn segment_of(&self, index: u64) -> usize {
        self.segments
            .partition_point(|segment| segment.header.first_index <= index)
            .saturating_sub(1)
    }

    /// The mark for the present end of the log. It may be written only behind a sync of everything queued before.
    pub(crate) fn mark_here(&self) -> Mark {
        let end = self.active_end();
        Mark {
            segment_first_index: end.segment_first_index,
            position: end.position,
            last_term: self.tail.last.term,
            index_end: self.tail.next_index,
            chain: self.tail.chain,
            commit_end: self.committed.next_index,
        }
    }

    /// Drops everything from `first` on, which must be pending. Returns the segments that are gone, last first.
    pub(crate) fn drop_from(&mut self, first: u64, position: u64) -> Vec<Arc<Segment>> {
        self.pending
            .truncate(usize::try_from(first - self.committed.next_index).unwrap_or(usize::MAX));
        self.rebuild_tail();
        let keep = self.segment_of(first);
        let mut gone = self.segments.split_off(keep + 1);
        gone.reverse();
        let segment = self.segments[keep].clone();
        if !Arc::ptr_eq(&segment, &self.active.segment) {
            let loaded = segment.loaded().map(|sparse| (*sparse).clone());
            self.active.sparse = loaded.unwrap_or_else(|| SparseIndex::covering_from(position));
            self.active.segment = segment;
        }
        self.loaded
            .retain(|segment| segment.header.first_index < self.active.segment.header.first_index);
        self.active.sparse.truncate(first, position);
        self.active.end = position;
        self.active.before = Join::at(&self.tail);
        self.generation += 1;
        gone
    }
}
