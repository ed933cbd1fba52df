//! The stored forms, byte for byte. A change here is a change of the format: it needs a new version byte.

use super::*;
use crate::Error;

pub(super) fn assert_golden(bytes: &[u8], version: u8, json: &str) {
    assert_eq!(bytes[0], version);
    assert_eq!(std::str::from_utf8(&bytes[1..]).unwrap(), json);
}

pub(super) fn stored(json: &str) -> Vec<u8> {
    [&[1], json.as_bytes()].concat()
}

const FOUND: &str = concat!(
    r#"{"found":{"cluster_id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1","cluster_name":"test","nodes":["#,
    r#"{"name":"n0","incarnation":"00000000000000000000000000000000","address":"n0.example:9000","rack":"","replica_id":1},"#,
    r#"{"name":"n1","incarnation":"01010101010101010101010101010101","address":"n1.example:9000","rack":"","replica_id":2}"#,
    r#"]}}"#
);
const REGISTER: &str = concat!(
    r#"{"register_node":{"name":"n2","incarnation":"02020202020202020202020202020202","#,
    r#""address":"n2.example:9000","rack":"","version":"0.1.0"}}"#
);
const CREATE: &str = concat!(
    r#"{"create_topic":{"tenant":"acme","name":"orders","partitions":1,"replication":2,"#,
    r#""retention_ms":null,"retention_bytes":null}}"#
);
const DELETE: &str = r#"{"delete_topic":{"tenant":"acme","name":"orders","topic_id":7}}"#;

#[test]
fn commands_have_this_form() {
    let cases = [
        (found(CLUSTER_ID, 2), FOUND),
        (register("n2", 2), REGISTER),
        (create("orders", 1, 2), CREATE),
        (delete("orders", Some(7)), DELETE),
        (
            register_holding(CatalogReplica::Runs(5), "n2", 2),
            &REGISTER.replace("}}", r#","catalog_replica":{"runs":5}}}"#),
        ),
        (
            register_holding(CatalogReplica::Lost(5), "n2", 2),
            &REGISTER.replace("}}", r#","catalog_replica":{"lost":5}}}"#),
        ),
        (
            replicas::started(&[(3, 4), (5, 6)]),
            r#"{"report_started":{"replicas":[{"group_id":3,"replica_id":4},{"group_id":5,"replica_id":6}]}}"#,
        ),
        (
            replicas::report(3, 4),
            r#"{"report_dead_replica":{"group_id":3,"replica_id":4}}"#,
        ),
        (
            replicas::replace(3, 4),
            r#"{"replace_replica":{"group_id":3,"replica_id":4}}"#,
        ),
        (
            replicas::retire(3, 4),
            r#"{"retire_replica":{"group_id":3,"replica_id":4}}"#,
        ),
    ];
    for (command, json) in cases {
        assert_golden(&command.encode(), 1, json);
        assert_eq!(Command::decode(&stored(json)), Ok(command));
    }
}

#[test]
fn replies_have_this_form() {
    let mut fixture = Fixture::founded(2);
    let topic = fixture.topic(create("orders", 1, 2));
    let topic_json = concat!(
        r#"{"topic":{"tenant":"acme","name":"orders","topic_id":1,"replication":2,"retention_ms":604800000,"#,
        r#""retention_bytes":0,"partitions":[{"partition":0,"group_id":1,"#,
        r#""replicas":[{"replica_id":3,"node":"n0"},{"replica_id":4,"node":"n1"}]}]}}"#
    );
    let cases = [
        (Reply::Done, r#""done""#),
        (
            Reply::Founded { cluster_id: CLUSTER_ID },
            r#"{"founded":{"cluster_id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1"}}"#,
        ),
        (Reply::Node { replica_id: 4 }, r#"{"node":{"replica_id":4}}"#),
        (Reply::Topic(topic), topic_json),
        (Reply::Refused(Refusal::NotFounded), r#"{"refused":"not_founded"}"#),
        (
            Reply::Refused(Refusal::NotEnoughNodes { wanted: 3, have: 2 }),
            r#"{"refused":{"not_enough_nodes":{"wanted":3,"have":2}}}"#,
        ),
    ];
    for (reply, json) in cases {
        assert_golden(&reply.encode(), 1, json);
        assert_eq!(Reply::decode(&stored(json)), Ok(reply));
    }
}

const CHECKPOINT: &str = concat!(
    r#"{"cluster":{"id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1","name":"test"},"revision":5,"#,
    r#""next_topic_id":3,"next_group_id":4,"next_replica_id":6,"nodes":{"#,
    r#""n0":{"name":"n0","incarnation":"09090909090909090909090909090909","address":"n0.example:9000","rack":"","#,
    r#""version":"0.1.0","catalog_replica_id":5,"#,
    r#""past_lives":[{"incarnation":"00000000000000000000000000000000","catalog_replica_id":1}]}},"#,
    r#""topics":{"2":{"tenant":"acme","name":"kept","topic_id":2,"replication":1,"retention_ms":604800000,"#,
    r#""retention_bytes":0,"partitions":[{"partition":0,"group_id":3,"replicas":[{"replica_id":4,"node":"n0"}]}]}},"#,
    r#""tombstones":{"1":3}}"#
);

#[test]
fn a_checkpoint_has_this_form() {
    let mut fixture = Fixture::founded(1);
    fixture.topic(create("orders", 2, 1));
    fixture.topic(create("kept", 1, 1));
    fixture.apply(delete("orders", None));
    fixture.replica_id(register("n0", 9));
    assert_golden(&fixture.catalog.encode(), 1, CHECKPOINT);
    assert_eq!(Catalog::decode(&stored(CHECKPOINT)), Ok(fixture.catalog));
}

/// What stands in a checkpoint only while and after replicas have been replaced.
#[test]
fn replaced_and_retired_replicas_have_this_form() {
    let mut fixture = Fixture::founded(1);
    fixture.topic(create("orders", 1, 1));
    for step in [replicas::report, replicas::replace, replicas::retire] {
        fixture.apply(step(1, 2));
    }
    for step in [replicas::report, replicas::replace, replicas::report] {
        fixture.apply(step(1, 3));
    }
    fixture.apply(replicas::started(&[(1, 4)]));
    fixture.apply(replicas::report(1, 4));
    let text = String::from_utf8(fixture.catalog.encode().split_off(1)).unwrap();
    let partition = concat!(
        r#""partitions":[{"partition":0,"group_id":1,"#,
        r#""replicas":[{"replica_id":4,"node":"n0","started":true,"reported_dead":true}],"#,
        r#""replaced":[{"replica_id":3,"node":"n0","reported_dead":true}],"changed":true}]"#
    );
    assert!(text.contains(partition), "{text}");
    assert!(
        text.ends_with(r#""tombstones":{},"retired_replicas":{"2":3}}"#),
        "{text}"
    );
}

#[test]
fn a_checkpoint_that_breaks_an_invariant_is_refused() {
    let cases = [
        (
            r#""next_topic_id":3"#,
            r#""next_topic_id":2"#,
            "topic id 2 was never handed out",
        ),
        (r#""next_topic_id":3"#, r#""next_topic_id":0"#, "the next id 0"),
        (
            r#""next_topic_id":3"#,
            r#""next_topic_id":18446744073709551615"#,
            "the next id 18446744073709551615",
        ),
        (
            r#""next_group_id":4"#,
            r#""next_group_id":3"#,
            "a group id is not below 3",
        ),
        (
            r#""next_group_id":4"#,
            r#""next_group_id":5"#,
            "4 group ids were handed out, 3 are",
        ),
        (
            r#""next_replica_id":6"#,
            r#""next_replica_id":5"#,
            "replica id 5 was never handed out",
        ),
        (r#""replica_id":4,"#, r#""replica_id":1,"#, "replica id 1 is used twice"),
        (
            r#""catalog_replica_id":5"#,
            r#""catalog_replica_id":1"#,
            "replica id 1 is used twice",
        ),
        (r#""node":"n0"}"#, r#""node":"n1"}"#, "node \"n1\" is not known"),
        (r#""name":"n0""#, r#""name":"n1""#, "node \"n1\" is listed as n0"),
        (
            r#""n0":{"name":"n0""#,
            r#""N0":{"name":"N0""#,
            "the node name is not valid",
        ),
        (r#""topics":{"2""#, r#""topics":{"1""#, "topic 2 is listed as 1"),
        (r#""name":"kept""#, r#""name":"../kept""#, "the topic name is not valid"),
        (
            r#""tenant":"acme""#,
            r#""tenant":"ACME""#,
            "the tenant name is not valid",
        ),
        (r#""name":"test""#, r#""name":"""#, "the cluster name is not valid"),
        (r#""replication":1"#, r#""replication":2"#, "not on 2 distinct nodes"),
        (
            r#""partition":0"#,
            r#""partition":1"#,
            "partition 0 of topic 2 says that it is 1",
        ),
        (
            r#""tombstones":{"1":3}"#,
            r#""tombstones":{"1":4}"#,
            "is a partition and has a tombstone",
        ),
        (
            r#""tombstones":{"1":3}"#,
            r#""tombstones":{"0":3}"#,
            "a group id is not below 4",
        ),
        (
            r#""tombstones":{"1":3}"#,
            r#""tombstones":{"1":2,"2":3}"#,
            "are not apart",
        ),
        (r#""tombstones":{"1":3}"#, r#""tombstones":{"1":1,"2":4}"#, "is empty"),
        (
            r#"{"id":"c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1","name":"test"}"#,
            "null",
            "no cluster id",
        ),
    ];
    for (from, to, why) in cases {
        let broken = CHECKPOINT.replacen(from, to, 1);
        assert_ne!(broken, CHECKPOINT, "{from} is not in the checkpoint");
        match Catalog::decode(&stored(&broken)) {
            Err(Error::Inconsistent { why: found, .. }) => assert!(found.contains(why), "{to}: {found}"),
            other => panic!("{to}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_understood_is_an_error_and_never_skipped() {
    let what = "catalog command";
    assert_eq!(Command::decode(&[]), Err(Error::Empty { what }));
    assert_eq!(
        Command::decode(&[2, b'{', b'}']),
        Err(Error::UnknownVersion { what, found: 2 })
    );
    for json in [
        "",
        "{}",
        "null",
        r#"{"unheard_of":{}}"#,
        &DELETE.replace(r#""topic_id":7"#, r#""topic_id":7,"force":true"#),
        &DELETE.replace(r#""topic_id":7"#, r#""topic_id":-7"#),
        &format!("{DELETE}x"),
        &FOUND.replace("c1c1c1", "C1c1c1"),
        &FOUND.replace("c1c1c1", "c1c1"),
        &FOUND.replace("c1c1c1c1", "+1c1c1c1"),
        &"[".repeat(100_000),
    ] {
        let decoded = Command::decode(&stored(json));
        assert!(
            matches!(decoded, Err(Error::Malformed { .. })),
            "{json:.80}: {decoded:?}"
        );
    }
    let large = vec![b' '; crate::limits::MESSAGE_BYTES_MAX + 1];
    assert!(matches!(Command::decode(&large), Err(Error::TooLarge { .. })));
}
