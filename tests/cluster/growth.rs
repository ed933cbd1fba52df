//! Clusters that grow and shrink, and nodes that are drained, under load.

use std::time::Duration;

use highwater_tests::chaos::{Load, Scene, Set};
use highwater_tests::pauses;
use serde_json::Value;

/// Enough partitions for shares to mean something.
const PARTITIONS: u32 = 6;

fn six_partitions(seed: u64) -> Set {
    let small = Set::small(seed);
    Set {
        load: Load {
            partitions: PARTITIONS,
            // That of a user who sets none.
            delivery_deadline: Some(Duration::from_secs(120)),
            ..small.load
        },
        ..small
    }
}

/// A number that is told of each node.
fn counts(described: &Value, what: &str) -> Vec<u64> {
    let nodes = described["nodes"].as_array().into_iter().flatten();
    nodes.map(|node| node[what].as_u64().unwrap_or(0)).collect()
}

fn are_even(counts: &[u64]) -> bool {
    let (least, most) = (counts.iter().min(), counts.iter().max());
    least.zip(most).is_some_and(|(least, most)| most - least <= 1)
}

/// Whether the cluster has so many nodes, all ready, with equal shares of everything.
fn is_even(described: &Value, nodes: usize) -> bool {
    let all = described["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let are_ready = all.iter().all(|node| node["not_ready"] == "");
    let replicas = counts(described, "replicas");
    let is_whole = replicas.iter().sum::<u64>() == u64::from(PARTITIONS) * 3;
    all.len() == nodes && are_ready && is_whole && are_even(&replicas) && are_even(&counts(described, "leaders"))
}

/// From three nodes to five and back, and on until none of the first three is left.
#[test]
fn nodes_join_and_leave_under_load_and_a_kill_until_all_are_others_and_nothing_is_lost() {
    let mut scene = Scene::open(Set {
        spare: 3,
        ..six_partitions(30)
    });
    scene.join(3);
    scene.join(4);
    scene.described("five nodes with equal shares", |described| is_even(described, 5));
    scene.goes_on("with five nodes");
    for node in [0, 1] {
        let name = scene.name(node);
        scene.run(&["cluster", "decommission", &name, "--no-wait"]);
        if node == 1 {
            scene.kill(4);
            scene.start(4);
        }
        scene.run(&["cluster", "decommission", &name, "--deadline", "60s"]);
        scene.left(node);
    }
    scene.described("three nodes with equal shares", |described| is_even(described, 3));
    scene.goes_on("with one of the first three nodes");
    scene.join(5);
    scene.described("four nodes", |described| counts(described, "replicas").len() == 4);
    let name = scene.name(2);
    scene.run(&["cluster", "decommission", &name, "--deadline", "60s"]);
    scene.left(2);
    scene.described("three other nodes with equal shares", |described| is_even(described, 3));
    scene.goes_on("with three other nodes");
    scene.complete("after nodes have joined and left");
    scene.end();
}

#[test]
fn a_node_that_is_drained_under_load_gives_its_leaderships_away_and_no_produce_fails() {
    let mut scene = Scene::open(six_partitions(31));
    let drained = scene.leader();
    let name = scene.name(drained);
    scene.run(&["cluster", "drain", &name, "--deadline", "60s"]);
    assert!(!scene.leaders().contains(&Some(drained)), "{:?}", scene.leaders());
    scene.goes_on("while a node is drained");
    scene.run(&["cluster", "drain", &name, "--undo"]);
    scene.described("equal shares again", |described| is_even(described, 3));
    let history = scene.end();
    assert_eq!(pauses::failed(&history), 0, "produces failed");
}
