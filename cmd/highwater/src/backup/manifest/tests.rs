//! The golden file was written by the first version, and must be read for ever.

#![allow(clippy::unwrap_used)]

use super::*;

fn manifest() -> Manifest {
    let topic = Topic {
        tenant: "shop".to_owned(),
        name: "orders".to_owned(),
        replication: 3,
        retention_ms: None,
        retention_bytes: Some(5),
        leader_rack: String::new(),
        partitions: vec![Partition {
            partition: 0,
            first_offset: 10,
            end_offset: 25,
            file_bytes: 12,
            sha256: "00".repeat(32),
        }],
        groups: Vec::new(),
    };
    Manifest {
        topics: vec![topic],
        ..new(("test".to_owned(), "1234".to_owned()), 5)
    }
}

fn read_with(change: impl FnOnce(&mut Manifest)) -> Result<Manifest> {
    let directory = tempfile::tempdir().unwrap();
    let mut manifest = manifest();
    change(&mut manifest);
    manifest.write(directory.path()).unwrap();
    Manifest::read(directory.path())
}

/// With something in every field.
fn full() -> Manifest {
    let policy = Policy {
        rules: vec![Rule {
            subject: "shop/web".to_owned(),
            domain: "shop".to_owned(),
            resource: "topic:secret".to_owned(),
            action: "consume".to_owned(),
            deny: true,
        }],
        grants: vec![Grant {
            client: "shop/*".to_owned(),
            role: "owner".to_owned(),
            domain: "shop".to_owned(),
        }],
    };
    let mut full = manifest();
    full.made_by = "0.1.0".to_owned();
    full.cluster_policy = Some(Policy::default());
    full.tenants.push(Tenant {
        name: "shop".to_owned(),
        suspended: false,
        quota: Quota::from([("topics".to_owned(), 5)]),
        client_quotas: BTreeMap::from([("*".to_owned(), Quota::from([("streams".to_owned(), 8)]))]),
        policy,
    });
    full.topics[0].groups.push(GroupOffset {
        group: "billing".to_owned(),
        partition: 0,
        offset: 17,
    });
    full
}

#[test]
fn the_golden_file_is_read_as_it_was_written() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backup/golden");
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        full().write(Path::new(path)).unwrap();
        return;
    }
    assert_eq!(Manifest::read(Path::new(path)).unwrap(), full());
    let text = sealed(&serde_json::to_vec_pretty(&full()).unwrap());
    assert_eq!(text, fs::read(Path::new(path).join(FILE)).unwrap());
}

#[test]
fn it_comes_back_as_it_was_and_is_json() {
    assert_eq!(read_with(|_| {}).unwrap(), manifest());
    let text = sealed(&serde_json::to_vec_pretty(&manifest()).unwrap());
    let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(value["topics"][0]["name"], "orders");
    assert_eq!(value["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn any_flipped_bit_and_any_cut_is_found() {
    let text = sealed(&serde_json::to_vec_pretty(&manifest()).unwrap());
    for place in 0..text.len() {
        let mut flipped = text.clone();
        flipped[place] ^= 1 << (place % 8);
        assert!(unsealed(&flipped).is_err(), "byte {place}");
        assert!(unsealed(&text[..place]).is_err(), "cut at {place}");
    }
    assert!(unsealed(&text).is_ok());
}

#[test]
fn a_newer_version_and_another_document_are_refused() {
    let newer = read_with(|manifest| manifest.version = 2).unwrap_err();
    assert!(newer.message.contains("version 2"), "{newer}");
    let other = read_with(|manifest| manifest.format = "song book".to_owned()).unwrap_err();
    assert!(other.message.contains("song book"), "{other}");
}

#[test]
fn a_name_cannot_lead_out_of_the_directory() {
    for name in ["../orders", "a/b", "", ".."] {
        let refused = read_with(|manifest| manifest.topics[0].name = name.to_owned()).unwrap_err();
        assert!(refused.message.contains("not a valid name"), "{refused}");
        assert!(read_with(|manifest| manifest.topics[0].tenant = name.to_owned()).is_err());
    }
}

#[test]
fn offsets_and_partitions_that_cannot_be_are_refused() {
    assert!(read_with(|manifest| manifest.topics[0].partitions[0].first_offset = 26).is_err());
    assert!(read_with(|manifest| manifest.topics[0].partitions[0].partition = 1).is_err());
    let on = GroupOffset {
        group: "g".to_owned(),
        partition: 1,
        offset: 0,
    };
    assert!(read_with(|manifest| manifest.topics[0].groups.push(on)).is_err());
}

#[test]
fn a_limit_that_nobody_knows_is_refused_before_anything_is_restored() {
    let directory = tempfile::tempdir().unwrap();
    let mut manifest = full();
    manifest.tenants[0].quota.insert("wishes".to_owned(), 3);
    manifest.write(directory.path()).unwrap();
    let refused = Manifest::read(directory.path()).unwrap_err();
    assert!(refused.message.contains("wishes"), "{refused}");
}

#[test]
fn a_directory_without_it_is_told_apart_from_an_unfinished_backup() {
    let directory = tempfile::tempdir().unwrap();
    let told = |directory: &Path| Manifest::read(directory).unwrap_err().message;
    assert!(told(directory.path()).contains("there is no backup"));
    fs::create_dir(directory.path().join(RECORDS)).unwrap();
    assert!(told(directory.path()).contains("did not come to its end"));
}

#[test]
fn what_could_not_be_read_again_is_refused_before_it_is_written() {
    let most = BYTES_MAX / PARTITION_BYTES_MAX;
    assert!(manifest().check_room(most as usize - 10).is_ok());
    let refused = manifest().check_room(most as usize + 1).unwrap_err();
    assert_eq!(refused.code, Code::Refused);
    assert!(
        refused.message.contains(FILE) && refused.message.contains("268435456"),
        "{refused}"
    );
    assert!(check_bytes(5, 5).is_ok() && check_bytes(6, 5).is_err());
}

#[test]
fn no_partition_takes_more_than_was_reckoned_with() {
    let with = |partitions: usize| {
        let mut manifest = manifest();
        let largest = Partition {
            partition: u32::MAX,
            first_offset: u64::MAX,
            end_offset: u64::MAX,
            file_bytes: u64::MAX,
            sha256: "00".repeat(32),
        };
        manifest.topics[0].partitions = vec![largest; partitions];
        sealed(&manifest.text().unwrap()).len() as u64
    };
    for partitions in [1, 2] {
        assert!(
            with(partitions) - with(partitions - 1) <= PARTITION_BYTES_MAX,
            "{partitions}"
        );
    }
}

#[test]
fn a_file_that_cannot_be_written_ends_as_one_of_records_does() {
    let directory = tempfile::tempdir().unwrap();
    let failed = manifest().write(&directory.path().join("gone")).unwrap_err();
    assert_eq!(failed.code, Code::Failure);
    assert!(failed.message.contains(FILE) && failed.hint.is_some(), "{failed}");
}

#[test]
fn offsets_move_by_what_was_trimmed() {
    let partition = &manifest().topics[0].partitions[0];
    let places = [3, 10, 12, 25, 30].map(|offset| partition.place_of(offset));
    assert_eq!(places, [0, 0, 2, 15, 15]);
}
