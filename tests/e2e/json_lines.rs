//! Records as lines of JSON, through one topic into another.

use highwater_tests::{TestCluster, run_with_input};
use serde_json::Value;

use crate::{PATIENCE, consume};

fn consume_json(cluster: &TestCluster, topic: &str) -> Vec<Value> {
    let consumed = cluster.run(&[
        "consume",
        topic,
        "--from",
        "beginning",
        "--exit-at-end",
        "--format",
        "json",
    ]);
    let bytes = consumed.success().bytes;
    let text = String::from_utf8(bytes).unwrap_or_else(|error| panic!("{error}"));
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn produce_json(cluster: &TestCluster, topic: &str, lines: &str) {
    let mut command = cluster.command(&["produce", topic, "--format", "json"]);
    run_with_input(&mut command, lines.as_bytes().to_vec(), PATIENCE).success();
}

#[test]
fn records_pass_through_json_from_one_topic_to_another_unchanged() {
    let cluster = TestCluster::start(1);
    for topic in ["one", "two"] {
        cluster.create_topic(topic, 2);
    }
    let input = concat!(
        r#"{"partition":1,"key":"k","value":"first","headers":[{"name":"h","value":"1"}],"timestamp_ms":5}"#,
        "\n",
        r#"{"partition":1,"key":{"base64":"/w=="},"value":{"base64":"AAoN"},"timestamp_ms":-6}"#,
        "\n",
    );
    produce_json(&cluster, "one", input);
    let first = consume_json(&cluster, "one");
    assert_eq!(first.len(), 2);
    assert_eq!((&first[0]["offset"], &first[1]["offset"]), (&0.into(), &1.into()));
    let lines: String = first.iter().map(|record| format!("{record}\n")).collect();
    produce_json(&cluster, "two", &lines);
    let mut second = consume_json(&cluster, "two");
    for (record, before) in second.iter_mut().zip(&first) {
        record["append_time_ms"] = before["append_time_ms"].clone(); // the cluster's own
    }
    assert_eq!(second, first);
    assert_eq!(consume(&cluster, "two"), b"first\n\0\n\r\n");
}

#[test]
fn a_line_that_is_no_record_ends_the_sending_with_its_number() {
    let cluster = TestCluster::start(1);
    cluster.create_topic("one", 1);
    let input = "{\"value\":\"sent\"}\n{\"valeu\":\"not\"}\n{\"value\":\"behind\"}\n";
    let mut command = cluster.command(&["produce", "one", "--format", "json"]);
    let finished = run_with_input(&mut command, input.as_bytes().to_vec(), PATIENCE);
    finished.fails_with(4, &["line 2", "valeu", "1 lines acknowledged"]);
    assert_eq!(consume(&cluster, "one"), b"sent\n");
}

#[test]
fn the_largest_binary_value_passes_through_json() {
    // The longest line that is a value.
    const VALUE_BYTES: usize = 1024 * 1024 - 80;
    let cluster = TestCluster::start(1);
    for topic in ["one", "two"] {
        cluster.create_topic(topic, 1);
    }
    let value = vec![0xff; VALUE_BYTES];
    let mut command = cluster.command(&["produce", "one"]);
    run_with_input(&mut command, value.clone(), PATIENCE).success();
    let lines: String = consume_json(&cluster, "one")
        .iter()
        .map(|it| format!("{it}\n"))
        .collect();
    assert!(lines.len() > VALUE_BYTES / 3 * 4, "{} bytes", lines.len());
    produce_json(&cluster, "two", &lines);
    assert!(consume(&cluster, "two") == [value, b"\n".to_vec()].concat());
}
