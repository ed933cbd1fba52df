//! The small files of a log's directory, and a disk that nothing can be changed on.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use super::{HardStateReport, Inspection, MarkReport, StateReport};
use crate::checkpoint::CHECKPOINT;
use crate::disk::{Disk, DiskFile};
use crate::error::{Error, FormatError};
use crate::fold::State;
use crate::format::checkpoint::Checkpoint;
use crate::format::files::Slot;
use crate::hard_state::{HARD_STATE, read_slots};
use crate::manifest::{MANIFEST, MANIFEST_BYTES_MAX, Manifest};
use crate::segment::{read_whole, segment_first_index};

/// Refuses every change.
pub(super) struct ReadOnly<'a>(pub(super) &'a dyn Disk);

fn refused<T>() -> io::Result<T> {
    Err(ErrorKind::PermissionDenied.into())
}

impl Disk for ReadOnly<'_> {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn DiskFile>> {
        refused()
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.0.open_read_only(path)
    }
    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refused()
    }
    fn remove(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.0.list(path)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refused()
    }
}

/// What tells whether a log was changed.
#[derive(PartialEq, Eq)]
pub(super) struct Moment {
    /// First indexes of the segments.
    pub(super) segments: Vec<u64>,
    slots: Vec<Option<Slot>>,
}

pub(super) fn moment(disk: &dyn Disk, dir: &Path) -> Result<Moment, Error> {
    let names = disk.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let slots = match read_slots(disk, dir) {
        Ok(slots) => slots.into_iter().map(Result::ok).collect(),
        Err(_) => Vec::new(),
    };
    Ok(Moment {
        segments: names.iter().filter_map(|name| segment_first_index(name)).collect(),
        slots,
    })
}

/// Reads hard state, checkpoint and manifest.
pub(super) fn inspect(disk: &dyn Disk, inspection: &mut Inspection) -> Result<(), Error> {
    hard_state(disk, inspection)?;
    let dir = inspection.dir.clone();
    let decode = |bytes: &[u8]| Checkpoint::decode(bytes).map(|checkpoint| report(&checkpoint.state, bytes.len(), 0));
    inspection.checkpoint = state(disk, inspection, &dir.join(CHECKPOINT), decode)?;
    let decode = |bytes: &[u8]| {
        Manifest::decode(bytes).map(|manifest| report(&manifest.state, bytes.len(), manifest.machine.len()))
    };
    inspection.manifest = state(disk, inspection, &dir.join(MANIFEST), decode)?;
    Ok(())
}

fn hard_state(disk: &dyn Disk, inspection: &mut Inspection) -> Result<(), Error> {
    let path = inspection.dir.join(HARD_STATE);
    let slots = match read_slots(disk, &inspection.dir) {
        Err(error @ (Error::HardStateLost { .. } | Error::Format(_))) => {
            inspection.find(&path, 0, None, error.to_string());
            return Ok(());
        }
        slots => slots?,
    };
    for (slot, position) in slots.iter().zip([0, 4096]) {
        if let Err(error) = slot {
            inspection.find(&path, position, None, format!("one of the two slots is bad: {error}"));
        }
    }
    let good: Vec<Slot> = slots.into_iter().filter_map(Result::ok).collect();
    let newest = good.iter().max_by_key(|slot| slot.sequence);
    inspection.hard_state = newest.map(|slot| HardStateReport {
        identity: slot.identity,
        sequence: slot.sequence,
        good_slots: good.len(),
        vote: slot.vote,
        mark: MarkReport {
            segment_first_index: slot.mark.segment_first_index,
            position: slot.mark.position,
            last_term: slot.mark.last_term,
            end_index: slot.mark.index_end,
            chain: slot.mark.chain,
            commit_end: slot.mark.commit_end,
        },
    });
    Ok(())
}

fn state(
    disk: &dyn Disk,
    inspection: &mut Inspection,
    path: &Path,
    decode: impl Fn(&[u8]) -> Result<StateReport, FormatError>,
) -> Result<Option<StateReport>, Error> {
    let decoded = match read_whole(disk, path, MANIFEST_BYTES_MAX) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(Error::Format(error)) => Err(error),
        bytes => decode(&bytes?),
    };
    match decoded {
        Ok(report) => Ok(Some(report)),
        Err(error) => {
            inspection.find(path, 0, None, error.to_string());
            Ok(None)
        }
    }
}

fn report(state: &State, bytes: usize, machine_bytes: usize) -> StateReport {
    StateReport {
        bytes: bytes as u64,
        last: state.last_entry(),
        log_start: state.log_start,
        log_end: state.log_end,
        chain: state.chain,
        append_time_ms: state.append_time_ms,
        producers: state.producer_count(),
        groups: state.groups.len(),
        machine_bytes,
    }
}
