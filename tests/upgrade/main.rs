//! The program of an earlier version beside the one under test: a cluster is upgraded node by node under load, and the checker
//! judges the whole history. `tests/upgrade/run` builds the earlier version and runs this; without one there is nothing to do.

use highwater_tests::chaos::{Scene, Set};
use highwater_tests::{pauses, previous_binary};
use serde_json::Value;

const NODES: usize = 3;
/// Of this version; those before knew no other than the first.
const LEVEL: u64 = 4;

/// A cluster of the earlier version; None, and a word about it, if there is no such program.
fn earlier(seed: u64) -> Option<Scene> {
    if previous_binary().is_none() {
        eprintln!("SKIPPED: no earlier version to upgrade from; `make upgrade` builds one");
        return None;
    }
    Some(Scene::open(Set {
        is_previous: true,
        ..Set::small(seed)
    }))
}

fn level(described: &Value) -> u64 {
    described["feature_level"].as_u64().unwrap_or(1)
}

#[test]
fn a_cluster_is_upgraded_node_by_node_under_load_and_then_follows_the_new_rules() {
    let Some(mut scene) = earlier(40) else { return };
    for node in 0..NODES {
        scene.described("the old rules hold", |described| level(described) <= 1);
        scene.change_program(node, false);
        scene.goes_on("with another node upgraded");
    }
    scene.described("the new rules hold", |described| level(described) == LEVEL);
    scene.run(&["cluster", "settings", "--groups-kept", "48h"]);
    let leader = scene.leader();
    let name = scene.name(leader);
    scene.run(&["cluster", "drain", &name, "--deadline", "60s"]);
    scene.goes_on("under the new rules");
    scene.run(&["cluster", "drain", &name, "--undo"]);
    scene.complete("after the upgrade");
    let history = scene.end();
    assert_eq!(pauses::failed(&history), 0, "produces failed");
}

#[test]
fn a_node_may_go_back_to_the_earlier_version_while_others_have_it() {
    let Some(mut scene) = earlier(41) else { return };
    for node in [0, 1] {
        scene.change_program(node, false);
        scene.goes_on("with a newer node");
    }
    for node in [1, 0] {
        scene.change_program(node, true);
        scene.goes_on("with a node of the earlier version again");
    }
    scene.complete("after going back");
    let history = scene.end();
    assert_eq!(pauses::failed(&history), 0, "produces failed");
}
