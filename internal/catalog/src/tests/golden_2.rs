//! The stored forms of feature level 2, byte for byte.

use super::golden::{assert_golden, stored};
use super::*;
use crate::Error;

#[test]
fn commands_have_this_form() {
    let mut avoiding = create("orders", 1, 2);
    if let Command::CreateTopic { avoid, .. } = &mut avoiding {
        avoid.push("n1".to_string());
    }
    let full = Change {
        topic_id: Some(7),
        partitions: Some(2),
        replication: Some(3),
        retention_ms: Some(4),
        leader_rack: Some("r1"),
        avoid: &["n1"],
    };
    let cases = [
        (
            register_2("n2", 2, "r1", None),
            concat!(
                r#"{"register_node":{"name":"n2","incarnation":"02020202020202020202020202020202","#,
                r#""address":"n2.example:9000","rack":"r1","version":"0.2.0","feature_level":2}}"#
            ),
        ),
        (
            avoiding,
            concat!(
                r#"{"create_topic":{"tenant":"acme","name":"orders","partitions":1,"replication":2,"#,
                r#""retention_ms":null,"retention_bytes":null,"avoid":["n1"]}}"#
            ),
        ),
        (
            update("orders", full),
            concat!(
                r#"{"update_topic":{"tenant":"acme","name":"orders","topic_id":7,"partitions":2,"replication":3,"#,
                r#""retention_ms":4,"retention_bytes":null,"leader_rack":"r1","avoid":["n1"]}}"#
            ),
        ),
        (
            update("orders", Change::default()),
            concat!(
                r#"{"update_topic":{"tenant":"acme","name":"orders","topic_id":null,"partitions":null,"#,
                r#""replication":null,"retention_ms":null,"retention_bytes":null,"leader_rack":null}}"#
            ),
        ),
        (
            move_to(3, 4, "n1"),
            r#"{"move_replica":{"group_id":3,"replica_id":4,"node":"n1"}}"#,
        ),
        (prefer(3, 4), r#"{"prefer_leader":{"group_id":3,"replica_id":4}}"#),
        (
            decommission("n1", true),
            r#"{"decommission_node":{"node":"n1","leaving":true}}"#,
        ),
        (drain("n1", false), r#"{"drain_node":{"node":"n1","drained":false}}"#),
        (remove("n1"), r#"{"remove_node":{"node":"n1"}}"#),
        (
            Command::UpdateSettings {
                timer_step: Some(2),
                replace_after_ms: None,
                catch_up_bytes_per_second: None,
                balance: Some(false),
                groups_kept_ms: None,
            },
            concat!(
                r#"{"update_settings":{"timer_step":2,"replace_after_ms":null,"#,
                r#""catch_up_bytes_per_second":null,"balance":false}}"#
            ),
        ),
        (recover(3, 4), r#"{"recover_partition":{"group_id":3,"replica_id":4}}"#),
        (
            Command::RaiseFeatureLevel { level: 2 },
            r#"{"raise_feature_level":{"level":2}}"#,
        ),
    ];
    for (command, json) in cases {
        assert_golden(&command.encode(), 1, json);
        assert_eq!(Command::decode(&stored(json)), Ok(command));
    }
}

#[test]
fn refusals_have_this_form() {
    let node = || "n1".to_string();
    let cases = [
        (
            Refusal::FeatureLevel { needed: 2, level: 1 },
            r#"{"feature_level":{"needed":2,"level":1}}"#,
        ),
        (
            Refusal::TooOld {
                node: node(),
                level: 1,
                needed: 2,
            },
            r#"{"too_old":{"node":"n1","level":1,"needed":2}}"#,
        ),
        (
            Refusal::NodeNotFound { node: node() },
            r#"{"node_not_found":{"node":"n1"}}"#,
        ),
        (
            Refusal::NodeRemoved { node: node() },
            r#"{"node_removed":{"node":"n1"}}"#,
        ),
        (
            Refusal::NodeLeaving { node: node() },
            r#"{"node_leaving":{"node":"n1"}}"#,
        ),
        (
            Refusal::NodeNotLeaving { node: node() },
            r#"{"node_not_leaving":{"node":"n1"}}"#,
        ),
        (
            Refusal::NodeInUse {
                node: node(),
                placed: 1,
                replaced: 2,
            },
            r#"{"node_in_use":{"node":"n1","placed":1,"replaced":2}}"#,
        ),
        (
            Refusal::NodeNeeded {
                node: node(),
                tenant: "acme".to_string(),
                name: "orders".to_string(),
                replication: 3,
                nodes: 2,
            },
            r#"{"node_needed":{"node":"n1","tenant":"acme","name":"orders","replication":3,"nodes":2}}"#,
        ),
        (Refusal::LastNode { node: node() }, r#"{"last_node":{"node":"n1"}}"#),
        (
            Refusal::FewerPartitions { wanted: 1, have: 2 },
            r#"{"fewer_partitions":{"wanted":1,"have":2}}"#,
        ),
        (
            Refusal::ReplicaHeld {
                group_id: 3,
                node: node(),
            },
            r#"{"replica_held":{"group_id":3,"node":"n1"}}"#,
        ),
        (
            Refusal::ReplicaDead {
                group_id: 3,
                replica_id: 4,
            },
            r#"{"replica_dead":{"group_id":3,"replica_id":4}}"#,
        ),
        (Refusal::Unfinished { group_id: 3 }, r#"{"unfinished":{"group_id":3}}"#),
    ];
    for (refusal, json) in cases {
        let json = format!(r#"{{"refused":{json}}}"#);
        let reply = Reply::Refused(refusal);
        assert_golden(&reply.encode(), 1, &json);
        assert_eq!(Reply::decode(&stored(&json)), Ok(reply));
    }
}

const CHECKPOINT: &str = concat!(
    r#"{"cluster":{"id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1","name":"test"},"revision":12,"#,
    r#""next_topic_id":2,"next_group_id":2,"next_replica_id":6,"nodes":{"#,
    r#""n0":{"name":"n0","incarnation":"00000000000000000000000000000000","address":"n0.example:9000","rack":"","#,
    r#""version":"0.2.0","feature_level":2,"catalog_replica_id":1,"catalog_replica_started":true,"#,
    r#""past_lives":[],"leaving":true,"removed":true},"#,
    r#""n1":{"name":"n1","incarnation":"01010101010101010101010101010101","address":"n1.example:9000","rack":"r1","#,
    r#""version":"0.2.0","feature_level":2,"catalog_replica_id":2,"catalog_replica_started":true,"#,
    r#""past_lives":[],"drained":true},"#,
    r#""n2":{"name":"n2","incarnation":"02020202020202020202020202020202","address":"n2.example:9000","rack":"","#,
    r#""version":"0.2.0","feature_level":2,"catalog_replica_id":3,"catalog_replica_started":true,"past_lives":[]}},"#,
    r#""topics":{"1":{"tenant":"acme","name":"orders","topic_id":1,"replication":1,"retention_ms":604800000,"#,
    r#""retention_bytes":0,"leader_rack":"r1","partitions":[{"partition":0,"group_id":1,"#,
    r#""replicas":[{"replica_id":5,"node":"n2"}],"replaced":[{"replica_id":4,"node":"n1"}],"changed":true}]}},"#,
    r#""tombstones":{},"feature_level":2,"settings":{"timer_step":2,"replace_after_ms":600000,"#,
    r#""catch_up_bytes_per_second":20000000,"balance":true}}"#
);

#[test]
fn a_checkpoint_has_this_form() {
    let mut fixture = Fixture::level_2(&["", "r1", ""]);
    fixture.done(decommission("n0", true));
    fixture.done(remove("n0"));
    fixture.done(drain("n1", true));
    fixture.topic(create("orders", 1, 1));
    let rack = Change {
        leader_rack: Some("r1"),
        ..Change::default()
    };
    fixture.topic(update("orders", rack));
    fixture.done(move_to(1, 4, "n2"));
    fixture.done(Command::UpdateSettings {
        timer_step: Some(2),
        replace_after_ms: None,
        catch_up_bytes_per_second: None,
        balance: None,
        groups_kept_ms: None,
    });
    assert_golden(&fixture.catalog.encode(), 1, CHECKPOINT);
    assert_eq!(Catalog::decode(&stored(CHECKPOINT)), Ok(fixture.catalog));
}

#[test]
fn a_checkpoint_that_breaks_an_invariant_is_refused() {
    let level = r#""tombstones":{},"feature_level":2"#;
    let cases = [
        (level, r#""tombstones":{},"feature_level":1"#, "but level 1"),
        (level, r#""tombstones":{},"feature_level":5"#, "feature level 5"),
        (level, r#""tombstones":{},"feature_level":0"#, "feature level 0"),
        (
            r#""version":"0.2.0","feature_level":2"#,
            r#""version":"0.2.0","feature_level":0"#,
            "has feature level 0",
        ),
        (
            r#""leaving":true,"removed":true"#,
            r#""removed":true"#,
            "is not leaving",
        ),
        (
            r#""replaced":[{"replica_id":4,"node":"n1"}]"#,
            r#""replaced":[{"replica_id":4,"node":"n0"}]"#,
            "was removed, but holds group 1",
        ),
        (r#""drained":true"#, r#""leaving":true"#, ""),
        (r#""timer_step":2"#, r#""timer_step":4"#, "timer_step"),
        (r#""leader_rack":"r1""#, r#""leader_rack":"r 1""#, "leader_rack"),
        (r#""changed":true"#, r#""changed":false"#, "but never changed"),
    ];
    for (from, to, why) in cases {
        let broken = CHECKPOINT.replacen(from, to, 1);
        assert_ne!(broken, CHECKPOINT, "{from} is not in the checkpoint");
        match Catalog::decode(&stored(&broken)) {
            Err(Error::Inconsistent { why: found, .. }) => assert!(found.contains(why), "{to}: {found}"),
            Ok(_) if why.is_empty() => {}
            other => panic!("{to}: {other:?}"),
        }
    }
    let leaving = CHECKPOINT.replacen(r#""past_lives":[]}}"#, r#""past_lives":[],"leaving":true}}"#, 1);
    let leaving = leaving.replacen(r#""drained":true"#, r#""leaving":true"#, 1);
    let broken = Catalog::decode(&stored(&leaving));
    assert!(
        matches!(&broken, Err(Error::Inconsistent { why, .. }) if why.contains("nodes that stay")),
        "{broken:?}"
    );
}
