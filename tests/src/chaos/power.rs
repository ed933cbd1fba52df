//! Pulling the plug of a mounted file system.
//!
//! Linux can shut a file system down in place: from that moment nothing reaches the device any more, and every call on
//! the mount fails. What was not synced stays unsynced; after unmounting and mounting again the file system recovers
//! from its journal as after a power failure. The device's own cache is not part of this: it is memory of a running
//! kernel, so writes that the file system had handed to the device are kept, in order.

use std::fs::File;
use std::io;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// What becomes of the journal when the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Journal {
    /// It reaches the device first: metadata is newer than the data that it tells of, the nastier picture.
    Flushed,
    /// It is lost as everything else.
    Lost,
}

/// `EXT4_IOC_SHUTDOWN`, which XFS and others have under the same number.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
const FLUSH_JOURNAL: u32 = 1;
const LOSE_JOURNAL: u32 = 2;

/// Cuts the power of the file system on which `root` is an open directory.
#[allow(unsafe_code)]
pub(crate) fn cut(root: &File, journal: Journal) -> io::Result<()> {
    let flags = match journal {
        Journal::Flushed => FLUSH_JOURNAL,
        Journal::Lost => LOSE_JOURNAL,
    };
    // SAFETY: the kernel's contract for this number is a pointer to one readable u32 that lives for the call, which is
    // what `Setter<_, u32>` passes. The kernel writes nothing to it, and file systems that do not know the number refuse.
    unsafe { ioctl(root, Setter::<SHUTDOWN, u32>::new(flags))? };
    Ok(())
}
