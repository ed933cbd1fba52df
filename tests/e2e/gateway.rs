//! The JSON gateway with the real curl: the examples of its page, run as they stand there.

use std::path::Path;
use std::process::Command;

use highwater_tests::{TestCluster, run};
use serde_json::Value;

use crate::{PATIENCE, assert_same_bytes, consume};

/// An example of the page, and the answer that stands below it.
struct Example {
    command: String,
    answer: Value,
}

/// The blocks of shell that call curl, each with the block of JSON behind it.
fn examples() -> Vec<Example> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/gateway.md");
    let page = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = page.split("\n```").skip(1).step_by(2);
    let mut examples = Vec::new();
    while let Some(block) = blocks.next() {
        let Some(command) = block
            .strip_prefix("sh\n")
            .filter(|command| command.starts_with("curl "))
        else {
            continue;
        };
        let answer = blocks.next().and_then(|block| block.strip_prefix("json\n"));
        let answer = answer.unwrap_or_else(|| panic!("no answer stands below: {command}"));
        examples.push(Example {
            command: command.to_owned(),
            answer: serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}")),
        });
    }
    examples
}

/// The same but for the times, which are different each time.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = match name.as_str() {
                    "append_time_ms" | "timestamp_ms" => field.is_u64().into(),
                    _ => without_times(field.take()),
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("######  SKIPPED: there is no curl, so the examples of docs/gateway.md did not run.  ######");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "curl is missing");
    }
    found
}

/// Runs a command line as a person would, through the node at that position.
#[track_caller]
fn shell(cluster: &TestCluster, position: usize, line: &str) -> Value {
    let certificates = cluster.certificates();
    let port = cluster.nodes()[position].address();
    let port = port.rsplit(':').next().unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-euc", line])
        .env("CA", format!("{certificates}/ca.pem"))
        .env("CERT", format!("{certificates}/client-acme-app.pem"))
        .env("KEY", format!("{certificates}/client-acme-app.key"))
        .env("NODE", format!("localhost:{port}"));
    let text = run(&mut command, PATIENCE).success().stdout();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}) from {line}: {text}"))
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    if !has_curl() {
        return;
    }
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("orders", 1);
    cluster.leader("orders", 0);
    let examples = examples();
    assert!(examples.len() >= 5, "only {} examples were found", examples.len());
    // Each through another node: any of them takes any request.
    for (position, example) in (0..3).cycle().zip(examples) {
        let answer = shell(&cluster, position, &example.command);
        assert_eq!(
            without_times(answer),
            without_times(example.answer),
            "{}",
            example.command
        );
    }
    assert_same_bytes(&consume(&cluster, "orders"), b"Let's Go #1\n\nhi\n");
}

#[test]
fn appends_through_any_node_outlive_the_death_of_the_leader() {
    if !has_curl() {
        return;
    }
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("orders", 1);
    let leader = cluster.leader("orders", 0);
    let others: Vec<usize> = (0..3).filter(|position| *position != leader).collect();
    // Sent again until it is known to be applied, as the page says.
    let append = |cluster: &TestCluster, position: usize, sequence: usize| {
        let line = format!(
            "for try in $(seq 100); do \
               curl --silent --show-error --fail --cacert \"$CA\" --cert \"$CERT\" --key \"$KEY\" -d '{{\"partition\":0,\
               \"producer_id\":\"8f14e45fceea167a5a36dedd4bea2543\",\"sequence\":{sequence},\
               \"records\":[{{\"value\":\"eA==\"}}]}}' \"https://$NODE/v1/topics/orders/records\" 2>/dev/null && break; \
             done"
        );
        shell(cluster, position, &line)["base_offset"].as_u64()
    };
    assert_eq!(append(&cluster, others[0], 0), Some(0));
    cluster.node(leader).kill();
    assert_eq!(append(&cluster, others[1], 1), Some(1));
    assert_eq!(append(&cluster, others[0], 1), Some(1), "the same again");
    assert_same_bytes(&consume(&cluster, "orders"), b"x\nx\n");
}
