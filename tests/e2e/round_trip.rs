//! What goes in comes out: every byte, in order, once.

use std::collections::BTreeMap;

use highwater_tests::{TestCluster, run_with_input};

use crate::{PATIENCE, assert_same_bytes, consume, numbers, produce};

const LINES: usize = 100_000;

#[test]
fn many_lines_come_back_byte_for_byte_whichever_follower_serves_them() {
    let mut cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    cluster.create_topic("numbers", 1);
    let input = numbers(LINES);
    produce(&cluster, "numbers", input.clone());
    assert_same_bytes(&consume(&cluster, "numbers"), &input);

    let leader = cluster.leader("numbers", 0);
    for served_by in (0..3).filter(|position| *position != leader) {
        let other = 3 - leader - served_by;
        cluster.node(other).kill();
        let consumed = cluster
            .run(&["consume", "numbers", "--from", "beginning", "--exit-at-end", "-v"])
            .success();
        assert_same_bytes(&consumed.bytes, &input);
        let name = cluster.nodes()[served_by].name();
        assert!(
            consumed.stderr.contains(&format!("numbers/0 is served by {name}")),
            "{}",
            consumed.stderr
        );
        cluster.node(other).start();
        cluster.wait_node_ready(other);
        cluster.wait_acquainted();
    }
}

#[test]
fn compressed_lines_come_back_byte_for_byte_and_take_less_room() {
    let cluster = TestCluster::start(3);
    let input = numbers(LINES);
    let mut bytes = Vec::new();
    for method in ["none", "lz4", "zstd"] {
        cluster.create_topic(method, 1);
        let mut command = cluster.command(&["produce", method, "--compression", method]);
        run_with_input(&mut command, input.clone(), PATIENCE).success();
        assert_same_bytes(&consume(&cluster, method), &input);
        let replicas = cluster.describe()["replicas"].clone();
        let of_topic = replicas.as_array().into_iter().flatten();
        let largest = of_topic
            .filter(|replica| replica["topic"] == method)
            .filter_map(|replica| replica["bytes"].as_u64())
            .max();
        bytes.push(largest.unwrap_or(0));
    }
    assert!(bytes[1] < bytes[0] && bytes[2] < bytes[1], "{bytes:?}");
}

#[test]
fn lines_are_bytes_of_any_kind_and_length() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("bytes", 1);
    let long = vec![b'x'; 1_000_000];
    let input = [&b"\n\r\n\0\xff\xfe tail \n\n"[..], &long, b"\nno newline at the end"].concat();
    produce(&cluster, "bytes", input.clone());
    assert_same_bytes(&consume(&cluster, "bytes"), &[&input[..], b"\n"].concat());
}

#[test]
fn a_key_stays_in_its_partition_and_keeps_its_order() {
    let cluster = TestCluster::start(3);
    cluster.create_topic("keyed", 3);
    let input: String = (0..3_000)
        .map(|number| format!("key-{}:{number}\n", number % 20))
        .collect();
    let mut command = cluster.command(&["produce", "keyed", "--key-separator", ":"]);
    run_with_input(&mut command, input.into_bytes(), PATIENCE).success();

    let arguments = [
        "consume",
        "keyed",
        "--from",
        "beginning",
        "--exit-at-end",
        "--format",
        "%k %p %v",
    ];
    let output = cluster.run(&arguments).success().stdout();
    let mut partitions = BTreeMap::new();
    let mut last = BTreeMap::new();
    for line in output.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [key, partition, value] = fields[..] else {
            panic!("unexpected line {line:?}");
        };
        let value: u32 = value.parse().unwrap_or_else(|_| panic!("unexpected value {value:?}"));
        assert_eq!(
            *partitions.entry(key.to_owned()).or_insert(partition),
            partition,
            "{key} changed its partition"
        );
        let before = last.insert(key.to_owned(), value);
        assert!(
            before.is_none_or(|before| before < value),
            "{key}: {value} after {before:?}"
        );
    }
    assert_eq!(output.lines().count(), 3_000);
    assert_eq!(partitions.len(), 20);
    let used: std::collections::BTreeSet<_> = partitions.values().collect();
    assert!(used.len() > 1, "all keys went to one partition");
}

#[test]
fn acknowledgements_are_printed_in_the_order_of_the_input() {
    let cluster = TestCluster::start(3);
    cluster.create_topic("acked", 1);
    let acked = run_with_input(
        &mut cluster.command(&["produce", "acked", "-v"]),
        numbers(5_000),
        PATIENCE,
    )
    .success();
    let expected: String = (0..5_000).map(|offset| format!("0 {offset}\n")).collect();
    assert_same_bytes(&acked.bytes, expected.as_bytes());
}

#[test]
fn reading_begins_and_ends_where_it_is_told() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("ranges", 1);
    produce(&cluster, "ranges", numbers(100));
    let read = |arguments: &[&str]| {
        cluster
            .run(&[&["consume", "ranges"], arguments].concat())
            .success()
            .stdout()
    };

    assert_eq!(read(&["--from", "97", "--exit-at-end"]), "97\n98\n99\n");
    assert_eq!(read(&["--from", "beginning", "--max", "2"]), "0\n1\n");
    assert_eq!(read(&["--from", "end", "--exit-at-end"]), "");
    assert_eq!(
        read(&["--from", "98", "--max", "1", "--format", "%p/%o=%v"]),
        "0/98=98\n"
    );
    assert_eq!(read(&["--from", "2000-01-01T00:00:00Z", "--max", "1"]), "0\n");
    assert_eq!(read(&["--from", "2999-01-01T00:00:00Z", "--exit-at-end"]), "");
}

#[test]
fn topics_can_be_listed_described_and_deleted() {
    let cluster = TestCluster::start(3);
    cluster.create_topic("b", 2);
    cluster.create_topic("a", 1);
    let listed = cluster.json(&["topic", "list", "--output", "json"]);
    let names: Vec<_> = listed["topics"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|topic| &topic["topic"])
        .collect();
    assert_eq!(names, ["a", "b"]);

    let described = cluster.json(&["topic", "describe", "b", "--output", "json"]);
    assert_eq!(described["replication"], 3);
    for partition in described["partitions"].as_array().into_iter().flatten() {
        let mut replicas: Vec<_> = partition["replicas"].as_array().into_iter().flatten().collect();
        replicas.sort_by_key(|name| name.to_string());
        assert_eq!(replicas, ["n1", "n2", "n3"], "replicas stand on distinct nodes");
    }

    produce(&cluster, "b", numbers(10));
    cluster.run(&["topic", "delete", "b"]).success();
    cluster.run(&["topic", "describe", "b"]).fails_with(3, &["b"]);
    cluster.create_topic("b", 1);
    assert_eq!(
        consume(&cluster, "b"),
        b"",
        "a new topic of the same name holds nothing of the old one"
    );
    let again = cluster.json(&["topic", "describe", "b", "--output", "json"]);
    assert_ne!(again["topic_id"], described["topic_id"]);
}
