//! What an opening found becomes certain.
//!
//! A file is read from the page cache, and what stands there need not be on the disk, nor get there. A killed process leaves pages that are
//! still to be written: a sync is enough for them. But a *failed* sync leaves pages that count as written and are not: a process that
//! opens the log while the machine goes on reads them, its own sync succeeds without writing anything, and a power cut takes them all the
//! same. So nothing counts because it was found and a sync succeeded; it counts because this process wrote it, and then synced it:
//!
//! * **Segments** are written again from the last place on that a successful sync is known for ([`Findings::certain`]), with the
//!   header if that is in question, and their length is set again. It is the part behind the mark, so it takes as long as that part is long.
//! * **Hard state**: the slot that holds is written again. The other one is older, and was synced before this one was written. If the mark
//!   in it never reached the disk, what lies below it did: it was written behind a sync of that.
//! * **Checkpoint and manifest** need no more than the sync of the directory. They were synced under another name before they were renamed; if that had
//!   failed they would not have been.
//! * **Names** (new files, renames, removals) are no pages. File systems keep them in a journal; one that cannot write its journal stops,
//!   and every later sync fails. The log's own name in the directory above is synced too: `create` may have been killed just before.
//! * **Refilled frames and mended headers** are damage again if they are lost: what stands below the mark is not put right twice.
//!
//! What is written is what stands there already, so a crash in the middle of it changes nothing, however little of it was done.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{Disk, DiskFile};
use crate::error::Error;
use crate::format::files::SEGMENT_HEADER_BYTES;
use crate::hard_state::HardState;
use crate::log::OpenLog;
use crate::mutant;
use crate::round::{LogFile, Round};
use crate::segment::{Place, Segment};

/// Bytes that are read and written again at once.
const PIECE_BYTES: u64 = 1024 * 1024;

/// What is to be changed on the disk once it is clear that the log can be opened.
pub(crate) struct Findings {
    /// Segments whose header was bad and is known again.
    pub(crate) mended: Vec<Arc<Segment>>,
    /// Segments that were read.
    pub(crate) replayed: Vec<Arc<Segment>>,
    /// Where files end, of those that are longer.
    pub(crate) cuts: Vec<(Arc<LogFile>, u64)>,
    /// Segments behind the end of the log, last first.
    pub(crate) beyond: Vec<Arc<Segment>>,
    /// Everything before this place was synced with success.
    pub(crate) certain: Place,
}

impl Findings {
    /// Removes what is behind the end, and makes the rest certain.
    pub(crate) fn settle(&self, open: &OpenLog, hard: &HardState) -> Result<(), Error> {
        let OpenLog { dir, disk, .. } = open;
        self.remove_beyond(&**disk)?;
        for segment in &self.mended {
            tracing::warn!(path = %segment.file.path.display(), "putting the segment's header right");
            let (path, header) = (&segment.file.path, Bytes::from(segment.header.encode()));
            let written = segment.file.open(&**disk)?.write_at(&[header], 0);
            written.map_err(|error| Error::io("write", path, error))?;
        }
        for (file, position) in &self.cuts {
            let cut = file.open(&**disk)?.set_len(*position);
            cut.map_err(|error| Error::io("cut", &file.path, error))?;
        }
        for segment in &self.replayed {
            let (file, path) = (segment.file.open(&**disk)?, &segment.file.path);
            self.write_again(segment, &*file)?;
            file.sync().map_err(|error| Error::io("sync", path, error))?;
        }
        if !is_trusting() {
            Round::new(&**disk, 0).run(vec![vec![hard.again()]])?;
        }
        for dir in [Some(dir.as_path()), dir.parent()].into_iter().flatten() {
            disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        }
        Ok(())
    }

    fn remove_beyond(&self, disk: &dyn Disk) -> Result<(), Error> {
        for segment in &self.beyond {
            tracing::warn!(path = %segment.file.path.display(), "removing a segment behind the end of the log");
            for path in [&segment.file.path, &segment.index_path()] {
                match disk.remove(path) {
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    result => result.map_err(|error| Error::io("remove", path, error))?,
                }
            }
        }
        Ok(())
    }

    /// Where what may not be on the disk begins in a segment; None: nowhere.
    fn doubtful(&self, segment: &Segment) -> Option<u64> {
        let first_index = segment.header.first_index;
        if first_index < self.certain.segment_first_index {
            return None;
        }
        if first_index > self.certain.segment_first_index || self.certain.position <= SEGMENT_HEADER_BYTES {
            return Some(0);
        }
        Some(self.certain.position)
    }

    fn write_again(&self, segment: &Segment, file: &dyn DiskFile) -> Result<(), Error> {
        let path = &segment.file.path;
        let Some(mut position) = self.doubtful(segment).filter(|_| !is_trusting()) else {
            return Ok(());
        };
        let end = file.len().map_err(|error| Error::io("read", path, error))?;
        while position < end {
            let piece = read_piece(file, path, position, PIECE_BYTES.min(end - position))?;
            let bytes = piece.len() as u64;
            let written = file.write_at(&[piece], position);
            written.map_err(|error| Error::io("write", path, error))?;
            position += bytes;
        }
        file.set_len(end).map_err(|error| Error::io("cut", path, error))
    }
}

fn read_piece(file: &dyn DiskFile, path: &Path, position: u64, bytes: u64) -> Result<Bytes, Error> {
    let mut piece = vec![0; usize::try_from(bytes).unwrap_or(0)];
    let read = file.read_at(&mut piece, position);
    let count = read.map_err(|error| Error::io("read", path, error))?;
    if count < piece.len() {
        let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        return Err(Error::io("read", path, short));
    }
    Ok(Bytes::from(piece))
}

/// The mistake of one mutant: what was found counts after a mere sync.
fn is_trusting() -> bool {
    mutant!("page cache trusted")
}
