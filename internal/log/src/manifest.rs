//! The manifest: what remains of the entries that were purged. It holds the state folded up to the floor, and the checkpoint of the
//! group's machine there, if the group has one. With it the log is complete without those entries; it is also what a replica gets that
//! is behind the floor of all others.
//!
//! Invariants: a manifest on disk is never behind the first entry that is there by more than a gap that is known as damage; it never
//! goes back.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::Disk;
use crate::error::{Error, FormatError};
use crate::fold::State;
use crate::format::files::SegmentHeader;
use crate::format::manifest;
use crate::ids::{ClusterId, EntryId, GroupId, Identity};
use crate::segment::{Join, read_whole};

/// Name of the file.
pub(crate) const MANIFEST: &str = "manifest";
/// Most bytes of a manifest.
pub const MANIFEST_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The state folded up to and including the floor, and the machine's checkpoint there. Equal on every replica with the same floor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub(crate) cluster_id: ClusterId,
    pub(crate) group_id: GroupId,
    pub(crate) state: State,
    pub(crate) machine: Bytes,
}

impl Manifest {
    /// The floor: the last entry that is folded in.
    pub fn last(&self) -> EntryId {
        self.state.last
    }

    /// The state behind [`Manifest::last`].
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The machine's checkpoint at the floor, opaque; empty if the group has no machine.
    pub fn machine(&self) -> &Bytes {
        &self.machine
    }

    /// The same with this checkpoint of the machine; it must be the one at [`Manifest::last`].
    pub fn with_machine(self, machine: Bytes) -> Manifest {
        Manifest { machine, ..self }
    }

    /// The versioned, checksummed bytes, on disk and on the wire.
    pub fn encode(&self) -> Bytes {
        Bytes::from(manifest::encode(self))
    }

    /// Reads them back.
    pub fn decode(bytes: &[u8]) -> Result<Manifest, FormatError> {
        manifest::decode(bytes)
    }

    /// Refuses a manifest of another group.
    pub fn check_group(&self, identity: &Identity) -> Result<(), FormatError> {
        if self.cluster_id != identity.cluster_id {
            return Err(FormatError::Invalid {
                field: "cluster id of a manifest, first byte",
                value: self.cluster_id.0[0].into(),
            });
        }
        if self.group_id != identity.group_id {
            return Err(FormatError::Invalid {
                field: "group id of a manifest",
                value: self.group_id.0,
            });
        }
        Ok(())
    }

    /// The header of a segment that begins right behind the floor.
    pub(crate) fn next_segment(&self, identity: &Identity) -> SegmentHeader {
        Join::at(&self.state).header(identity)
    }
}

/// Reads the manifest. None if there is none, or if it is not whole: then what it stood for is missing, like a segment that is.
pub(crate) fn read(disk: &dyn Disk, dir: &Path, identity: &Identity) -> Result<Option<Arc<Manifest>>, Error> {
    let path = dir.join(MANIFEST);
    let decoded = match read_whole(disk, &path, MANIFEST_BYTES_MAX) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(Error::Format(error)) => Err(error),
        bytes => Manifest::decode(&bytes?),
    };
    let checked = decoded.and_then(|manifest| manifest.check_group(identity).map(|()| manifest));
    match checked {
        Ok(manifest) => Ok(Some(Arc::new(manifest))),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the manifest is bad");
            Ok(None)
        }
    }
}
