//! The rules of the data directory.

#![allow(clippy::unwrap_used)]
use std::os::unix::fs::PermissionsExt;

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

/// What `open` says about a directory that holds these files.
fn open_with(files: &[&str]) -> Result<DataDir, DataDirError> {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(directory.path().join(file), "mine").unwrap();
    }
    open(directory.path())
}

#[test]
fn a_directory_of_somebody_else_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.join("letter.txt"), "dear").unwrap();
    let refused = open(&home).err().unwrap();
    assert!(
        matches!(&refused, DataDirError::NotOurs { found, .. } if found == "letter.txt"),
        "{refused}"
    );
    let names: Vec<_> = fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["letter.txt"]);
    assert_eq!(fs::metadata(&home).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_new_volume_and_what_a_crash_left_before_there_was_an_identity_are_as_good_as_empty() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("lost+found")).unwrap();
    open(directory.path()).unwrap();
    open_with(&["lock", "node.tmp"]).unwrap();
    assert!(matches!(
        open_with(&["node.tmp", "other"]),
        Err(DataDirError::NotOurs { .. })
    ));
}

#[test]
fn what_stands_beside_an_identity_is_not_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    fs::write(directory.path().join("notes"), "mine").unwrap();
    open(directory.path()).unwrap();
}

#[test]
fn missing_parents_are_made_too() {
    let directory = tempfile::tempdir().unwrap();
    open(&directory.path().join("several/levels/down")).unwrap();
}

#[test]
fn a_dead_replica_is_still_dead_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let replica = (GroupId(7), ReplicaId(9));
    let data = open(directory.path()).unwrap();
    data.record_preparing(&[replica]).unwrap();
    data.record_started(&[replica]).unwrap();
    data.record_dead(replica.0, replica.1).unwrap();
    data.release();
    drop(data);
    let stages: Vec<Stage> = open(directory.path())
        .unwrap()
        .replicas()
        .iter()
        .map(|record| record.stage)
        .collect();
    assert_eq!(stages, [Stage::Dead]);
}
