//! Topics: creating, placing, deleting, limits.

use std::collections::BTreeSet;

use super::*;
use crate::limits::*;

#[test]
fn a_topic_is_found_by_name_id_and_group() {
    let mut fixture = Fixture::founded(3);
    let topic = fixture.topic(create("orders", 2, 3));
    let catalog = &fixture.catalog;
    assert_eq!(catalog.topic("acme", "orders"), Some(&topic));
    assert_eq!(catalog.topic_by_id(topic.topic_id), Some(&topic));
    assert_eq!(catalog.topics("acme").collect::<Vec<_>>(), [&topic]);
    assert_eq!(catalog.topics("other").count(), 0);
    for partition in &topic.partitions {
        assert_eq!(
            catalog.partition_of_group(partition.group_id),
            Some((&topic, partition))
        );
    }
    assert_eq!(catalog.partition_of_group(crate::CATALOG_GROUP_ID), None);
    assert_eq!(catalog.topic("acme", "nothing"), None);
}

#[test]
fn replica_ids_are_unique_over_catalog_and_partitions() {
    let mut fixture = Fixture::founded(3);
    let topic = fixture.topic(create("orders", 3, 3));
    let ids: Vec<u64> = topic
        .partitions
        .iter()
        .flat_map(|it| &it.replicas)
        .map(|replica| replica.replica_id)
        .collect();
    assert_eq!(ids, (4..13).collect::<Vec<_>>());
    assert_eq!(fixture.replica_id(register("n3", 3)), 13);
}

#[test]
fn what_the_creator_does_not_say_has_defaults() {
    let mut fixture = Fixture::founded(5);
    let topic = fixture.topic(create("orders", 0, 0));
    assert_eq!((topic.partitions.len(), topic.replication), (1, 3));
    assert_eq!((topic.retention_ms, topic.retention_bytes), (7 * 24 * 3600 * 1000, 0));
    let two_nodes = Fixture::founded(2).topic(create("orders", 0, 0));
    assert_eq!(two_nodes.replication, 2);
    let kept = Command::CreateTopic {
        tenant: "acme".to_string(),
        name: "kept".to_string(),
        partitions: 1,
        replication: 1,
        retention_ms: Some(0),
        retention_bytes: Some(1 << 30),
        avoid: Vec::new(),
    };
    let kept = fixture.topic(kept);
    assert_eq!((kept.retention_ms, kept.retention_bytes), (0, 1 << 30));
}

#[test]
fn a_name_is_taken_once_per_tenant() {
    let mut fixture = Fixture::founded(3);
    let first = fixture.topic(create("orders", 1, 1));
    let exists = Refusal::TopicExists {
        tenant: "acme".to_string(),
        name: "orders".to_string(),
        topic_id: first.topic_id,
    };
    assert_eq!(fixture.refused(create("orders", 1, 1)), exists);
    let other = fixture.topic(create_in("other", "orders", 1, 1));
    assert_ne!(other.topic_id, first.topic_id);
}

#[test]
fn a_deleted_topic_leaves_tombstones_and_its_ids_are_not_used_again() {
    let mut fixture = Fixture::founded(3);
    let old = fixture.topic(create("orders", 2, 3));
    let kept = fixture.topic(create("kept", 1, 3));
    assert_eq!(fixture.apply(delete("orders", Some(old.topic_id))), Reply::Done);
    assert_eq!(fixture.catalog.tombstones().flatten().collect::<Vec<_>>(), [1, 2]);
    assert_eq!(fixture.catalog.topic("acme", "orders"), None);
    assert!(
        old.partitions
            .iter()
            .all(|partition| fixture.catalog.is_deleted(partition.group_id))
    );
    assert!(
        old.partitions
            .iter()
            .all(|it| fixture.catalog.partition_of_group(it.group_id).is_none())
    );
    assert!(!fixture.catalog.is_deleted(kept.partitions[0].group_id));
    assert!(
        !fixture.catalog.is_deleted(crate::CATALOG_GROUP_ID),
        "the catalog is never deleted"
    );
    assert!(!fixture.catalog.is_deleted(1000), "unknown is not deleted");

    let new = fixture.topic(create("orders", 2, 3));
    assert!(new.topic_id > kept.topic_id);
    assert_eq!(
        new.partitions
            .iter()
            .map(|partition| partition.group_id)
            .collect::<Vec<_>>(),
        [4, 5]
    );
    let ids = |topic: &Topic| -> BTreeSet<u64> {
        topic
            .partitions
            .iter()
            .flat_map(|it| &it.replicas)
            .map(|replica| replica.replica_id)
            .collect()
    };
    assert!(ids(&old).is_disjoint(&ids(&new)));
}

#[test]
fn deleting_never_hits_a_younger_topic_of_the_same_name() {
    let mut fixture = Fixture::founded(1);
    let old = fixture.topic(create("orders", 1, 1));
    fixture.apply(delete("orders", None));
    let not_found = Refusal::TopicNotFound {
        tenant: "acme".to_string(),
        name: "orders".to_string(),
    };
    assert_eq!(fixture.refused(delete("orders", Some(old.topic_id))), not_found);
    let new = fixture.topic(create("orders", 1, 1));
    let changed = Refusal::TopicChanged {
        tenant: "acme".to_string(),
        name: "orders".to_string(),
        wanted: old.topic_id,
        topic_id: new.topic_id,
    };
    assert_eq!(fixture.refused(delete("orders", Some(old.topic_id))), changed);
    assert_eq!(fixture.apply(delete("orders", Some(new.topic_id))), Reply::Done);
}

#[test]
fn deleting_frees_the_load_of_its_nodes() {
    let mut fixture = Fixture::founded(3);
    fixture.topic(create("big", 9, 1));
    fixture.apply(delete("big", None));
    fixture.topic(create("a", 1, 1));
    let topic = fixture.topic(create("b", 2, 1));
    let nodes: Vec<&str> = topic
        .partitions
        .iter()
        .map(|partition| partition.replicas[0].node.as_str())
        .collect();
    assert_eq!(nodes, ["n1", "n2"]);
}

#[test]
fn replicas_need_as_many_nodes() {
    let mut fixture = Fixture::founded(2);
    assert_eq!(
        fixture.refused(create("orders", 1, 3)),
        Refusal::NotEnoughNodes { wanted: 3, have: 2 }
    );
    let limit = REPLICATION_MAX;
    assert_eq!(
        fixture.refused(create("orders", 1, 8)),
        Refusal::TooManyReplicas { wanted: 8, limit }
    );
    fixture.replica_id(register("n2", 2));
    fixture.topic(create("orders", 1, 3));
}

#[test]
fn partitions_are_limited_by_topic() {
    let mut fixture = Fixture::founded(3);
    let limit = TOPIC_PARTITIONS_MAX;
    let refusal = fixture.refused(create("orders", limit + 1, 3));
    assert_eq!(
        refusal,
        Refusal::TooManyPartitions {
            wanted: limit + 1,
            limit
        }
    );
    let refusal = fixture.refused(create("orders", u32::MAX, 3));
    assert_eq!(
        refusal,
        Refusal::TooManyPartitions {
            wanted: u32::MAX,
            limit
        }
    );
    let topic = fixture.topic(create("orders", limit, 3));
    assert_eq!(
        Reply::decode(&Reply::Topic(topic.clone()).encode()),
        Ok(Reply::Topic(topic))
    );
}

#[test]
fn partitions_are_limited_by_cluster() {
    let mut catalog = Fixture::founded(1).catalog;
    let whole = CLUSTER_PARTITIONS_MAX as u32 / TOPIC_PARTITIONS_MAX;
    for number in 0..whole {
        let reply = catalog.apply(
            u64::from(number) + 2,
            &create(&format!("t{number}"), TOPIC_PARTITIONS_MAX, 1),
        );
        assert!(matches!(reply, Reply::Topic(_)));
    }
    let room = CLUSTER_PARTITIONS_MAX as u32 - whole * TOPIC_PARTITIONS_MAX;
    let refusal = Refusal::TooManyPartitions {
        wanted: room + 1,
        limit: room,
    };
    assert_eq!(
        catalog.apply(1000, &create("more", room + 1, 1)),
        Reply::Refused(refusal)
    );
    assert!(matches!(catalog.apply(1001, &create("fits", room, 1)), Reply::Topic(_)));
    let refusal = Refusal::TooManyPartitions { wanted: 1, limit: 0 };
    assert_eq!(catalog.apply(1002, &create("more", 1, 1)), Reply::Refused(refusal));
}

#[test]
fn topics_are_limited_by_tenant() {
    let mut catalog = Fixture::founded(1).catalog;
    for number in 0..TENANT_TOPICS_MAX {
        let reply = catalog.apply(number as u64 + 2, &create(&format!("t{number}"), 1, 1));
        assert!(matches!(reply, Reply::Topic(_)));
    }
    let refusal = Refusal::TooManyTopics {
        tenant: "acme".to_string(),
        limit: TENANT_TOPICS_MAX,
    };
    assert_eq!(catalog.apply(20_000, &create("more", 1, 1)), Reply::Refused(refusal));
    assert!(matches!(
        catalog.apply(20_001, &create_in("other", "more", 1, 1)),
        Reply::Topic(_)
    ));
    assert_eq!(Catalog::decode(&catalog.encode()).as_ref(), Ok(&catalog));
}

#[test]
fn bad_names_are_refused_with_field_and_rule() {
    let mut fixture = Fixture::founded(1);
    for (tenant, name, wrong) in [
        ("acme", "a/b", "topic"),
        ("Acme", "ab", "tenant"),
        ("acme", "", "topic"),
    ] {
        match fixture.refused(create_in(tenant, name, 1, 1)) {
            Refusal::InvalidName { field, why } => {
                assert_eq!(field, wrong);
                assert!(why.contains(crate::names::RULE), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_node_knows_its_groups() {
    let mut fixture = Fixture::founded(3);
    let topic = fixture.topic(create("orders", 3, 2));
    for node in ["n0", "n1", "n2"] {
        let listed: Vec<(u64, u64)> = fixture
            .catalog
            .groups_on(node)
            .map(|placement| (placement.group_id, placement.replica_id))
            .collect();
        let replicas = topic
            .partitions
            .iter()
            .flat_map(|it| it.replicas.iter().map(move |replica| (it, replica)));
        let expected: Vec<(u64, u64)> = replicas
            .filter(|(_, replica)| replica.node == node)
            .map(|(partition, replica)| (partition.group_id, replica.replica_id))
            .collect();
        assert_eq!(listed, expected);
        assert_eq!(listed.len(), 2);
    }
    assert_eq!(fixture.catalog.groups_on("nobody").count(), 0);
}
