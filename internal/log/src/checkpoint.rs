//! The checkpoint file: the committed state, so that a start replays little. It is derived from the log and may be missing or old;
//! it must never be ahead of the synced log.

use std::path::Path;

use crate::disk::Disk;
use crate::error::Error;
use crate::format::checkpoint::Checkpoint;
use crate::ids::Identity;
use crate::segment::read_whole;

/// Name of the file.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Most bytes of a checkpoint that is read.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Reads the checkpoint. None if there is none or it is not whole: then the log is replayed from its first entry.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, identity: Identity) -> Result<Option<Checkpoint>, Error> {
    let path = dir.join(CHECKPOINT);
    let decoded = match read_whole(disk, &path, FILE_BYTES_MAX) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(Error::Format(error)) => Err(error),
        result => Checkpoint::decode(&result?),
    };
    let checkpoint = match decoded {
        Ok(checkpoint) => checkpoint,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the checkpoint is bad; the log is replayed without it");
            return Ok(None);
        }
    };
    if (checkpoint.cluster_id, checkpoint.group_id) != (identity.cluster_id, identity.group_id) {
        tracing::warn!(path = %path.display(), "the checkpoint belongs to another group; the log is replayed without it");
        return Ok(None);
    }
    Ok(Some(checkpoint))
}
