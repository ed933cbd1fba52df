//! Kills, lost quorums and lost disks: what was acknowledged stays, once, in order.

use std::thread::sleep;
use std::time::{Duration, Instant};

use highwater_tests::{Produced, Producing, TestCluster, TestNode, run, run_with_input};
use serde_json::Value;

use crate::{PATIENCE, consume, numbers, produce};

/// How many acknowledged lines show that producing goes on.
const PROGRESS: usize = 5_000;
/// Longer than a node goes on by what it knows of who may do what.
const STALE_AFTER: Duration = Duration::from_secs(11);

#[test]
fn killing_the_leader_three_times_loses_repeats_and_reorders_nothing() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    let producing = start_producing(&cluster);
    producing.wait_for_more(PROGRESS, PATIENCE);
    for _ in 0..3 {
        let leader = cluster.leader("numbers", 0);
        cluster.node(leader).kill();
        producing.wait_for_more(PROGRESS, PATIENCE);
        cluster.node(leader).start();
        cluster.wait_node_ready(leader);
    }
    let produced = producing.finish(PATIENCE);
    assert_eq!(
        produced.acknowledged.len(),
        produced.fed,
        "{}",
        produced.finished.stderr
    );
    check(&cluster, &produced);
    produced.finished.success();
}

#[test]
fn killing_all_nodes_at_once_under_load_keeps_every_acknowledged_line() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    let producing = start_producing(&cluster);
    for _ in 0..2 {
        producing.wait_for_more(PROGRESS, PATIENCE);
        (0..3).for_each(|position| cluster.node(position).kill());
        (0..3).for_each(|position| cluster.node(position).start());
        cluster.wait_ready();
    }
    producing.wait_for_more(PROGRESS, PATIENCE);
    let produced = producing.finish(PATIENCE);
    check(&cluster, &produced);
    produced.finished.success();
}

#[test]
fn a_producer_that_dies_with_the_cluster_has_printed_only_what_is_kept() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    let producing = Producing::start(&mut cluster.command(&["produce", "numbers", "-v", "--deadline", "2s"]));
    producing.wait_for_more(PROGRESS, PATIENCE);
    (0..3).for_each(|position| cluster.node(position).kill());
    let produced = producing.wait(PATIENCE);
    assert_eq!(produced.finished.code(), 5, "{}", produced.finished.stderr);
    (0..3).for_each(|position| cluster.node(position).start());
    cluster.wait_ready();
    check(&cluster, &produced);
}

#[test]
fn without_a_quorum_producing_fails_within_its_deadline_and_works_again_by_itself() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(10));
    cluster.node(1).kill();
    cluster.node(2).kill();

    let started = Instant::now();
    let mut command = cluster.command(&["produce", "numbers", "--deadline", "3s"]);
    let failed = run_with_input(&mut command, b"lost\n".to_vec(), PATIENCE);
    assert!(
        started.elapsed() < Duration::from_secs(9),
        "took {:?} with a deadline of 3 s",
        started.elapsed()
    );
    let failed = failed.fails_with(5, &[]);
    assert!(failed.stderr.contains("hint: "), "{}", failed.stderr);
    assert!(cluster.node(0).runs(), "the node that is left must not die of it");

    cluster.node(1).start();
    cluster.node(2).start();
    produce(&cluster, "numbers", "again\n");
    let text = String::from_utf8_lossy(&consume(&cluster, "numbers")).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    // The line of unknown outcome may be there, but only once and in its place.
    assert!(
        matches!(lines[10..], ["again"] | ["lost", "again"]),
        "{:?}",
        &lines[10..]
    );
}

#[test]
fn nodes_that_hang_keep_no_command_beyond_its_deadline() {
    let cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    let deadline = Duration::from_secs(4);
    let ends_in_time = |arguments: &[&str]| {
        let started = Instant::now();
        let arguments = [arguments, &["--deadline", "4s"]].concat();
        cluster.run(&arguments).fails_with(5, &[]).with_hint(&["health"]);
        // Looking for a node and then the call itself used to have the whole time each.
        let took = started.elapsed();
        assert!(
            took < deadline * 2,
            "{arguments:?} took {took:?} with a deadline of 4 s"
        );
    };
    cluster.nodes()[1].pause();
    cluster.nodes()[2].pause();
    ends_in_time(&["topic", "create", "more"]);
    ends_in_time(&["consume", "numbers", "--from", "beginning", "--exit-at-end"]);
    cluster.nodes()[0].pause();
    ends_in_time(&["topic", "list"]);
    cluster.nodes().iter().for_each(|node| node.resume());
    cluster.wait_ready();
    // Whether `more` was created all the same is open; anything else works again.
    cluster.run(&["topic", "create", "other"]).success();
}

#[test]
fn a_node_that_stood_still_serves_nobody_before_it_has_heard_from_the_others_again() {
    let cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    let look = || {
        let mut command = cluster.command(&["topic", "describe", "numbers", "--deadline", "4s"]);
        run(&mut command, PATIENCE)
    };
    let (still, others) = (&cluster.nodes()[0], &cluster.nodes()[1..]);
    still.pause();
    // The time itself is what matters: what the node knew is too old then.
    sleep(STALE_AFTER);
    others.iter().for_each(TestNode::pause);
    still.resume();
    look().fails_with(5, &["has not heard from a quorum of the catalog for"]);
    others.iter().for_each(TestNode::resume);
    cluster.wait_ready();
    look().success();
}

#[test]
fn wiped_disks_never_found_a_second_cluster() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(100));
    let id = cluster_id(&cluster.describe());

    // One disk lost, also the founder's: the others go on, and the node comes back to the same cluster.
    cluster.node(0).kill();
    cluster.node(0).wipe();
    cluster.node(0).start();
    cluster.wait_node_ready(0);
    assert_eq!(cluster_id(&cluster.describe()), id);
    assert_eq!(consume(&cluster, "numbers"), numbers(100));
}

#[test]
fn two_wiped_disks_do_not_outvote_the_one_that_remembers() {
    let mut cluster = TestCluster::start(3);
    cluster.create_topic("numbers", 1);
    produce(&cluster, "numbers", numbers(100));
    let id = cluster_id(&cluster.describe());
    (0..3).for_each(|position| cluster.node(position).kill());
    cluster.node(0).wipe();
    cluster.node(1).wipe();
    (0..3).for_each(|position| cluster.node(position).start());

    // A quorum of the catalog is gone for good, so nothing may be founded, acknowledged or forgotten.
    let mut command = cluster.command(&["produce", "numbers", "--deadline", "5s"]);
    let failed = run_with_input(&mut command, b"new\n".to_vec(), PATIENCE);
    assert_ne!(failed.code(), 0, "two empty nodes acknowledged a record");
    let second = cluster.nodes().iter().find_map(|node| founded(&node.log(), &id));
    assert_eq!(second, None, "a second cluster was founded");
    for position in 0..3 {
        assert!(cluster.node(position).runs(), "n{} died of it", position + 1);
    }
}

fn start_producing(cluster: &TestCluster) -> Producing {
    Producing::start(&mut cluster.command(&["produce", "numbers", "-v", "--deadline", "2m"]))
}

/// Every line that was acknowledged is there at the offset that was printed; the topic holds a prefix of what was
/// fed, each line once, in order.
#[track_caller]
fn check(cluster: &TestCluster, produced: &Produced) {
    for (line, (partition, offset)) in produced.acknowledged.iter().enumerate() {
        assert_eq!((*partition, *offset), (0, line as u64), "place of line {line}");
    }
    let text = String::from_utf8_lossy(&consume(cluster, "numbers")).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let wrong = lines
        .iter()
        .enumerate()
        .find(|(place, line)| line.parse() != Ok(*place));
    assert_eq!(wrong, None, "the first line out of its place");
    let acknowledged = produced.acknowledged.len();
    assert!(
        lines.len() >= acknowledged,
        "{acknowledged} lines acknowledged, {} found",
        lines.len()
    );
    assert!(
        lines.len() <= produced.fed,
        "{} lines fed, {} found",
        produced.fed,
        lines.len()
    );
}

#[track_caller]
fn cluster_id(described: &Value) -> String {
    let id = described["cluster_id"].as_str().unwrap_or_default().to_owned();
    assert!(!id.is_empty(), "no cluster id in {described}");
    id
}

/// A line of the log that tells of another cluster id than `id`.
fn founded(log: &str, id: &str) -> Option<String> {
    let line = log
        .lines()
        .find(|line| line.contains("cluster_id=") && !line.contains(id));
    line.map(str::to_owned)
}
