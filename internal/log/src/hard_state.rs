//! The hard state: vote, identity and mark. Two checksummed slots are written in turn, so a torn write costs at most the slot that was
//! being written, and the other holds what was certain before. Both bad means that the vote is lost: an error, never a default.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::entry::Vote;
use crate::error::{Error, FormatError};
use crate::format::chain_origin;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES, SLOT_BYTES, Slot};
use crate::ids::Identity;
use crate::mutant;
use crate::round::{LogFile, Op};
use crate::segment::read_whole;

/// Name of the file.
pub(crate) const HARD_STATE: &str = "hard-state";
/// Where the two slots stand: a page apart, so that one bad page cannot take both.
const SLOT_POSITIONS: [u64; 2] = [0, 4096];
const FILE_BYTES_MAX: u64 = 8192;

/// The hard state as last queued for the disk.
pub(crate) struct HardState {
    file: Arc<LogFile>,
    slot: Slot,
    /// In how many slots the present vote stands. The second copy is written when the log is quiet, so that later damage to one slot
    /// does not bring back an older vote.
    vote_copies: u32,
}

impl HardState {
    /// The bytes of the first hard state: both slots, without a vote.
    pub(crate) fn initial(identity: Identity, mark: Mark) -> Vec<u8> {
        let slot = Slot {
            sequence: 0,
            identity,
            vote: None,
            mark,
        };
        both_slots(slot)
    }

    /// The bytes of a hard state like this one, of another replica.
    pub(crate) fn bytes_for(&self, identity: Identity) -> Vec<u8> {
        // Which of the two slots holds is decided by the sequence alone; an even one stands in the first.
        let sequence = self.slot.sequence.next_multiple_of(2);
        both_slots(Slot {
            sequence,
            identity,
            ..self.slot
        })
    }

    /// Reads the newer good slot; refuses foreign ones.
    pub(crate) fn read(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<HardState, Error> {
        let path = dir.join(HARD_STATE);
        let lost = |why: String| Error::HardStateLost {
            path: path.clone(),
            why,
        };
        let slots = read_slots(disk, dir)?;
        let (slot, vote_copies) = match slots {
            [Ok(one), Ok(two)] if one.sequence == two.sequence => {
                return Err(lost(format!("both slots have sequence {}", one.sequence)));
            }
            [Ok(one), Ok(two)] => {
                let newer = if one.sequence > two.sequence { one } else { two };
                (newer, if one.vote == two.vote { 2 } else { 1 })
            }
            [Ok(slot), Err(error)] | [Err(error), Ok(slot)] => {
                tracing::warn!(path = %path.display(), %error, "one slot of the hard state is bad; the other holds");
                (slot, 1)
            }
            [Err(_), Err(_)] if mutant!("dead replica votes") => (unvoted(identity), 0),
            [Err(one), Err(two)] => return Err(lost(format!("{one}; {two}"))),
        };
        if slot.identity != identity {
            let (expected, found) = (Box::new(identity), Box::new(slot.identity));
            return Err(Error::WrongIdentity { path, expected, found });
        }
        Ok(HardState {
            file: LogFile::new(path),
            slot,
            vote_copies,
        })
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.slot.vote
    }

    pub(crate) fn mark(&self) -> Mark {
        self.slot.mark
    }

    /// Whether the present vote stands in both slots.
    pub(crate) fn is_doubled(&self) -> bool {
        self.vote_copies >= 2
    }

    pub(crate) fn file(&self) -> &LogFile {
        &self.file
    }

    /// Takes the vote and says what to write.
    pub(crate) fn set_vote(&mut self, vote: Vote) -> Op {
        if self.slot.vote != Some(vote) {
            self.slot.vote = Some(vote);
            self.vote_copies = 0;
        }
        self.overwrite()
    }

    /// The mistake of one mutant.
    pub(crate) fn forget_vote(&mut self) -> Op {
        self.slot.vote = None;
        self.overwrite()
    }

    /// Takes the mark and says what to write.
    pub(crate) fn set_mark(&mut self, mark: Mark) -> Op {
        self.slot.mark = mark;
        self.overwrite()
    }

    fn overwrite(&mut self) -> Op {
        self.slot.sequence += 1;
        self.vote_copies += 1;
        self.again()
    }

    /// What writes the slot that holds once more.
    pub(crate) fn again(&self) -> Op {
        let position = SLOT_POSITIONS[(self.slot.sequence % 2) as usize];
        Op::Overwrite {
            file: self.file.clone(),
            position,
            bytes: Bytes::from(self.slot.encode()),
        }
    }
}

/// A file with the same in both slots.
fn both_slots(slot: Slot) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sequence, position) in (slot.sequence..).zip(SLOT_POSITIONS) {
        bytes.resize(position as usize, 0);
        bytes.extend_from_slice(&Slot { sequence, ..slot }.encode());
    }
    bytes
}

/// The mistake of one mutant: an empty hard state instead of the lost one.
fn unvoted(identity: Identity) -> Slot {
    let mark = Mark {
        segment_first_index: 0,
        position: SEGMENT_HEADER_BYTES,
        last_term: 0,
        index_end: 0,
        chain: chain_origin(identity.cluster_id, identity.group_id),
        commit_end: 0,
    };
    Slot {
        sequence: 0,
        identity,
        vote: None,
        mark,
    }
}

/// Both slots, good or bad.
pub(crate) fn read_slots(disk: &dyn Disk, dir: &Path) -> Result<[Result<Slot, FormatError>; 2], Error> {
    let path = dir.join(HARD_STATE);
    let lost = |why: String| Error::HardStateLost {
        path: path.clone(),
        why,
    };
    let bytes = read_whole(disk, &path, FILE_BYTES_MAX).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => lost("it is missing".into()),
        Error::Format(error) => lost(error.to_string()),
        error => error,
    })?;
    Ok(SLOT_POSITIONS.map(|position| {
        let start = bytes.len().min(position as usize);
        let end = bytes.len().min(start + SLOT_BYTES);
        Slot::decode(&bytes[start..end])
    }))
}
