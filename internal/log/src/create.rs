//! Creating a log directory.

use bytes::Bytes;

use crate::error::Error;
use crate::fold::State;
use crate::format::files::{Mark, SEGMENT_HEADER_BYTES};
use crate::hard_state::{HARD_STATE, HardState};
use crate::log::OpenLog;
use crate::round::replace_file;
use crate::segment::{Join, segment_path};

/// Makes the directory of an empty log, all synced.
pub(crate) fn create(open: &OpenLog) -> Result<(), Error> {
    let OpenLog {
        dir, identity, disk, ..
    } = open;
    disk.create_dir(dir).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: dir.clone() },
        _ => Error::io("create", dir, error),
    })?;
    let state = State::empty(identity.cluster_id, identity.group_id);
    let header = Join::at(&state).header(identity);
    let path = segment_path(dir, 0);
    let file = disk.create(&path).map_err(|error| Error::io("create", &path, error))?;
    let head = Bytes::from(header.encode());
    file.write_at(&[head], 0)
        .map_err(|error| Error::io("write", &path, error))?;
    file.sync().map_err(|error| Error::io("sync", &path, error))?;
    let mark = Mark {
        segment_first_index: 0,
        position: SEGMENT_HEADER_BYTES,
        last_term: 0,
        index_end: 0,
        chain: state.chain,
        commit_end: 0,
    };
    replace_file(
        &**disk,
        &dir.join(HARD_STATE),
        Bytes::from(HardState::initial(*identity, mark)),
    )?;
    disk.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    let parent = dir.parent().unwrap_or(dir);
    disk.sync_dir(parent).map_err(|error| Error::io("sync", parent, error))
}

/// Whether the directory holds no more than an interrupted [`create`] may leave: the hard state comes last, so everything but it, and
/// no entry.
pub(crate) fn is_unfinished(open: &OpenLog) -> Result<bool, Error> {
    let OpenLog { dir, disk, .. } = open;
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        names => names.map_err(|error| Error::io("list", dir, error))?,
    };
    let first = segment_path(dir, 0);
    for path in names.iter().map(|name| dir.join(name)) {
        if path == dir.join(HARD_STATE).with_extension("tmp") {
            continue;
        }
        let entries = path != first || {
            let file = disk.open(&path).map_err(|error| Error::io("open", &path, error))?;
            file.len().map_err(|error| Error::io("read", &path, error))? > SEGMENT_HEADER_BYTES
        };
        if entries {
            return Ok(false);
        }
    }
    Ok(true)
}
