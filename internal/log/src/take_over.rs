//! A log that goes on under another replica id.
//!
//! Whose log a directory holds stands in its hard state and nowhere else: frames, segments and checkpoints know only the group. So a
//! replica takes over the log of a former one by a hard state of its own, with the same vote and mark. It is written aside and renamed, so
//! the log is at every moment either the one's or the other's.

use bytes::Bytes;

use crate::error::Error;
use crate::hard_state::{HARD_STATE, HardState};
use crate::ids::{Identity, ReplicaId};
use crate::log::OpenLog;
use crate::round::replace_file;

/// Gives the log in `open.dir`, which must not be open, from the replica `former` to the one of `open.identity`; done if it is that one's
/// already. Synced before it returns. Errors are those of reading a hard state.
pub fn take_over(open: &OpenLog, former: ReplicaId) -> Result<(), Error> {
    let OpenLog {
        dir, disk, identity, ..
    } = open;
    let before = Identity {
        replica_id: former,
        ..*identity
    };
    let hard = match HardState::read(&**disk, dir, before) {
        Err(Error::WrongIdentity { found, .. }) if *found == *identity => return Ok(()),
        read => read?,
    };
    let bytes = Bytes::from(hard.bytes_for(*identity));
    replace_file(&**disk, &dir.join(HARD_STATE), bytes)?;
    disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
}
