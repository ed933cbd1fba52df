//! The data directory: whose it is, which replicas it holds, and that only one process uses it.
//!
//! ```text
//! lock                          held with flock while a process lives; its content has no meaning
//! node                          cluster name, node name, incarnation, cluster id and founding plan once known
//! replicas                      every replica that was ever placed here, and how far its making came
//! groups/GROUP-REPLICA/         one log (internal/log)
//! ```
//!
//! Rules kept here:
//!
//! * A directory belongs to one node of one cluster for ever. The incarnation is drawn when `node` is first written: a
//!   wiped directory is another incarnation.
//! * A cluster id, once recorded, is never replaced.
//! * A replica is started empty at most once. It is recorded as `preparing` before its log is made and as `started`
//!   before its Raft core first runs. A crash in between leaves `preparing`: it never ran, so what there is of it is
//!   removed and made again. A `started` replica without its directory has lost votes and data: it is dead, and this
//!   module never makes it anew.
//! * Files of a replica are removed only by [`DataDir::remove_replica`], which callers use for groups that a committed
//!   tombstone names.
//!
//! Deliberately absent: what is inside a log, and any knowledge of the catalog.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::founding::Plan;
use crate::hex::{self, Id};
use crate::record_file;

const NODE_FILE: &str = "node";
const REPLICAS_FILE: &str = "replicas";
const NODE_KIND: &str = "highwater-node";
const REPLICAS_KIND: &str = "highwater-replicas";

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("data directory {path} is in use by another process", path = path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// It belongs to another node or another cluster.
    #[error("data directory {path} belongs to {what} `{found}`, not to `{wanted}`", path = path.display())]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// `node`, `cluster` or `cluster id`.
        what: &'static str,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A file in it is not what this version writes, or is damaged.
    #[error("{path}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system refused an operation.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried: `create`, `write`, …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

impl DataDirError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: std::io::Error) -> Self {
        DataDirError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    }

    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            DataDirError::InUse { .. } => "end the other process, or give this node its own `data_dir`",
            DataDirError::Foreign { .. } => "point `data_dir` at this node's own directory, or at an empty one",
            DataDirError::Damaged { .. } => {
                "restore the file, or give the node an empty directory: the other nodes hold its data"
            }
            DataDirError::Io { .. } => "check that the path exists, is writable by this user, and has space",
        }
    }
}

/// The `node` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeRecord {
    cluster: String,
    node: String,
    incarnation: Id,
    cluster_id: Option<Id>,
    /// On founding members: whom the cluster was to be founded with.
    plan: Option<Plan>,
}

/// How far the making of a replica came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stage {
    /// Its Raft core has never run.
    Preparing,
    /// Its Raft core may have run: it must never again begin empty.
    Started,
}

/// One replica that was placed here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReplicaRecord {
    pub(crate) group: u64,
    pub(crate) replica: u64,
    pub(crate) stage: Stage,
}

impl ReplicaRecord {
    pub(crate) fn group_id(&self) -> GroupId {
        GroupId(self.group)
    }

    pub(crate) fn replica_id(&self) -> ReplicaId {
        ReplicaId(self.replica)
    }
}

struct Records {
    node: NodeRecord,
    /// By group and replica.
    replicas: BTreeMap<(u64, u64), Stage>,
}

/// The data directory of this process. Its lock is held until [`DataDir::release`] or the end of the process.
pub(crate) struct DataDir {
    path: PathBuf,
    records: Mutex<Records>,
    lock: Mutex<Option<File>>,
}

impl DataDir {
    /// Takes the directory for `node` of `cluster`, making it if needed; `incarnation` is used only if it is new.
    pub(crate) fn open(path: &Path, cluster: &str, node: &str, incarnation: Id) -> Result<DataDir, DataDirError> {
        create_private(path)?;
        let lock = take_lock(path)?;
        let record = match record_file::read(&path.join(NODE_FILE), NODE_KIND)? {
            Some(record) => check_owner(path, record, cluster, node)?,
            None => make_record(path, cluster, node, incarnation)?,
        };
        let replicas: Vec<ReplicaRecord> =
            record_file::read(&path.join(REPLICAS_FILE), REPLICAS_KIND)?.unwrap_or_default();
        create_private(&path.join("groups"))?;
        record_file::sync_directory(path)?;
        let replicas = replicas
            .into_iter()
            .map(|record| ((record.group, record.replica), record.stage))
            .collect();
        Ok(DataDir {
            path: path.to_owned(),
            records: Mutex::new(Records { node: record, replicas }),
            lock: Mutex::new(Some(lock)),
        })
    }

    /// Lets another process have the directory. The last thing that is done with it.
    pub(crate) fn release(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn incarnation(&self) -> Id {
        self.records().node.incarnation
    }

    pub(crate) fn cluster_id(&self) -> Option<ClusterId> {
        self.records().node.cluster_id.map(|id| ClusterId(id.0))
    }

    pub(crate) fn plan(&self) -> Option<Plan> {
        self.records().node.plan.clone()
    }

    /// Whether nothing of any cluster was ever recorded here.
    pub(crate) fn is_empty(&self) -> bool {
        let records = self.records();
        records.node.cluster_id.is_none() && records.replicas.is_empty()
    }

    /// Records, durably, that this node belongs to the cluster. Refused if another id is recorded.
    pub(crate) fn record_cluster(&self, cluster_id: ClusterId, plan: Option<Plan>) -> Result<(), DataDirError> {
        let mut records = self.records();
        let recorded = records.node.cluster_id;
        let id = Id(cluster_id.0);
        if let Some(recorded) = recorded.filter(|recorded| *recorded != id) {
            return Err(DataDirError::Foreign {
                path: self.path.clone(),
                what: "cluster id",
                found: recorded.to_string(),
                wanted: id.to_string(),
            });
        }
        let mut node = records.node.clone();
        node.cluster_id = Some(id);
        node.plan = plan.or(node.plan);
        if node == records.node {
            return Ok(());
        }
        record_file::write(&self.path.join(NODE_FILE), NODE_KIND, &node)?;
        records.node = node;
        Ok(())
    }

    /// Every replica that was placed here, in order of group.
    pub(crate) fn replicas(&self) -> Vec<ReplicaRecord> {
        let records = self.records();
        let record = |(&(group, replica), &stage): (&(u64, u64), &Stage)| ReplicaRecord { group, replica, stage };
        records.replicas.iter().map(record).collect()
    }

    /// Notes new replicas before anything is made of them. Known ones stay as they are.
    pub(crate) fn record_preparing(&self, new: &[(GroupId, ReplicaId)]) -> Result<(), DataDirError> {
        self.update_replicas(|replicas| {
            for (group, replica) in new {
                replicas.entry((group.0, replica.0)).or_insert(Stage::Preparing);
            }
        })
    }

    /// Notes that the replicas' Raft cores are about to run for the first time.
    pub(crate) fn record_started(&self, prepared: &[(GroupId, ReplicaId)]) -> Result<(), DataDirError> {
        self.update_replicas(|replicas| {
            for (group, replica) in prepared {
                replicas.insert((group.0, replica.0), Stage::Started);
            }
        })
    }

    /// Removes what is left of an interrupted preparation, so that the log can be made.
    pub(crate) fn clear_preparing(&self, group: GroupId, replica: ReplicaId) -> Result<(), DataDirError> {
        let stage = self.records().replicas.get(&(group.0, replica.0)).copied();
        assert_eq!(
            stage,
            Some(Stage::Preparing),
            "clearing replica {replica:?} of {group:?}"
        );
        remove_directory(&self.replica_path(group, replica))
    }

    /// Deletes a replica, files and record. Only for groups that a committed tombstone names.
    pub(crate) fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), DataDirError> {
        remove_directory(&self.replica_path(group, replica))?;
        record_file::sync_directory(&self.path.join("groups"))?;
        self.update_replicas(|replicas| {
            replicas.remove(&(group.0, replica.0));
        })
    }

    /// Where the replica's log is.
    pub(crate) fn replica_path(&self, group: GroupId, replica: ReplicaId) -> PathBuf {
        self.path.join("groups").join(format!("{}-{}", group.0, replica.0))
    }

    fn update_replicas(&self, change: impl FnOnce(&mut BTreeMap<(u64, u64), Stage>)) -> Result<(), DataDirError> {
        let mut records = self.records();
        let mut replicas = records.replicas.clone();
        change(&mut replicas);
        if replicas == records.replicas {
            return Ok(());
        }
        let list: Vec<ReplicaRecord> = replicas
            .iter()
            .map(|(&(group, replica), &stage)| ReplicaRecord { group, replica, stage })
            .collect();
        record_file::write(&self.path.join(REPLICAS_FILE), REPLICAS_KIND, &list)?;
        records.replicas = replicas;
        Ok(())
    }

    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn create_private(path: &Path) -> Result<(), DataDirError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| DataDirError::io("create", path, error))?;
    let metadata = fs::metadata(path).map_err(|error| DataDirError::io("read", path, error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(path, private).map_err(|error| DataDirError::io("restrict access to", path, error))?;
    }
    Ok(())
}

fn take_lock(path: &Path) -> Result<File, DataDirError> {
    let lock_path = path.join("lock");
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

fn check_owner(path: &Path, record: NodeRecord, cluster: &str, node: &str) -> Result<NodeRecord, DataDirError> {
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
fn make_record(path: &Path, cluster: &str, node: &str, incarnation: Id) -> Result<NodeRecord, DataDirError> {
    let leftover = [REPLICAS_FILE, "groups"]
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

fn remove_directory(path: &Path) -> Result<(), DataDirError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DataDirError::io("remove", path, error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(path, "prod", "a", Id([7; 16]))
    }

    #[test]
    fn an_incarnation_outlives_the_process_but_not_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        assert_eq!(open(&path).unwrap().incarnation(), Id([7; 16]));
        let again = DataDir::open(&path, "prod", "a", Id([8; 16])).unwrap();
        assert_eq!(again.incarnation(), Id([7; 16]));
        drop(again);
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(
            DataDir::open(&path, "prod", "a", Id([8; 16])).unwrap().incarnation(),
            Id([8; 16])
        );
    }

    #[test]
    fn a_directory_is_private_and_used_by_one_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(matches!(open(&path), Err(DataDirError::InUse { .. })));
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn a_directory_of_another_node_or_cluster_is_refused_naming_both() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()).unwrap());
        let other_node = DataDir::open(directory.path(), "prod", "b", Id([1; 16]))
            .err()
            .unwrap()
            .to_string();
        assert!(
            other_node.contains("node `a`") && other_node.contains("`b`"),
            "{other_node}"
        );
        let other_cluster = DataDir::open(directory.path(), "test", "a", Id([1; 16]))
            .err()
            .unwrap()
            .to_string();
        assert!(
            other_cluster.contains("cluster `prod`") && other_cluster.contains("`test`"),
            "{other_cluster}"
        );
    }

    #[test]
    fn a_recorded_cluster_id_is_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let data = open(directory.path()).unwrap();
        assert!(data.is_empty());
        data.record_cluster(ClusterId([1; 16]), None).unwrap();
        data.record_cluster(ClusterId([1; 16]), None).unwrap();
        assert!(matches!(
            data.record_cluster(ClusterId([2; 16]), None),
            Err(DataDirError::Foreign { .. })
        ));
        drop(data);
        let again = open(directory.path()).unwrap();
        assert_eq!(again.cluster_id(), Some(ClusterId([1; 16])));
        assert!(!again.is_empty());
    }

    #[test]
    fn a_started_replica_is_never_taken_for_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let replica = (GroupId(3), ReplicaId(9));
        let data = open(directory.path()).unwrap();
        data.record_preparing(&[replica]).unwrap();
        data.record_started(&[replica]).unwrap();
        data.record_preparing(&[replica]).unwrap();
        drop(data);
        let records = open(directory.path()).unwrap().replicas();
        let started = ReplicaRecord {
            group: 3,
            replica: 9,
            stage: Stage::Started,
        };
        assert_eq!(records, [started]);
    }

    #[test]
    fn an_interrupted_preparation_is_cleared_and_a_removed_replica_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let (group, replica) = (GroupId(3), ReplicaId(9));
        let data = open(directory.path()).unwrap();
        data.record_preparing(&[(group, replica)]).unwrap();
        let path = data.replica_path(group, replica);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("half"), "x").unwrap();
        data.clear_preparing(group, replica).unwrap();
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        data.record_started(&[(group, replica)]).unwrap();
        data.remove_replica(group, replica).unwrap();
        assert!(!path.exists());
        assert!(data.replicas().is_empty());
    }

    #[test]
    fn replicas_without_an_identity_are_damage_not_a_new_directory() {
        let directory = tempfile::tempdir().unwrap();
        let data = open(directory.path()).unwrap();
        data.record_preparing(&[(GroupId(1), ReplicaId(1))]).unwrap();
        drop(data);
        fs::remove_file(directory.path().join(NODE_FILE)).unwrap();
        assert!(matches!(open(directory.path()), Err(DataDirError::Damaged { .. })));
    }
}
