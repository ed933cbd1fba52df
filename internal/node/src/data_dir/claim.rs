//! Taking a data directory: that it is ours to take, that nobody else has it, and whose it is.
//!
//! Until it is known to be ours or empty, nothing in it is touched: what is named by mistake may be somebody's home.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::{DataDirError, GROUPS, LOCK_FILE, NODE_FILE, NODE_KIND, NodeRecord, REPLICAS_FILE};
use crate::hex::{self, Id};
use crate::record_file;

/// What may lie in a directory that has no identity yet: what a crash may have left of ours before there was one, and
/// what a new file system comes with.
const HARMLESS: [&str; 7] = [
    LOCK_FILE,
    NODE_FILE,
    "node.tmp",
    REPLICAS_FILE,
    "replicas.tmp",
    GROUPS,
    "lost+found",
];

/// Refuses a directory that holds other people's things: they are neither ours to hide from them nor safe with us.
pub(super) fn check_unclaimed(path: &Path) -> Result<(), DataDirError> {
    if path.join(NODE_FILE).exists() {
        return Ok(());
    }
    let reading = |error| DataDirError::io("read", path, error);
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(reading(error)),
    };
    for entry in entries {
        let name = entry.map_err(reading)?.file_name();
        if !HARMLESS.iter().any(|harmless| name == *harmless) {
            return Err(DataDirError::NotOurs {
                path: path.to_owned(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// Makes the directory if needed, durably, and closes it to others.
pub(super) fn create_private(path: &Path) -> Result<(), DataDirError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| DataDirError::io("create", path, error))?;
    for parent in missing.iter().filter_map(|path| path.parent()) {
        // The parent of a relative path of one name is the empty path.
        let is_here = parent.as_os_str().is_empty();
        record_file::sync_directory(if is_here { Path::new(".") } else { parent })?;
    }
    let metadata = fs::metadata(path).map_err(|error| DataDirError::io("read", path, error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, private).map_err(|error| DataDirError::io("restrict access to", path, error))?;
    }
    Ok(())
}

pub(super) fn take_lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join(LOCK_FILE);
    let opened = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path);
    let lock = opened.map_err(|error| DataDirError::io("open", &lock_path, error))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DataDirError::InUse { path: path.to_owned() }),
        Err(error) => Err(DataDirError::io("lock", &lock_path, error.into())),
    }
}

pub(super) fn check_owner(
    path: &Path,
    record: NodeRecord,
    cluster: &str,
    node: &str,
) -> Result<NodeRecord, DataDirError> {
    let foreign = |what, found: &str, wanted: &str| DataDirError::Foreign {
        path: path.to_owned(),
        what,
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    };
    if record.cluster != cluster {
        return Err(foreign("cluster", &record.cluster, cluster));
    }
    if record.node != node {
        return Err(foreign("node", &record.node, node));
    }
    Ok(record)
}

/// Makes the identity of a new directory. One that holds replicas but no identity is not new: it is damaged.
pub(super) fn make_record(path: &Path, cluster: &str, node: &str, incarnation: Id) -> Result<NodeRecord, DataDirError> {
    let leftover = [REPLICAS_FILE, GROUPS]
        .iter()
        .map(|name| path.join(name))
        .find(|path| holds_something(path));
    if let Some(leftover) = leftover {
        return Err(DataDirError::Damaged {
            path: path.join(NODE_FILE),
            why: format!("is missing, but {} is there", leftover.display()),
        });
    }
    let record = NodeRecord {
        cluster: cluster.to_owned(),
        node: node.to_owned(),
        incarnation,
        cluster_id: None,
        plan: None,
    };
    record_file::write(&path.join(NODE_FILE), NODE_KIND, &record)?;
    tracing::info!(path = %path.display(), incarnation = %hex::encode(&incarnation.0), "new data directory");
    Ok(record)
}

fn holds_something(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}
