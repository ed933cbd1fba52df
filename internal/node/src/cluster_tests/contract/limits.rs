//! The limits of the wire, with the comments of their source.

use std::collections::BTreeMap;
use std::fmt::Write;

use highwater_proto::limits;

use super::comments::cell;

const SOURCE: &str = include_str!("../../../../../api/proto/src/limits.rs");

/// A limit: one number, or the least and the most.
fn values() -> BTreeMap<&'static str, String> {
    macro_rules! values {
        ($($name:ident),* $(,)?) => {
            BTreeMap::from([$((stringify!($name), grouped(&format!("{:?}", limits::$name)))),*])
        };
    }
    values![
        RECORD_KEY_BYTES_MAX,
        RECORD_BYTES_MAX,
        BATCH_BYTES_MAX,
        BATCH_RECORDS_MAX,
        BATCH_INFLATED_BYTES_MAX,
        RECORD_HEADERS_MAX,
        HEADER_NAME_BYTES_MAX,
        MESSAGE_BYTES_MAX,
        CONSUME_BYTES_MAX,
        NAME_BYTES_MAX,
        TOPIC_PARTITIONS_MAX,
        TENANT_TOPICS_MAX,
        REPLICATION_MAX,
        PRODUCER_BATCHES_IN_FLIGHT_MAX,
        CONNECTION_STREAMS_MAX,
        STREAM_IN_FLIGHT_BYTES_MAX,
        HEADER_LIST_BYTES_MAX,
        DELIVERY_DEADLINE_MS_MAX,
        GROUP_SESSION_MS,
        GROUP_RELEASE_MS,
    ]
}

/// `1048576` as `1,048,576`, `(1, 2000)` as `1 to 2,000`.
fn grouped(value: &str) -> String {
    let number = |digits: &str| {
        let groups = digits.as_bytes().rchunks(3).rev();
        let groups: Vec<&str> = groups.map(|group| std::str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let numbers = value.trim_matches(['(', ')']).split(", ").map(number);
    numbers.collect::<Vec<_>>().join(" to ")
}

/// Names with their comments, in the order of the source.
fn commented() -> Vec<(&'static str, String)> {
    let (mut comment, mut found) = (Vec::new(), Vec::new());
    for line in SOURCE.lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            comment.push(text);
        } else if let Some((name, _)) = line.strip_prefix("pub const ").and_then(|rest| rest.split_once(':')) {
            found.push((name, comment.join(" ")));
            comment.clear();
        }
    }
    found
}

pub(super) fn write(page: &mut String) {
    let values = values();
    page.push_str("| limit | | name |\n|---|---|---|\n");
    for (name, comment) in commented() {
        let value = values
            .get(name)
            .unwrap_or_else(|| panic!("add {name} to the list in {}", file!()));
        writeln!(page, "| {} | {value} | `{name}` |", cell(&comment)).unwrap();
    }
}
