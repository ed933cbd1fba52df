//! Following the tail: from a follower, pushed, without work while there is nothing to do.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use highwater_tests::{Consuming, TestCluster};
use serde_json::Value;

use crate::{PATIENCE, numbers, produce};

/// How long the idle consumer is watched.
const IDLE: Duration = Duration::from_secs(2);
/// What an idle consumer may use in that time, clock ticks of 10 ms: keep-alives only.
const IDLE_TICKS_MAX: u64 = 5;
/// What a node may use in that time: heartbeats and gossip, also unoptimised. One that looks again and again for what is new
/// would use a whole core, 200 ticks.
const NODE_TICKS_MAX: u64 = 60;

#[test]
fn a_consumer_reads_from_a_follower_and_nobody_uses_cpu_while_it_waits_at_the_end() {
    let mut cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    cluster.create_topic("tail", 1);
    produce(&cluster, "tail", numbers(1_000));
    let consuming = Consuming::start(&mut cluster.command(&["consume", "tail", "--from", "beginning", "-v"]));
    consuming.wait_for(1_000, PATIENCE);

    let nodes: Vec<u32> = cluster.nodes().iter().filter_map(|node| node.pid()).collect();
    let of_nodes = || nodes.iter().map(|pid| cpu_ticks(*pid)).collect::<Vec<_>>();
    let (before, nodes_before) = (cpu_ticks(consuming.pid()), of_nodes());
    sleep(IDLE); // Not to wait for something: this is the time over which nothing may happen.
    let used = cpu_ticks(consuming.pid()) - before;
    assert!(
        used <= IDLE_TICKS_MAX,
        "{used} ticks of CPU within {IDLE:?} at the end of the log"
    );
    for (before, now) in nodes_before.iter().zip(of_nodes()) {
        let used = now - before;
        assert!(
            used <= NODE_TICKS_MAX,
            "a node used {used} ticks within {IDLE:?} for an idle consumer"
        );
    }

    produce(&cluster, "tail", "pushed\n");
    let lines = consuming.wait_for(1_001, PATIENCE);
    assert_eq!(lines[1_000], "pushed");

    let leader = cluster.leader("tail", 0);
    let ended = consuming.interrupt(PATIENCE).success();
    let last_note = ended
        .stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("tail/0 is served by "));
    let server = cluster.position(last_note.unwrap_or_else(|| panic!("nobody is named: {}", ended.stderr)));
    assert_ne!(server, leader, "reads go to a follower: {}", ended.stderr);
    let name = cluster.nodes()[server].name().to_owned();
    assert!(
        records_served(&cluster.describe(), &name) >= 1_001,
        "{name} has not counted what it served"
    );
}

#[test]
fn a_consumer_survives_the_death_of_its_follower_without_gap_or_repeat() {
    let mut cluster = TestCluster::start(3);
    cluster.wait_acquainted();
    cluster.create_topic("tail", 1);
    produce(&cluster, "tail", numbers(1_000));
    let consuming = Consuming::start(&mut cluster.command(&["consume", "tail", "--from", "beginning"]));
    consuming.wait_for(1_000, PATIENCE);
    let serving = serving_node(&mut cluster);
    cluster.node(serving).kill();
    produce(
        &cluster,
        "tail",
        (1_000..2_000).map(|number| format!("{number}\n")).collect::<String>(),
    );
    let lines = consuming.wait_for(2_000, PATIENCE);
    let expected: Vec<String> = (0..2_000).map(|number| number.to_string()).collect();
    assert!(lines == expected, "gap, repeat or disorder in {} lines", lines.len());
    consuming.interrupt(PATIENCE).success();
}

/// The node that has served all records so far.
fn serving_node(cluster: &mut TestCluster) -> usize {
    let described = cluster.describe();
    let serving = (0..3).find(|position| records_served(&described, cluster.nodes()[*position].name()) >= 1_000);
    serving.unwrap_or_else(|| panic!("no node has served the records: {described}"))
}

fn records_served(described: &Value, node: &str) -> u64 {
    let replicas = described["replicas"].as_array().into_iter().flatten();
    let of_node = replicas.filter(|replica| replica["node"] == node);
    of_node.filter_map(|replica| replica["records_served"].as_u64()).sum()
}

/// User and system time of a process, in clock ticks.
fn cpu_ticks(pid: u32) -> u64 {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
    // The second field, the name in parentheses, may hold blanks; utime and stime are fields 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    assert_eq!(fields.len(), 2, "unexpected {path}: {stat}");
    fields.iter().sum()
}
