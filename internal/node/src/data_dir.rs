//! The data directory: whose it is, which replicas it holds, and that only one process uses it.
//!
//! ```text
//! lock                          held with flock while a process lives; its content has no meaning
//! node                          cluster name, node name, incarnation, cluster id and founding plan once known
//! replicas                      every replica that was ever placed here, and how far its making came
//! audit                         how far the audit's chain of this node has come, now and then
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
//!   removed and made again, if the catalog does not know better (`first_start`). A `started` replica without its directory has lost votes and data: it is dead, and this
//!   module never makes it anew.
//! * A replica that was found dead is recorded as `dead` before anybody is told, and never opened again: what showed that it
//!   is dead may be forgotten by the next start.
//! * Files of a replica are removed only by [`DataDir::remove_replica`], which callers use for groups that a committed
//!   tombstone names.
//!
//! Deliberately absent: what is inside a log, and any knowledge of the catalog.

mod claim;
mod error;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use highwater_partition::log::{ClusterId, GroupId, ReplicaId};
use serde::{Deserialize, Serialize};

use crate::audit::End;
use crate::founding::Plan;
use crate::hex::Id;
use crate::record_file;

pub use error::DataDirError;

const LOCK_FILE: &str = "lock";
const NODE_FILE: &str = "node";
const REPLICAS_FILE: &str = "replicas";
const AUDIT_FILE: &str = "audit";
const GROUPS: &str = "groups";
const NODE_KIND: &str = "highwater-node";
const REPLICAS_KIND: &str = "highwater-replicas";
const AUDIT_KIND: &str = "highwater-audit";
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
    /// It has lost promises: it must never run again, also if nobody remembers any more what they were.
    Dead,
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

    pub(crate) fn id(&self) -> (GroupId, ReplicaId) {
        (self.group_id(), self.replica_id())
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
        claim::check_unclaimed(path)?;
        claim::create_private(path)?;
        let lock = claim::take_lock(path)?;
        let record = match record_file::read(&path.join(NODE_FILE), NODE_KIND)? {
            Some(record) => claim::check_owner(path, record, cluster, node)?,
            None => claim::make_record(path, cluster, node, incarnation)?,
        };
        let replicas: Vec<ReplicaRecord> =
            record_file::read(&path.join(REPLICAS_FILE), REPLICAS_KIND)?.unwrap_or_default();
        claim::create_private(&path.join(GROUPS))?;
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

    /// Notes that a replica must never run again.
    pub(crate) fn record_dead(&self, group: GroupId, replica: ReplicaId) -> Result<(), DataDirError> {
        self.update_replicas(|replicas| {
            replicas.insert((group.0, replica.0), Stage::Dead);
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

    /// Gives the directory of a replica, which must not be open, to another one of its group; done if that is so already. Whether
    /// there is one.
    pub(crate) fn hand_on(&self, group: GroupId, former: ReplicaId, to: ReplicaId) -> Result<bool, DataDirError> {
        let (from, path) = (self.replica_path(group, former), self.replica_path(group, to));
        if path.exists() {
            return Ok(true);
        }
        match fs::rename(&from, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            renamed => renamed.map_err(|error| DataDirError::io("rename", &from, error))?,
        }
        record_file::sync_directory(&self.path.join(GROUPS))?;
        Ok(true)
    }

    /// Deletes a replica, files and record. Only for those of which the catalog says that nobody needs them: of deleted groups, retired
    /// ones, and lost catalog replicas that have been replaced.
    pub(crate) fn remove_replica(&self, group: GroupId, replica: ReplicaId) -> Result<(), DataDirError> {
        remove_directory(&self.replica_path(group, replica))?;
        record_file::sync_directory(&self.path.join(GROUPS))?;
        self.update_replicas(|replicas| {
            replicas.remove(&(group.0, replica.0));
        })
    }

    /// Where the audit's chain of this node had come to when that was noted last.
    pub(crate) fn audit_end(&self) -> Result<Option<End>, DataDirError> {
        record_file::read(&self.path.join(AUDIT_FILE), AUDIT_KIND)
    }

    /// Notes where the audit's chain of this node has come to.
    pub(crate) fn note_audit_end(&self, end: &End) -> Result<(), DataDirError> {
        record_file::write(&self.path.join(AUDIT_FILE), AUDIT_KIND, end)
    }

    /// Where the replica's log is.
    pub(crate) fn replica_path(&self, group: GroupId, replica: ReplicaId) -> PathBuf {
        self.path.join(GROUPS).join(format!("{}-{}", group.0, replica.0))
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

fn remove_directory(path: &Path) -> Result<(), DataDirError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(DataDirError::io("remove", path, error)),
        _ => Ok(()),
    }
}
