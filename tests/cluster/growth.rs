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

/// The cluster's own: that of its audit.
const OWN_PARTITIONS: u32 = 1;

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
    let is_whole = replicas.iter().sum::<u64>() == u64::from(PARTITIONS + OWN_PARTITIONS) * 3;
    all.len() == nodes && are_ready && is_whole && are_even(&replicas) && are_even(&counts(described, "leaders"))
}

/// Takes a node out of the cluster. A node that is killed `meanwhile` does not keep the other from leaving.
fn decommission(scene: &mut Scene, node: usize, meanwhile: impl FnOnce(&mut Scene)) {
    let name = scene.name(node);
    scene.run(&["cluster", "decommission", &name, "--no-wait"]);
    meanwhile(scene);
    scene.run(&["cluster", "decommission", &name, "--deadline", "60s"]);
    scene.left(node);
}

#[test]
fn a_cluster_grows_to_five_nodes_and_shrinks_to_its_first_three_under_load_and_a_kill_and_nothing_is_lost() {
    let mut scene = Scene::open(Set {
        spare: 2,
        ..six_partitions(30)
    });
    scene.join(3);
    scene.join(4);
    scene.described("five nodes with equal shares", |described| is_even(described, 5));
    scene.goes_on("with five nodes");
    decommission(&mut scene, 3, |scene| {
        scene.kill(0);
        scene.start(0);
    });
    decommission(&mut scene, 4, |_| ());
    scene.described("three nodes with equal shares", |described| is_even(described, 3));
    scene.goes_on("with the first three nodes again");
    scene.complete("after nodes have joined and left");
    scene.end();
}

#[test]
fn every_first_node_is_replaced_by_another_one_under_load_and_a_kill_and_nothing_is_lost() {
    let mut scene = Scene::open(Set {
        spare: 3,
        ..six_partitions(32)
    });
    for former in 0..3 {
        let new = former + 3;
        scene.join(new);
        scene.described("four nodes with equal shares", |described| is_even(described, 4));
        decommission(&mut scene, former, |scene| {
            if former == 1 {
                scene.kill(new);
                scene.start(new);
            }
        });
        scene.described("three nodes with equal shares", |described| is_even(described, 3));
        scene.goes_on("with a node replaced");
    }
    scene.complete("when all nodes are others");
    scene.end();
}

#[test]
fn a_node_that_is_drained_under_load_gives_its_leaderships_away_and_no_produce_fails() {
    let mut scene = Scene::open(six_partitions(31));
    let drained = scene.leader();
    let name = scene.name(drained);
    scene.run(&["cluster", "drain", &name, "--deadline", "60s"]);
    // Whoever is asked may hear of the last one a moment later.
    scene.described("the drained node leads nothing", |described| {
        let nodes = described["nodes"].as_array().into_iter().flatten();
        nodes
            .filter(|node| node["name"] == name.as_str())
            .all(|node| node["leaders"] == 0)
    });
    scene.goes_on("while a node is drained");
    scene.run(&["cluster", "drain", &name, "--undo"]);
    scene.described("equal shares again", |described| is_even(described, 3));
    let history = scene.end();
    assert_eq!(pauses::failed(&history), 0, "produces failed");
}
